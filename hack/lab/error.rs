//! Errors of the laboratory. Each message names the next step for the user.

use std::io;
use std::path::PathBuf;

/// An error of the laboratory. Its message omits the causes. [`LabError::chain`] returns the message with all causes.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory cannot be read, written, created or locked.
    #[error("cannot {action} {}: look at its permissions and at the space left on the disk", path.display())]
    File {
        /// Failed action, for example "write" or "lock".
        action: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot run {program}: is it installed, and may this user run it?")]
    Run {
        /// Name or path of the program.
        program: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A short program (`ssh-keygen`, `useradd`) ended with an error.
    #[error("{program} failed; what it said last:\n{tail}")]
    Failed {
        /// Program, with the arguments that matter.
        program: String,
        /// End of the output.
        tail: String,
    },
    /// `$KUBEBUILDER_ASSETS` is set, but its directory lacks a program.
    #[error(
        "$KUBEBUILDER_ASSETS is {}, which has no {missing}: \
         point it at a folder with kube-apiserver and etcd, or unset it to have them built from source",
        folder.display()
    )]
    AssetsIncomplete {
        /// Value of the variable.
        folder: PathBuf,
        /// The missing programs.
        missing: String,
    },
    /// The laboratory must build a program, but Go is missing.
    #[error(
        "building {name} needs Go 1.26 or newer, and there is no `go` in $PATH: install it from https://go.dev/dl/ \
         (a distribution's golang package is too old on many systems), \
         or set $KUBEBUILDER_ASSETS to a folder that has kube-apiserver and etcd already"
    )]
    GoMissing {
        /// Name of the program to build.
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
        /// Name of the program to build.
        name: String,
        /// Directory of the Go module.
        folder: PathBuf,
        /// Last lines of the output of `go build`.
        tail: String,
    },
    /// Neither `$XDG_CACHE_HOME` nor `$HOME` is set.
    #[error("there is no folder to keep the built programs in: set $XDG_CACHE_HOME or $HOME")]
    NoCacheFolder,
    /// A certificate cannot be created.
    #[error("cannot make the certificate of {subject}; this is a fault of the laboratory")]
    Certificate {
        /// Owner of the certificate.
        subject: String,
        /// Error of rcgen.
        source: rcgen::Error,
    },
    /// A server ended, or did not become ready in time.
    #[error("{name} {what}; the last lines of {}, which is kept:\n{tail}", log.display())]
    NotReady {
        /// Name of the server.
        name: String,
        /// Problem, for example "ended (exit status: 1)", "was not ready after 60 s".
        what: String,
        /// Log file of the server.
        log: PathBuf,
        /// Last 20 lines of the log file.
        tail: String,
    },
    /// The reaper process has ended, so it could not end a new server.
    #[error("the laboratory's reaper process is gone, so what is started now might be left behind: start again")]
    ReaperGone {
        /// Error of the write to the reaper.
        source: io::Error,
    },
    /// The HTTP client for the readiness check cannot be created.
    #[error("cannot ask the API server whether it is ready: {why}")]
    Client {
        /// Cause of the error.
        why: String,
    },
    /// A program of the system is missing, and the laboratory cannot install it.
    #[error("there is no {program} in $PATH, /usr/sbin or /usr/local/sbin: {advice}")]
    ProgramMissing {
        /// Name of the program, for example `sshd` or `zsh`.
        program: &'static str,
        /// Command that installs the program.
        advice: String,
    },
    /// The login user of the SSH server cannot reach the server's directory.
    #[error(
        "{} may not be entered by everyone, so the user of the SSH server cannot reach its files: \
         set $TMPDIR to a folder that all users may enter",
        folder.display()
    )]
    FolderClosed {
        /// Directory that other users may not enter (no `x` for others): the server's directory, or one of its parents.
        folder: PathBuf,
    },
    /// The program `writ` for the demo is missing.
    #[error("there is no {}: build it first (`cargo build --bin writ`), or use `make demo`, which does", path.display())]
    WritMissing {
        /// Expected path of the program.
        path: PathBuf,
    },
    /// The demo ran, but a result differs from the expected result.
    #[error("the demo did not go as it must:\n{differences}\nthe last lines of {}, which is kept:\n{tail}", log.display())]
    DemoDiffers {
        /// The differences, one difference per line.
        differences: String,
        /// Log file of `writ serve`.
        log: PathBuf,
        /// Last lines of the log file.
        tail: String,
    },
    /// The program received ctrl-C or TERM, or the terminal was closed.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// Returns a function for `map_err` that wraps a file error.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Returns a function for `map_err` that wraps an error that occurred while a program was started.
    pub fn run(program: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let program = program.to_string();
        move |source| Self::Run { program, source }
    }

    /// Returns the message with all its causes, for printing.
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
