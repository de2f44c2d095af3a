//! Programs of the system. They are found or, as root on a Debian-like system, installed when they are first needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::{openssh, say};

/// Directories of programs for administrators. They are in the `$PATH` of few users.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin"];
/// Lock file. A process that runs as root locks the file while it installs packages or creates users.
pub const ROOT_LOCK: &str = "/run/writ-lab.lock";
/// Debian runs this script before a package starts its service. Exit code 101 forbids the start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A package, with its name in each of three families of distributions.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    debian: &'static str,
    fedora: &'static str,
    alpine: &'static str,
}

/// The package of sshd and ssh-keygen.
pub const OPENSSH: Package = Package { debian: "openssh-server", fedora: "openssh-server", alpine: "openssh" };

impl Package {
    /// Returns a package with the same name in all families.
    pub const fn called(name: &'static str) -> Self {
        Self { debian: name, fedora: name, alpine: name }
    }

    /// Returns a package with a different name in each family.
    pub const fn named(debian: &'static str, fedora: &'static str, alpine: &'static str) -> Self {
        Self { debian, fedora, alpine }
    }

    /// Returns the paths of these programs, in the same order. As root on a Debian-like system, installs the package if
    /// a program is missing.
    ///
    /// # Errors
    /// Returns [`LabError::ProgramMissing`] with the install command, if a program can be neither found nor installed.
    pub fn find_or_install<const N: usize>(self, programs: [&'static str; N]) -> Result<[PathBuf; N], LabError> {
        if self.find(programs).is_err() && openssh::is_root() && Path::new("/etc/debian_version").exists() {
            let _lock = Lock::take(Path::new(ROOT_LOCK), &format!("installing {}", self.debian))?;
            // Another process perhaps installed the package while this process waited for the lock.
            if self.find(programs).is_err() {
                self.install()?;
            }
        }
        self.find(programs)
    }

    fn find<const N: usize>(self, programs: [&'static str; N]) -> Result<[PathBuf; N], LabError> {
        let mut found = programs.map(PathBuf::from);
        for (program, path) in programs.into_iter().zip(&mut found) {
            *path = files::find_program(program, FOLDERS)
                .ok_or_else(|| LabError::ProgramMissing { program, advice: self.advice() })?;
        }
        Ok(found)
    }

    fn advice(self) -> String {
        let Self { debian, fedora, alpine } = self;
        format!(
            "as root, run `apt-get install --no-install-recommends {debian}` (Debian, Ubuntu), \
             `dnf install {fedora}` (Fedora) or `apk add {alpine}` (Alpine)"
        )
    }

    /// Installs the package without starting its service.
    fn install(self) -> Result<(), LabError> {
        let step = say::step(format_args!("installing {} by apt-get (no service is started)", self.debian));
        let _no_start = ServiceStartsForbidden::set()?;
        let apt_get = |arguments: &[&str]| {
            files::run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
        };
        let install = ["install", "-y", "--no-install-recommends", self.debian];
        // Updates the package lists only if the installation fails, because existing lists are usually recent.
        if apt_get(&install).is_err() {
            apt_get(&["update"])?;
            apt_get(&install)?;
        }
        step.done();
        Ok(())
    }
}

/// Forbids packages to start their services while this value exists. An existing policy stays unchanged.
struct ServiceStartsForbidden {
    ours: bool,
}

impl ServiceStartsForbidden {
    fn set() -> Result<Self, LabError> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            files::write(Path::new(POLICY), "#!/bin/sh\n# Of Writ's laboratory, for one apt-get.\nexit 101\n", 0o755)?;
        }
        Ok(Self { ours })
    }
}

impl Drop for ServiceStartsForbidden {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            say::note(format_args!("please remove {POLICY}, it keeps services from starting ({error})"));
        }
    }
}
