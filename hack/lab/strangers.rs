//! Starts SSH servers that differ from the laboratory's [`Sshd`](super::Sshd): other programs, other login shells,
//! other tools.
//!
//! Each server acts as a separate machine, in a mount namespace with its own /etc/passwd. Its user can have any home
//! and any login shell. The mount namespace requires root. The servers write no ledger, so commands must record in
//! `$HOME` that they ran.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::newer_openssh::NewerOpenssh;
use super::openssh::{self, Openssh, UserIds};
use super::packages::Package;
use super::processes::{self, Process, Reaper};
use super::{asyncssh, files, say};

/// Maximum time until a server listens. The Python server is the slowest, and needs a second.
const START_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Maximum number of attempts to start a server. An attempt fails if another process takes the chosen port before the
/// server binds the port.
const PORT_ATTEMPTS: usize = 5;
/// Shell script that prepares the mount namespace of a server. Its arguments are pairs of paths, then `--` and the
/// command of the server. It mounts the first path of each pair over the second path, and then executes the command.
const NAMESPACE: &str = r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done; shift; exec "$@""#;

/// Program of the server.
#[derive(Debug, Clone, Default)]
pub enum Server {
    /// OpenSSH of this system.
    #[default]
    Openssh,
    /// OpenSSH of another release of Debian.
    NewerOpenssh(NewerOpenssh),
    /// Dropbear of this system.
    Dropbear,
    /// A server in Python that passes requests to a shell.
    Asyncssh,
}

/// Options for the start of a [`Stranger`].
#[derive(Debug, Clone)]
pub struct StrangerOptions {
    /// Program of the server.
    pub server: Server,
    /// Login shell in /etc/passwd.
    pub shell: PathBuf,
    /// Directory that replaces /usr/bin (and so /bin) in the mount namespace of the server.
    pub userland: Option<PathBuf>,
    /// Files in the user's home.
    pub home_files: Vec<(&'static str, &'static str)>,
    /// First lines of sshd_config.
    pub config: Vec<&'static str>,
    /// Name of the login user. Default: the laboratory's user.
    pub user: Option<&'static str>,
    /// True to give the machine its own copy of /etc, which the test can change ([`Stranger::etc`]).
    pub own_etc: bool,
    /// Programs to replace in the mount namespace of the server: the replacement, then the path of the replaced
    /// program.
    pub programs: Vec<(PathBuf, &'static str)>,
}

impl Default for StrangerOptions {
    fn default() -> Self {
        let (server, shell) = (Server::default(), PathBuf::from("/bin/sh"));
        let (home_files, config, programs) = (Vec::new(), Vec::new(), Vec::new());
        Self { server, shell, userland: None, home_files, config, user: None, own_etc: false, programs }
    }
}

/// A running server. It ends with all its processes when this value is dropped. If this process dies first, the
/// [`Reaper`] ends the server.
#[derive(Debug)]
pub struct Stranger {
    folder: PathBuf,
    user: &'static str,
    port: u16,
    host_key: String,
    process: Option<Process>,
}

impl Stranger {
    /// Starts a server on a free port of 127.0.0.1. Returns when it accepts connections. For root only.
    ///
    /// # Errors
    /// The program is missing and cannot be installed, or the server does not listen. In the second case the directory
    /// with its log is kept.
    pub fn start(reaper: &Arc<Reaper>, options: &StrangerOptions) -> Result<Self, LabError> {
        let step = say::step(format_args!("starting {:?} with {}", options.server, options.shell.display()));
        let openssh = Openssh::find_or_install()?;
        let ids = openssh::prepare_root(true)?;
        let folder = reaper.make_folder("stranger", 0o711)?;
        let user = options.user.unwrap_or(openssh::user(true));
        let mut stranger = Self { folder, user, port: 0, host_key: String::new(), process: None };
        stranger.write_files(&openssh, options, ids)?;
        let mut attempt = 1;
        while let Err(error) = stranger.listen(reaper, &openssh, options, ids) {
            if attempt == PORT_ATTEMPTS || !matches!(&error, LabError::NotReady { tail, .. } if is_port_taken(tail)) {
                reaper.keep_folder();
                return Err(error);
            }
            attempt += 1;
        }
        step.done();
        Ok(stranger)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the login user.
    pub fn user(&self) -> &'static str {
        self.user
    }

