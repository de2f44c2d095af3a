//! Verdicts of GitOps tools on Writ's objects: of Argo CD's own engine with the health checks of the chart, and of
//! kstatus, which Flux uses. A watch collects every version of an object that the real controller wrote. Each version
//! must have the expected verdict: not done before the execution has finished, and not in progress afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde_json::{Value, json};
use writ::api::{CommandExecution, Machine, MachinePhase, Phase, Reason, Whitelist};

use crate::case::Case;
use crate::lab::toolbox;

/// Maximum wait for an expected event. The machine also runs other tests.
const PATIENCE: Duration = Duration::from_secs(90);
/// A port without a listener: tcpmux, which nobody uses.
const CLOSED_PORT: u16 = 1;
/// Finalizer that Argo CD adds to a hook. Argo CD removes it after it has a verdict on the hook.
const HOOK_FINALIZER: &str = "argocd.argoproj.io/hook-finalizer";

/// Returns the directory of the chart's health checks.
fn customizations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/writ/files/argocd/resource_customizations")
}

/// Runs gitops-health. Builds it first if it is missing.
fn gitops_health(arguments: &[&str]) -> Output {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| toolbox::find_or_build_gitops_health().expect("gitops-health"));
    let (subcommand, files) = arguments.split_first().expect("a subcommand");
    let mut command = Command::new(program);
    command.arg(subcommand).arg("-customizations").arg(customizations()).args(files);
    command.output().expect("gitops-health runs")
}

