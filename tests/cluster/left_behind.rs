//! Claims that no task serves any more, and running commands whose object a user removed.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase};

use crate::case::Case;
use crate::durable::{ends_right, execute, until_started, work_of};
use crate::lab::processes;

/// A claim in the name of this process, without a task. The causes are a panic of the task, a result that the API
/// server refused, or a claim that arrived after the task stopped waiting. The test writes the claim itself.
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
    // The log shows fewer than 5 attempts: Writ does not retry without end.
    assert!(case.log().matches("could not be taken over").count() < 5, "{}", case.log());
}

/// Claims a queued execution, like a process that died just before it sent the command. `claimed` is the status of a
/// running execution, which the claim copies.
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

/// The finalizer holds the object, but anyone with the right to change executions can remove the finalizer.
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
