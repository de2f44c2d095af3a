//! Several processes with one Lease each. They list each other, publish the view that they act on, and report that they
//! leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;
use writ::api::Phase;
use writ::cluster::{ClientOptions, Cluster, Member, Membership, OwnLease};
use writ::placement::Members;

use crate::case::Case;
use crate::world::{ACCOUNT, HOME, World, world};

/// Maximum wait for an event on a busy host.
const TIMEOUT: Duration = Duration::from_secs(90);
const DURATION: Duration = Duration::from_secs(3);

/// Creates a namespace for Leases, in which Writ's ServiceAccount has only the rights of the chart.
async fn home(world: &World, admin: &Client) -> String {
    let namespace = world.namespace_name();
    let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
    let object = Namespace { metadata, ..Namespace::default() };
    Api::all(admin.clone()).create(&PostParams::default(), &object).await.expect("a namespace");
    let account = format!("{HOME}:{ACCOUNT}");
    let role = "--clusterrole=writ-operator-holder";
    let account = format!("--serviceaccount={account}");
    world.kubectl_succeeds(&["create", "rolebinding", "holder", "-n", &namespace, role, &account]);
    namespace
}

/// A member that renews its Lease until it is dropped.
struct Running {
    membership: Arc<Membership>,
    task: JoinHandle<()>,
}

impl Running {
    async fn join(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let address = Some(format!("{name}.example:8443"));
        let started = Instant::now();
        // RBAC rights take effect a moment after they are stored.
        let membership = loop {
            let own = OwnLease { namespace, name, duration: DURATION, address: address.clone() };
            match Membership::join(cluster, own).await {
                Ok(membership) => break Arc::new(membership),
                Err(error) => assert!(started.elapsed() < TIMEOUT, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let runs = Arc::clone(&membership);
        Self { membership, task: tokio::spawn(async move { runs.run().await }) }
    }

    /// Waits until the members that this one lists meet the condition.
    async fn until(&self, what: &str, is_met: impl Fn(&[Member]) -> bool) -> Vec<Member> {
        let started = Instant::now();
        loop {
            let members = self.membership.members();
            if is_met(&members) {
                return members;
            }
            assert!(started.elapsed() < TIMEOUT, "{what}: {members:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until this member lists exactly these members. All members that do not leave must publish the view of
    /// `names`.
    async fn agrees(&self, namespace: &str, names: &[&str], leaving: &[&str]) -> Vec<Member> {
        let identity = |name: &&str| format!("{namespace}/{name}");
        let acting: Members = names.iter().map(identity).collect();
        let all: Vec<String> =
            acting.union(&leaving.iter().map(identity).collect()).iter().map(str::to_owned).collect();
        let view = acting.view();
        self.until(&format!("{names:?} agree"), |members| {
            let listed: Vec<&str> = members.iter().map(|member| member.identity.as_str()).collect();
            let mut staying = members.iter().filter(|member| !member.is_leaving);
            listed == all && staying.all(|member| member.view.as_deref() == Some(view.as_str()))
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn members_list_each_other_and_agree_on_each_change() {
    let world = world();
    let admin = world.client().await;
    let namespace = home(&world, &admin).await;
    let options = ClientOptions { kubeconfig: Some(world.operator.clone()), ..ClientOptions::default() };
    let cluster = Cluster::connect(&options).await.expect("a client");
    let first = Running::join(&cluster, &namespace, "a").await;
    first.agrees(&namespace, &["a"], &[]).await;

    let (second, third) =
        tokio::join!(Running::join(&cluster, &namespace, "b"), Running::join(&cluster, &namespace, "c"));
    for member in [&first, &second, &third] {
        let members = member.agrees(&namespace, &["a", "b", "c"], &[]).await;
        let addresses: Vec<_> = members.iter().filter_map(|member| member.address.as_deref()).collect();
        assert_eq!(addresses, ["a.example:8443", "b.example:8443", "c.example:8443"]);
    }

    // The other members do not wait for a member that leaves. The leaving member continues to renew its Lease.
    let leases: Api<Lease> = Api::namespaced(admin.clone(), &namespace);
    second.membership.leave();
    first.agrees(&namespace, &["a", "c"], &["b"]).await;
    let version = async || leases.get("b").await.expect("its Lease").metadata.resource_version;
    let (before, started) = (version().await, Instant::now());
    while version().await == before {
        assert!(started.elapsed() < TIMEOUT, "it renews its Lease");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second.task.abort();
    second.membership.release().await;
    first.agrees(&namespace, &["a", "c"], &[]).await;

    // A crashed member is listed until its Lease expires.
    drop(third);
    first.agrees(&namespace, &["a"], &[]).await;
    let started = Instant::now();
    while leases.get_opt("c").await.expect("it is read").is_some() {
        assert!(started.elapsed() < TIMEOUT, "the Lease of a crashed process is removed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Versions without views write a Lease that has only its label.
#[tokio::test]
async fn a_member_of_an_older_version_is_listed_and_keeps_the_others_from_agreeing_while_it_lives() {
    let world = world();
    let admin = world.client().await;
    let namespace = home(&world, &admin).await;
    let options = ClientOptions { kubeconfig: Some(world.operator.clone()), ..ClientOptions::default() };
    let cluster = Cluster::connect(&options).await.expect("a client");
    let resource = ApiResource::erase::<Lease>(&());
    let leases: Api<DynamicObject> = Api::namespaced_with(admin, &namespace, &resource);
    let old = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "old", "labels": {"writ.dev/holder": "true"}},
        "spec": {"leaseDurationSeconds": 3},
    });
    leases.patch("old", &PatchParams::apply("test"), &Patch::Apply(&old)).await.expect("a Lease");
    let member = Running::join(&cluster, &namespace, "new").await;
    let old = format!("{namespace}/old");
    let is_listed = |members: &[Member]| members.iter().any(|member| member.identity == old && member.view.is_none());
    member.until("the older one is listed", is_listed).await;
    member.agrees(&namespace, &["new"], &[]).await;
}

#[tokio::test]
async fn a_process_that_ends_says_so_in_its_lease_while_its_commands_run() {
    let case = Case::with(world(), crate::lab::SshdOptions::default(), &["--drain-seconds", "60"]).await;
    case.execute("x", "sleep-long").await;
    let status = case.in_phase("x", Phase::Running).await;
    let holder = status.claim.expect("a claim").holder;
    let (namespace, name) = holder.split_once('/').expect("namespace and name");
    let leases: Api<Lease> = Api::namespaced(case.client.clone(), namespace);
    let annotation = async |key: &str| {
        let lease = leases.get(name).await.expect("its Lease");
        lease.metadata.annotations.unwrap_or_default().get(key).cloned()
    };
    assert_eq!(annotation("writ.dev/leaving").await, None);
    let started = Instant::now();
    while annotation("writ.dev/view").await.is_none_or(|view| !view.starts_with("0-")) {
        assert!(started.elapsed() < TIMEOUT, "it shows its view");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    case.terminate_writ();
    while annotation("writ.dev/leaving").await.is_none() {
        assert!(started.elapsed() < TIMEOUT && case.writ_runs(), "it says that it leaves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    case.writ_ended().await;
    assert!(leases.get_opt(name).await.expect("it is read").is_none(), "its Lease is gone");
}
