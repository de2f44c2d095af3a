//! Objects that other clients fill up to the maximum size. Either Writ refuses the execution before it sends anything,
//! or it records the result.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use writ::api::{CommandExecution, CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::SshdOptions;
use crate::work::script;

/// Bytes, more than etcd accepts for one object.
const TOO_MUCH: usize = 1_600_000;
/// Bytes of the largest possible label, as JSON.
const LABEL: usize = 380;

/// Returns labels and an annotation with exactly this number of bytes. The labels have the maximum size. Tens of
/// thousands of small labels would keep the API server busy for seconds.
fn metadata(bytes: usize) -> Value {
    let prefix = ["a".repeat(61), "b".repeat(61), "c".repeat(61), "d".repeat(61)].join(".");
    let label = |index: usize| (format!("{prefix}/l{index:062}"), json!("x".repeat(63)));
    let labels: serde_json::Map<_, _> = (0..bytes / LABEL).map(label).collect();
    json!({"labels": labels, "annotations": {"p": "y".repeat(bytes % LABEL)}})
}

/// Creates an execution with this number of bytes of metadata.
async fn create(case: &Case, name: &str, command: &str, bytes: usize) -> Result<(), kube::Error> {
    let resource = ApiResource::erase::<CommandExecution>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(case.client.clone(), &case.namespace, &resource);
    let spec = json!({"machineRef": {"name": "web-1"}, "command": command});
    let mut object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    let metadata: ObjectMeta = serde_json::from_value(metadata(bytes)).expect("metadata");
    (object.metadata.labels, object.metadata.annotations) = (metadata.labels, metadata.annotations);
    api.create(&PostParams::default(), &object).await.map(drop)
}

async fn merge(case: &Case, name: &str, metadata: Value) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"metadata": metadata}));
    case.executions().patch(name, &PatchParams::default(), &patch).await.map(drop)
}

/// Returns true if the API server refused an object as too large.
fn is_too_large(result: &Result<(), kube::Error>) -> bool {
    match result {
        Ok(()) => false,
        Err(kube::Error::Api(status)) if status.message.contains("too large") => true,
        Err(error) => panic!("{error}"),
    }
}

/// Fills an execution until the API server accepts no further byte. Labels take most of the space. An annotation takes
/// the rest, which is smaller than a label.
async fn fill(case: &Case, name: &str) {
    let none = json!({"labels": null, "annotations": null});
    put_most(case, name, TOO_MUCH, &none, metadata).await;
    let more = |bytes: usize| json!({"annotations": {"q": "y".repeat(bytes)}});
    put_most(case, name, 2 * LABEL, &json!({"annotations": {"q": null}}), more).await;
}

/// Adds the maximum metadata that fits. A size that fitted a moment ago may be some bytes too large, because Writ
/// writes too.
async fn put_most(case: &Case, name: &str, too_much: usize, none: &Value, some: impl Fn(usize) -> Value) {
    let mut most = most_that_fits(case, name, too_much, none, &some).await;
    while most > 0 && is_too_large(&merge(case, name, some(most)).await) {
        most = most.saturating_sub(4);
    }
}

/// Returns the maximum size that fits, in bytes. Every smaller size fits too.
async fn most_that_fits(
    case: &Case,
    name: &str,
    too_much: usize,
    none: &Value,
    some: impl Fn(usize) -> Value,
) -> usize {
    let (mut least, mut most) = (0, too_much);
    while most - least > 1 {
        let middle = usize::midpoint(least, most);
        let full = is_too_large(&merge(case, name, some(middle)).await);
        *(if full { &mut most } else { &mut least }) = middle;
        merge(case, name, none.clone()).await.expect("less always fits");
    }
    least
}

/// Returns a rule for a script, with 16 KiB of inline output and a timeout of 600 s.
fn waits(case: &Case, name: &str, line: &str) -> Value {
    let mut rule = script(&case.sshd, name, line);
    rule["output"] = json!({"inlineBytes": 16_384});
    rule["timeoutSeconds"] = json!({"default": 600, "maximum": 600});
    rule
}

