//! Logins that sshd accepts and that then execute nothing. If the cause is temporary, the execution waits. Otherwise,
//! its message quotes the machine and names the manual action. An exit code of sshd or of a start-up file is never
//! recorded as the exit code of a command.
//!
//! The tests need root, for machines with their own /etc.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::packages::Package;
use crate::lab::strangers::{Stranger, StrangerOptions, busybox_userland};
use crate::lab::{openssh, say};

/// `note ID SECONDS`: records its start, sleeps for SECONDS, and prints its user name.
const NOTE: &str = "#!/bin/sh\necho \"$1\" >>\"$HOME/started\"\nsleep \"$2\"\nid -un\n";
const MODES: [&str; 2] = ["Durable", "Direct"];

/// Case with an SSH server that may refuse to execute commands, and one Machine object for each mode.
struct Visit {
    case: Case,
    stranger: Stranger,
}

fn with_bash(bashrc: &'static str) -> StrangerOptions {
    StrangerOptions { shell: "/bin/bash".into(), home_files: vec![(".bashrc", bashrc)], ..StrangerOptions::default() }
}

/// Returns options for a machine with a whole /etc. If `pam` is true, sshd uses PAM.
fn with_etc(pam: bool) -> StrangerOptions {
    let config = if pam { vec!["UsePAM yes"] } else { Vec::new() };
    StrangerOptions { own_etc: true, config, ..StrangerOptions::default() }
}

