//! Machines other than OpenSSH with dash: other login shells, other tools, other servers. Each machine either works in
//! both modes, or Writ refuses it, names the fault, and runs nothing.
//!
//! The tests need root, because these machines have their own /etc/passwd. Tests with more packages than `make test`
//! should need belong to `make interop`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::newer_openssh::NewerOpenssh;
use crate::lab::packages::Package;
use crate::lab::strangers::{Server, Stranger, StrangerOptions, busybox_userland};
use crate::lab::{openssh, say};

/// `does-it ID`: notes its start, prints on both streams, and exits with 7.
const DOES_IT: &str = "#!/bin/sh\necho \"$1\" >>\"$HOME/started\"\necho \"this is $1\"\necho sorry >&2\nexit 7\n";
/// `stays ID`: notes its start, and stays for 300 s.
const STAYS: &str = "#!/bin/sh\necho \"$1\" >>\"$HOME/started\"\necho begun\nsleep 300\n";
const MODES: [&str; 2] = ["Durable", "Direct"];

/// A strange machine, and a case with one Machine for each mode.
struct Visit {
    case: Case,
    stranger: Stranger,
    executions: AtomicUsize,
}

impl Visit {
    /// Starts a machine with these options. `None` without root.
    async fn to(options: StrangerOptions) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let case = Case::new().await;
        let stranger = Stranger::start(&case.world.reaper, &options).expect("an SSH server");
        case.apply_secret("strange", &stranger.private_key().expect("a key")).await;
        let mut rules = Vec::new();
        for (name, text) in [("does-it", DOES_IT), ("stays", STAYS)] {
            let program = stranger.home().join(name);
            std::fs::write(&program, text).expect("a program");
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
            rules.push(json!({"name": name, "match": format!("{name} {{id}}"), "run": [program, "{id}"],
                "parameters": {"id": {"pattern": "[a-z0-9]+"}}, "timeoutSeconds": {"default": 60, "maximum": 60}}));
        }
        case.apply_whitelist("strange", json!(rules)).await;
        for mode in MODES {
            let changes = json!({"port": stranger.port(), "user": stranger.user(), "maxConcurrent": 16,
                "hostKeys": [stranger.host_key()], "credentialsRef": {"name": "strange"}, "execution": {"mode": mode}});
            case.apply_machine(&mode.to_lowercase(), changes).await;
        }
        Some(Self { case, stranger, executions: AtomicUsize::new(0) })
    }

    /// Creates an execution on the Machine of a mode. Returns its name, which is also its parameter.
    async fn ask(&self, mode: &str, command: &str, more: Value) -> String {
        let name = format!("x{}", self.executions.fetch_add(1, Ordering::Relaxed));
        let mut spec = more;
        spec["command"] = json!(format!("{command} {name}"));
        spec["machineRef"] = json!({"name": mode.to_lowercase()});
        self.case.execute_with(&name, spec).await;
        name
    }

    /// Returns the number of starts that the command of an execution noted.
    fn starts_of(&self, name: &str) -> usize {
        let started = std::fs::read_to_string(self.stranger.home().join("started")).unwrap_or_default();
        started.lines().filter(|line| *line == name).count()
    }

    #[track_caller]
    fn said(&self, mode: &str, status: &CommandExecutionStatus) -> String {
        format!("{mode}: {status:#?}\n{}\n{}", self.stranger.log(), self.case.log())
    }

    /// Checks output, exit code, a time limit and a cancellation. `noise` is the output of the login shell on each
    /// stream.
    async fn works(&self, mode: &str, noise: [&str; 2]) {
        let name = self.ask(mode, "does-it", json!({})).await;
        let status = self.case.finished(&name).await;
        let said = self.said(mode, &status);
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::NonZeroExitCode)), "{said}");
        assert_eq!((status.exit_code, self.starts_of(&name)), (Some(7), 1), "{said}");
        assert_eq!(status.stdout, Some(format!("{}this is {name}\n", noise[0])), "{said}");
        assert_eq!(status.stderr, Some(format!("{}sorry\n", noise[1])), "{said}");
        let limited = self.ask(mode, "stays", json!({"timeoutSeconds": 3})).await;
        let cancelled = self.ask(mode, "stays", json!({})).await;
        self.case.in_phase(&cancelled, Phase::Running).await;
        self.case.change_spec(&cancelled, json!({"cancelRequested": true})).await.expect("cancelling is allowed");
        self.was_stopped(mode, &limited, Phase::TimedOut).await;
        self.was_stopped(mode, &cancelled, Phase::Cancelled).await;
    }

    async fn works_in_both_modes(&self) {
        tokio::join!(self.works("Durable", ["", ""]), self.works("Direct", ["", ""]));
    }

    /// Checks that a command has ended if Writ reports it as stopped. Only a server that ignores signals may leave that
    /// open, and only in Direct mode.
    async fn was_stopped(&self, mode: &str, name: &str, phase: Phase) {
        let status = self.case.finished(name).await;
        let said = self.said(mode, &status);
        assert_eq!((status.phase, self.starts_of(name)), (phase, 1), "{said}");
        let runs = || {
            self.stranger.commands().into_iter().any(|pid| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
            })
        };
        // The launcher has the words of the command in its own command line, and ends a moment after it has recorded
        // the end. So this loop waits up to 5 s. A command that was not stopped stays for minutes.
        let mut still_runs = runs();
        for _ in 0..50 {
            if !still_runs || status.reason != Some(Reason::Stopped) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            still_runs = runs();
        }
        say::note(format_args!("{mode}: {name} ended as {:?}", status.reason));
        match status.reason {
            Some(Reason::Stopped) => assert!(!still_runs, "{said}"),
            Some(Reason::RemoteMayStillRun) => assert_eq!(mode, "Direct", "{said}"),
            _ => panic!("{said}"),
        }
    }

    /// Checks that an execution does not start, for a reason that a person can fix, and that nothing has run.
    async fn is_refused(&self, reason: Reason, words: &str) {
        let name = self.ask("Durable", "does-it", json!({})).await;
        let status = self.case.finished(&name).await;
        let said = self.said("Durable", &status);
        assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(reason)), "{said}");
        assert!(status.message.is_some_and(|message| message.contains(words)), "{said}");
        assert_eq!(self.starts_of(&name), 0, "{said}");
    }

    /// Checks that the command has not run. In Direct mode, Writ reports the end of the login shell instead.
    async fn does_not_succeed_directly(&self) {
        let name = self.ask("Direct", "does-it", json!({})).await;
        let status = self.case.finished(&name).await;
        let said = self.said("Direct", &status);
        assert!(status.phase != Phase::Succeeded && self.starts_of(&name) == 0, "{said}");
    }
}

