//! End of an execution's life: its TTL, its deletion by a user, and the finalizer that holds it until then.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use writ::api::{AUDIT_FINALIZER, CommandExecution, Phase, Reason};

use crate::case::{Case, sh};
use crate::lab::SshdOptions;
use crate::world::{World, world};

/// Record of a watch of the case's executions, in order. `end` stops the watch.
struct Watched {
    seen: Arc<Mutex<Vec<CommandExecution>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    async fn of(case: &Case) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (api, own) = (case.executions(), Arc::clone(&seen));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ready = Some(ready);
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event.expect("a watch that works") {
                    Event::Apply(object) => own.lock().expect("a lock").push(object),
                    Event::InitDone => {
                        let _ = ready.take().map(|ready| ready.send(()));
                    }
                    _ => {}
                }
            }
        });
        is_ready.await.expect("a watch");
        Self { seen, task }
    }

    fn end(self) -> Vec<CommandExecution> {
        self.task.abort();
        std::mem::take(&mut self.seen.lock().expect("a lock"))
    }
}

async fn delete(case: &Case, name: &str) {
    case.executions().delete(name, &DeleteParams::default()).await.expect("deleted");
}

/// Returns the directory with the stored output of an execution.
async fn stored(case: &Case, name: &str) -> PathBuf {
    let uid = case.executions().get(name).await.expect("it is there").metadata.uid.expect("a UID");
    PathBuf::from(case.store()).join(&case.namespace).join(uid)
}

fn is_protected(execution: &CommandExecution) -> bool {
    execution.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == AUDIT_FINALIZER)
}

#[tokio::test]
async fn what_has_finished_is_deleted_when_its_time_is_over_and_its_stored_output_too() {
    let case = Case::new().await;
    case.apply_whitelist("much", json!([sh("much", "seq 1 100000")])).await;
    case.execute_with("x", json!({"command": "much", "ttlSecondsAfterFinished": 4})).await;
    case.execute_with("kept", json!({"command": "much"})).await;
    case.execute_with("rejected", json!({"command": "rm -rf /", "ttlSecondsAfterFinished": 0})).await;
    let ended = case.ends("x", Phase::Succeeded, Reason::Completed).await.completion_time.expect("an end").0;
    case.ends("kept", Phase::Succeeded, Reason::Completed).await;
    let (folder, kept) = (stored(&case, "x").await, stored(&case, "kept").await);
    assert!(folder.exists() && kept.exists());
    case.gone("x").await;
    let lived = jiff::Timestamp::now().duration_since(ended);
    assert!(lived.as_millis() >= 4000, "it was deleted after {lived:?}");
    assert!(lived.as_secs() < 30, "it was deleted after {lived:?}");
    case.gone("rejected").await;
    assert!(!folder.exists() && kept.exists());
    assert_eq!(case.executions().get("kept").await.expect("it is kept").phase(), Phase::Succeeded);
}

#[tokio::test]
async fn a_time_that_was_over_while_writ_was_down_is_over_when_it_is_back() {
    let mut case = Case::new().await;
    case.execute_with("x", json!({"command": "say hello", "ttlSecondsAfterFinished": 3})).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    case.kill_writ();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(case.executions().get_opt("x").await.expect("an answer").is_some());
    case.start_writ();
    case.gone("x").await;
}