impl Visit {
    /// Returns `None` without root.
    async fn to(options: StrangerOptions) -> Option<Self> {
        if !openssh::is_root() {
            say::note("this needs root, for a machine with an /etc of its own: passed over");
            return None;
        }
        let case = Case::new().await;
        let stranger = Stranger::start(&case.world.reaper, &options).expect("an SSH server");
        case.apply_secret("strange", &stranger.private_key().expect("a key")).await;
        let program = stranger.home().join("note");
        std::fs::write(&program, NOTE).expect("a program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
        let parameters =
            json!({"id": {"pattern": "[a-z0-9][a-z0-9-]*"}, "seconds": {"integer": {"minimum": 0, "maximum": 60}}});
        let rule = json!({"name": "note", "match": "note {id} {seconds}", "run": [program, "{id}", "{seconds}"],
            "parameters": parameters, "timeoutSeconds": {"default": 60, "maximum": 60}});
        case.apply_whitelist("strange", json!([rule])).await;
        let visit = Self { case, stranger };
        for mode in MODES {
            visit.apply(mode, json!({})).await;
        }
        Some(visit)
    }

    async fn apply(&self, mode: &str, more: Value) {
        let mut changes = json!({"port": self.stranger.port(), "user": self.stranger.user(), "maxConcurrent": 16,
            "hostKeys": [self.stranger.host_key()], "credentialsRef": {"name": "strange"}, "execution": {"mode": mode}});
        for (field, value) in more.as_object().expect("an object") {
            changes[field] = value.clone();
        }
        self.case.apply_machine(&mode.to_lowercase(), changes).await;
    }

    async fn ask(&self, mode: &str, name: &str, seconds: u32) {
        let spec = json!({"command": format!("note {name} {seconds}"), "machineRef": {"name": mode.to_lowercase()},
            "startingDeadlineSeconds": 300});
        self.case.execute_with(name, spec).await;
    }

    fn starts_of(&self, name: &str) -> usize {
        let started = std::fs::read_to_string(self.stranger.home().join("started")).unwrap_or_default();
        started.lines().filter(|line| *line == name).count()
    }

    /// Creates one execution in each mode.
    async fn ask_both(&self) {
        for mode in MODES {
            self.ask(mode, &mode.to_lowercase(), 0).await;
        }
    }

    /// Checks that the execution succeeded and that its command started once.
    async fn succeeds(&self, name: &str) -> CommandExecutionStatus {
        let status = self.case.ends(name, Phase::Succeeded, Reason::Completed).await;
        assert_eq!((status.exit_code, self.starts_of(name)), (Some(0), 1), "{status:#?}");
        status
    }

    /// Checks that the command did not start, and that the message of the status contains these words.
    async fn is_refused(&self, name: &str, words: &[&str]) -> CommandExecutionStatus {
        let status = self.case.ends(name, Phase::LaunchFailed, Reason::LauncherUnsupported).await;
        let message = status.message.clone().unwrap_or_default();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!((status.exit_code, status.signal.as_deref(), self.starts_of(name)), (None, None, 0), "{status:#?}");
        status
    }

    /// Waits until the status of an execution that has not started contains these words.
    async fn waits_with(&self, name: &str, words: &str) {
        let says = |status: &CommandExecutionStatus| {
            status.message.as_deref().is_some_and(|message| message.contains(words)) || status.phase.is_finished()
        };
        let status = self.case.until(name, words, says).await;
        assert!(!status.phase.is_finished() && self.starts_of(name) == 0, "{status:#?}\n{}", self.case.log());
    }
}

fn replace(path: &Path, change: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(path).expect("a file");
    std::fs::write(path, change(&text)).expect("a file");
}

#[tokio::test]
async fn a_machine_that_lets_nobody_in_yet_is_waited_for() {
    let Some(visit) = Visit::to(with_etc(false)).await else { return };
    std::fs::write(visit.stranger.etc("nologin"), "booting, come back later\n").expect("a file");
    visit.ask_both().await;
    for mode in MODES {
        visit.waits_with(&mode.to_lowercase(), "booting, come back later").await;
    }
    let queued = visit.case.in_phase("durable", Phase::Queued).await;
    assert_eq!(queued.reason, Some(Reason::MachineOffline));
    std::fs::remove_file(visit.stranger.etc("nologin")).expect("the file is there");
    for mode in MODES {
        visit.succeeds(&mode.to_lowercase()).await;
    }
}

/// In Direct mode, the execution holds its claim while it waits. A user can cancel it.
#[tokio::test]
async fn what_waits_for_a_login_can_be_cancelled() {
    let Some(visit) = Visit::to(with_etc(false)).await else { return };
    std::fs::write(visit.stranger.etc("nologin"), "maintenance\n").expect("a file");
    visit.ask_both().await;
    for mode in MODES {
        let name = mode.to_lowercase();
        visit.waits_with(&name, "maintenance").await;
        visit.case.change_spec(&name, json!({"cancelRequested": true})).await.expect("cancelling is allowed");
        let status = visit.case.ends(&name, Phase::Cancelled, Reason::CancelledBeforeStart).await;
        assert_eq!((status.exit_code, visit.starts_of(&name)), (None, 0));
    }
}

/// Sets the fields after the password in the account's /etc/shadow entry, which PAM checks.
fn ages(visit: &Visit, fields: &str) {
    std::fs::write(visit.stranger.etc("pam.d/sshd"), "account required pam_unix.so\nsession required pam_permit.so\n")
        .expect("a file");
    let user = visit.stranger.user();
    replace(&visit.stranger.etc("shadow"), |text| {
        let line = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
            [name, password, ..] if name == user => format!("{name}:{password}:{fields}"),
            _ => line.to_owned(),
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
    });
}

#[tokio::test]
async fn a_password_that_has_expired_is_told_in_the_words_of_the_machine() {
    let Some(visit) = Visit::to(with_etc(true)).await else { return };
    ages(&visit, "0:0:99999:7:::");
    visit.ask_both().await;
    for mode in MODES {
        let status = visit.is_refused(&mode.to_lowercase(), &["Password change required", "chage -l"]).await;
        assert!(status.message.expect("a message").starts_with("WARNING: Your password has expired."));
    }
}

/// PAM reports the expiry during the login. sshd then closes the connection, as if the network had failed.
#[tokio::test]
async fn an_account_that_has_expired_is_told_in_the_words_of_the_machine() {
    let Some(visit) = Visit::to(with_etc(true)).await else { return };
    ages(&visit, "19000:0:99999:7::1:");
    visit.ask_both().await;
    for mode in MODES {
        let name = mode.to_lowercase();
        let status = visit.case.ends(&name, Phase::LaunchFailed, Reason::AuthenticationRefused).await;
        let message = status.message.clone().unwrap_or_default();
        assert!(message.starts_with("Your account has expired"), "{message}");
        assert_eq!((status.exit_code, visit.starts_of(&name)), (None, 0));
    }
}

/// This refusal is temporary, so the Machine needs no manual action.
#[tokio::test]
async fn a_login_that_pam_refuses_for_now_is_waited_for() {
    let Some(visit) = Visit::to(with_etc(true)).await else { return };
    let pam = "account required pam_nologin.so file=/etc/closed\naccount required pam_permit.so\nsession required pam_permit.so\n";
    std::fs::write(visit.stranger.etc("pam.d/sshd"), pam).expect("a file");
    std::fs::write(visit.stranger.etc("closed"), "closed for a moment\n").expect("a file");
    visit.ask_both().await;
    for mode in MODES {
        visit.waits_with(&mode.to_lowercase(), "closed for a moment").await;
    }
    std::fs::remove_file(visit.stranger.etc("closed")).expect("the file is there");
    for mode in MODES {
        visit.succeeds(&mode.to_lowercase()).await;
    }
}

/// If the start-up file executes another shell, that shell would read the request as its own script.
#[tokio::test]
async fn a_start_up_file_that_becomes_another_shell_executes_nothing_by_half() {
    for (package, shell) in [("dash", "dash"), ("zsh", "zsh"), ("busybox", "busybox sh"), ("bash", "bash --norc")] {
        let [_] = Package::called(package).find_or_install([package]).expect("a shell");
        let bashrc: &str = Box::leak(format!("exec {shell}\n").into_boxed_str());
        let Some(visit) = Visit::to(with_bash(bashrc)).await else { return };
        visit.ask_both().await;
        for mode in MODES {
            let name = mode.to_lowercase();
            let status = visit.case.finished(&name).await;
            say::note(format_args!("{shell} {mode}: {:?} {:?} {:?}", status.phase, status.exit_code, status.message));
            let is_true = match status.phase {
                Phase::Succeeded => status.exit_code == Some(0) && visit.starts_of(&name) == 1,
                Phase::LaunchFailed => status.exit_code.is_none() && visit.starts_of(&name) == 0,
                _ => false,
            };
            assert!(is_true, "{shell}: {status:#?}");
        }
    }
}

/// As under ssh, this text is output. In Durable mode, Writ searches the first 64 KiB for a reply, and no more.
#[tokio::test]
async fn a_login_that_prints_a_megabyte_is_told_or_runs() {
    let Some(visit) = Visit::to(with_bash("head -c 1000000 /dev/zero | tr '\\0' x; echo\n")).await else { return };
    visit.ask_both().await;
    visit.is_refused("durable", &["prints more than 64 KiB"]).await;
    let status = visit.succeeds("direct").await;
    let output = status.output.expect("a record");
    assert_eq!((output.incomplete, output.stdout.bytes), (false, 1_000_002 + visit.stranger.user().len() as i64));
}

/// The account needs manual action. After the repair, Writ runs the queued executions.
#[tokio::test]
async fn a_machine_whose_account_was_mended_runs_what_waited() {
    let Some(visit) = Visit::to(with_bash("echo Your account has expired; exit 1\n")).await else { return };
    for mode in MODES {
        let name = mode.to_lowercase();
        visit.ask(mode, &name, 0).await;
        let status = visit.is_refused(&name, &["Your account has expired", "chage -l"]).await;
        assert!(status.message.expect("a message").starts_with("Your account has expired"));
        let later = format!("{name}-later");
        // An execution that is created up to 1 s after the fault was found ends like the first one.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        visit.ask(mode, &later, 0).await;
        visit.waits_with(&later, "waits until the machine is fixed: Your account has expired").await;
        assert_eq!(visit.case.in_phase(&later, Phase::Queued).await.reason, Some(Reason::MachineMisconfigured));
    }
    std::fs::write(visit.stranger.home().join(".bashrc"), "").expect("a file");
    for mode in MODES {
        visit.succeeds(&format!("{}-later", mode.to_lowercase())).await;
    }
}

#[tokio::test]
async fn a_limit_of_sessions_is_kept_to() {
    let options = StrangerOptions { user: Some("writ-lab-few"), ..with_etc(true) };
    let Some(visit) = Visit::to(options).await else { return };
    let few = visit.stranger.etc("few");
    std::fs::write(&few, "#!/bin/sh\n[ $(pgrep -c -f '^sshd: writ-lab-few \\[priv\\]') -le 2 ]\n").expect("a program");
    std::fs::set_permissions(&few, PermissionsExt::from_mode(0o755)).expect("a mode");
    let pam = "account required pam_permit.so\nsession required pam_exec.so quiet /etc/few\n";
    std::fs::write(visit.stranger.etc("pam.d/sshd"), pam).expect("a file");
    for (mode, count) in [("Durable", 12), ("Direct", 5)] {
        let names: Vec<String> = (0..count).map(|number| format!("{}-{number}", mode.to_lowercase())).collect();
        for name in &names {
            visit.ask(mode, name, 2).await;
        }
        for name in &names {
            visit.succeeds(name).await;
        }
        // The connections of the first mode must close before the second mode starts.
        visit.apply(mode, json!({"maxConcurrent": 1})).await;
    }
}

#[tokio::test]
async fn a_login_that_takes_long_is_waited_for() {
    let Some(visit) = Visit::to(with_bash("sleep 12\n")).await else { return };
    visit.ask_both().await;
    for mode in MODES {
        let status = visit.succeeds(&mode.to_lowercase()).await;
        assert!(!status.conditions.iter().any(|condition| condition.message.contains("nothing came")), "{status:#?}");
    }
    assert!(!visit.case.whole_log().contains("MachineOffline"), "{}", visit.case.log());
}

#[tokio::test]
async fn a_start_up_file_that_asks_is_quoted_or_asks_in_vain() {
    let Some(visit) = Visit::to(with_bash("echo -n 'project? '; read project\n")).await else { return };
    visit.ask_both().await;
    visit.is_refused("durable", &["project?", "reads standard input"]).await;
    visit.succeeds("direct").await;
}

#[tokio::test]
async fn no_exit_code_of_a_start_up_file_is_that_of_a_command() {
    for (bashrc, words) in [
        ("echo so it ends; exit 0\n", "so it ends"),
        ("exit 3\n", "exit code 3"),
        ("exec() { echo no exec; }\n", "no exec"),
        ("exec /bin/echo another shell\n", "another shell"),
        ("exec >/dev/null\n", "exit code"),
        ("exec >>$HOME/log 2>&1\n", "exit code"),
        ("exec </dev/null\n", "exit code"),
        ("enable -n exec\n", "exit code"),
        // A shell that prints the request does not start the command.
        ("set -x; exec() { :; }\n", "exec"),
        ("trap 'echo \"$BASH_COMMAND\" >&2; exit 0' DEBUG\n", "exit code"),
    ] {
        let Some(visit) = Visit::to(with_bash(bashrc)).await else { return };
        visit.ask("Direct", "direct", 0).await;
        let status = visit.case.finished("direct").await;
        let message = status.message.clone().unwrap_or_default();
        let is_so = status.phase == Phase::LaunchFailed && status.exit_code.is_none() && message.contains(words);
        assert!(is_so && visit.starts_of("direct") == 0, "{bashrc}: {status:#?}");
    }
}

/// Start-up files that do not disturb ssh do not disturb Writ.
#[tokio::test]
async fn odd_start_up_files_change_nothing() {
    for bashrc in [
        "exec > >(cat)\n",
        "exec 2>&1\n",
        "exec 2>/dev/null\n",
        "echo() { :; }; export -f echo\n",
        "cd /; set -u; trap 'echo bye' EXIT\n",
    ] {
        let Some(visit) = Visit::to(with_bash(bashrc)).await else { return };
        visit.ask_both().await;
        for mode in MODES {
            let status = visit.succeeds(&mode.to_lowercase()).await;
            assert!(!status.output.expect("a record").incomplete, "{bashrc}");
        }
    }
    let Some(visit) = Visit::to(with_bash("exec 1>&2\n")).await else { return };
    visit.ask("Direct", "direct", 0).await;
    let status = visit.succeeds("direct").await;
    assert_eq!(status.stderr, Some(format!("{}\n", visit.stranger.user())));
}

#[tokio::test]
async fn a_machine_without_room_for_a_process_is_waited_for() {
    let Some(visit) = Visit::to(with_bash("ulimit -u 1; (:); ulimit -u\n")).await else { return };
    visit.ask("Durable", "durable", 0).await;
    visit.waits_with("durable", "Resource temporarily unavailable").await;
    std::fs::write(visit.stranger.home().join(".bashrc"), "").expect("a file");
    visit.succeeds("durable").await;
}

#[tokio::test]
async fn users_of_a_directory_service_log_in() {
    for user in ["CORP\\jane", "jane.d@corp.example", "Jane-PC$"] {
        for (package, shell) in [("dash", "dash"), ("bash", "bash"), ("zsh", "zsh")] {
            let [shell] = Package::called(package).find_or_install([shell]).expect("a shell");
            // sshd reads an `@` in AllowUsers as the start of a host name, so the configuration allows all users.
            let config = vec!["AllowUsers *"];
            let options = StrangerOptions { user: Some(user), shell, config, ..StrangerOptions::default() };
            let Some(visit) = Visit::to(options).await else { return };
            visit.ask_both().await;
            for mode in MODES {
                let status = visit.succeeds(&mode.to_lowercase()).await;
                assert_eq!(status.stdout, Some(format!("{user}\n")));
                assert_eq!(status.machine.expect("a machine").user, user);
            }
        }
    }
}

/// Like NixOS: only /bin/sh and /usr/bin/env exist, and all other programs are in other directories.
#[tokio::test]
async fn tools_that_only_the_path_of_the_login_has_are_found() {
    if !openssh::is_root() {
        return;
    }
    let reaper = &crate::world::world().reaper;
    let userland = reaper.make_folder("userland", 0o755).expect("a folder");
    for (program, name) in [("/bin/dash", "sh"), ("/usr/bin/env", "env")] {
        std::fs::copy(program, userland.join(name)).expect("a copy");
    }
    let elsewhere = busybox_userland(reaper).expect("a folder of links");
    let config: &str = Box::leak(format!("SetEnv PATH={}", elsewhere.display()).into_boxed_str());
    let options = StrangerOptions { userland: Some(userland), config: vec![config], ..StrangerOptions::default() };
    let Some(visit) = Visit::to(options).await else { return };
    // With the fixed PATH, which the command keeps, the launcher would find no other program.
    let rule = json!({"name": "path", "match": "path", "run": ["/usr/bin/env"]});
    visit.case.apply_whitelist("path", json!([rule])).await;
    visit.case.execute_with("path", json!({"command": "path", "machineRef": {"name": "durable"}})).await;
    let status = visit.case.ends("path", Phase::Succeeded, Reason::Completed).await;
    let fixed = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert!(status.stdout.as_deref().is_some_and(|text| text.lines().any(|line| line == fixed)), "{status:#?}");
}
