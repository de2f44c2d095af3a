//! A real OpenSSH server on loopback, with a ledger of every request to run a command.
//!
//! As root, the server accepts the user `writ-lab`, whose login shell writes the ledger. Without root, a ForceCommand
//! writes the ledger. [`Sshd::runs_as_root`] lists the other differences. Each server has its own home directory, like
//! a separate machine.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::LabError;
use super::openssh::{self, Openssh, UserIds};
use super::processes::{self, Process, RUN_VARIABLE, Reaper, lock};
use super::{files, say};

/// Environment variable with the path of the ledger. The recording shell writes to this path. [`Sshd::kill_commands`]
/// ends all processes with this path in the variable.
const LEDGER_VARIABLE: &str = "WRIT_LAB_LEDGER";
/// Environment variable with the path of the shell that the recording shell runs.
const SHELL_VARIABLE: &str = "WRIT_LAB_SHELL";
/// Maximum time for the start. sshd listens after about 10 ms on two idle cores. The limit is much higher, for busy
/// machines.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// Interval between two searches of the log for [`LISTENING`].
const POLL: Duration = Duration::from_millis(10);
/// Maximum number of attempts to start sshd. An attempt fails if another process takes the chosen port before sshd
/// binds the port.
const PORT_ATTEMPTS: usize = 5;
/// Text that sshd logs when it accepts connections. The laboratory opens no test connection, because OpenSSH 9.8 and
/// newer would count the connection as a failed login.
const LISTENING: &str = "Server listening on ";
/// File with the id of the machine's current boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Text that sshd logs if another process has its port.
const PORT_TAKEN: &str = "Address already in use";

/// Options for the start of an SSH server.
#[derive(Debug, Clone, Default)]
pub struct SshdOptions {
    /// First lines of sshd_config, for example `MaxSessions 1`. If a keyword has several lines, sshd uses the first
    /// line.
    pub config: Vec<String>,
    /// Further environment variables of every session.
    pub environment: Vec<(String, String)>,
    /// True to omit the client's key from the authorized keys, so that the login is refused.
    pub refuse_key: bool,
    /// True to create an ECDSA host key in addition to the ed25519 host key.
    pub ecdsa_host_key: bool,
    /// Files of host keys to use. If empty, the server uses its own host keys.
    pub host_keys: Vec<PathBuf>,
    /// Further lines of the authorized keys.
    pub authorized_keys: Vec<String>,
    /// Address of this host to listen on. Default: 127.0.0.1.
    pub listen_address: Option<IpAddr>,
    /// Port to listen on. Several hosts behind one name need the same port. Default: a free port of the address.
    pub port: Option<u16>,
    /// True to give the machine its own boot id, so that it can be [rebooted](Sshd::reboot). For root only.
    pub own_boot_id: bool,
    /// Shell that runs the requests. Default: /bin/sh. If the program is `busybox`, its `sh` is used.
    pub login_shell: Option<PathBuf>,
    /// True to run without the recording shell and the ledger, for measurements. As root, /bin/sh is then the login
    /// shell.
    pub plain: bool,
}

/// A running SSH server. It ends with all its sessions and commands when this value is dropped. If this process dies
/// first, the [`Reaper`] ends the server.
#[derive(Debug)]
pub struct Sshd {
    openssh: Openssh,
    reaper: Arc<Reaper>,
    folder: PathBuf,
    user: String,
    as_root: bool,
    address: IpAddr,
    port: u16,
    /// `None` while the server is stopped.
    listener: Mutex<Option<Process>>,
}

