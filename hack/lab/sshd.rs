//! A real OpenSSH server on loopback, and a ledger of everything it was asked to run.
//!
//! As root it lets in the unprivileged user `writ-lab`, whose login shell keeps the ledger. Otherwise it lets in the
//! user who runs it, and a ForceCommand keeps the ledger; sshd then cannot change users, so a few things differ
//! ([`Sshd::runs_as_root`]). Each server has a home folder of its own: two of them are two machines.

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

/// The variable that tells the recording shell its file, and by which commands of this server are found.
const LEDGER_VARIABLE: &str = "WRIT_LAB_LEDGER";
/// The variable that tells the recording shell which shell to run.
const SHELL_VARIABLE: &str = "WRIT_LAB_SHELL";
/// sshd listens after about 10 ms on two idle cores; the rest is room for a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How often the log is looked at for [`LISTENING`].
const POLL: Duration = Duration::from_millis(10);
/// How often a port may turn out to be taken in between.
const PORT_ATTEMPTS: usize = 5;
/// What sshd logs when it can be connected to. Trying to connect instead would count as a failed login from 9.8 on.
const LISTENING: &str = "Server listening on ";
/// What tells one boot of a machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What sshd logs when its port is another's.
const PORT_TAKEN: &str = "Address already in use";

/// How an SSH server is started.
#[derive(Debug, Clone, Default)]
pub struct SshdOptions {
    /// Lines that go before all others into sshd_config, where the first one counts: `MaxSessions 1`.
    pub config: Vec<String>,
    /// Further environment variables of every session.
    pub environment: Vec<(String, String)>,
    /// Leaves the key out of the authorized keys, so that the login is refused.
    pub refuse_key: bool,
    /// A second host key, ECDSA, besides the ed25519 one.
    pub ecdsa_host_key: bool,
    /// Files of host keys to have instead of its own.
    pub host_keys: Vec<PathBuf>,
    /// Further lines of the authorized keys.
    pub authorized_keys: Vec<String>,
    /// The address of this host to listen on, where it is not 127.0.0.1.
    pub listen_address: Option<IpAddr>,
    /// The port to listen on, where it is not a free one of that address: of several hosts behind one name.
    pub port: Option<u16>,
    /// A boot id of the machine's own, so that it can be [rebooted](Sshd::reboot). For root only.
    pub own_boot_id: bool,
    /// The shell that reads what is asked for, where it is not /bin/sh. A `busybox` is run as its `sh`.
    pub login_shell: Option<PathBuf>,
    /// No ledger: /bin/sh itself is the login shell, so that what is measured is not the laboratory.
    pub plain: bool,
}

/// A running SSH server. Ended with all its sessions and commands when dropped, and by the [`Reaper`] else.
#[derive(Debug)]
pub struct Sshd {
    openssh: Openssh,
    reaper: Arc<Reaper>,
    folder: PathBuf,
    user: String,
    as_root: bool,
    address: IpAddr,
    port: u16,
    /// `None` while it is stopped.
    listener: Mutex<Option<Process>>,
}

