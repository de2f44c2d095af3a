//! A namespace that no `writ serve` serves. The status of its executions reports this. Users may delete them, because
//! Writ sent nothing.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use writ::api::{CommandExecution, Machine, MachinePhase, Phase, Reason};

use crate::case::Case;
use crate::lab::User;
use crate::protection::{create, executions, root, with_role};

/// Removes Writ's finalizer, as docs/guides/operation.md describes.
async fn release(api: &Api<CommandExecution>, name: &str) -> Result<CommandExecution, kube::Error> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name, &PatchParams::default(), &patch).await
}

#[tokio::test]
async fn what_nobody_has_noticed_says_so_and_may_be_deleted() {
    let mut case = Case::new().await;
    let (root, pipeline) = (root(&case).await, with_role(&case, User::Jane, "writ-pipeline").await);
    case.kill_writ();
    case.apply_machine("web-2", json!({})).await;
    for name in ["by-root", "by-pipeline", "kept", "late"] {
        let client = if name == "by-pipeline" { &pipeline } else { &root };
        create(&case, client, json!({"name": name}), "say hello").await.expect("created");
    }
    case.execute_with("urgent", json!({"command": "say hello", "startingDeadlineSeconds": 1})).await;
    for name in ["by-root", "urgent"] {
        let status = case.executions().get(name).await.expect("it is there").status.expect("a default status");
        assert_eq!((status.phase, status.reason), (Phase::Pending, Some(Reason::WaitingForController)));
        let message = status.message.expect("a message");
        for words in ["not read yet by any writ serve", "none serves this namespace", "startingDeadlineSeconds"] {
            assert!(message.contains(words), "{message}");
        }
    }
    let table = case.world.kubectl_succeeds(&["get", "cmdexec", "-n", &case.namespace]);
    assert!(table.contains("WaitingForController"), "{table}");
    let described = case.world.kubectl_succeeds(&["describe", "cmdexec", "by-root", "-n", &case.namespace]);
    assert!(described.contains("not read yet by any writ serve"), "{described}");
    let machine = Api::<Machine>::namespaced(root.clone(), &case.namespace).get("web-2").await.expect("a Machine");
    let status = machine.status.expect("a default status");
    assert_eq!(status.phase, Some(MachinePhase::Unknown));
    assert!(status.message.is_some_and(|message| message.contains("not probed yet by any writ serve")));

    for (client, name) in [(&root, "by-root"), (&pipeline, "by-pipeline")] {
        let api = executions(&case, client);
        // The API server restores the finalizer before the deletion. Otherwise, a `writ serve` that starts later could
        // find an execution without a finalizer.
        let kept = release(&api, name).await.expect("put back");
        assert_eq!(kept.metadata.finalizers.map(|finalizers| finalizers.len()), Some(1));
        api.delete(name, &DeleteParams::default()).await.expect("deleted");
        release(&api, name).await.expect("released");
        case.gone(name).await;
    }
    // A deleted execution disappears when a `writ serve` serves the namespace. Its command does not run.
    executions(&case, &root).delete("late", &DeleteParams::default()).await.expect("deleted");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    case.start_writ();
    case.gone("late").await;
    case.ends("kept", Phase::Succeeded, Reason::Completed).await;
    let expired = case.finished("urgent").await;
    assert_eq!(expired.phase, Phase::Expired);
    assert_eq!(case.ledger().len(), 1, "{:?}", case.ledger());
    // A finished execution is the record, and keeps its finalizer.
    executions(&case, &root).delete("kept", &DeleteParams::default()).await.expect("deleted");
    case.gone("kept").await;
}

/// Writ has reconciled the execution and not decided it yet. The finalizer holds the execution.
#[tokio::test]
async fn what_waits_for_its_machine_is_noticed_and_stays() {
    let case =
        Case::with(crate::world::world(), crate::lab::SshdOptions::default(), &["--missing-grace-seconds", "60"]).await;
    let root = root(&case).await;
    let object = json!({"machineRef": {"name": "to-come"}, "command": "say hello"});
    case.execute_with("x", object).await;
    let noticed = |status: &writ::api::CommandExecutionStatus| status.creation.is_some();
    let status = case.until("x", "noticed", noticed).await;
    assert!(status.message.is_some_and(|message| message.starts_with("not decided yet")));
    match executions(&case, &root).delete("x", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.contains("has not finished (Pending)"), "{}", status.message)
        }
        other => panic!("not refused: {other:?}"),
    }
}
