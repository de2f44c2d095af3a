//! A machine: a login shell, a `/bin/sh`, a home directory, and the facts that the probe reports.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tempfile::TempDir;
use writ::api::execution_status::{DecisionRecord, ObjectRecord, OutputBounds};
use writ::launcher::{self, Answer, ExecRequest, FrameSize, Launch, LauncherFacts, Nonce, Offsets, Reply, Uid};

use crate::lab::packages::Package;
use crate::session::{DEADLINE, Said, Session};

/// Kind of machine, by the shells that read the scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// dash as login shell.
    Dash,
    /// bash as login shell and dash as /bin/sh, as on Debian.
    BashThenDash,
    /// bash as login shell and, under the name sh, as /bin/sh, as on Red Hat.
    Bash,
    /// busybox for everything, as on Alpine.
    Busybox,
    /// zsh as login shell, with dash as /bin/sh. The following kinds differ only in the login shell.
    Zsh,
    Ksh,
    Fish,
    Tcsh,
}

pub const KINDS: [Kind; 4] = [Kind::Dash, Kind::BashThenDash, Kind::Bash, Kind::Busybox];
/// All login shells.
pub const LOGINS: [Kind; 8] =
    [Kind::Dash, Kind::BashThenDash, Kind::Bash, Kind::Busybox, Kind::Zsh, Kind::Ksh, Kind::Fish, Kind::Tcsh];

/// Runs the test concurrently on each kind of machine.
pub fn everywhere(test: impl Fn(Kind) + Sync) {
    with_each(&KINDS, test);
}

/// Runs the test concurrently with each login shell.
pub fn with_each_login(test: impl Fn(Kind) + Sync) {
    with_each(&LOGINS, test);
}

fn with_each(kinds: &[Kind], test: impl Fn(Kind) + Sync) {
    std::thread::scope(|scope| {
        for kind in kinds {
            let test = &test;
            scope.spawn(move || test(*kind));
        }
    });
}

const NOBODY: u32 = 65_534;
const SCRIPT_PATH: &str = "\nPATH=/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
const BOOTSTRAP_PATH: &str = " PATH=/bin:/usr/bin;";

pub struct Machine {
    kind: Kind,
    pub home: TempDir,
    login_shell: PathBuf,
    pub facts: LauncherFacts,
    user: Option<u32>,
    /// Variables in the environment of each login.
    pub login_environment: Vec<(String, String)>,
    /// File in place of /proc/uptime.
    pub uptime: Option<PathBuf>,
}

fn program(name: &'static str) -> PathBuf {
    let [path] = Package::called(name).find_or_install([name]).expect("a program");
    path
}

pub fn nonce() -> Nonce {
    Nonce::new(&uuid::Uuid::new_v4().simple().to_string()).expect("a nonce")
}

pub fn uid() -> Uid {
    Uid::new(&uuid::Uuid::new_v4().to_string()).expect("a UID")
}

pub fn decision(argv: &[&str]) -> DecisionRecord {
    DecisionRecord {
        whitelist: ObjectRecord { name: "web".to_owned(), uid: String::new(), generation: 1 },
        rule: "r".to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        action_type: "custom".to_owned(),
        run_as: None,
        working_directory: None,
        environment: BTreeMap::new(),
        timeout_seconds: 100,
        interactive: false,
        record_input: false,
        output: OutputBounds::default(),
        redact: Vec::new(),
        minimum_retention_seconds: None,
        digest: String::new(),
        decided_time: MicroTime(Timestamp::UNIX_EPOCH),
    }
}

pub fn sh(script: &str) -> DecisionRecord {
    decision(&["/bin/sh", "-c", script])
}

impl Machine {
    pub fn new(kind: Kind) -> Self {
        Self::of(kind, None)
    }

    /// Creates a machine. If the tests run as root, its user is nobody.
    pub fn not_as_root(kind: Kind) -> Self {
        Self::of(kind, is_root().then_some(NOBODY))
    }

