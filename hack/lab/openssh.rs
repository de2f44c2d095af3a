//! What an SSH server needs on this machine before it starts: the programs, and as root a user to log in as.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::packages::{self, ROOT_LOCK};
use super::say;

/// The user that root's SSH servers let in. A system user, so that it shows up on no login screen.
pub const USER: &str = "writ-lab";
/// The same without a ledger: its login shell is /bin/sh.
const PLAIN_USER: &str = "writ-lab-plain";
/// Their home in /etc/passwd, which holds nothing but the shell.
const HOME: &str = "/var/lib/writ-lab";
/// The folder sshd confines its unprivileged half in; only root's sshd does that.
const PRIVILEGE_SEPARATION_FOLDER: &str = "/run/sshd";
/// What is written to [`RECORDING_SHELL`], and for users other than root into the server's folder.
pub const RECORDING_SHELL_TEXT: &str = include_str!("recording-shell.sh");
/// The login shell of [`USER`].
const RECORDING_SHELL: &str = "/var/lib/writ-lab/recording-shell";

/// The programs of OpenSSH.
#[derive(Debug, Clone)]
pub struct Openssh {
    /// The server. It insists on an absolute path, for it starts itself again for each connection.
    pub sshd: PathBuf,
    /// Makes the keys.
    pub ssh_keygen: PathBuf,
}

impl Openssh {
    /// Finds sshd and ssh-keygen; as root on a Debian-like system, installs what is missing.
    ///
    /// # Errors
    /// [`LabError::ProgramMissing`] with what to run, where they can be neither found nor installed.
    pub fn find_or_install() -> Result<Self, LabError> {
        let [sshd, ssh_keygen] = packages::OPENSSH.find_or_install(["sshd", "ssh-keygen"])?;
        Ok(Self { sshd, ssh_keygen })
    }

    /// Makes a key pair without a passphrase: `path`, and `path.pub`. Types: `ed25519`, `ecdsa`.
    pub fn make_key(&self, key_type: &str, path: &Path, comment: &str) -> Result<(), LabError> {
        let mut keygen = Command::new(&self.ssh_keygen);
        keygen.args(["-q", "-t", key_type, "-N", "", "-C", comment, "-f"]).arg(path);
        files::run(&mut keygen).map(drop)
    }
}

/// Whether this process is root's: /proc/self belongs to the effective user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The numbers of a user.
#[derive(Debug, Clone, Copy)]
pub struct UserIds {
    /// User.
    pub user: u32,
    /// Primary group.
    pub group: u32,
}

/// Whom root's SSH servers let in.
pub fn user(plain: bool) -> &'static str {
    if plain { PLAIN_USER } else { USER }
}

/// Makes the login user with its shell, once, and makes sure of what sshd needs as root.
pub fn prepare_root(plain: bool) -> Result<UserIds, LabError> {
    let _lock = Lock::take(Path::new(ROOT_LOCK), "making the laboratory's user")?;
    if !Path::new(PRIVILEGE_SEPARATION_FOLDER).exists() {
        files::make_folder(Path::new(PRIVILEGE_SEPARATION_FOLDER), 0o755)?;
    }
    if !Path::new(HOME).exists() {
        files::make_folder(Path::new(HOME), 0o755)?;
    }
    if fs::read(RECORDING_SHELL).ok().as_deref() != Some(RECORDING_SHELL_TEXT.as_bytes()) {
        // By a rename: a shell must never be seen half written, nor be written while it runs.
        let new = format!("{RECORDING_SHELL}.new");
        files::write(Path::new(&new), RECORDING_SHELL_TEXT, 0o755)?;
        fs::rename(&new, RECORDING_SHELL).map_err(LabError::file("rename", new))?;
    }
    add_user(user(plain), HOME, if plain { "/bin/sh" } else { RECORDING_SHELL })?;
    user_ids(user(plain))
}

/// Makes a system user, once.
pub fn make_user(name: &str, home: &str, shell: &str) -> Result<(), LabError> {
    let _lock = Lock::take(Path::new(ROOT_LOCK), "making the laboratory's user")?;
    add_user(name, home, shell)
}

/// The same for who has the lock.
fn add_user(name: &str, home: &str, shell: &str) -> Result<(), LabError> {
    if user_ids(name).is_ok() {
        return Ok(());
    }
    say::note(format_args!(
        "making the system user {name} for the SSH servers (it stays; `userdel {name}` removes it)"
    ));
    let options = ["--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell];
    // Without PAM sshd refuses a locked account, which a fresh one is; `*` is no password but not locked.
    files::run(Command::new("useradd").args(options).args(["--password", "*", name])).map(drop)
}

/// The numbers of a user by name.
fn user_ids(name: &str) -> Result<UserIds, LabError> {
    let number = |option: &str| {
        let printed = files::run(Command::new("id").args([option, name]))?;
        printed.trim().parse().map_err(|_| LabError::Failed { program: format!("id {option} {name}"), tail: printed })
    };
    Ok(UserIds { user: number("-u")?, group: number("-g")? })
}

/// Who runs this process, for logins as oneself.
pub fn own_name() -> Result<String, LabError> {
    files::run(Command::new("id").arg("-un")).map(|printed| printed.trim().to_owned())
}

/// Makes sure that the folder can be reached by everybody.
///
/// # Errors
/// [`LabError::FolderClosed`] names the first folder on the way that cannot be entered.
pub fn check_reachable(folder: &Path) -> Result<(), LabError> {
    for each in folder.ancestors() {
        let meta = fs::metadata(each).map_err(LabError::file("read", each))?;
        if meta.permissions().mode() & 0o001 == 0 {
            return Err(LabError::FolderClosed { folder: each.to_owned() });
        }
    }
    Ok(())
}
