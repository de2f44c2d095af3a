//! Rules that the API server itself enforces: nobody can rewrite history, not even an administrator.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use writ::api::{Phase, Reason};

use crate::case::Case;

async fn patch_status(case: &Case, name: &str, status: Value) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"status": status}));
    case.executions().patch_status(name, &PatchParams::default(), &patch).await.map(|_| ())
}

#[track_caller]
fn refused(result: Result<(), kube::Error>, words: &str) {
    match result {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 422, "{}", status.message);
            assert!(status.message.contains(words), "{words} is not in: {}", status.message);
        }
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_spec_cannot_change_after_creation() {
    let case = Case::new().await;
    case.execute_with("x", json!({"command": "say hello", "reason": "because"})).await;
    let changes = [
        json!({"command": "rm -rf /"}),
        json!({"command": null, "argv": ["/bin/echo"]}),
        json!({"machineRef": {"name": "web-2"}}),
        json!({"command": null, "rule": {"name": "hello"}}),
        json!({"actionType": "custom"}),
        json!({"environment": {"LOG_LEVEL": "debug"}}),
        json!({"reason": "another"}),
        json!({"reason": null}),
        json!({"timeoutSeconds": 77}),
        json!({"startingDeadlineSeconds": 7}),
        json!({"whenOffline": "Fail"}),
        json!({"session": {"tty": true}}),
        json!({"ttlSecondsAfterFinished": 7}),
    ];
    for change in changes {
        refused(case.change_spec("x", change).await.map(|_| ()), "spec must not change");
    }
    case.finished("x").await;
    refused(case.change_spec("x", json!({"command": "rm -rf /"})).await.map(|_| ()), "spec must not change");
}

#[tokio::test]
async fn a_finished_status_cannot_change() {
    let case = Case::new().await;
    case.execute("x", "exit-three").await;
    let before = case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await;
    let changes = [
        json!({"phase": "Succeeded"}),
        json!({"exitCode": 0}),
        json!({"exitCode": null}),
        json!({"stdout": "all is well"}),
        json!({"stderr": null}),
        json!({"message": "all is well"}),
        json!({"completionTime": "2020-01-01T00:00:00.000000Z"}),
        json!({"decision": {"rule": "another"}}),
        json!({"machine": {"address": "192.0.2.9:22"}}),
        json!({"claim": null}),
        json!({"conditions": []}),
        json!({"phase": "Pending", "claim": null, "exitCode": null}),
    ];
    for change in changes {
        refused(patch_status(&case, "x", change).await, "the record");
    }
    let removed =
        Patch::Json::<()>(serde_json::from_value(json!([{"op": "remove", "path": "/status"}])).expect("a patch"));
    let result = case.executions().patch_status("x", &PatchParams::default(), &removed).await;
    refused(result.map(|_| ()), "the record");
    refused(case.change_spec("x", json!({"cancelRequested": true})).await.map(|_| ()), "cancelRequested");
    assert_eq!(case.finished("x").await, before);
}

#[tokio::test]
async fn a_claim_cannot_be_taken_away_and_the_phase_not_go_back() {
    let case = Case::new().await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    refused(patch_status(&case, "x", json!({"claim": null})).await, "the phase must not go back");
    refused(patch_status(&case, "x", json!({"phase": "Queued"})).await, "the phase must not go back");
    refused(patch_status(&case, "x", json!({"decision": {"rule": "another"}})).await, "the phase must not go back");
    refused(patch_status(&case, "x", json!({"machine": null})).await, "the phase must not go back");
    let remote = json!({"directory": "/elsewhere", "directoryId": "word", "bootId": "boot", "notAfterUptimeMs": 1});
    refused(patch_status(&case, "x", json!({"remote": remote})).await, "the phase must not go back");
    refused(patch_status(&case, "x", json!({"claim": {"mode": "Durable"}})).await, "the phase must not go back");
    refused(patch_status(&case, "x", json!({"claim": {"token": "forged"}})).await, "together");
    refused(patch_status(&case, "x", json!({"exitCode": 0})).await, "finished phase");
    refused(patch_status(&case, "x", json!({"creation": {"nameGenerated": true}})).await, "status.creation");
    refused(patch_status(&case, "x", json!({"creation": null})).await, "status.creation");
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    refused(case.change_spec("x", json!({"cancelRequested": false})).await.map(|_| ()), "cancelRequested");
    assert_eq!(case.finished("x").await.phase, Phase::Cancelled);
}

#[tokio::test]
async fn a_status_that_comes_with_the_creation_is_not_taken() {
    let case = Case::new().await;
    let path = case.sshd.home().join("forged.json");
    let forged = json!({
        "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": "x"},
        "spec": {"machineRef": {"name": "web-1"}, "command": "rm -rf /"},
        "status": {"phase": "Succeeded", "exitCode": 0, "stdout": "forged"},
    });
    std::fs::write(&path, forged.to_string()).expect("a manifest");
    case.world.kubectl_succeeds(&["create", "-n", &case.namespace, "-f", path.to_str().expect("UTF-8")]);
    let status = case.ends("x", Phase::Rejected, Reason::NoMatchingRule).await;
    assert_eq!((status.exit_code, status.stdout), (None, None));
}

#[tokio::test]
async fn labels_of_a_running_execution_may_change_and_its_result_still_lands() {
    let case = Case::new().await;
    case.execute("x", "sleep-one").await;
    for index in 0..40 {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"turn": format!("{index}")}}}));
        case.executions().patch("x", &PatchParams::default(), &patch).await.expect("labels may change");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 1);
}
