//! `runAs` from the rule to the record. As root only: else there is nobody to become.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::openssh;
use crate::lab::say;
use crate::lab::sudo::{Sudoers, USER};

const GUIDE: &str = include_str!("../../docs/guides/run-as.md");

/// Says who it is; with `stay`, minds no TERM.
const PROGRAM: &str =
    "#!/bin/sh\nid -un\necho \"$CHANNEL\"\ncase $1 in stay) trap '' TERM; while :; do sleep 1; done ;; esac\n";

/// Puts the program where the other user gets to it, too.
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

    // sudo refuses: nothing ran, and its words are there.
    case.execute("other", "other").await;
    let status = case.ends("other", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, status.stdout.as_deref()), (Some(1), Some("")));
    assert!(status.stderr.unwrap_or_default().contains("sudo"));

    // KILL ends sudo and not what it started.
    case.execute_with("stay", json!({"command": "release stay", "timeoutSeconds": 1})).await;
    let status = case.ends("stay", Phase::TimedOut, Reason::RemoteMayStillRun).await;
    assert_eq!((status.exit_code, status.signal), (None, None));
    std::process::Command::new("pkill").args(["-KILL", "-f", program]).status().expect("pkill");
}

/// The launcher asks sudo first, and may be allowed to end what runs as somebody else.
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
        let status = case.ends("other", Phase::LaunchFailed, Reason::NotStarted).await;
        assert!(status.exit_code.is_none() && status.message.expect("a message").contains("sudo"));
        case.execute_with("stay", json!({"command": "release stay", "timeoutSeconds": 1})).await;
        let status = case.ends("stay", Phase::TimedOut, Reason::RemoteMayStillRun).await;
        assert_eq!((status.exit_code, status.signal), (None, None));
        std::process::Command::new("pkill").args(["-KILL", "-f", program]).status().expect("pkill");
    }
    let (_, block) = GUIDE.split_once("```sudoers-kill\n").expect("a block of the guide");
    let (kill, _) = block.split_once("```").expect("the end of the block");
    let kill = kill.replace("writ ALL=(deploy)", &format!("{login} ALL=({USER})"));
    let _sudoers = Sudoers::install(&(rules + &kill)).expect("rules that sudo takes");
    case.execute_with("again", json!({"command": "release stay", "timeoutSeconds": 1})).await;
    let status = case.ends("again", Phase::TimedOut, Reason::Stopped).await;
    let left = std::process::Command::new("pgrep").args(["-f", program]).status().expect("pgrep");
    assert!(!left.success(), "{status:?}");
}