    /// Returns the path of a file of the machine's own /etc.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.path("etc").join(name)
    }

    /// Returns the text of the private key that the server accepts.
    pub fn private_key(&self) -> std::io::Result<String> {
        fs::read_to_string(self.path("client_key"))
    }

    /// Returns the host key as in known_hosts.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Returns the user's home. No other machine uses it.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Returns the log of the server.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// Returns the ids of processes that the server's sessions started, even if their session has ended.
    pub fn commands(&self) -> Vec<u32> {
        processes::marked("HOME", &self.home().to_string_lossy())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write_files(&mut self, openssh: &Openssh, options: &StrangerOptions, ids: UserIds) -> Result<(), LabError> {
        let (home, keys) = (self.home(), self.path("home/.ssh"));
        files::make_folder(&home, 0o700)?;
        files::make_folder(&keys, 0o700)?;
        openssh.make_key("ed25519", &self.path("client_key"), "writ-lab client")?;
        let read = |name: &str| fs::read_to_string(self.path(name)).map_err(LabError::file("read", self.path(name)));
        files::write(&keys.join("authorized_keys"), read("client_key.pub")?, 0o600)?;
        for (name, text) in &options.home_files {
            files::write(&home.join(name), text, 0o644)?;
        }
        let owner = format!("{}:{}", ids.user, ids.group);
        files::run(Command::new("chown").arg("-R").arg(owner).arg(&home))?;
        let passwd = passwd(self.user(), &home, &options.shell)?;
        files::write(&self.path("passwd"), &passwd, 0o644)?;
        if options.own_etc {
            files::run(Command::new("cp").args(["-a", "/etc"]).arg(self.path("etc")))?;
            files::write(&self.etc("passwd"), passwd, 0o644)?;
        }
        let public = match &options.server {
            Server::Dropbear => {
                let [_, keygen] = dropbear()?;
                let mut keygen = Command::new(keygen);
                files::run(keygen.args(["-t", "ed25519", "-f"]).arg(self.path("host_key")))?
            }
            _ => {
                openssh.make_key("ed25519", &self.path("host_key"), "writ-lab host")?;
                read("host_key.pub")?
            }
        };
        let line = public.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap_or_default();
        self.host_key = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Ok(())
    }

    fn listen(
        &mut self,
        reaper: &Reaper,
        openssh: &Openssh,
        options: &StrangerOptions,
        ids: UserIds,
    ) -> Result<(), LabError> {
        let free = || Ok::<_, std::io::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        self.port = free().map_err(LabError::run("a server on 127.0.0.1"))?;
        let (server, listening) = self.server(openssh, options, ids)?;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", NAMESPACE, "sh"]);
        if options.own_etc {
            command.arg(self.path("etc")).arg("/etc");
        } else {
            command.arg(self.path("passwd")).arg("/etc/passwd");
        }
        for (program, place) in &options.programs {
            command.arg(program).arg(place);
        }
        if let Some(userland) = &options.userland {
            command.arg(userland).arg("/usr/bin");
        }
        command.arg("--").arg(server.get_program()).args(server.get_args());
        command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = self.path("log");
        files::write(&log, "", 0o600)?;
        let process = reaper.spawn("stranger", &mut command, &log)?;
        let started = Instant::now();
        while !self.log().contains(listening) {
            if let Some(status) = process.ended() {
                let (what, tail) = (format!("ended ({status})"), files::tail(&log));
                return Err(LabError::NotReady { name: "an SSH server".to_owned(), what, log, tail });
            }
            if started.elapsed() > START_PATIENCE {
                let (what, tail) = ("does not listen".to_owned(), files::tail(&log));
                return Err(LabError::NotReady { name: "an SSH server".to_owned(), what, log, tail });
            }
            std::thread::sleep(POLL);
        }
        self.process = Some(process);
        Ok(())
    }

    /// Returns the command of the server, and the text that the server logs when it listens. The laboratory opens no
    /// test connection, because OpenSSH 9.8 and newer would count the connection as a failed login.
    fn server(
        &self,
        openssh: &Openssh,
        options: &StrangerOptions,
        ids: UserIds,
    ) -> Result<(Command, &'static str), LabError> {
        let at = format!("127.0.0.1:{}", self.port);
        Ok(match &options.server {
            Server::Openssh => (self.sshd(Command::new(&openssh.sshd), &[], options)?, "Server listening on"),
            Server::NewerOpenssh(newer) => {
                (self.sshd(newer.sshd(), &newer.config(&self.folder)?, options)?, "Server listening on")
            }
            Server::Dropbear => {
                let [program, _] = dropbear()?;
                let mut dropbear = Command::new(program);
                dropbear.args(["-F", "-E", "-m", "-s", "-j", "-k", "-p", &at, "-r"]).arg(self.path("host_key"));
                dropbear.arg("-P").arg(self.path("pid"));
                (dropbear, "Not backgrounding")
            }
            Server::Asyncssh => {
                let mut python = asyncssh::server()?;
                python.arg(self.port.to_string()).arg(self.path("host_key")).arg(self.home()).arg(&options.shell);
                python.args([ids.user.to_string(), ids.group.to_string()]);
                (python, "listening")
            }
        })
    }

    fn sshd(&self, mut sshd: Command, more: &[String], options: &StrangerOptions) -> Result<Command, LabError> {
        let mut lines: Vec<String> = options.config.iter().map(|line| (*line).to_owned()).collect();
        lines.extend_from_slice(more);
        lines.push(format!("Port {}", self.port));
        lines.push(format!("HostKey {}", self.path("host_key").display()));
        lines.push(format!("AllowUsers {}", self.user()));
        for line in ["ListenAddress 127.0.0.1", "AuthenticationMethods publickey", "UsePAM no", "PidFile none"] {
            lines.push(line.to_owned());
        }
        // With StrictModes, sshd would refuse the file of authorized keys, because every user may write to the
        // temporary directory above this file.
        lines.push("StrictModes no".to_owned());
        lines.push("LogLevel VERBOSE".to_owned());
        files::write(&self.path("sshd_config"), lines.join("\n") + "\n", 0o600)?;
        sshd.arg("-D").arg("-e").arg("-f").arg(self.path("sshd_config"));
        Ok(sshd)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let sessions: Vec<u32> = processes::descendants(process.pid()).iter().map(|stat| stat.pid).collect();
            process.kill();
            processes::signal("KILL", &sessions);
        }
        // Runs twice, because a process can fork while the list is made.
        for _ in 0..2 {
            processes::signal("KILL", &self.commands());
        }
    }
}

