//! The launcher's directory is removed while a connection is open. The facts that Writ stored with the connection are
//! then invalid.

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;

#[tokio::test]
async fn a_directory_that_somebody_removed_is_made_anew() {
    let case = Case::durable().await;
    case.execute("first", "say hello").await;
    let status = case.finished("first").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:?}");
    std::fs::remove_dir_all(case.sshd.home().join(".local/state/writ")).expect("a directory to remove");
    // No command has started. The second execution may fail, but later executions must succeed.
    case.execute("second", "say hello").await;
    let status = case.finished("second").await;
    assert!(
        status.phase == Phase::Succeeded || status.reason == Some(Reason::LauncherUnsupported),
        "{status:?}\n{}",
        case.log()
    );
    for name in ["third", "fourth"] {
        case.execute(name, "say hello").await;
        let status = case.finished(name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{status:?}\n{}", case.log());
    }
}

/// The command ran. So Writ neither reports that it did not run nor sends it again. Later executions get a new
/// directory.
#[tokio::test]
async fn a_command_that_removes_the_directory_itself_has_an_unknown_end() {
    let case = Case::durable().await;
    let directory = case.sshd.home().join(".local/state/writ");
    let ran = case.sshd.home().join("ran");
    for (rule, pause) in [("quick", "0"), ("slow", "1")] {
        let script = format!("echo {rule} >>{}; sleep {pause}; rm -rf {}", ran.display(), directory.display());
        let rule = json!({"name": rule, "match": rule, "run": ["/bin/sh", "-c", script]});
        case.apply_whitelist(&format!("remove-{pause}"), json!([rule])).await;
    }
    for name in ["quick", "slow"] {
        case.execute(name, name).await;
        let status = case.finished(name).await;
        let is_honest = status.phase == Phase::OutcomeUnknown
            && matches!(status.reason, Some(Reason::RecordLost | Reason::MachineChanged));
        assert!(is_honest && status.exit_code.is_none(), "{status:#?}\n{}", case.log());
        // The facts about the directory that belong to the open connection are now invalid.
        case.execute(&format!("after-{name}"), "say hello").await;
        case.finished(&format!("after-{name}")).await;
        case.execute(&format!("later-{name}"), "say hello").await;
        case.ends(&format!("later-{name}"), Phase::Succeeded, Reason::Completed).await;
    }
    assert_eq!(std::fs::read_to_string(&ran).expect("a file"), "quick\nslow\n");
}