fn is_root() -> bool {
    if !openssh::is_root() {
        say::note("this needs root, for a machine with an /etc/passwd of its own: passed over");
    }
    openssh::is_root()
}

/// Returns a visit to a machine with this login shell in /etc/passwd.
async fn visit_to_shell(shell: PathBuf, home_files: &[(&'static str, &'static str)]) -> Option<Visit> {
    Visit::to(StrangerOptions { shell, home_files: home_files.to_vec(), ..StrangerOptions::default() }).await
}

/// Returns the path of a shell. Installs it if it is missing.
fn shell(package: &'static str, program: &'static str) -> PathBuf {
    let [path] = Package::called(package).find_or_install([program]).expect("a shell");
    path
}

async fn shell_works(shell: PathBuf) {
    let Some(visit) = visit_to_shell(shell, &[]).await else { return };
    visit.works_in_both_modes().await;
}

#[tokio::test]
async fn a_login_shell_that_is_bash_works() {
    shell_works("/bin/bash".into()).await;
}

#[tokio::test]
async fn a_login_shell_that_is_dash_works() {
    shell_works("/bin/dash".into()).await;
}

#[tokio::test]
async fn a_login_shell_that_is_zsh_works() {
    if is_root() {
        shell_works(shell("zsh", "zsh")).await;
    }
}

/// On Alpine Linux, the login shell in /etc/passwd is a link to busybox with the name ash.
#[tokio::test]
async fn a_login_shell_that_is_busybox_works() {
    if is_root() {
        let busybox = shell("busybox", "busybox");
        let folder = crate::world::world().reaper.make_folder("ash", 0o755).expect("a folder");
        std::os::unix::fs::symlink(busybox, folder.join("ash")).expect("a link");
        shell_works(folder.join("ash")).await;
    }
}