/// Returns the paths of Dropbear and of its key generator.
fn dropbear() -> Result<[PathBuf; 2], LabError> {
    Package::named("dropbear-bin", "dropbear", "dropbear").find_or_install(["dropbear", "dropbearkey"])
}

/// Returns the text of /etc/passwd, with this name, home and shell in the line of the laboratory's plain user.
fn passwd(user: &str, home: &Path, shell: &Path) -> Result<String, LabError> {
    let text = fs::read_to_string("/etc/passwd").map_err(LabError::file("read", "/etc/passwd"))?;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [name, password, uid, gid, comment, _, _] if name == openssh::user(true) => {
                let [home, shell] = [home, shell].map(|path| path.display().to_string());
                [user, password, uid, gid, comment, &home, &shell].join(":")
            }
            _ => line.to_owned(),
        }
    };
    Ok(text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n")
}

fn is_port_taken(log: &str) -> bool {
    ["Address already in use", "address already in use", "Failed listening"].iter().any(|words| log.contains(words))
}

/// Creates a directory that replaces /usr/bin on a machine with only busybox.
pub fn busybox_userland(reaper: &Reaper) -> Result<PathBuf, LabError> {
    let [busybox] = Package::called("busybox").find_or_install(["busybox"])?;
    let folder = reaper.make_folder("busybox", 0o755)?;
    let copy = folder.join("busybox");
    fs::copy(&busybox, &copy).map_err(LabError::file("copy", &busybox))?;
    for applet in files::run(Command::new(&busybox).arg("--list"))?.lines() {
        let link = folder.join(applet);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", &link).map_err(LabError::file("make the link", &link))?;
        }
    }
    Ok(folder)
}
