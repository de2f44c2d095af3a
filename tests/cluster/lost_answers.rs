//! A bad connection to the API server at the worst moments: around the claim and around the result. Even if requests
//! and answers are lost or late, the command starts at most once. The record matches the command that ran. Writ sends
//! no command that a user called off.

use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::Notify;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::{SshdOptions, asked};
use crate::proxy::{Fate, Proxy};
use crate::world::world;

/// Returns a case whose controller meets these fates, and the proxy that applies them.
async fn case_with(fates: Vec<Fate>) -> (Case, Proxy) {
    // The Lease lasts longer than the steps of a test while an answer is held back.
    case_with_lease("30", fates).await
}

async fn case_with_lease(seconds: &str, fates: Vec<Fate>) -> (Case, Proxy) {
    let mut case = Case::with(world(), SshdOptions::default(), &["--lease-seconds", seconds]).await;
    let proxy = Proxy::start(&case.world, fates).await;
    case.restart_writ_through(proxy.port);
    (case, proxy)
}

/// Returns a fate that holds the answer back until `release`, and then loses it.
fn lost_answer() -> (Fate, Arc<Notify>, Arc<Notify>) {
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::AnswerIsLost { arrived: Arc::clone(&arrived), release: Arc::clone(&release) };
    (fate, arrived, release)
}

fn lost_at_once() -> Fate {
    let (fate, _, release) = lost_answer();
    release.notify_one();
    fate
}

#[tokio::test]
async fn a_claim_that_never_arrived_is_made_again() {
    let (case, proxy) = case_with(vec![Fate::IsLost, Fate::IsLost]).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!((case.ledger().len(), proxy.fates_left()), (1, 0));
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_known_as_our_own() {
    let (case, proxy) = case_with(vec![lost_at_once()]).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!((case.ledger().len(), proxy.fates_left()), (1, 0));
}

#[tokio::test]
async fn a_claim_that_lands_late_runs_what_it_says_and_not_what_was_decided_since() {
    let (cut, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::ArrivesBeforeTheNext { cut: Arc::clone(&cut), go_on: Arc::clone(&go_on) };
    let (case, proxy) = case_with(vec![fate]).await;
    case.execute("x", "say hello").await;
    cut.notified().await;
    // The first claim is on its way, with a decision for `hello`. The policy changes before the proxy cuts the
    // connection.
    let changed = json!([{"name": "hello", "match": "say hello", "run": ["/bin/echo", "changed"]}]);
    case.apply_whitelist("web", changed).await;
    go_on.notify_one();
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!((case.ledger().len(), proxy.fates_left()), (1, 0));
    assert_eq!(status.decision.expect("a decision").argv, ["/bin/echo", "hello"]);
    assert_eq!((case.ledger(), status.stdout.as_deref()), (vec![asked(&["/bin/echo", "hello"])], Some("hello\n")));
}

#[tokio::test]
async fn a_cancel_that_comes_while_the_answer_is_under_way_counts() {
    let (fate, arrived, release) = lost_answer();
    let (case, _proxy) = case_with(vec![fate]).await;
    case.execute("x", "say hello").await;
    arrived.notified().await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    release.notify_one();
    let status = case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    assert!(status.claim.is_some() && status.start_time.is_none());
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_claim_that_somebody_has_judged_in_the_meantime_is_not_sent() {
    let (fate, arrived, release) = lost_answer();
    let (case, _proxy) = case_with(vec![fate]).await;
    case.execute("x", "say hello").await;
    arrived.notified().await;
    let verdict = Patch::Merge(json!({"status": {"phase": "OutcomeUnknown", "reason": "HolderLost"}}));
    case.executions().patch_status("x", &PatchParams::default(), &verdict).await.expect("a verdict");
    release.notify_one();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let status = case.finished("x").await;
    assert!(status.phase == Phase::OutcomeUnknown && status.claim.is_some(), "{status:?}");
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_claim_that_is_confirmed_only_after_the_lease_was_over_is_not_sent() {
    let (fate, arrived, release) = lost_answer();
    let (case, _proxy) = case_with_lease("3", vec![fate]).await;
    case.execute("x", "say hello").await;
    arrived.notified().await;
    // The whole process stops for longer than its Lease (3 s), as on a suspended host.
    case.pause_writ();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    release.notify_one();
    case.resume_writ();
    let status = case.finished("x").await;
    assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(Reason::HolderLost)), "{status:?}");
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_result_whose_answer_was_lost_is_written_once() {
    let (case, proxy) = case_with(vec![Fate::Passes, lost_at_once(), Fate::IsLost]).await;
    case.execute("x", "exit-three").await;
    let status = case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, case.ledger().len()), (Some(3), 1));
    // Writ continues with the next execution.
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(proxy.fates_left(), 0);
}

#[tokio::test]
async fn a_result_that_does_not_arrive_is_written_until_it_does() {
    let (case, proxy) = case_with(vec![Fate::Passes, Fate::IsLost, Fate::IsLost, Fate::IsLost]).await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout.as_deref(), Some("hello\n"));
    assert_eq!((case.ledger().len(), proxy.fates_left()), (1, 0));
}

/// In Direct mode, only the process that held the claim knows the result.
#[tokio::test]
async fn a_result_that_was_seen_and_not_written_is_written_by_the_next_process() {
    let fates = vec![Fate::Passes, Fate::IsLost, Fate::IsLost, Fate::IsLost, Fate::IsLost, Fate::IsLost];
    let (mut case, proxy) = case_with_lease("3", fates).await;
    case.execute("x", "exit-three").await;
    while proxy.fates_left() > 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    case.kill_writ();
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Dispatched);
    let after = Proxy::start(&case.world, Vec::new()).await;
    case.go_through(after.port);
    case.start_writ();
    let status = case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, status.stderr.as_deref(), case.ledger().len()), (Some(3), Some("sorry\n"), 1));
}
