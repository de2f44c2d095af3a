//! Prerequisites of `runAs` on this machine, for its tests: sudo, a second user, and temporary rules. For root only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::packages::Package;
use super::{newer_openssh, openssh, toolbox};

/// Value of `runAs` in the tests: the user that runs the commands.
pub const USER: &str = "writ-lab-other";
/// File with new rules, before it is renamed to [`RULES`]. sudo ignores this unfinished file, because its name contains
/// a dot.
const NEW: &str = "/etc/sudoers.d/writ-lab.new";
/// File with the rules of the test that holds [`LOCK`].
const RULES: &str = "/etc/sudoers.d/writ-lab";
/// Lock file. A test locks it while its rules are in force.
const LOCK: &str = "/run/writ-lab-sudoers.lock";

/// Rules of sudo. They are in force until this value is dropped.
#[derive(Debug)]
pub struct Sudoers {
    _lock: Lock,
}

impl Sudoers {
    /// Creates [`USER`] and puts these rules in force. Waits while another test has rules in force.
    ///
    /// # Errors
    /// sudo is missing, or visudo finds an error in the rules.
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

/// Puts a setuid copy of sudo-rs into `folder`, and returns its path. A test can mount the copy over /usr/bin/sudo of a
/// test machine. If the cache directory lacks sudo-rs of Debian 13, apt downloads it. sudo-rs works with the C library
/// of Debian 12 or newer.
///
/// # Errors
/// This system is not Debian, or its mirror is unreachable.
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
        // If the removal fails, the rules stay until the next test. They are harmless: they allow only commands of the
        // test, for two users of the laboratory for whom no password is valid.
        let _ = fs::remove_file(RULES);
    }
}