#[tokio::test]
async fn a_machine_with_nothing_but_busybox_works() {
    if is_root() {
        let userland = busybox_userland(&crate::world::world().reaper).expect("a folder of links");
        let options = StrangerOptions { userland: Some(userland), ..StrangerOptions::default() };
        let visit = Visit::to(options).await.expect("root");
        visit.works_in_both_modes().await;
    }
}

#[tokio::test]
async fn a_login_shell_that_refuses_everybody_is_unfit_and_nothing_runs() {
    for shell in ["/usr/sbin/nologin", "/bin/false"] {
        let Some(visit) = visit_to_shell(shell.into(), &[]).await else { return };
        visit.is_refused(Reason::LauncherUnsupported, "login shell").await;
        visit.does_not_succeed_directly().await;
    }
}

const NOISE: &str = "echo welcome; echo 'you have mail' >&2\n";

#[tokio::test]
async fn what_start_up_files_print_is_no_output_of_the_command_in_durable_mode() {
    if is_root() {
        for (shell, file) in [(PathBuf::from("/bin/bash"), ".bashrc"), (shell("zsh", "zsh"), ".zshenv")] {
            let visit = visit_to_shell(shell, &[(file, NOISE)]).await.expect("root");
            let durable = visit.works("Durable", ["", ""]);
            // In Direct mode, Writ cannot distinguish this output from that of the command.
            let direct = visit.works("Direct", ["welcome\n", "you have mail\n"]);
            tokio::join!(durable, direct);
        }
    }
}

#[tokio::test]
async fn a_start_up_file_that_ends_the_shell_is_unfit_and_nothing_runs() {
    let Some(visit) = visit_to_shell("/bin/bash".into(), &[(".bashrc", "echo no; exit 0\n")]).await else { return };
    visit.is_refused(Reason::LauncherUnsupported, "login shell").await;
    // The shell exits with 0. This is not the exit code of the command.
    let name = visit.ask("Direct", "does-it", json!({})).await;
    let status = visit.case.finished(&name).await;
    assert_eq!((status.phase, status.exit_code, visit.starts_of(&name)), (Phase::LaunchFailed, None, 0));
}

/// The startup file would read a part of the request as its own input. Writ executes nothing, and the message has the
/// remedy.
#[tokio::test]
async fn a_start_up_file_that_reads_standard_input_is_unfit_and_nothing_runs() {
    for text in [
        "sleep 0.2; read -t 0 && head -c 300 >/dev/null\n",
        "head -c 2500 >/dev/null\n",
        "read -p 'project? ' project\n",
        "ssh other true; cat >/dev/null\n",
    ] {
        let Some(visit) = visit_to_shell("/bin/bash".into(), &[(".bashrc", text)]).await else { return };
        visit.is_refused(Reason::LauncherUnsupported, "reads standard input").await;
    }
}

/// The lines of the job arrive between those of the launcher's replies.
#[tokio::test]
async fn a_job_that_a_start_up_file_leaves_prints_nothing_into_the_output() {
    let noise = "(for i in $(seq 50); do echo LATE; echo LATE >&2; sleep 0.05; done) &\n";
    let Some(visit) = visit_to_shell("/bin/bash".into(), &[(".bashrc", noise)]).await else { return };
    let mut names = Vec::new();
    for _ in 0..12 {
        names.push(visit.ask("Durable", "does-it", json!({})).await);
    }
    for name in names {
        let status = visit.case.finished(&name).await;
        let said = visit.said("Durable", &status);
        assert_eq!((status.exit_code, visit.starts_of(&name)), (Some(7), 1), "{said}");
        let expected = (format!("this is {name}\n"), "sorry\n".to_owned());
        let (stdout, stderr) = (status.stdout.unwrap_or_default(), status.stderr.unwrap_or_default());
        if status.output.is_some_and(|output| output.incomplete) {
            assert!(expected.0.starts_with(&stdout) && expected.1.starts_with(&stderr), "{said}");
        } else {
            assert_eq!((stdout, stderr), expected, "{said}");
        }
    }
}

