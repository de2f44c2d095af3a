//! What `runAs` needs on this machine, for the tests that show it: sudo, a second user, and rules that are gone afterwards.
//! For root only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::packages::Package;
use super::{newer_openssh, openssh, toolbox};

/// Whom commands run as.
pub const USER: &str = "writ-lab-other";
/// sudo passes over files with a dot in their names, so it never sees a file that is half written.
const NEW: &str = "/etc/sudoers.d/writ-lab.new";
/// The rules of whoever holds [`LOCK`].
const RULES: &str = "/etc/sudoers.d/writ-lab";
/// Kept for as long as the rules hold.
const LOCK: &str = "/run/writ-lab-sudoers.lock";

/// Rules of sudo that hold until this is dropped.
#[derive(Debug)]
pub struct Sudoers {
    _lock: Lock,
}

impl Sudoers {
    /// Makes [`USER`] and has sudo go by these rules; waits for another test that has rules of its own.
    ///
    /// # Errors
    /// Where sudo is missing, or visudo finds a fault in the rules.
    pub fn install(rules: &str) -> Result<Self, LabError> {
        let [_, visudo] = Package::called("sudo").find_or_install(["sudo", "visudo"])?;
        openssh::make_user(USER, "/nonexistent", "/bin/false")?;
        let lock = Lock::take(Path::new(LOCK), "trying sudo")?;
        files::write(Path::new(NEW), rules, 0o440)?;
        files::run(Command::new(visudo).args(["-c", "-f", NEW]))?;
        fs::rename(NEW, RULES).map_err(LabError::file("rename", NEW))?;
        Ok(Self { _lock: lock })
    }
}

/// Finds sudo-rs of Debian 13 in the cache folder, or has apt download it, and puts a copy that may become root into `folder`:
/// to stand in for /usr/bin/sudo on a machine of its own. It needs no newer C library than that of Debian 12.
///
/// # Errors
/// Where this is no Debian, or its mirror cannot be reached.
pub fn sudo_rs(folder: &Path) -> Result<PathBuf, LabError> {
    let cache = toolbox::cache_folder()?;
    let root = cache.join(format!("sudo-rs-trixie-{}", std::env::consts::ARCH));
    let _lock = Lock::take(&cache.join("sudo-rs.lock"), "unpacking sudo-rs")?;
    if !root.exists() {
        let unfinished = cache.join("sudo-rs.part");
        let _ = fs::remove_dir_all(&unfinished);
        newer_openssh::unpack("trixie", &unfinished, "sudo-rs", &["sudo-rs"])?;
        fs::rename(unfinished.join("root"), &root).map_err(LabError::file("rename", &unfinished))?;
        let _ = fs::remove_dir_all(&unfinished);
    }
    let (unpacked, copy) = (root.join("usr/lib/cargo/bin/sudo"), folder.join("sudo-rs"));
    fs::copy(&unpacked, &copy).map_err(LabError::file("copy", &unpacked))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).map_err(LabError::file("change", &copy))?;
    Ok(copy)
}

impl Drop for Sudoers {
    fn drop(&mut self) {
        // What stays behind allows two users without a password to do what their test did, and is replaced by the next.
        let _ = fs::remove_file(RULES);
    }
}