/// All versions of the objects of a kind that a watch received, in order.
struct Versions {
    seen: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Versions {
    async fn of<K: Resource<DynamicType = ()>>(case: &Case) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(case.client.clone(), &case.namespace, &resource);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&seen);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ready = Some(ready);
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event.expect("a watch that works") {
                    Event::Apply(object) | Event::InitApply(object) => {
                        let mut object = serde_json::to_value(object).expect("JSON");
                        // Objects of a list have no apiVersion and kind of their own.
                        object["apiVersion"] = json!(resource.api_version);
                        object["kind"] = json!(resource.kind);
                        own.lock().expect("a lock").push(object);
                    }
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

    /// Waits until the watch has received a version of this object that fulfils `is_so`.
    async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        let was_seen = || {
            let seen = self.seen.lock().expect("a lock");
            seen.iter().any(|object| object["metadata"]["name"] == name && is_so(object))
        };
        while !was_seen() {
            assert!(started.elapsed() < PATIENCE, "{name} was not seen so: {:?}", self.seen.lock());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn end(self) -> Vec<Value> {
        self.task.abort();
        std::mem::take(&mut self.seen.lock().expect("a lock"))
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Verdicts of both tools on an object.
#[derive(Debug, Eq, PartialEq)]
struct Verdict {
    argo: String,
    kstatus: String,
    /// Message of Argo CD.
    message: String,
}

/// Returns the verdicts on these objects, in their order.
fn verdicts(case: &Case, objects: &[Value]) -> Vec<Verdict> {
    let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
    let path = case.sshd.home().join("objects.json");
    std::fs::write(&path, lines.join("\n")).expect("a file");
    let output = gitops_health(&["judge", path.to_str().expect("a UTF-8 path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(said.len(), objects.len(), "{text}");
    for (line, object) in said.iter().zip(objects) {
        assert_eq!((&line["kind"], &line["name"]), (&object["kind"], &object["metadata"]["name"]));
    }
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let verdict = |line: &Value| Verdict {
        argo: word(&line["argo"]["status"]),
        kstatus: word(&line["kstatus"]["status"]),
        message: word(&line["argo"]["message"]),
    };
    said.iter().map(verdict).collect()
}

fn is_being_deleted(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// Returns true if Argo CD holds the object as a hook.
fn is_hook(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == HOOK_FINALIZER))
}

fn is_finished(object: &Value) -> bool {
    phase_of(object).is_finished()
}

fn phase_of(object: &Value) -> Phase {
    let execution: CommandExecution = serde_json::from_value(object.clone()).expect("an execution");
    execution.phase()
}

/// Returns the expected verdict of Argo CD on an execution, by its phase.
fn expected_by_argo(object: &Value) -> &'static str {
    if is_being_deleted(object) && !(is_hook(object) && is_finished(object)) {
        return "Progressing";
    }
    match phase_of(object) {
        Phase::Queued if object["status"]["reason"] == "MachineSuspended" => "Suspended",
        Phase::Pending | Phase::Queued | Phase::Dispatched | Phase::Running => "Progressing",
        Phase::Succeeded => "Healthy",
        Phase::Failed
        | Phase::TimedOut
        | Phase::Cancelled
        | Phase::Rejected
        | Phase::Expired
        | Phase::LaunchFailed
        | Phase::OutcomeUnknown => "Degraded",
    }
}

/// Returns the expected verdict of kstatus on an execution.
fn expected_by_kstatus(object: &Value) -> &'static str {
    match phase_of(object) {
        _ if is_being_deleted(object) => "Terminating",
        Phase::Succeeded => "Current",
        phase if phase.is_finished() => "Failed",
        _ => "InProgress",
    }
}

/// Checks the verdicts of both tools on every version of an execution.
fn assert_all_as_expected(case: &Case, executions: &[Value]) {
    assert!(!executions.is_empty());
    for (object, verdict) in executions.iter().zip(verdicts(case, executions)) {
        let expected = (expected_by_argo(object), expected_by_kstatus(object));
        assert_eq!((verdict.argo.as_str(), verdict.kstatus.as_str()), expected, "{verdict:?} of {object:#}");
    }
}

#[test]
fn the_health_checks_say_of_their_cases_what_they_must() {
    let output = gitops_health(&["test"]);
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{wrong}");
    for kind in ["CommandExecution", "Machine", "Whitelist"] {
        assert!(said.contains(&format!("ok {kind}/")), "{said}");
    }
}

#[tokio::test]
async fn an_execution_is_done_for_argo_cd_and_flux_when_it_has_succeeded_failed_when_it_has_not_and_waited_for_before()
{
    let case = Case::new().await;
    let versions = Versions::of::<CommandExecution>(&case).await;
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    case.apply_machine("away", json!({"port": CLOSED_PORT})).await;
    case.apply_machine("other", json!({"hostKeys": [other]})).await;
    case.apply_machine("resting", json!({"suspend": true})).await;
    let on =
        |machine: &str| json!({"command": "say hello", "machineRef": {"name": machine}, "startingDeadlineSeconds": 5});

    case.execute("succeeded", "say hello").await;
    case.execute("failed", "exit-three").await;
    case.execute("rejected", "rm -rf /").await;
    case.execute_with("launch-failed", on("other")).await;
    case.execute_with("expired", on("away")).await;
    case.execute_with("suspended", on("resting")).await;
    case.execute_with("timed-out", json!({"command": "sleep-long", "timeoutSeconds": 5})).await;
    case.execute_with("cancelled", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("cancelled", Phase::Running).await;
    case.change_spec("cancelled", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    let ends = [
        ("succeeded", Phase::Succeeded),
        ("failed", Phase::Failed),
        ("rejected", Phase::Rejected),
        ("launch-failed", Phase::LaunchFailed),
        ("expired", Phase::Expired),
        ("suspended", Phase::Expired),
        ("timed-out", Phase::TimedOut),
        ("cancelled", Phase::Cancelled),
    ];
    for (name, phase) in ends {
        case.in_phase(name, phase).await;
        versions.until(name, is_finished).await;
    }
    // This execution is the last one, because the test then drops all connections.
    case.execute_with("unknown", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    case.in_phase("unknown", Phase::Running).await;
    case.sshd.drop_connections();
    case.in_phase("unknown", Phase::OutcomeUnknown).await;
    versions.until("unknown", is_finished).await;

    let seen = versions.end();
    assert_all_as_expected(&case, &seen);
    let phases: BTreeSet<&str> = seen.iter().map(|object| phase_of(object).as_str()).collect();
    let all: BTreeSet<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
    assert_eq!(phases, all, "a phase was not seen");
    assert!(seen.iter().any(|object| expected_by_argo(object) == "Suspended"));
    // The first version of each execution. kstatus and Argo CD can read this version before Writ reconciles it.
    let fresh = seen.iter().filter(|object| object["status"]["observedGeneration"] == -1);
    let fresh: BTreeSet<&str> = fresh.filter_map(|object| object["metadata"]["name"].as_str()).collect();
    assert_eq!(fresh.len(), ends.len() + 1, "{fresh:?}");
    // Argo CD shows the reason to a person.
    let failed = seen.iter().rfind(|object| object["metadata"]["name"] == "failed").expect("it was seen").clone();
    let said = verdicts(&case, &[failed]);
    assert!(said.iter().all(|verdict| verdict.message.starts_with("Failed (NonZeroExitCode): ")), "{said:?}");
}

#[tokio::test]
async fn what_is_deleted_is_going_on_until_it_is_gone_but_a_hook_that_has_finished_has_a_verdict() {
    let case = Case::new().await;
    let versions = Versions::of::<CommandExecution>(&case).await;
    let spec = json!({"machineRef": {"name": "web-1"}, "command": "sleep-long", "timeoutSeconds": 300});
    let hook = json!({"metadata": {"finalizers": [HOOK_FINALIZER]}, "spec": spec});
    case.apply("writ.dev/v1alpha1", "CommandExecution", "hook", hook).await;
    case.apply("writ.dev/v1alpha1", "CommandExecution", "declared", json!({"spec": spec})).await;
    for name in ["hook", "declared"] {
        case.in_phase(name, Phase::Running).await;
        case.executions().delete(name, &DeleteParams::default()).await.expect("deleted");
    }
    case.gone("declared").await;
    // Writ has removed its finalizer. Argo CD has not.
    let is_held = |object: &Value| is_finished(object) && object["metadata"]["finalizers"] == json!([HOOK_FINALIZER]);
    versions.until("hook", is_held).await;

    // Argo CD removes its finalizer only after it has a verdict. Without a verdict, the object would stay forever.
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    case.executions().patch("hook", &PatchParams::default(), &free).await.expect("patched");
    case.gone("hook").await;

    let seen = versions.end();
    assert_all_as_expected(&case, &seen);
    let last = |name: &str| seen.iter().rfind(|object| object["metadata"]["name"] == name).expect("it was seen");
    assert!(is_being_deleted(last("declared")) && is_finished(last("declared")));
    let held = seen.iter().rfind(|object| is_hook(object)).expect("it was held").clone();
    assert!(is_being_deleted(&held) && is_finished(&held));
    let said = verdicts(&case, &[held]);
    assert!(said.iter().all(|verdict| verdict.argo == "Degraded" && verdict.message.starts_with("Cancelled (")));
}

/// Returns the expected verdicts of Argo CD and kstatus on a Machine. The second is `None` if the verdict of kstatus is
/// not reliable: kstatus treats an object without a status as done.
fn expected_of_machine(object: &Value) -> (&'static str, Option<&'static str>) {
    let machine: Machine = serde_json::from_value(object.clone()).expect("a Machine");
    let status = machine.status.unwrap_or_default();
    let is_current = status.observed_generation == machine.metadata.generation;
    let phase = status.phase.filter(|_| is_current);
    let argo = match phase {
        _ if machine.spec.suspend => "Suspended",
        Some(MachinePhase::Online) => "Healthy",
        Some(MachinePhase::Misconfigured) => "Degraded",
        _ if machine.spec.probe.interval_seconds == 0 => "Healthy",
        _ => "Progressing",
    };
    let kstatus = match phase {
        Some(MachinePhase::Online) => Some("Current"),
        Some(MachinePhase::Misconfigured) => Some("Failed"),
        Some(MachinePhase::Unknown) if machine.spec.probe.interval_seconds == 0 => Some("Current"),
        Some(_) => Some("InProgress"),
        None => status.observed_generation.map(|_| "InProgress"),
    };
    (argo, kstatus)
}

#[tokio::test]
async fn a_machine_is_healthy_when_writ_was_let_in_degraded_when_a_person_has_to_mend_it_and_waited_for_while_it_is_away()
 {
    let case = Case::new().await;
    let versions = Versions::of::<Machine>(&case).await;
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    let probe = json!({"intervalSeconds": 10});
    case.apply_machine("online", json!({"probe": probe})).await;
    case.apply_machine("away", json!({"probe": probe, "port": CLOSED_PORT})).await;
    case.apply_machine("wrong", json!({"probe": probe, "hostKeys": [other]})).await;
    case.apply_machine("resting", json!({"probe": probe, "suspend": true})).await;
    let phases = [
        ("online", MachinePhase::Online),
        ("away", MachinePhase::Offline),
        ("wrong", MachinePhase::Misconfigured),
        ("resting", MachinePhase::Suspended),
    ];
    let is_in = |phase: MachinePhase| move |object: &Value| object["status"]["phase"] == phase.as_str();
    for (name, phase) in phases {
        versions.until(name, is_in(phase)).await;
    }
    // After a change, the status describes the old spec until the next probe.
    case.apply_machine("wrong", json!({"probe": probe})).await;
    versions.until("wrong", is_in(MachinePhase::Online)).await;
    // A Machine without probes does not delay a rollout.
    case.apply_machine("not-probed", json!({"probe": {"intervalSeconds": 0}})).await;
    versions.until("not-probed", |_| true).await;

    let seen = versions.end();
    for (object, verdict) in seen.iter().zip(verdicts(&case, &seen)) {
        let (argo, kstatus) = expected_of_machine(object);
        assert_eq!(verdict.argo, argo, "{verdict:?} of {object:#}");
        assert!(kstatus.is_none_or(|kstatus| verdict.kstatus == kstatus), "{verdict:?} of {object:#}");
    }
    let said: BTreeSet<&str> = seen.iter().map(|object| expected_of_machine(object).0).collect();
    assert_eq!(said, BTreeSet::from(["Degraded", "Healthy", "Progressing", "Suspended"]));
}

#[tokio::test]
async fn a_whitelist_is_healthy_when_all_its_rules_are_in_force() {
    let case = Case::new().await;
    let versions = Versions::of::<Whitelist>(&case).await;
    let good = json!({"name": "good", "match": "good", "run": ["/bin/true"]});
    let broken = json!({"name": "bad", "run": ["systemctl", "restart"]});
    case.apply_whitelist("rules", json!([good, broken])).await;
    let ready = |value: &'static str| {
        move |object: &Value| {
            let conditions = object["status"]["conditions"].as_array();
            let is_so = |each: &Value| each["type"] == "Ready" && each["status"] == value;
            let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            is_current && conditions.is_some_and(|conditions| conditions.iter().any(is_so))
        }
    };
    versions.until("rules", ready("False")).await;
    case.apply_whitelist("rules", json!([good])).await;
    versions.until("rules", ready("True")).await;

    let seen = versions.end();
    let rules: Vec<Value> = seen.into_iter().filter(|object| object["metadata"]["name"] == "rules").collect();
    for (object, verdict) in rules.iter().zip(verdicts(&case, &rules)) {
        let (argo, kstatus) = match object {
            object if ready("True")(object) => ("Healthy", "Current"),
            object if ready("False")(object) => ("Degraded", "Failed"),
            // kstatus treats an object without a status as done.
            object if object["status"].is_null() => ("Progressing", "Current"),
            _ => ("Progressing", "InProgress"),
        };
        assert_eq!((verdict.argo.as_str(), verdict.kstatus.as_str()), (argo, kstatus), "{verdict:?} of {object:#}");
    }
}

fn example(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(path);
    path.to_str().expect("a UTF-8 path").to_owned()
}

#[tokio::test]
async fn the_manifests_for_gitops_tools_are_accepted() {
    let case = Case::new().await;
    for name in ["argocd/waves.yaml", "argocd/presync-hook.yaml", "flux/policy.yaml", "flux/execution.yaml"] {
        let path = example(name);
        let apply = ["apply", "--dry-run=server", "-n", case.namespace.as_str(), "-f", path.as_str()];
        case.world.kubectl_succeeds(&apply);
        case.world.kubectl_succeeds(&[&apply[..], &["--server-side", "--force-conflicts"]].concat());
    }
}

/// Additions by the API server (requester, defaults, finalizer) and by Writ are no drift, neither before nor after the
/// end.
#[tokio::test]
async fn a_manifest_that_was_applied_differs_in_nothing_from_what_became_of_it() {
    let case = Case::new().await;
    // Nothing writes to a queued execution during the comparison.
    case.apply_machine("web-1", json!({"suspend": true})).await;
    let client_side: &[&str] = &[];
    let server_side: &[&str] = &["--server-side"];
    let applied = [("client-side", client_side), ("server-side", server_side)];
    let differs_in_nothing = |name: &str, flags: &[&str]| {
        let path = case.sshd.home().join(format!("{name}.json"));
        let file = ["diff", "-n", case.namespace.as_str(), "-f", path.to_str().expect("a UTF-8 path")];
        // kubectl exits with 1 if anything differs.
        let output = case.world.kubectl(&[&file[..], flags].concat());
        let (differences, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {differences}{errors}");
    };
    for (name, flags) in applied {
        let manifest = json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": name},
            "spec": {"machineRef": {"name": "web-1"}, "command": "say hello"},
        });
        let path = case.sshd.home().join(format!("{name}.json"));
        std::fs::write(&path, manifest.to_string()).expect("a manifest");
        let apply = ["apply", "-n", case.namespace.as_str(), "-f", path.to_str().expect("a UTF-8 path")];
        case.world.kubectl_succeeds(&[&apply[..], flags].concat());
        case.in_phase(name, Phase::Queued).await;
        differs_in_nothing(name, flags);
    }
    case.apply_machine("web-1", json!({})).await;
    for (name, flags) in applied {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
        differs_in_nothing(name, flags);
    }
    // Counts only the commands, because the ledger also has the probes after the suspension.
    assert_eq!(case.ledger().iter().filter(|line| line.contains("/bin/echo")).count(), 2, "{:?}", case.ledger());
}