    pub fn of(kind: Kind, user: Option<u32>) -> Self {
        let home = tempfile::Builder::new().prefix("writ-launcher-").tempdir().expect("a folder");
        let tools = home.path().join("tools");
        std::fs::create_dir(&tools).expect("a folder");
        let login_shell = match kind {
            Kind::Dash => program("dash"),
            Kind::BashThenDash => program("bash"),
            Kind::Bash => {
                symlink(program("bash"), tools.join("sh")).expect("a link");
                program("bash")
            }
            Kind::Busybox => {
                let busybox = program("busybox");
                let listed = Command::new(&busybox).arg("--list").output().expect("busybox").stdout;
                for applet in String::from_utf8(listed).expect("UTF-8").lines() {
                    symlink(&busybox, tools.join(applet)).expect("a link");
                }
                // sudo is not part of busybox, but Alpine has it.
                symlink("/usr/bin/sudo", tools.join("sudo")).expect("a link");
                tools.join("sh")
            }
            Kind::Zsh => program("zsh"),
            Kind::Ksh => program("ksh"),
            Kind::Fish => program("fish"),
            Kind::Tcsh => program("tcsh"),
        };
        let number = user.unwrap_or_else(|| std::fs::metadata(home.path()).expect("a folder").uid());
        let entry = format!("lab:x:{number}:0::{}:{}\n", home.path().display(), login_shell.display());
        std::fs::write(home.path().join("passwd"), entry).expect("a user database");
        let facts = LauncherFacts {
            boot_id: String::new(),
            uptime_centiseconds: 0,
            directory: String::new(),
            directory_id: String::new(),
            login_shell_is_posix: false,
            kills_user_processes: false,
        };
        if let Some(user) = user {
            std::os::unix::fs::chown(home.path(), Some(user), Some(user)).expect("a folder of its own");
        }
        let (login_environment, uptime) = (Vec::new(), None);
        let mut machine = Self { kind, home, login_shell, facts, user, login_environment, uptime };
        machine.facts = machine.probe(None);
        machine
    }