#[tokio::test]
async fn one_that_runs_is_stopped_and_recorded_before_it_goes() {
    let case = Case::new().await;
    let watched = Watched::of(&case).await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    delete(&case, "x").await;
    case.gone("x").await;
    let seen = watched.end();
    let last = seen.last().expect("it was seen");
    assert_eq!((last.phase(), last.metadata.deletion_timestamp.is_some()), (Phase::Cancelled, true));
    assert_eq!(last.status.as_ref().and_then(|status| status.stdout.as_deref()), Some("begun\n"));
    assert!(seen.iter().filter(|seen| !seen.phase().is_finished()).all(is_protected), "it could have vanished");
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn one_that_waits_goes_and_nothing_ran() {
    let case = Case::new().await;
    case.sshd.stop();
    let watched = Watched::of(&case).await;
    case.execute("x", "say hello").await;
    case.in_phase("x", Phase::Queued).await;
    delete(&case, "x").await;
    case.gone("x").await;
    let seen = watched.end();
    assert_eq!(seen.last().expect("it was seen").phase(), Phase::Cancelled);
    case.sshd.restart().expect("sshd starts again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_deleted_while_writ_is_down_stays_until_it_is_back() {
    let mut case = Case::with(world(), SshdOptions::default(), &["--lease-seconds", "3"]).await;
    case.execute("finished", "say hello").await;
    case.ends("finished", Phase::Succeeded, Reason::Completed).await;
    case.execute_with("running", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("running", Phase::Running).await;
    let watched = Watched::of(&case).await;
    case.kill_writ();
    case.execute("new", "say hello").await;
    for name in ["finished", "running", "new"] {
        delete(&case, name).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in ["finished", "running", "new"] {
        assert!(case.executions().get_opt(name).await.expect("an answer").is_some(), "{name} is gone");
    }
    case.start_writ();
    for name in ["finished", "running", "new"] {
        case.gone(name).await;
    }
    let seen = watched.end();
    let ended =
        |name: &str| seen.iter().rfind(|seen| seen.metadata.name.as_deref() == Some(name)).map(CommandExecution::phase);
    assert_eq!(ended("running"), Some(Phase::OutcomeUnknown));
    assert_eq!(ended("new"), Some(Phase::Cancelled));
    assert_eq!(case.ledger().len(), 2, "what was deleted before it was seen never starts");
}

#[tokio::test]
async fn without_the_admission_policy_the_finalizer_is_there_before_the_claim() {
    let own = World::without_stamping();
    let case = Case::with(own.clone(), SshdOptions::default(), &[]).await;
    let watched = Watched::of(&case).await;
    let created = case.execute("x", "sleep-long").await;
    assert!(!is_protected(&created), "nobody else puts it on");
    case.execute("rejected", "rm -rf /").await;
    case.in_phase("x", Phase::Running).await;
    delete(&case, "x").await;
    case.gone("x").await;
    case.finished("rejected").await;
    delete(&case, "rejected").await;
    case.gone("rejected").await;
    let seen = watched.end();
    let claimed: Vec<_> = seen.iter().filter(|seen| seen.is_claimed()).collect();
    assert!(!claimed.is_empty() && claimed.iter().all(|claimed| is_protected(claimed)));
    assert_eq!(claimed.last().expect("it was claimed").phase(), Phase::Cancelled);
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn the_api_server_puts_the_finalizer_beside_those_that_are_there() {
    let case = Case::new().await;
    let path = case.sshd.home().join("held.json");
    for (name, finalizers) in [("x", json!(["example.org/hold"])), ("y", json!([])), ("z", json!([AUDIT_FINALIZER]))] {
        let annotations = json!({"writ.dev/run-again": "true"});
        let object = json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": name, "finalizers": finalizers, "annotations": annotations},
            "spec": {"machineRef": {"name": "web-1"}, "command": "say hello"},
        });
        std::fs::write(&path, object.to_string()).expect("a manifest");
        case.world.kubectl_succeeds(&["create", "-n", &case.namespace, "-f", path.to_str().expect("UTF-8")]);
        let created = case.executions().get(name).await.expect("it is there");
        let count = finalizers.as_array().expect("a list").iter().filter(|each| *each != AUDIT_FINALIZER).count();
        assert_eq!(created.metadata.finalizers.as_ref().map(Vec::len), Some(count + 1), "{name}");
        assert!(is_protected(&created), "{name}");
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
        delete(&case, name).await;
    }
    case.gone("y").await;
    case.gone("z").await;
    // Writ removes only its own finalizer.
    let started = Instant::now();
    while is_protected(&case.executions().get("x").await.expect("somebody else holds it")) {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", case.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    case.executions().patch("x", &PatchParams::default(), &none).await.expect("it goes");
    case.gone("x").await;
}

#[tokio::test]
async fn a_manifest_that_is_applied_again_does_not_take_the_finalizer_off() {
    let case = Case::new().await;
    let path = case.sshd.home().join("again.json");
    for (name, flags) in [("x", &["apply"][..]), ("y", &["apply", "--server-side"])] {
        let object = json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": name},
            "spec": {"machineRef": {"name": "web-1"}, "command": "sleep-long"},
        });
        std::fs::write(&path, object.to_string()).expect("a manifest");
        for _ in 0..3 {
            let file = ["-n", &case.namespace, "-f", path.to_str().expect("UTF-8")];
            case.world.kubectl_succeeds(&[flags, &file].concat());
            assert!(is_protected(&case.executions().get(name).await.expect("it is there")), "{flags:?}");
        }
    }
}

#[tokio::test]
async fn all_of_a_namespace_can_be_deleted_at_once() {
    let case = Case::new().await;
    for index in 0..60 {
        case.execute(&format!("x-{index}"), "say hello").await;
    }
    case.execute("long", "sleep-long").await;
    case.in_phase("long", Phase::Running).await;
    // The namespace controller sends the same request.
    case.executions().delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    let started = Instant::now();
    loop {
        let left = case.executions().list(&ListParams::default()).await.expect("a list").items.len();
        if left == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{left} are left\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_emptied_holds_the_execution_until_it_can() {
    let case = Case::new().await;
    case.apply_whitelist("much", json!([sh("much", "seq 1 100000")])).await;
    case.execute("x", "much").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let folder = stored(&case, "x").await;
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).expect("moved aside");
    std::fs::write(&folder, "a file in the way").expect("a file");
    delete(&case, "x").await;
    case.has_logged("removal of an execution failed").await;
    assert!(case.executions().get_opt("x").await.expect("an answer").is_some(), "its output may still be there");
    std::fs::remove_file(&folder).expect("out of the way");
    std::fs::rename(&aside, &folder).expect("moved back");
    case.gone("x").await;
    assert!(!folder.exists());
}
