//! `runAs` from the rule to the record. These tests need root, to install sudo rules and to create the other user.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::openssh;
use crate::lab::say;
use crate::lab::strangers::{Stranger, StrangerOptions};
use crate::lab::sudo::{Sudoers, USER, sudo_rs};

const GUIDE: &str = include_str!("../../docs/guides/run-as.md");

/// Prints its user name. With `stay`, it ignores TERM.
const PROGRAM: &str =
    "#!/bin/sh\nid -un\necho \"$CHANNEL\"\ncase $1 in stay) trap '' TERM; while :; do sleep 1; done ;; esac\n";

/// Returns the block of this kind in the guide.
fn guide_block(kind: &str) -> &'static str {
    let (_, block) = GUIDE.split_once(&format!("```{kind}\n")).expect("a block of the guide");
    block.split_once("```").expect("the end of the block").0
}

/// Installs the program where the other user can execute it, too. Returns its path.
fn add_program(case: &Case) -> String {
    let program = case.sshd.home().join("release");
    std::fs::write(&program, PROGRAM).expect("a program");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("permissions");
    std::fs::set_permissions(case.sshd.home(), PermissionsExt::from_mode(0o711)).expect("permissions");
    program.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn a_rule_runs_as_its_user_and_what_cannot_be_killed_is_said_to_run() {
    if !openssh::is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    let case = Case::new().await;
    let program = &add_program(&case);
    let login = case.sshd.user();
    let rules = format!("{login} ALL=({USER}) NOPASSWD: {program}\nDefaults!{program} env_keep += \"CHANNEL\"\n");
    let _sudoers = Sudoers::install(&rules).expect("rules that sudo takes");
    let rule = json!({
        "name": "release", "run": [program, "{how}"], "match": "release {how}", "runAs": USER,
        "parameters": {"how": {"enum": ["go", "stay"]}},
        "environment": {"CHANNEL": {"enum": ["stable"], "default": "stable"}},
    });
    let other = json!({"name": "other", "match": "other", "run": ["/bin/echo", "ran"], "runAs": "root"});
    case.apply_whitelist("release", json!([rule, other])).await;

    case.execute("go", "release go").await;
    let status = case.ends("go", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout, Some(format!("{USER}\nstable\n")));
    assert_eq!(status.decision.expect("a decision").run_as.as_deref(), Some(USER));

    // sudo refuses. Nothing runs, and the message contains the sudoers line that would allow the command.
    case.execute("other", "other").await;
    let status = case.ends("other", Phase::LaunchFailed, Reason::LauncherFailed).await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains(&format!("`{login} ALL=(root) NOPASSWD: /bin/echo")), "{message}");
    assert_eq!((status.exit_code, status.start_time), (None, None));

    // KILL ends sudo, but not the command that sudo started.
    case.execute_with("stay", json!({"command": "release stay", "timeoutSeconds": 1})).await;
    let status = case.ends("stay", Phase::TimedOut, Reason::RemoteMayStillRun).await;
    assert_eq!((status.exit_code, status.signal), (None, None));
    std::process::Command::new("pkill").args(["-KILL", "-f", program]).status().expect("pkill");
}