/// fish and other shells can set SHELL to anything. The user database has the login shell.
#[tokio::test]
async fn a_login_that_sets_another_shell_works() {
    if is_root() {
        for config in [vec!["SetEnv SHELL=/bin/sh"], vec!["SetEnv SHELL=/bin/dash TMOUT=1"]] {
            let options = StrangerOptions { shell: shell("zsh", "zsh"), config, ..StrangerOptions::default() };
            let visit = Visit::to(options).await.expect("root");
            visit.works("Durable", ["", ""]).await;
        }
    }
}

#[tokio::test]
async fn dropbear_works() {
    let options = StrangerOptions { server: Server::Dropbear, ..StrangerOptions::default() };
    let Some(visit) = Visit::to(options).await else { return };
    visit.works_in_both_modes().await;
    for mode in MODES {
        many_at_once_all_run(&visit, mode).await;
    }
}

/// Login shells that `make test` does not need.
#[tokio::test]
#[ignore = "needs further packages: make interop"]
async fn rarer_login_shells_work() {
    if is_root() {
        for (package, program) in [("mksh", "mksh"), ("ksh93u+m", "ksh93"), ("tcsh", "tcsh"), ("fish", "fish")] {
            shell_works(shell(package, program)).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a library from PyPI: make interop"]
async fn a_server_in_python_works() {
    let options = StrangerOptions { server: Server::Asyncssh, ..StrangerOptions::default() };
    let Some(visit) = Visit::to(options).await else { return };
    visit.works_in_both_modes().await;
}

async fn newer_openssh_works(suite: &str) {
    if !is_root() {
        return;
    }
    let newer = NewerOpenssh::find_or_unpack(suite).expect("a newer OpenSSH");
    say::note(newer.version().expect("a version"));
    let options = StrangerOptions { server: Server::NewerOpenssh(newer), ..StrangerOptions::default() };
    let visit = Visit::to(options).await.expect("root");
    visit.works_in_both_modes().await;
    for mode in MODES {
        many_at_once_all_run(&visit, mode).await;
    }
    a_lockout_is_waited_out(&visit).await;
}

/// Checks that 40 concurrent executions run. In Direct mode, each has its own login.
async fn many_at_once_all_run(visit: &Visit, mode: &str) {
    let mut names = Vec::new();
    for _ in 0..40 {
        names.push(visit.ask(mode, "does-it", json!({})).await);
    }
    for name in names {
        let status = visit.case.finished(&name).await;
        assert_eq!(status.reason, Some(Reason::NonZeroExitCode), "{}", visit.said(mode, &status));
        assert_eq!(visit.starts_of(&name), 1);
    }
    // OpenSSH 9.8 and later log a lockout with this word.
    assert!(!visit.stranger.log().contains("penalty"), "{}", visit.stranger.log());
}

/// Checks that Writ waits for the end of a lockout. Each login with a wrong key costs 5 s. From a total of 15 s on,
/// sshd locks the address out (PerSourcePenalties, authfail:5 min:15). A client with the right key gets no notice of
/// the lockout.
async fn a_lockout_is_waited_out(visit: &Visit) {
    let right = visit.stranger.private_key().expect("a key");
    visit.case.apply_secret("strange", &visit.case.sshd.private_key().expect("a key")).await;
    for _ in 0..5 {
        // After the first refusal, an execution that may wait would wait for a repair.
        let name = visit.ask("Durable", "does-it", json!({"startingDeadlineSeconds": 0})).await;
        let status = visit.case.finished(&name).await;
        // sshd already locks out some of these logins.
        let ended = matches!(status.reason, Some(Reason::AuthenticationRefused | Reason::MachineOffline));
        assert!(ended, "{}", visit.said("lockout", &status));
    }
    assert!(visit.stranger.log().contains("penalty"), "{}", visit.stranger.log());
    visit.case.apply_secret("strange", &right).await;
    let name = visit.ask("Durable", "does-it", json!({})).await;
    let status = visit.case.finished(&name).await;
    assert_eq!(status.reason, Some(Reason::NonZeroExitCode), "{}", visit.said("lockout", &status));
}

#[tokio::test]
#[ignore = "downloads OpenSSH of Debian 13: make interop"]
async fn openssh_of_debian_trixie_works() {
    newer_openssh_works("trixie").await;
}

#[tokio::test]
#[ignore = "downloads OpenSSH of Debian unstable: make interop"]
async fn openssh_of_debian_sid_works() {
    newer_openssh_works("sid").await;
}
