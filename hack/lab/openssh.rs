//! Prerequisites of an SSH server on this machine: the programs and, as root, a login user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::packages::{self, ROOT_LOCK};
use super::say;

/// Login user of SSH servers that run as root. It is a system user, so that no login screen shows it.
pub const USER: &str = "writ-lab";
/// Login user of SSH servers that run as root and write no ledger. Its login shell is /bin/sh.
const PLAIN_USER: &str = "writ-lab-plain";
/// Home of [`USER`] and [`PLAIN_USER`] in /etc/passwd. It contains only the recording shell.
const HOME: &str = "/var/lib/writ-lab";
/// Directory to which sshd confines its unprivileged process. Only an sshd that runs as root needs this directory.
const PRIVILEGE_SEPARATION_FOLDER: &str = "/run/sshd";
/// Text of the script that records each request. As root, the laboratory writes this text to [`RECORDING_SHELL`],
/// otherwise to the server's directory.
pub const RECORDING_SHELL_TEXT: &str = include_str!("recording-shell.sh");
/// The login shell of [`USER`].
const RECORDING_SHELL: &str = "/var/lib/writ-lab/recording-shell";

/// The programs of OpenSSH.
#[derive(Debug, Clone)]
pub struct Openssh {
    /// The server. Its path must be absolute, because sshd starts itself again for each connection.
    pub sshd: PathBuf,
    /// The program that creates keys.
    pub ssh_keygen: PathBuf,
}

impl Openssh {
    /// Finds sshd and ssh-keygen. As root on a Debian-like system, installs missing programs.
    ///
    /// # Errors
    /// Returns [`LabError::ProgramMissing`] with the install command, if they can be neither found nor installed.
    pub fn find_or_install() -> Result<Self, LabError> {
        let [sshd, ssh_keygen] = packages::OPENSSH.find_or_install(["sshd", "ssh-keygen"])?;
        Ok(Self { sshd, ssh_keygen })
    }

    /// Creates a key pair without a passphrase in `path` and `path.pub`. Types: `ed25519`, `ecdsa`.
    pub fn make_key(&self, key_type: &str, path: &Path, comment: &str) -> Result<(), LabError> {
        let mut keygen = Command::new(&self.ssh_keygen);
        keygen.args(["-q", "-t", key_type, "-N", "", "-C", comment, "-f"]).arg(path);
        files::run(&mut keygen).map(drop)
    }
}

/// Returns true if this process runs as root: /proc/self belongs to the effective user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The numeric ids of a user.
#[derive(Debug, Clone, Copy)]
pub struct UserIds {
    /// User.
    pub user: u32,
    /// Primary group.
    pub group: u32,
}

/// Returns the login user of SSH servers that run as root. If `plain`, returns the user without a ledger.
pub fn user(plain: bool) -> &'static str {
    if plain { PLAIN_USER } else { USER }
}

/// Creates the login user with its shell, and the directory that sshd needs as root, unless they exist.
pub fn prepare_root(plain: bool) -> Result<UserIds, LabError> {
    let _lock = Lock::take(Path::new(ROOT_LOCK), "making the laboratory's user")?;
    if !Path::new(PRIVILEGE_SEPARATION_FOLDER).exists() {
        files::make_folder(Path::new(PRIVILEGE_SEPARATION_FOLDER), 0o755)?;
    }
    if !Path::new(HOME).exists() {
        files::make_folder(Path::new(HOME), 0o755)?;
    }
    if fs::read(RECORDING_SHELL).ok().as_deref() != Some(RECORDING_SHELL_TEXT.as_bytes()) {
        // A rename is atomic, so a new shell reads a complete file. A running shell keeps the old file.
        let new = format!("{RECORDING_SHELL}.new");
        files::write(Path::new(&new), RECORDING_SHELL_TEXT, 0o755)?;
        fs::rename(&new, RECORDING_SHELL).map_err(LabError::file("rename", new))?;
    }
    add_user(user(plain), HOME, if plain { "/bin/sh" } else { RECORDING_SHELL })?;
    user_ids(user(plain))
}

/// Creates a system user, unless the user exists.
pub fn make_user(name: &str, home: &str, shell: &str) -> Result<(), LabError> {
    let _lock = Lock::take(Path::new(ROOT_LOCK), "making the laboratory's user")?;
    add_user(name, home, shell)
}

/// Creates a system user, unless the user exists. The caller must hold [`ROOT_LOCK`].
fn add_user(name: &str, home: &str, shell: &str) -> Result<(), LabError> {
    if user_ids(name).is_ok() {
        return Ok(());
    }
    say::note(format_args!(
        "making the system user {name} for the SSH servers (it stays; `userdel {name}` removes it)"
    ));
    let options = ["--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell];
    // A new account is locked, and sshd without PAM refuses locked accounts. The password `*` unlocks the account, but
    // matches no input.
    files::run(Command::new("useradd").args(options).args(["--password", "*", name])).map(drop)
}

/// Returns the numeric ids of a user by name.
fn user_ids(name: &str) -> Result<UserIds, LabError> {
    let number = |option: &str| {
        let printed = files::run(Command::new("id").args([option, name]))?;
        printed.trim().parse().map_err(|_| LabError::Failed { program: format!("id {option} {name}"), tail: printed })
    };
    Ok(UserIds { user: number("-u")?, group: number("-g")? })
}

/// Returns the name of the user who runs this process.
pub fn own_name() -> Result<String, LabError> {
    files::run(Command::new("id").arg("-un")).map(|printed| printed.trim().to_owned())
}

/// Checks that every user can reach the directory.
///
/// # Errors
/// Returns [`LabError::FolderClosed`] if some users may not enter the directory or one of its parents. The error
/// contains the path of the innermost such directory.
pub fn check_reachable(folder: &Path) -> Result<(), LabError> {
    for each in folder.ancestors() {
        let meta = fs::metadata(each).map_err(LabError::file("read", each))?;
        if meta.permissions().mode() & 0o001 == 0 {
            return Err(LabError::FolderClosed { folder: each.to_owned() });
        }
    }
    Ok(())
}