/// The sudoers file lets the login user run the command only with a password. In both modes nothing runs, and the
/// message contains the sudoers line that fixes it. If another line needs no password, sudo allows the launcher's check
/// and refuses the command.
#[tokio::test]
async fn a_command_that_sudo_wants_a_password_for_is_not_started() {
    if !openssh::is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    drop(Sudoers::install("").expect("sudo, and another user"));
    let case = Case::new().await;
    let stranger =
        Stranger::start(&case.world.reaper, &StrangerOptions { own_etc: true, ..StrangerOptions::default() });
    let stranger = stranger.expect("an SSH server");
    case.apply_secret("strange", &stranger.private_key().expect("a key")).await;
    let rule = json!({"name": "who", "match": "who", "run": ["/usr/bin/id", "-un"], "runAs": USER});
    case.apply_whitelist("who", json!([rule])).await;
    let login = stranger.user();
    let without = format!("{login} ALL=({USER}) /usr/bin/id -un\n");
    for mode in ["Durable", "Direct"] {
        let machine = mode.to_lowercase();
        let changes = json!({"port": stranger.port(), "user": login, "hostKeys": [stranger.host_key()],
            "credentialsRef": {"name": "strange"}, "execution": {"mode": mode}});
        case.apply_machine(&machine, changes).await;
        let run = async |what: &str, rules: String| {
            std::fs::write(stranger.etc("sudoers.d/strange"), rules).expect("a file");
            let name = format!("{machine}-{what}");
            case.execute_with(&name, json!({"command": "who", "machineRef": {"name": machine}})).await;
            case.finished(&name).await
        };
        let status = run("without", without.clone()).await;
        let seen = (status.phase, status.reason, status.exit_code, status.start_time.is_some());
        assert_eq!(seen, (Phase::LaunchFailed, Some(Reason::LauncherFailed), None, false), "{mode}: {status:#?}");
        let line = format!("{login} ALL=({USER}) NOPASSWD: /usr/bin/id");
        assert!(status.message.as_deref().is_some_and(|message| message.contains(&line)), "{mode}: {status:#?}");
        // The refusal of sudo then looks like the end of any command. The message says what it may mean.
        let status = run("mixed", format!("{without}{login} ALL=({USER}) NOPASSWD: /bin/kill\n")).await;
        assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(1)), "{mode}: {status:#?}");
        assert!(status.message.as_deref().is_some_and(|message| message.contains(&line)), "{mode}: {status:#?}");
        let status = run("with", without.replace("/usr", "NOPASSWD: /usr")).await;
        assert_eq!(status.stdout, Some(format!("{USER}\n")), "{mode}: {status:#?}");
    }
}

/// User names with a domain, dots and capitals, as in a directory service. useradd creates them only with an extra
/// option.
#[tokio::test]
async fn a_user_of_a_directory_service_runs_it() {
    if !openssh::is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    drop(Sudoers::install("").expect("sudo, and another user"));
    for user in ["CORP\\deploy", "svc.deploy", "Deploy", "deploy@corp.example"] {
        let case = Case::new().await;
        let options = StrangerOptions { own_etc: true, ..StrangerOptions::default() };
        let stranger = Stranger::start(&case.world.reaper, &options).expect("an SSH server");
        case.apply_secret("strange", &stranger.private_key().expect("a key")).await;
        let passwd = std::fs::read_to_string(stranger.etc("passwd")).expect("a file");
        std::fs::write(stranger.etc("passwd"), passwd.replace(&format!("{USER}:"), &format!("{user}:")))
            .expect("a file");
        let escaped = user.replace('\\', "\\\\").replace('@', "\\@");
        let rules = format!("{} ALL=({escaped}) NOPASSWD: /usr/bin/id -un\n", stranger.user());
        std::fs::write(stranger.etc("sudoers.d/strange"), rules).expect("a file");
        let rule = json!({"name": "who", "match": "who", "run": ["/usr/bin/id", "-un"], "runAs": user});
        case.apply_whitelist("who", json!([rule])).await;
        for mode in ["Durable", "Direct"] {
            let name = mode.to_lowercase();
            let changes = json!({"port": stranger.port(), "user": stranger.user(), "hostKeys": [stranger.host_key()],
                "credentialsRef": {"name": "strange"}, "execution": {"mode": mode}});
            case.apply_machine(&name, changes).await;
            case.execute_with(&name, json!({"command": "who", "machineRef": {"name": name}})).await;
            let status = case.ends(&name, Phase::Succeeded, Reason::Completed).await;
            assert_eq!(status.stdout, Some(format!("{user}\n")), "{status:#?}");
        }
    }
}

