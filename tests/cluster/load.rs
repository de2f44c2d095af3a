//! Many concurrent executions.

use futures::future::join_all;
use kube::api::DeleteParams;
use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};

/// Returns the maximum number of concurrent commands, from the machine's own account. The account has `+` for each
/// start and `-` for each end.
fn most_at_a_time(account: &str) -> i64 {
    let mut running = 0;
    let steps = account.chars().filter_map(|step| match step {
        '+' => Some(1),
        '-' => Some(-1),
        _ => None,
    });
    steps
        .map(|step| {
            running += step;
            running
        })
        .max()
        .unwrap_or_default()
}

#[tokio::test]
async fn two_hundred_at_once_all_end_and_no_more_than_allowed_run_at_a_time() {
    let case = Case::new().await;
    let line = "echo + >>$HOME/account; sleep 0.05; echo - >>$HOME/account";
    case.apply_whitelist("count", json!([sh("count", line)])).await;
    case.apply_machine("web-1", json!({"maxConcurrent": 8})).await;
    let names: Vec<String> = (0..200).map(|index| format!("x{index}")).collect();
    join_all(names.iter().map(|name| case.execute(name, "count"))).await;
    for name in &names {
        let status = case.ends(name, Phase::Succeeded, Reason::Completed).await;
        assert_eq!(status.exit_code, Some(0));
    }
    let account = std::fs::read_to_string(case.sshd.home().join("account")).expect("the account");
    assert_eq!(account.matches('+').count(), 200);
    assert!(most_at_a_time(&account) <= 8, "{} at a time", most_at_a_time(&account));
    assert_eq!(case.ledger().len(), 200, "each once");
    assert_eq!(case.sshd_logged("drop connection"), 0, "sshd had to drop none");
    assert_eq!(case.events("MachineOffline").await, 0, "and none was seen as lost");
}

/// Returns a case with a full queue: `first` runs, `second` and `third` are queued, and the limit is 2.
async fn with_a_full_queue() -> Case {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"maxConcurrent": 1, "queueLimit": 2})).await;
    case.execute_with("first", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("first", Phase::Running).await;
    for name in ["second", "third"] {
        case.execute(name, "say hello").await;
        assert_eq!(case.in_phase(name, Phase::Queued).await.reason, Some(Reason::WaitingForSlot));
    }
    case
}

#[tokio::test]
async fn what_comes_over_the_queue_limit_is_rejected() {
    let case = with_a_full_queue().await;
    case.execute("fourth", "say hello").await;
    case.ends("fourth", Phase::Rejected, Reason::QueueFull).await;
    case.change_spec("first", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    for name in ["second", "third"] {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
}

#[tokio::test]
async fn what_is_deleted_while_it_waits_gives_its_place_up() {
    let case = with_a_full_queue().await;
    for name in ["second", "third"] {
        case.executions().delete(name, &DeleteParams::default()).await.expect("deleted");
    }
    for name in ["second", "third"] {
        case.gone(name).await;
    }
    case.execute("fourth", "say hello").await;
    assert_eq!(case.in_phase("fourth", Phase::Queued).await.reason, Some(Reason::WaitingForSlot));
    case.change_spec("first", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    case.ends("fourth", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

#[test]
fn the_account_is_read_as_it_is_meant() {
    assert_eq!(most_at_a_time("+\n+\n-\n+\n-\n-\n"), 2);
    assert_eq!(most_at_a_time(""), 0);
}