/// Returns the number of bytes of standard output in the record.
fn written(status: &CommandExecutionStatus) -> i64 {
    status.output.as_ref().expect("a record of the output").stdout.bytes
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The command ran, and its complete result is recorded.
    Recorded,
    /// Writ refused the execution, and the status has the reason.
    Refused,
    /// Even the refusal does not fit. An event reports the reason, and Writ sent nothing to the machine.
    Waits,
    /// The API server did not store the execution.
    NotStored,
}

/// Returns true if an event reports that the execution is too large.
async fn is_told_of(case: &Case, name: &str) -> bool {
    let api: Api<Event> = Api::namespaced(case.client.clone(), &case.namespace);
    let events = api.list(&ListParams::default()).await.expect("events");
    events.items.iter().any(|event| {
        let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
        event.reason.as_deref() == Some("ObjectTooLarge")
            && about == Some(name)
            && event.action.as_deref() == Some("Remove")
    })
}

/// Creates an execution whose metadata has this number of bytes, and returns its end.
async fn end_of(case: &Case, bytes: usize) -> End {
    let name = format!("x{bytes}");
    if is_too_large(&create(case, &name, "writes", bytes).await) {
        return End::NotStored;
    }
    for _ in 0..200 {
        let status = case.executions().get(&name).await.expect("it is there").status.expect("a status");
        match (status.phase, status.reason) {
            (Phase::Rejected, Some(Reason::ObjectTooLarge)) => return End::Refused,
            (Phase::Failed, Some(Reason::NonZeroExitCode)) => {
                assert_eq!((status.exit_code, written(&status)), (Some(7), 20_000));
                let is_shown = status.stdout.as_ref().is_some_and(|text| text.starts_with('<'));
                assert!(is_shown && status.reserved.is_none(), "the room was reserved for the text too: {status:?}");
                return End::Recorded;
            }
            (Phase::Pending, _) if is_told_of(case, &name).await => return End::Waits,
            (phase, _) => assert!(!phase.is_finished(), "{status:?}\n{}", case.log()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{name} neither runs nor is it refused\n{}", case.log());
}

#[tokio::test]
async fn what_is_full_is_refused_before_anything_is_sent_or_its_result_is_recorded() {
    // The default Lease duration. The API server is so busy here that a Lease of 3 s would expire.
    let case = Case::durable_with(SshdOptions::default(), &[]).await;
    let line = "echo run >> $HOME/runs; head -c 20000 /dev/zero | tr '\\0' '<'; echo end >&2; exit 7";
    case.apply_whitelist("writes", json!([waits(&case, "writes", line)])).await;
    let mut recorded = 0;
    // Finds two sizes to the byte: the first that Writ refuses, and the first that the API server does not store.
    for is_beyond in [|end| end != End::Recorded, |end| end == End::NotStored] {
        let (mut least, mut most) = (1000, TOO_MUCH);
        while most - least > 1 {
            let middle = usize::midpoint(least, most);
            if middle <= 1000 || case.executions().get_opt(&format!("x{middle}")).await.expect("an answer").is_some() {
                least = middle;
                continue;
            }
            let end = end_of(&case, middle).await;
            recorded += usize::from(end == End::Recorded);
            *(if is_beyond(end) { &mut most } else { &mut least }) = middle;
        }
    }
    assert!(recorded > 5, "{recorded} recorded");
    let runs = std::fs::read_to_string(case.sshd.home().join("runs")).expect("what ran");
    assert_eq!(runs.lines().count(), recorded, "what was refused ran");
}

/// Another client fills the object to the last byte while the command runs.
#[tokio::test]
async fn what_somebody_fills_while_it_runs_is_recorded_and_its_slot_is_free() {
    let case = Case::durable_with(SshdOptions::default(), &[]).await;
    let line =
        "echo begun; while [ ! -e \"$HOME/go\" ]; do sleep 0.1; done; head -c 9000 /dev/zero | tr '\\0' '<'; exit 7";
    case.apply_whitelist("waits", json!([waits(&case, "waits", line)])).await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 1})).await;
    case.execute("x", "waits").await;
    case.in_phase("x", Phase::Running).await;
    fill(&case, "x").await;
    std::fs::write(case.sshd.home().join("go"), "").expect("a file on the machine");
    let status = case.finished("x").await;
    assert_eq!((status.phase, status.exit_code, written(&status)), (Phase::Failed, Some(7), 9006), "{status:?}");
    let stdout = status.output.as_ref().expect("a record").stdout.clone();
    assert!(stdout.truncated && stdout.sha256.len() == 64 && status.stdout.is_none(), "{status:?}");
    assert!(status.message.expect("a message").contains("fill the object"));
    // The machine has only one slot, so the first execution must have released it.
    case.execute("next", "say hello").await;
    assert_eq!(case.finished("next").await.phase, Phase::Succeeded);
}