/// The sudo of Debian 13 is another program, sudo-rs. It accepts no wildcards in arguments, so the guide has lines for
/// both.
#[tokio::test]
#[ignore = "downloads sudo-rs of Debian 13: make interop"]
async fn what_runs_by_sudo_rs_is_ended_by_the_lines_of_the_guide() {
    if !openssh::is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    drop(Sudoers::install("").expect("sudo, and another user"));
    let case = Case::new().await;
    let folder = case.world.reaper.make_folder("sudo-rs", 0o755).expect("a folder");
    let programs = vec![(sudo_rs(&folder).expect("sudo-rs"), "/usr/bin/sudo")];
    let options = StrangerOptions { own_etc: true, programs, ..StrangerOptions::default() };
    let stranger = Stranger::start(&case.world.reaper, &options).expect("an SSH server");
    case.apply_secret("strange", &stranger.private_key().expect("a key")).await;
    let program = folder.join("release");
    std::fs::write(&program, PROGRAM).expect("a program");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("permissions");
    let program = program.to_str().expect("UTF-8");
    let login = stranger.user();
    let rules = format!(
        "{login} ALL=({USER}) NOPASSWD: {program}\nDefaults!{program} env_keep += \"CHANNEL\"\n{}",
        guide_block("sudoers-kill-sudo-rs").replace("writ ALL=(deploy)", &format!("{login} ALL=({USER})"))
    );
    std::fs::write(stranger.etc("sudoers"), rules).expect("a file");
    let rule = json!({
        "name": "release", "run": [program, "{how}"], "match": "release {how}", "runAs": USER,
        "parameters": {"how": {"enum": ["go", "stay"]}},
        "environment": {"CHANNEL": {"enum": ["stable"], "default": "stable"}},
    });
    let other = json!({"name": "other", "match": "other", "run": ["/bin/echo", "ran"], "runAs": USER});
    case.apply_whitelist("release", json!([rule, other])).await;
    let changes = json!({"port": stranger.port(), "user": login, "hostKeys": [stranger.host_key()],
        "credentialsRef": {"name": "strange"}, "execution": {"mode": "Durable"}});
    case.apply_machine("web-1", changes).await;
    case.execute("go", "release go").await;
    let status = case.ends("go", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout, Some(format!("{USER}\nstable\n")));
    case.execute("other", "other").await;
    case.ends("other", Phase::LaunchFailed, Reason::LauncherFailed).await;
    case.execute_with("stay", json!({"command": "release stay", "timeoutSeconds": 1})).await;
    let status = case.ends("stay", Phase::TimedOut, Reason::Stopped).await;
    let left = std::process::Command::new("pgrep").args(["-f", program]).status().expect("pgrep");
    assert!(!left.success(), "{status:?}");
}

/// The launcher first checks with sudo. If sudoers allows it, the launcher can end processes of another user.
#[tokio::test]
async fn durably_a_refusal_of_sudo_is_no_exit_code_and_what_may_be_killed_is_seen_to_be_gone() {
    if !openssh::is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    let case = Case::durable().await;
    let program = &add_program(&case);
    let login = case.sshd.user();
    let rules = format!("{login} ALL=({USER}) NOPASSWD: {program}\n");
    let rule = json!({
        "name": "release", "run": [program, "{how}"], "match": "release {how}", "runAs": USER,
        "parameters": {"how": {"enum": ["go", "stay"]}},
    });
    let other = json!({"name": "other", "match": "other", "run": ["/bin/echo", "ran"], "runAs": "root"});
    case.apply_whitelist("release", json!([rule, other])).await;
    {
        let _sudoers = Sudoers::install(&rules).expect("rules that sudo takes");
        case.execute("go", "release go").await;
        let status = case.ends("go", Phase::Succeeded, Reason::Completed).await;
        assert_eq!(status.stdout, Some(format!("{USER}\n\n")));
        case.execute("other", "other").await;
        let status = case.ends("other", Phase::LaunchFailed, Reason::LauncherFailed).await;
        assert!(status.exit_code.is_none() && status.message.expect("a message").contains("sudo"));
        case.execute_with("stay", json!({"command": "release stay", "timeoutSeconds": 1})).await;
        let status = case.ends("stay", Phase::TimedOut, Reason::RemoteMayStillRun).await;
        assert_eq!((status.exit_code, status.signal), (None, None));
        std::process::Command::new("pkill").args(["-KILL", "-f", program]).status().expect("pkill");
    }
    let kill = guide_block("sudoers-kill").replace("writ ALL=(deploy)", &format!("{login} ALL=({USER})"));
    let _sudoers = Sudoers::install(&(rules + &kill)).expect("rules that sudo takes");
    case.execute_with("again", json!({"command": "release stay", "timeoutSeconds": 1})).await;
    let status = case.ends("again", Phase::TimedOut, Reason::Stopped).await;
    let left = std::process::Command::new("pgrep").args(["-f", program]).status().expect("pgrep");
    assert!(!left.success(), "{status:?}");
}
