//! Claims that nobody has any more, and those who would rather have no record.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase};

use crate::case::Case;
use crate::durable::{ends_right, execute, until_started, work_of};
use crate::lab::processes;

/// A claim in this process's own name that none of its tasks has: one that ended by a panic, whose result the API server
/// refused, or whose claim landed after nobody waited for it any more. It is made by hand here.
#[tokio::test]
async fn a_claim_of_its_own_that_was_left_behind_is_taken_over() {
    let case = Case::durable().await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 1})).await;
    let (first, left) = (work_of("first", 10, "6", 0), work_of("left", 10, "0", 0));
    execute(&case, &first).await;
    until_started(&case, "first").await;
    let claimed = case.in_phase("first", Phase::Running).await;
    execute(&case, &left).await;
    case.in_phase("left", Phase::Queued).await;
    claim_as_dead(&case, "left", &claimed).await;
    case.finished("first").await;
    ends_right(&case, &left).await;
    // It is not tried over and over.
    assert!(case.log().matches("could not be taken over").count() < 5, "{}", case.log());
}

/// Claims an execution that waits as one that was about to send it and died: with the claim of another that runs.
pub async fn claim_as_dead(case: &Case, name: &str, claimed: &CommandExecutionStatus) {
    let mut status: Value = serde_json::to_value(claimed).expect("JSON");
    let queued = case.executions().get(name).await.expect("it is there").status.expect("a status");
    status["decision"] = serde_json::to_value(queued.decision).expect("JSON");
    status["phase"] = json!("Dispatched");
    status["startTime"] = Value::Null;
    status["claim"]["token"] = json!("11111111-2222-4333-8444-555555555555");
    let patch = Patch::Merge(json!({"status": status}));
    case.executions().patch_status(name, &PatchParams::default(), &patch).await.expect("a claim");
}

/// The finalizer holds it, but whoever may change executions can take that off.
#[tokio::test]
async fn what_runs_and_loses_its_object_is_stopped() {
    let case = Case::durable().await;
    case.execute_with("x", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("x", Phase::Running).await;
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    assert!(!processes::marked("WRIT_EXECUTION", &uid).is_empty());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    case.executions().patch("x", &PatchParams::default(), &free).await.expect("patched");
    case.executions().delete("x", &DeleteParams::default()).await.expect("deleted");
    for _ in 0..300 {
        if processes::marked("WRIT_EXECUTION", &uid).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it runs:\n{}", case.log());
}
