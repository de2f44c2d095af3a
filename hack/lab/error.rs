//! What can go wrong in the laboratory, said so that a person knows what to do next.

use std::io;
use std::path::PathBuf;

/// An error of the laboratory. The message never repeats its source; [`LabError::chain`] shows both.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or folder could not be read, written, made or locked.
    #[error("cannot {action} {}: look at its permissions and at the space left on the disk", path.display())]
    File {
        /// What was tried: "write", "lock".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot run {program}: is it installed, and may this user run it?")]
    Run {
        /// Its name or path.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A short program (`ssh-keygen`, `useradd`) ended with an error.
    #[error("{program} failed; what it said last:\n{tail}")]
    Failed {
        /// The program, with the arguments that matter.
        program: String,
        /// The end of its output.
        tail: String,
    },
    /// `$KUBEBUILDER_ASSETS` is set, so it is meant, but it does not hold what is needed.
    #[error(
        "$KUBEBUILDER_ASSETS is {}, which has no {missing}: \
         point it at a folder with kube-apiserver and etcd, or unset it to have them built from source",
        folder.display()
    )]
    AssetsIncomplete {
        /// What the variable says.
        folder: PathBuf,
        /// The programs that are not there.
        missing: String,
    },
    /// No Go to build the control plane with.
    #[error(
        "building {name} needs Go 1.26 or newer, and there is no `go` in $PATH: install it from https://go.dev/dl/ \
         (a distribution's golang package is too old on many systems), \
         or set $KUBEBUILDER_ASSETS to a folder that has kube-apiserver and etcd already"
    )]
    GoMissing {
        /// What was to be built.
        name: String,
    },
    /// `go build` failed.
    #[error(
        "building {name} in {} failed; what go said last:\n{tail}\n\
         (it needs Go 1.26 or newer and a module proxy that answers; \
         $KUBEBUILDER_ASSETS may name a folder that has kube-apiserver and etcd already)",
        folder.display()
    )]
    BuildFailed {
        /// What was to be built.
        name: String,
        /// The Go module.
        folder: PathBuf,
        /// The last lines of `go build`.
        tail: String,
    },
    /// Neither `$XDG_CACHE_HOME` nor `$HOME` is set.
    #[error("there is no folder to keep the built programs in: set $XDG_CACHE_HOME or $HOME")]
    NoCacheFolder,
    /// A certificate could not be made.
    #[error("cannot make the certificate of {subject}; this is a fault of the laboratory")]
    Certificate {
        /// Whose.
        subject: String,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// A server ended, or did not become ready in time.
    #[error("{name} {what}; the last lines of {}, which is kept:\n{tail}", log.display())]
    NotReady {
        /// Which server.
        name: String,
        /// "ended (exit status: 1)", "was not ready after 60 s".
        what: String,
        /// Its log file.
        log: PathBuf,
        /// The last 20 lines of it.
        tail: String,
    },
    /// The process that cleans up is gone, so nothing more may be started.
    #[error("the laboratory's reaper process is gone, so what is started now might be left behind: start again")]
    ReaperGone {
        /// What writing to it said.
        source: io::Error,
    },
    /// The HTTP client for the readiness check could not be made.
    #[error("cannot ask the API server whether it is ready: {why}")]
    Client {
        /// What went wrong.
        why: String,
    },
    /// A program of the system is not there, and it cannot be installed from here.
    #[error("there is no {program} in $PATH, /usr/sbin or /usr/local/sbin: {advice}")]
    ProgramMissing {
        /// `sshd`, `zsh`.
        program: &'static str,
        /// What to run.
        advice: String,
    },
    /// The SSH server's user could not get at its folder.
    #[error(
        "{} may not be entered by everyone, so the user of the SSH server cannot reach its files: \
         set $TMPDIR to a folder that all users may enter",
        folder.display()
    )]
    FolderClosed {
        /// The first folder of the path without `x` for others.
        folder: PathBuf,
    },
    /// The demo has no writ to run.
    #[error("there is no {}: build it first (`cargo build --bin writ`), or use `make demo`, which does", path.display())]
    WritMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The demo ran, and something did not come out as it must.
    #[error("the demo did not go as it must:\n{differences}\nthe last lines of {}, which is kept:\n{tail}", log.display())]
    DemoDiffers {
        /// One line for each.
        differences: String,
        /// The log of `writ serve`.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// ctrl-C, TERM, or the terminal was closed.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// Wraps a file error; for `map_err`.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Wraps an error of starting a program; for `map_err`.
    pub fn run(program: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let program = program.to_string();
        move |source| Self::Run { program, source }
    }

    /// The message and all that caused it, for the one place that prints it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!("\n  because: {error}"));
            cause = error.source();
        }
        text
    }
}
