//! Timeout, cancel and the end of the controller. The status reports if the command may still run.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};

#[tokio::test]
async fn a_command_that_takes_too_long_is_timed_out_and_told_to_stop() {
    let case = Case::new().await;
    case.execute_with("x", json!({"command": "sleep-long", "timeoutSeconds": 5})).await;
    let status = case.finished("x").await;
    assert_eq!(status.phase, Phase::TimedOut, "{status:?}");
    assert_eq!(status.stdout.as_deref(), Some("begun\n"));
    if case.sshd.runs_as_root() {
        assert_eq!((status.reason, status.signal.as_deref()), (Some(Reason::Stopped), Some("TERM")));
    } else {
        // Under ForceCommand, sshd delivers no signal. The status must report that the command may still run.
        assert_eq!((status.reason, status.signal), (Some(Reason::RemoteMayStillRun), None));
    }
}

#[tokio::test]
async fn a_command_that_ignores_the_first_signal_is_killed() {
    let case = Case::new().await;
    let line = "trap : TERM; echo armed; while :; do sleep 1; done";
    case.apply_whitelist("stubborn", json!([sh("stubborn", line)])).await;
    case.execute_with("x", json!({"command": "stubborn", "timeoutSeconds": 5})).await;
    let status = case.finished("x").await;
    assert_eq!(status.phase, Phase::TimedOut, "{status:?}");
    if case.sshd.runs_as_root() {
        assert_eq!((status.reason, status.signal.as_deref()), (Some(Reason::Stopped), Some("KILL")));
    }
}

#[tokio::test]
async fn a_cancelled_command_is_told_to_stop() {
    let case = Case::new().await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    let status = case.finished("x").await;
    assert_eq!((status.phase, status.exit_code), (Phase::Cancelled, None), "{status:?}");
    // The cancel changed the spec. Waiting tools trust a status only if its `observedGeneration` covers that change.
    assert_eq!(status.observed_generation, Some(2));
    let namespace = case.namespace.as_str();
    case.world.kubectl_succeeds(&["wait", "-n", namespace, "--for=condition=Stalled", "cmdexec/x", "--timeout=20s"]);
    if case.sshd.runs_as_root() {
        assert_eq!((status.reason, status.signal.as_deref()), (Some(Reason::Stopped), Some("TERM")));
    }
}

#[tokio::test]
async fn what_is_cancelled_while_it_waits_never_starts() {
    let case = Case::new().await;
    case.sshd.stop();
    case.execute("x", "say hello").await;
    case.in_phase("x", Phase::Queued).await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    case.sshd.restart().expect("sshd starts again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn an_execution_created_as_cancelled_never_starts() {
    let case = Case::new().await;
    case.execute_with("x", json!({"command": "say hello", "cancelRequested": true})).await;
    case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_controller_that_is_told_to_end_waits_for_what_runs_and_starts_nothing() {
    let case = Case::new().await;
    case.execute("running", "sleep-eight").await;
    case.in_phase("running", Phase::Running).await;
    case.terminate_writ();
    case.has_logged("no new commands start").await;
    case.execute("late", "say hello").await;
    assert!(case.writ_ended().await.success(), "{}", case.log());
    let status = case.ends("running", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout.as_deref(), Some("done\n"));
    let late = case.executions().get("late").await.expect("it is there");
    assert!(!late.phase().is_finished() && late.status.is_none_or(|status| status.claim.is_none()));
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn what_outlives_the_drain_is_unknown_and_what_was_seen_is_kept() {
    let case = Case::with(crate::world::world(), crate::lab::SshdOptions::default(), &["--drain-seconds", "1"]).await;
    case.execute_with("x", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("x", Phase::Running).await;
    case.terminate_writ();
    assert!(case.writ_ended().await.success(), "{}", case.log());
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::HolderLost).await;
    assert_eq!((status.stdout.as_deref(), status.exit_code), (Some("begun\n"), None));
}

#[tokio::test]
async fn what_is_being_deleted_does_not_start() {
    let case = Case::new().await;
    case.sshd.stop();
    case.execute("x", "say hello").await;
    case.in_phase("x", Phase::Queued).await;
    // The finalizer of another owner keeps the object for a while.
    let finalizers = |list: &[&str]| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let parameters = PatchParams::default();
    case.executions().patch("x", &parameters, &finalizers(&["example.org/hold"])).await.expect("a finalizer");
    case.executions().delete("x", &DeleteParams::default()).await.expect("deleted");
    case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    case.sshd.restart().expect("sshd starts again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(case.ledger(), Vec::<String>::new());
    case.executions().patch("x", &parameters, &finalizers(&[])).await.expect("it goes");
}