    pub fn probe(&self, directory: Option<&str>) -> LauncherFacts {
        match self.probed(directory).answer() {
            Answer::Inspected(facts) => facts.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn probed(&self, directory: Option<&str>) -> Said {
        let nonce = nonce();
        self.session(&nonce, launcher::inspect(&nonce, directory)).finish()
    }

    fn tools(&self) -> PathBuf {
        self.home.path().join("tools")
    }

    /// Adapts a text to this machine: to its own /bin/sh, its own tools and its own user database.
    fn text(&self, text: &str) -> String {
        let tools = self.tools();
        let tools = tools.to_str().expect("UTF-8");
        let passwd = self.home.path().join("passwd");
        let mut text = text.replace("getent passwd", "false").replace("/etc/passwd", passwd.to_str().expect("UTF-8"));
        if let Some(uptime) = &self.uptime {
            text = text.replace("/proc/uptime", uptime.to_str().expect("UTF-8"));
        }
        if matches!(self.kind, Kind::Bash | Kind::Busybox) {
            text = text.replace("exec /bin/sh ", &format!("exec {tools}/sh "));
        }
        if self.kind == Kind::Busybox {
            text = text
                .replace(SCRIPT_PATH, &format!("\nPATH={tools}\n"))
                .replace(BOOTSTRAP_PATH, &format!(" PATH={tools};"));
        }
        text
    }

    /// Adapts a whole request to this machine, with the correct length and copy of the script.
    pub fn localized(&self, request: &ExecRequest) -> ExecRequest {
        let stdin = String::from_utf8(request.stdin.clone()).expect("UTF-8");
        let (header, body) = stdin.split_once('\n').expect("a header");
        let words: Vec<&str> = header.split(' ').collect();
        let (nonce, separator) = (words[1], words[3]);
        let half = self.text(body.split_once(separator).expect("two halves").0);
        let stdin = format!("WRIT2 {nonce} {} {separator}\n{half}{separator}{half}", half.len());
        ExecRequest { command: self.text(&request.command), stdin: stdin.into_bytes() }
    }

    pub fn session(&self, nonce: &Nonce, request: ExecRequest) -> Session {
        self.resuming(nonce, request, Offsets::default())
    }

    fn resuming(&self, nonce: &Nonce, request: ExecRequest, from: Offsets) -> Session {
        let request = self.localized(&request);
        Session::new(self.spawn(&request), Reply::resuming(nonce, from), &request.stdin)
    }

    /// Sends exactly this request, without an adaptation to the machine.
    pub fn raw_session(&self, nonce: &Nonce, request: &ExecRequest) -> Session {
        Session::new(self.spawn(request), Reply::new(nonce), &request.stdin)
    }

    /// Launches a command, and reads nothing of the reply.
    pub fn frozen(&self, uid: &Uid, decision: &DecisionRecord) -> Frozen {
        let request = self.localized(&self.launching(&nonce(), uid, decision));
        let mut child = self.spawn(&request);
        child.stdin.take().expect("a pipe").write_all(&request.stdin).expect("a request");
        Frozen(child)
    }

    fn spawn(&self, request: &ExecRequest) -> Child {
        assert!(request.command.len() <= launcher::MAX_COMMAND_BYTES, "{} bytes", request.command.len());
        let mut shell = self.shell(&request.command);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell.spawn().expect("a shell")
    }

    /// Returns the standard output of a text that the login shell executes without the launcher.
    pub fn plain(&self, line: &str) -> Vec<u8> {
        self.shell(line).stdin(Stdio::null()).output().expect("a shell").stdout
    }

    /// Starts a command of Direct mode, with its three pipes. The login shell first executes `before`, like a start-up
    /// file.
    pub fn direct(&self, before: &str, line: &str) -> Child {
        let mut line = line.to_owned();
        if matches!(self.kind, Kind::Bash | Kind::Busybox) {
            line = line.replace("exec '/bin/sh'", &format!("exec '{}/sh'", self.tools().display()));
        }
        let mut shell = self.shell(&format!("{before}{line}"));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell.spawn().expect("a shell")
    }

    fn shell(&self, text: &str) -> Command {
        let mut shell = Command::new(&self.login_shell);
        shell.arg("-c").arg(text).env_clear().current_dir(self.home.path());
        shell.env("HOME", self.home.path()).env("SHELL", &self.login_shell).env("PATH", "/usr/bin:/bin");
        // Variables whose names a script could use.
        shell.env("USER", "nobody").env("state", "as it is").env("uid", "as it is").env("IFS", "x");
        shell.envs(self.login_environment.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            shell.uid(user).gid(user);
        }
        shell
    }

    /// Writes this text, in the language of the login shell, into the start-up file of the shell. Returns false if the
    /// shell reads no such file when it executes a text.
    pub fn set_startup(&mut self, text: &str) -> bool {
        let name = match self.kind {
            Kind::BashThenDash | Kind::Bash => "bashrc",
            Kind::Zsh => ".zshenv",
            Kind::Fish => ".config/fish/config.fish",
            Kind::Tcsh => ".tcshrc",
            Kind::Dash | Kind::Busybox | Kind::Ksh => return false,
        };
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, format!("{text}\n")).expect("a file");
        // Under sshd, bash reads ~/.bashrc. Here, bash reads the file in BASH_ENV instead.
        self.login_environment.retain(|(name, _)| name != "BASH_ENV");
        if name == "bashrc" {
            self.login_environment.push(("BASH_ENV".to_owned(), path.display().to_string()));
        }
        true
    }

    /// Runs a command and reads its whole result as Writ does. Each session continues after the last valid byte, with
    /// at most `sessions` sessions.
    pub fn run_and_read(&self, decision: &DecisionRecord, sessions: usize) -> (Uid, Said) {
        let uid = uid();
        let mut said = self.launch(&uid, decision);
        for _ in 1..sessions {
            if said.complete {
                break;
            }
            // Writ also waits before it reads again. A short burst of noise has ended by then.
            std::thread::sleep(Duration::from_millis(150));
            let more = self.attach(&uid, said.offsets()).finish();
            said.stdout.extend_from_slice(&more.stdout);
            said.stderr.extend_from_slice(&more.stderr);
            said.answers.extend(more.answers);
            (said.broken, said.complete) = (more.broken, more.complete);
        }
        (uid, said)
    }

    pub fn start(&self, uid: &Uid, decision: &DecisionRecord) -> Session {
        let nonce = nonce();
        self.session(&nonce, self.launching(&nonce, uid, decision))
    }

    pub fn launching(&self, nonce: &Nonce, uid: &Uid, decision: &DecisionRecord) -> ExecRequest {
        let launch = Launch {
            uid,
            decision,
            boot_id: &self.facts.boot_id,
            // 2 hours, because the long forms of the tests take that long.
            not_after_centiseconds: self.facts.uptime_centiseconds + 720_000,
            grace_centiseconds: 100,
        };
        launcher::launch(nonce, &self.facts, &launch)
    }

    pub fn launch(&self, uid: &Uid, decision: &DecisionRecord) -> Said {
        self.start(uid, decision).finish()
    }

    pub fn run(&self, decision: &DecisionRecord) -> Said {
        self.launch(&uid(), decision)
    }

    pub fn attach(&self, uid: &Uid, from: Offsets) -> Session {
        self.attach_with(uid, from, FrameSize::default())
    }

    pub fn attach_with(&self, uid: &Uid, from: Offsets, max_frame: FrameSize) -> Session {
        let nonce = nonce();
        self.resuming(&nonce, launcher::attach(&nonce, &self.facts, uid, from, max_frame), from)
    }

    /// Sends a request, and returns its only answer.
    pub fn ask(&self, request: impl Fn(&Nonce, &LauncherFacts) -> ExecRequest) -> Answer {
        let nonce = nonce();
        let said = self.session(&nonce, request(&nonce, &self.facts)).finish();
        assert!(said.complete && said.answers.len() == 1, "{said:?}");
        said.answer().clone()
    }

    pub fn poll(&self, uid: &Uid) -> Answer {
        self.ask(|nonce, facts| launcher::poll(nonce, facts, uid))
    }

    pub fn close(&self, uid: &Uid) -> Answer {
        self.ask(|nonce, facts| launcher::close(nonce, facts, uid))
    }

    pub fn stop(&self, uid: &Uid) -> Answer {
        self.ask(|nonce, facts| launcher::stop(nonce, facts, uid, 100))
    }

    pub fn file(&self, uid: &Uid, ending: &str) -> PathBuf {
        Path::new(&self.facts.directory).join(format!("{}.{ending}", uid.as_str()))
    }

    pub fn journal(&self, uid: &Uid) -> String {
        std::fs::read_to_string(self.file(uid, "j")).unwrap_or_default()
    }

    /// Returns the file in which commands record that they ran.
    pub fn ledger(&self) -> PathBuf {
        self.home.path().join("ledger")
    }

    pub fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.ledger()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns a decision for a script that first writes its process ID into the ledger.
    pub fn noted(&self, script: &str) -> DecisionRecord {
        sh(&format!("echo $$ >>{}; {script}", self.ledger().display()))
    }

    /// Returns the processes with this machine's home in their arguments or their environment.
    fn processes(&self) -> Vec<String> {
        let home = self.home.path().to_str().expect("UTF-8");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
                continue;
            }
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let text = [read("cmdline"), read("environ")].concat();
            if text.windows(home.len()).any(|window| window == home.as_bytes()) {
                found.push(format!("{pid}: {}", String::from_utf8_lossy(&read("cmdline")).replace('\0', " ")));
            }
        }
        found
    }
}

/// Session of a client that reads nothing.
pub struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop((self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take()));
        self.0.wait().expect("an end");
    }
}

impl Drop for Machine {
    /// Fails the test if a process is left behind.
    fn drop(&mut self) {
        let deadline = Instant::now() + DEADLINE / 4;
        while !std::thread::panicking() {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// Makes a file executable for everybody, or a directory accessible. A file is replaced by a copy that `cp` writes.
/// Without the copy, a process that another test starts at this moment could hold the file open for writing, and the
/// kernel would refuse to execute the file (ETXTBSY).
pub fn make_executable(path: &Path) {
    if path.is_file() {
        let copy = path.with_extension("copy");
        let status = std::process::Command::new("cp").arg(path).arg(&copy).status();
        assert!(status.expect("cp runs").success(), "cp of {}", path.display());
        std::fs::rename(&copy, path).expect("the copy takes its place");
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
}