impl Sshd {
    /// Starts a server on a free port. Returns when it accepts connections.
    ///
    /// # Errors
    /// OpenSSH is missing, or the server does not listen. In the second case the directory with its log is kept.
    pub fn start(reaper: &Arc<Reaper>, options: &SshdOptions) -> Result<Self, LabError> {
        let openssh = Openssh::find_or_install()?;
        let step = say::step("starting sshd");
        let as_root = openssh::is_root();
        let ids = if as_root { Some(openssh::prepare_root(options.plain)?) } else { None };
        let user = if as_root { openssh::user(options.plain).to_owned() } else { openssh::own_name()? };
        // The user of the sessions must reach the home in this directory. Files that the user must not read have their
        // own modes.
        let folder = reaper.make_folder("sshd", if as_root { 0o711 } else { 0o700 })?;
        if as_root {
            openssh::check_reachable(&folder)?;
        }
        let reaper = Arc::clone(reaper);
        let address = options.listen_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut sshd = Self { openssh, reaper, folder, user, as_root, address, port: 0, listener: Mutex::new(None) };
        sshd.write_files(options, ids)?;
        if options.own_boot_id {
            sshd.write_boot_id()?;
        }
        let mut attempt = 1;
        loop {
            let free = || Ok::<_, io::Error>(TcpListener::bind((address, 0))?.local_addr()?.port());
            sshd.port = options.port.map_or_else(free, Ok).map_err(LabError::run("a server on this host"))?;
            sshd.write_config(options)?;
            match sshd.restart() {
                Err(LabError::NotReady { tail, .. }) if tail.contains(PORT_TAKEN) && attempt < PORT_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => {
                    sshd.reaper.keep_folder();
                    return Err(error);
                }
                Ok(()) => break,
            }
        }
        step.done();
        Ok(sshd)
    }

    /// Returns the port. It stays the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the login user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns true if sshd runs as root. Otherwise sshd accepts only its own user, runs all commands under a
    /// ForceCommand, and ignores the SSH request "signal".
    pub fn runs_as_root(&self) -> bool {
        self.as_root
    }

    /// Returns the path of the private key that the server accepts (unless `refuse_key`), in OpenSSH's format, mode
    /// 0600.
    pub fn private_key_path(&self) -> PathBuf {
        self.path("client_key")
    }

    /// Returns the text of the private key that the server accepts.
    pub fn private_key(&self) -> io::Result<String> {
        fs::read_to_string(self.private_key_path())
    }

    /// Returns the ed25519 host key as in known_hosts: `ssh-ed25519 AAAA...`.
    pub fn host_key(&self) -> io::Result<String> {
        self.public_key("host_ed25519")
    }

    /// Returns the ECDSA host key. Returns an error if the server was started without `ecdsa_host_key`.
    pub fn ecdsa_host_key(&self) -> io::Result<String> {
        self.public_key("host_ecdsa")
    }

    /// Returns the path of the ledger, the file in which the recording shell records each request. recording-shell.sh
    /// describes the format.
    pub fn ledger_path(&self) -> PathBuf {
        self.path("ledger")
    }

    /// Returns the requests that the login shell received, in their order:
    ///
    /// - A command: the text after `-c`, with invalid UTF-8 replaced.
    /// - A login without a command: an empty text.
    /// - A launcher request: the command, a newline and the script.
    pub fn ledger(&self) -> io::Result<Vec<String>> {
        let text = fs::read(self.ledger_path())?;
        Ok(records(&String::from_utf8_lossy(&text), self.reaper.run_mark()))
    }

    /// Returns the log of sshd, at `LogLevel DEBUG1`.
    pub fn log(&self) -> io::Result<String> {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the home directory of the sessions (`$HOME`). No other server uses it.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Adds a line to the authorized keys.
    pub fn authorize(&self, line: &str) -> io::Result<()> {
        let path = self.path("authorized_keys");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, before + line + "\n")
    }

    /// Stops the server and drops every connection, as if the machine were cut off. Commands that need no connection
    /// continue, until [`Sshd::kill_commands`] ends them.
    pub fn stop(&self) {
        if let Some(process) = lock(&self.listener).take() {
            // A frozen server cannot accept another connection after the list of sessions is made.
            processes::signal("STOP", &[process.pid()]);
            let sessions = sessions_of(&process);
            process.kill();
            processes::signal("KILL", &sessions);
        }
    }

    /// Returns the number of sshd processes that hold connections now.
    pub fn sessions(&self) -> usize {
        lock(&self.listener).as_ref().map_or(0, |process| sessions_of(process).len())
    }

    /// Drops every connection and continues to listen. The client gets a reset.
    pub fn drop_connections(&self) {
        if let Some(process) = lock(&self.listener).as_ref() {
            processes::signal("KILL", &sessions_of(process));
        }
    }