impl Sshd {
    /// Starts a server on a free port and returns when it can be connected to.
    ///
    /// # Errors
    /// Where OpenSSH is missing, or the server does not listen; the folder with its log is kept then.
    pub fn start(reaper: &Arc<Reaper>, options: &SshdOptions) -> Result<Self, LabError> {
        let openssh = Openssh::find_or_install()?;
        let step = say::step("starting sshd");
        let as_root = openssh::is_root();
        let ids = if as_root { Some(openssh::prepare_root(options.plain)?) } else { None };
        let user = if as_root { openssh::user(options.plain).to_owned() } else { openssh::own_name()? };
        // The user of the sessions passes through it to its home; what it may not read has a mode of its own.
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

    /// The port on 127.0.0.1, or where it listens. Stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whom it lets in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether sshd runs as root. Otherwise it lets in only the user who runs it, under a ForceCommand, so the SSH
    /// request "signal" does nothing, and commands run with that user's rights.
    pub fn runs_as_root(&self) -> bool {
        self.as_root
    }

    /// The private key it accepts (unless `refuse_key`); OpenSSH's format, mode 0600.
    pub fn private_key_path(&self) -> PathBuf {
        self.path("client_key")
    }

    /// The text of that key.
    pub fn private_key(&self) -> io::Result<String> {
        fs::read_to_string(self.private_key_path())
    }

    /// Its ed25519 host key as known_hosts has it: `ssh-ed25519 AAAA...`.
    pub fn host_key(&self) -> io::Result<String> {
        self.public_key("host_ed25519")
    }

    /// Its ECDSA host key; an error without `ecdsa_host_key`.
    pub fn ecdsa_host_key(&self) -> io::Result<String> {
        self.public_key("host_ecdsa")
    }

    /// The file in which the recording shell keeps the ledger; recording-shell.sh says how.
    pub fn ledger_path(&self) -> PathBuf {
        self.path("ledger")
    }

    /// What was asked of the login shell, in the order of asking: the command as sent, byte for byte where it is UTF-8,
    /// without the `-c`. A login without a command is "". A request of the launcher goes on with a newline and its script.
    pub fn ledger(&self) -> io::Result<Vec<String>> {
        let text = fs::read(self.ledger_path())?;
        Ok(records(&String::from_utf8_lossy(&text), self.reaper.run_mark()))
    }

    /// Everything sshd logged, at `LogLevel DEBUG1`.
    pub fn log(&self) -> io::Result<String> {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The home folder of the sessions (`$HOME`), which no other server shares.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Lets in who has this key, too.
    pub fn authorize(&self, line: &str) -> io::Result<()> {
        let path = self.path("authorized_keys");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, before + line + "\n")
    }

    /// Stops listening and drops every connection, as a machine that is cut off. What was started goes on where it
    /// does not depend on its connection; [`Sshd::kill_commands`] ends that too.
    pub fn stop(&self) {
        if let Some(process) = lock(&self.listener).take() {
            // Frozen first: else it could take one more connection after the list is made.
            processes::signal("STOP", &[process.pid()]);
            let sessions = sessions_of(&process);
            process.kill();
            processes::signal("KILL", &sessions);
        }
    }

    /// How many processes hold connections now.
    pub fn sessions(&self) -> usize {
        lock(&self.listener).as_ref().map_or(0, |process| sessions_of(process).len())
    }

    /// Drops every connection and goes on listening: the client sees a reset.
    pub fn drop_connections(&self) {
        if let Some(process) = lock(&self.listener).as_ref() {
            processes::signal("KILL", &sessions_of(process));
        }
    }

    /// Stops the server and its sessions where they are (SIGSTOP): connections stay, and the kernel goes on accepting some.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets it go on after [`Sshd::freeze`].
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, signal: &str) {
        if let Some(process) = lock(&self.listener).as_ref() {
            processes::signal(signal, &[process.pid()]);
            processes::signal(signal, &sessions_of(process));
        }
    }

    /// As a power cut: everything that ran is gone, and the machine has another boot id. What was on disk is there. Only
    /// with `own_boot_id`.
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

    /// Starts again on the same port, with the same keys and ledger; stops it before where it runs.
    pub fn restart(&self) -> Result<(), LabError> {
        self.stop();
        let before = fs::metadata(self.log_path()).map(|meta| meta.len()).unwrap_or_default();
        let mut sshd = if self.boot_id_path().exists() {
            // In a mount namespace of its own, where the kernel's file is covered by ours; ends with the server.
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

    /// Ends every process that was started in a session of this server, also what left its session.
    pub fn kill_commands(&self) {
        let mark = self.ledger_path();
        // Twice: a process may fork while the list is made.
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

    /// The first two words of a .pub file; the third is a comment.
    fn public_key(&self, name: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.path(&format!("{name}.pub")))?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// Keys, ledger, home and recording shell: all that stays the same over restarts.
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
        // 0644: sshd reads it with the rights of the user who logs in.
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
        // It demands that nobody else may write to any folder above; ours is below the temporary folder.
        set("StrictModes no".into());
        set("PidFile none".into());
        set("LogLevel DEBUG1".into());
        if !self.as_root && !options.plain {
            set(format!("ForceCommand {}", self.path("recording-shell").display()));
        }
        // The first SetEnv counts, so they are all in one line. MaxStartups and MaxSessions stay as OpenSSH has them.
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

    /// Waits for the line in the part of the log that this start wrote.
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
            // A faulty sshd_config is told on standard error, all else in the log.
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

/// The processes of sshd that hold the connections, newest last: `sshd`, and from 9.8 on `sshd-session`, `sshd-auth`.
fn sessions_of(listener: &Process) -> Vec<u32> {
    let all = processes::descendants(listener.pid());
    all.into_iter().filter(|stat| stat.name.starts_with("sshd")).map(|stat| stat.pid).collect()
}

/// Takes a ledger apart: records end with a line that holds the name of the run and nothing else.
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
