//! A store full of the largest objects that the API server accepts. `writ serve` starts within the memory limit of the
//! chart. It still runs the small executions of other namespaces.
//!
//! `WRIT_TEST_LARGE=1` fills the store as much as when an earlier `writ serve` died.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use writ::api::{CommandExecution, Machine, Phase, Whitelist};

use crate::case::Case;
use crate::world::HOME;

/// Memory limit of the container in the chart, in KiB.
const MEMORY_KIB: u64 = 512 * 1024;
/// Maximum duration of a small execution under that load.
const PROMISE: Duration = Duration::from_secs(30);

/// Returns labels of about `bytes` bytes in total. Each label has the maximum size, because tens of thousands of small
/// labels keep the API server busy for seconds.
fn labels(bytes: usize) -> Value {
    let prefix = ["a".repeat(61), "b".repeat(61), "c".repeat(61), "d".repeat(61)].join(".");
    let labels = (0..bytes / 380).map(|index| (format!("{prefix}/l{index:062}"), json!("x".repeat(63))));
    Value::Object(labels.collect())
}

fn resource<K: kube::Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

async fn create(case: &Case, resource: &ApiResource, mut object: Value) {
    (object["apiVersion"], object["kind"]) = (json!(resource.api_version), json!(resource.kind));
    let api: Api<DynamicObject> = Api::namespaced_with(case.client.clone(), &case.namespace, resource);
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("it is stored");
}

/// Creates the objects, 8 concurrently, as an attacker would.
async fn create_all(case: &Case, resource: &ApiResource, objects: impl Iterator<Item = Value>) {
    let created = stream::iter(objects).map(|object| create(case, resource, object)).buffer_unordered(8);
    created.collect::<Vec<()>>().await;
}

async fn fill(case: &Case, scale: usize) {
    let metadata = |name: String, bytes: usize| json!({"name": name, "labels": labels(bytes)});
    let ask = |command: &str| json!({"machineRef": {"name": "web-1"}, "command": command});
    let executions = resource::<CommandExecution>();
    let rejected = |index| json!({"metadata": metadata(format!("r{index}"), 640_000), "spec": ask("not listed")});
    create_all(case, &executions, (0..12 * scale).map(rejected)).await;
    let annotated = |index| {
        let metadata = json!({"name": format!("q{index}"), "annotations": {"a": "y".repeat(255_000)}});
        json!({"metadata": metadata, "spec": {"machineRef": {"name": "off"}, "command": "say hello"}})
    };
    create_all(case, &executions, (0..85 * scale).map(annotated)).await;
    let held = |index| {
        let finalizers: Vec<_> = (0..5000).map(|number| format!("example.org/{number:060}")).collect();
        json!({"metadata": {"name": format!("f{index}"), "finalizers": finalizers}, "spec": ask("not listed")})
    };
    create_all(case, &executions, (0..4 * scale).map(held)).await;
    let machine = |index| {
        let spec = json!({"address": "192.0.2.1", "user": "x", "credentialsRef": {"name": "none"}, "probe": {"intervalSeconds": 0}, "hostKeyPolicy": "TrustOnFirstUse"});
        json!({"metadata": metadata(format!("m{index}"), 640_000), "spec": spec})
    };
    create_all(case, &resource::<Machine>(), (0..6 * scale).map(machine)).await;
    let rules = json!([{"name": "never", "match": "never", "run": ["/bin/true"]}]);
    let whitelist = |index| json!({"metadata": metadata(format!("w{index}"), 640_000), "spec": {"rules": rules}});
    create_all(case, &resource::<Whitelist>(), (0..4 * scale).map(whitelist)).await;
    let lease = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let leases: Api<DynamicObject> = Api::namespaced_with(case.client.clone(), HOME, &ApiResource::from_gvk(&lease));
    for index in 0..4 * scale {
        let mut labels = labels(400_000);
        labels["writ.dev/holder"] = json!("true");
        let name = format!("{}-{index}", case.namespace);
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "labels": labels}});
        leases.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&lease)).await.expect("it is stored");
    }
}

/// Returns the peak memory of the process, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_store_of_the_largest_objects_is_served_in_the_memory_of_the_chart() {
    let scale = if std::env::var_os("WRIT_TEST_LARGE").is_some() { 10 } else { 2 };
    let mut case = Case::new().await;
    let other = Case::new().await;
    case.apply_machine("off", json!({"suspend": true})).await;
    case.kill_writ();
    fill(&case, scale).await;
    // One process serves both namespaces, as in the chart.
    let mut both = other;
    both.kill_writ();
    both.add_flags(&["--namespace", &case.namespace.clone()]);
    for _ in 0..3 {
        both.start_writ();
        both.writ_serves().await;
        let name = format!("small-{}", uuid::Uuid::new_v4().simple());
        let began = std::time::Instant::now();
        both.execute(&name, "say hello").await;
        let status = both.finished(&name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{status:?}");
        assert!(began.elapsed() < PROMISE, "it took {:?}", began.elapsed());
        // The peak includes the objects that Writ reads in the 10 s after the result.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let peak = peak(both.writ_pid());
        crate::lab::say::note(format!("writ serve had at most {} MiB in memory", peak / 1024));
        assert!(peak < MEMORY_KIB, "{peak} KiB");
        assert!(both.writ_runs(), "{}", both.log());
        both.kill_writ();
    }
    // Writ also decides the large executions themselves.
    both.start_writ();
    case.finished("r0").await;
}