    /// Freezes the server and its sessions by SIGSTOP. Connections stay open, and the kernel still accepts some new
    /// connections.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Resumes the server and its sessions after [`Sshd::freeze`].
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, signal: &str) {
        if let Some(process) = lock(&self.listener).as_ref() {
            processes::signal(signal, &[process.pid()]);
            processes::signal(signal, &sessions_of(process));
        }
    }

    /// Simulates a power failure: all processes end, and the machine gets another boot id. Files stay. Requires
    /// `own_boot_id`.
    pub fn reboot(&self) -> Result<(), LabError> {
        self.stop();
        self.kill_commands();
        self.write_boot_id()?;
        self.restart()
    }

    fn boot_id_path(&self) -> PathBuf {
        self.path("boot_id")
    }

    fn write_boot_id(&self) -> Result<(), LabError> {
        let path = Path::new("/proc/sys/kernel/random/uuid");
        let id = fs::read_to_string(path).map_err(LabError::file("read", path))?;
        files::write(&self.boot_id_path(), id, 0o644)
    }

    /// Starts the server on the same port, with the same keys and ledger. Stops it first if it runs.
    pub fn restart(&self) -> Result<(), LabError> {
        self.stop();
        let before = fs::metadata(self.log_path()).map(|meta| meta.len()).unwrap_or_default();
        let mut sshd = if self.boot_id_path().exists() {
            // The server gets its own mount namespace. In this namespace, a file of the laboratory hides the kernel's
            // file (`BOOT_ID`).
            let mut unshare = Command::new("unshare");
            let cover = format!("mount --bind \"$0\" {BOOT_ID} && exec \"$@\"");
            unshare.args(["-m", "sh", "-c", &cover]).arg(self.boot_id_path()).arg(&self.openssh.sshd);
            unshare
        } else {
            Command::new(&self.openssh.sshd)
        };
        sshd.arg("-D").arg("-f").arg(self.path("sshd_config")).arg("-E").arg(self.log_path());
        let process = self.reaper.spawn("sshd", &mut sshd, &self.path("sshd.out"))?;
        self.wait_until_listening(&process, before)?;
        *lock(&self.listener) = Some(process);
        Ok(())
    }

    /// Ends every process that was started in a session of this server, including processes that left their session.
    pub fn kill_commands(&self) {
        let mark = self.ledger_path();
        // Runs twice, because a process can fork while the list is made.
        for _ in 0..2 {
            processes::signal("KILL", &processes::marked(LEDGER_VARIABLE, &mark.to_string_lossy()));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.path("sshd.log")
    }

    /// Returns the first two words of a .pub file. The third word is a comment.
    fn public_key(&self, name: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.path(&format!("{name}.pub")))?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// Writes the keys, the ledger, the home and the recording shell. These files stay the same after a restart.
    fn write_files(&self, options: &SshdOptions, ids: Option<UserIds>) -> Result<(), LabError> {
        self.openssh.make_key("ed25519", &self.path("host_ed25519"), "writ-lab host")?;
        if options.ecdsa_host_key {
            self.openssh.make_key("ecdsa", &self.path("host_ecdsa"), "writ-lab host")?;
        }
        self.openssh.make_key("ed25519", &self.private_key_path(), "writ-lab client")?;
        let public = self.public_key("client_key").map_err(LabError::file("read", self.path("client_key.pub")))?;
        let own = if options.refuse_key { None } else { Some(&public) };
        let authorized =
            own.into_iter().chain(&options.authorized_keys).fold(String::new(), |all, line| all + line + "\n");
        // 0644: sshd reads the file with the rights of the login user.
        files::write(&self.path("authorized_keys"), authorized, 0o644)?;
        files::write(&self.ledger_path(), "", 0o600)?;
        files::make_folder(&self.home(), 0o700)?;
        match ids {
            Some(ids) => [self.ledger_path(), self.home()].into_iter().try_for_each(|path| {
                std::os::unix::fs::chown(&path, Some(ids.user), Some(ids.group))
                    .map_err(LabError::file("change the owner of", &path))
            }),
            None => files::write(&self.path("recording-shell"), openssh::RECORDING_SHELL_TEXT, 0o700),
        }
    }

    fn write_config(&self, options: &SshdOptions) -> Result<(), LabError> {
        let mut lines = options.config.clone();
        let mut set = |line: String| lines.push(line);
        set(format!("Port {}", self.port));
        set(format!("ListenAddress {}", self.address));
        let mut own = vec![self.path("host_ed25519")];
        if options.ecdsa_host_key {
            own.push(self.path("host_ecdsa"));
        }
        for path in if options.host_keys.is_empty() { &own } else { &options.host_keys } {
            set(format!("HostKey {}", path.display()));
        }
        set(format!("AuthorizedKeysFile {}", self.path("authorized_keys").display()));
        set(format!("AllowUsers {}", self.user));
        set("AuthenticationMethods publickey".into());
        set("PasswordAuthentication no".into());
        set("KbdInteractiveAuthentication no".into());
        set("UsePAM no".into());
        // With StrictModes, sshd would refuse the file of authorized keys, because every user may write to the
        // temporary directory above this file.
        set("StrictModes no".into());
        set("PidFile none".into());
        set("LogLevel DEBUG1".into());
        if !self.as_root && !options.plain {
            set(format!("ForceCommand {}", self.path("recording-shell").display()));
        }
        // sshd uses only the first SetEnv, so all variables are in one line.
        let mut environment = format!(
            "SetEnv {LEDGER_VARIABLE}={} {RUN_VARIABLE}={} HOME={}",
            self.ledger_path().display(),
            self.reaper.run_mark(),
            self.home().display()
        );
        if let Some(shell) = &options.login_shell {
            environment.push_str(&format!(" {SHELL_VARIABLE}={}", shell.display()));
        }
        for (name, value) in &options.environment {
            environment.push_str(&format!(" \"{name}={value}\""));
        }
        set(environment);
        files::write(&self.path("sshd_config"), lines.join("\n") + "\n", 0o600)
    }

    /// Waits for [`LISTENING`] in the part of the log that this start wrote.
    fn wait_until_listening(&self, process: &Process, log_before: u64) -> Result<(), LabError> {
        let started = Instant::now();
        let skip = usize::try_from(log_before).unwrap_or_default();
        loop {
            let log = fs::read(self.log_path()).unwrap_or_default();
            if String::from_utf8_lossy(log.get(skip..).unwrap_or_default()).contains(LISTENING) {
                return Ok(());
            }
            let what = match process.ended() {
                Some(status) => format!("ended ({status})"),
                None if started.elapsed() > START_PATIENCE => {
                    format!("did not listen after {} s", START_PATIENCE.as_secs())
                }
                None => {
                    std::thread::sleep(POLL);
                    continue;
                }
            };
            // sshd reports an invalid sshd_config on standard error, and every other error in the log.
            let (log, output) = (self.log_path(), self.path("sshd.out"));
            let tail = format!("{}\n{}", files::tail(&log), files::tail(&output)).trim().to_owned();
            return Err(LabError::NotReady { name: "sshd".to_owned(), what, log, tail });
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
        self.kill_commands();
    }
}

/// Returns the ids of the sshd processes that hold connections, parents before children. Their name is `sshd`,
/// `sshd-session` or `sshd-auth`.
fn sessions_of(listener: &Process) -> Vec<u32> {
    let all = processes::descendants(listener.pid());
    all.into_iter().filter(|stat| stat.name.starts_with("sshd")).map(|stat| stat.pid).collect()
}

/// Splits a ledger into records. A record ends with a line that contains only the name of the run.
fn records(ledger: &str, run: &str) -> Vec<String> {
    let end = format!("\n{run}\n");
    ledger.split_terminator(&end).map(|record| record.strip_prefix("-c ").unwrap_or(record).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_keeps_each_command_apart_whatever_is_in_it() {
        let ledger = "-c true\nwrit-lab-x\n-c echo 'a\n\nwrit-lab-y\n' /tmp/writ-lab-x\nwrit-lab-x\n\nwrit-lab-x\n";
        assert_eq!(records(ledger, "writ-lab-x"), ["true", "echo 'a\n\nwrit-lab-y\n' /tmp/writ-lab-x", ""]);
    }
}
