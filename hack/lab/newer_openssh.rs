//! Unpacks OpenSSH of a newer Debian release, with its libraries, into the cache directory. This system's packages and
//! the state of its apt stay unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::{say, toolbox};

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked OpenSSH.
#[derive(Debug, Clone)]
pub struct NewerOpenssh {
    root: PathBuf,
    /// Loader of the unpacked C library. This library is newer than this system's library.
    loader: PathBuf,
}

impl NewerOpenssh {
    /// Returns the OpenSSH of a Debian release (`trixie`, `sid`). If the cache directory lacks this release, apt
    /// downloads 22 MB in about 15 s.
    ///
    /// # Errors
    /// This system is not Debian, or its mirror is unreachable.
    pub fn find_or_unpack(suite: &str) -> Result<Self, LabError> {
        let cache = toolbox::cache_folder()?;
        let root = cache.join(format!("openssh-{suite}-{}", std::env::consts::ARCH));
        let _lock = Lock::take(&cache.join("openssh.lock"), "unpacking OpenSSH")?;
        if !root.exists() {
            let step = say::step(format_args!("unpacking OpenSSH of Debian {suite} (22 MB)"));
            let unfinished = cache.join(format!("openssh-{suite}.part"));
            let _ = fs::remove_dir_all(&unfinished);
            unpack(suite, &unfinished, "openssh-server", &["lib", "openssh-", "zlib1g"])?;
            fs::rename(unfinished.join("root"), &root).map_err(LabError::file("rename", &unfinished))?;
            let _ = fs::remove_dir_all(&unfinished);
            step.done();
        }
        let missing = LabError::ProgramMissing { program: "ld.so", advice: format!("remove {}", root.display()) };
        let loader = find_loader(&root).ok_or(missing)?;
        Ok(Self { root, loader })
    }

    /// Returns the version: `OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1 1 Jul 2025`.
    pub fn version(&self) -> Result<String, LabError> {
        let output = self.sshd().arg("-V").output().map_err(LabError::run("sshd"))?;
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Returns the command of the server.
    pub fn sshd(&self) -> Command {
        let program = self.root.join("usr/sbin/sshd");
        let mut sshd = Command::new(&self.loader);
        sshd.arg("--library-path").arg(self.libraries()).arg("--argv0").arg(&program).arg(&program);
        sshd
    }

    /// Returns lines for the sshd_config of this server. From 9.8 on, sshd starts other programs for each connection.
    /// The lines name scripts that start these programs with the unpacked loader.
    pub fn config(&self, folder: &Path) -> Result<Vec<String>, LabError> {
        let mut lines = Vec::new();
        for (keyword, name) in [("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")] {
            let program = self.root.join("usr/lib/openssh").join(name);
            if program.exists() {
                let [loader, libraries, program] =
                    [&self.loader, &self.libraries(), &program].map(|path| path.display().to_string());
                let text =
                    format!("#!/bin/sh\nexec {loader} --library-path {libraries} --argv0 {program} {program} \"$@\"\n");
                files::write(&folder.join(name), text, 0o755)?;
                lines.push(format!("{keyword} {}", folder.join(name).display()));
            }
        }
        Ok(lines)
    }

    fn libraries(&self) -> PathBuf {
        self.loader.parent().map(Path::to_owned).unwrap_or_default()
    }
}

/// Downloads `package` and its dependencies from the Debian release `suite`. Of these packages, unpacks into
/// `folder`/root only the packages whose names start with a word of `wanted`.
pub(super) fn unpack(suite: &str, folder: &Path, package: &str, wanted: &[&str]) -> Result<(), LabError> {
    let at = |name: &str| folder.join(name);
    for each in ["state/lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(at(each)).map_err(LabError::file("make the folder", at(each)))?;
    }
    files::write(&at("sources.list"), format!("deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"), 0o644)?;
    // With an empty status file, apt assumes that no library is installed, and so downloads the libraries, too.
    files::write(&at("status"), "", 0o644)?;
    let apt_get = |words: &[&str]| {
        let mut apt_get = Command::new("apt-get");
        for (option, name) in [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
        ] {
            apt_get.arg("-o").arg(format!("{option}={}", at(name).display()));
        }
        apt_get.args(["-o", "Dir::Etc::SourceParts=-", "-o", "Acquire::Languages=none"]);
        apt_get.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        files::run(apt_get.args(words)).map(drop)
    };
    apt_get(&["update"])?;
    apt_get(&["install", "--download-only", "-y", "--no-install-recommends", package])?;
    let archives = at("cache/archives");
    for archive in fs::read_dir(&archives).map_err(LabError::file("read", &archives))?.flatten() {
        let name = archive.file_name().to_string_lossy().into_owned();
        let is_wanted = wanted.iter().any(|start| name.starts_with(start));
        if is_wanted && name.ends_with(".deb") {
            files::run(Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(at("root")))?;
        }
    }
    Ok(())
}

fn find_loader(root: &Path) -> Option<PathBuf> {
    let is_loader =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"));
    let folders = fs::read_dir(root.join("usr/lib")).ok()?.flatten().map(|entry| entry.path());
    folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|entry| entry.path()).find(is_loader)
}