/// Another client fills the object between the claim and the phase Running. Then another process adopts the claim.
#[tokio::test]
async fn what_is_filled_before_it_is_seen_to_run_is_followed_adopted_and_recorded() {
    let mut case = Case::durable().await;
    let line = "echo begun; while [ ! -e \"$HOME/go\" ]; do sleep 0.1; done; exit 3";
    case.apply_whitelist("waits", json!([waits(&case, "waits", line)])).await;
    case.execute("x", "waits").await;
    case.in_phase("x", Phase::Dispatched).await;
    fill(&case, "x").await;
    case.kill_writ();
    case.start_writ();
    let holder = |status: &CommandExecutionStatus| status.claim.as_ref().map(|claim| claim.holder.clone());
    let before = holder(&case.executions().get("x").await.expect("it").status.expect("a status"));
    case.until("x", "taken over", |status| holder(status) != before).await;
    std::fs::write(case.sshd.home().join("go"), "").expect("a file on the machine");
    let status = case.finished("x").await;
    assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(3)), "{status:?}");
}

/// A claim leaves labels and annotations of other clients unchanged, and the managers of these fields too.
#[tokio::test]
async fn what_others_wrote_on_an_execution_stays() {
    let case = Case::durable().await;
    let content = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {"machineRef": {"name": "web-1"}, "command": "say hello"},
    });
    case.apply("writ.dev/v1alpha1", "CommandExecution", "x", content).await;
    case.finished("x").await;
    let stored = case.executions().get("x").await.expect("it is there").metadata;
    assert_eq!(stored.labels.expect("labels")["team"], "a");
    assert_eq!(stored.annotations.expect("annotations")["note"], "b");
    let owned =
        stored.managed_fields.expect("managers").into_iter().find(|entry| entry.manager.as_deref() == Some("test"));
    let fields = owned.expect("who applied it").fields_v1.expect("fields").0;
    assert!(fields["f:metadata"]["f:labels"].get("f:team").is_some(), "{fields}");
}

/// A user who may patch executions of other users must not end them by filling `managedFields`.
#[tokio::test]
async fn what_somebody_writes_into_managed_fields_ends_nothing_that_waits() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"suspend": true})).await;
    case.execute("waits", "say hello").await;
    case.until("waits", "suspended", |status| status.reason == Some(Reason::MachineSuspended)).await;
    let fields: serde_json::Map<_, _> = (0..14_000).map(|index| (format!("f:x{index:091}"), json!({}))).collect();
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "writ.dev/v1alpha1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}});
    merge(&case, "waits", json!({"managedFields": [entry]})).await.expect("a patch");
    for _ in 0..100 {
        let execution = case.executions().get("waits").await.expect("an execution");
        let managed = serde_json::to_string(&execution.metadata.managed_fields).expect("JSON").len();
        assert_eq!(execution.phase(), Phase::Queued, "{:?}", execution.status);
        if managed < 100_000 {
            case.apply_machine("web-1", json!({})).await;
            let status = case.finished("waits").await;
            assert_eq!((status.phase, status.reason), (Phase::Succeeded, Some(Reason::Completed)));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("they stay\n{}", case.log());
}
