//! Calls as a requester: the API server checks the requester's rights and stamps the requester's name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Client;
use kube::api::{Api, ObjectMeta};
use serde_json::json;
use writ::api::{CommandExecution, CommandExecutionSpec};
use writ::cluster::{Acting, ActingError, AsRequester, ClientOptions, Cluster, ClusterError};

use crate::world::{World, world};

/// Maximum wait for an expected event. The machine also runs other tests.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A gateway's ServiceAccount and the namespaces of a test.
struct Gateway {
    world: Arc<World>,
    admin: Client,
    /// The gateway's own namespace.
    home: String,
    /// A namespace in which the gateway may act for requesters.
    served: String,
    /// A namespace in which the gateway may not act for requesters.
    foreign: String,
    acting: Acting,
}

fn person(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { username: Some(name.to_owned()), groups: Some(groups), ..UserInfo::default() }
}

fn execution(name: &str) -> CommandExecution {
    let spec =
        CommandExecutionSpec { command: Some("say hello".to_owned()), ..CommandExecutionSpec::on_machine("none") };
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    CommandExecution { metadata, spec, status: None }
}

impl Gateway {
    async fn new() -> Self {
        let world = world();
        let [home, served, foreign] = [(), (), ()].map(|()| world.namespace_name());
        for namespace in [&home, &served, &foreign] {
            world.kubectl_succeeds(&["create", "namespace", namespace]);
        }
        world.kubectl_succeeds(&["create", "serviceaccount", "gateway", "-n", &home]);
        let kubeconfig = world.control_plane.service_account_kubeconfig(&home, "gateway").expect("a token");
        let options = ClientOptions { kubeconfig: Some(kubeconfig), ..ClientOptions::default() };
        let acting = Acting::new(Cluster::connect(&options).await.expect("a client"), vec![]);
        let admin = world.client().await;
        Self { world, admin, home, served, foreign, acting }
    }

    /// Grants constrained impersonation: the rights that a gateway needs to act for requesters.
    fn let_it_act(&self) {
        let (home, served) = (&self.home, &self.served);
        let manifest = format!(
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {home}-identities}}
rules:
- {{apiGroups: [authentication.k8s.io], resources: [users, uids, groups], verbs: ["impersonate:user-info"]}}
- {{apiGroups: [authentication.k8s.io], resources: [userextras/writ.dev/via], resourceNames: [gateway], verbs: ["impersonate:user-info"]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {home}-actions}}
rules:
- apiGroups: [writ.dev]
  resources: [commandexecutions]
  verbs: ["impersonate-on:user-info:create", "impersonate-on:user-info:patch", "impersonate-on:serviceaccount:create", "impersonate-on:serviceaccount:patch"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {home}-serviceaccounts}}
rules:
- {{apiGroups: [authentication.k8s.io], resources: [serviceaccounts], verbs: ["impersonate:serviceaccount"]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {home}-identities}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {home}-identities}}
subjects: [{{kind: ServiceAccount, name: gateway, namespace: {home}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: gateway-actions, namespace: {served}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {home}-actions}}
subjects: [{{kind: ServiceAccount, name: gateway, namespace: {home}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: gateway-serviceaccounts, namespace: {served}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {home}-serviceaccounts}}
subjects: [{{kind: ServiceAccount, name: gateway, namespace: {home}}}]
"#
        );
        let path = std::env::temp_dir().join(format!("writ-gateway-{}-{home}.yaml", std::process::id()));
        std::fs::write(&path, manifest).expect("a manifest");
        self.world.kubectl_succeeds(&["apply", "-f", path.to_str().expect("a UTF-8 path")]);
        std::fs::remove_file(&path).expect("it is removed");
    }

    /// Lets a subject create and cancel executions in a namespace. `subject` is a flag of kubectl, for example
    /// `--user=alice`.
    fn grant(&self, namespace: &str, subject: &str) {
        let name = subject.replace(['=', ':', '-'], "");
        self.world.kubectl_succeeds(&[
            "create",
            "rolebinding",
            &name,
            "-n",
            namespace,
            "--clusterrole=writ-requester",
            subject,
        ]);
    }

    async fn caller(&self, caller: &UserInfo) -> AsRequester {
        self.acting.for_caller(caller).await.expect("Writ may act for this caller")
    }

    fn executions(&self, namespace: &str) -> Api<CommandExecution> {
        Api::namespaced(self.admin.clone(), namespace)
    }

    /// Creates an execution as a caller. Retries until the API server applies the new RBAC rights.
    async fn creates(&self, caller: &UserInfo, name: &str) -> CommandExecution {
        let (requester, started) = (self.caller(caller).await, Instant::now());
        loop {
            match requester.create(&self.served, &execution(name)).await {
                Ok(created) => return created,
                Err(error) => assert!(started.elapsed() < TIMEOUT, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_requester_acts_with_own_rights_and_own_name() {
    let gateway = Gateway::new().await;
    gateway.let_it_act();
    gateway.grant(&gateway.served, "--group=sre");
    gateway.grant(&gateway.foreign, "--user=alice");
    // This is the last grant. Once the API server applies it, the other grants are in force too.
    gateway.grant(&gateway.served, "--user=alice");

    let alice = UserInfo { uid: Some("7".to_owned()), ..person("alice", &["staff", "system:authenticated"]) };
    let created = gateway.creates(&alice, "by-alice").await;
    let stamped = created.spec.requested_by.expect("a requester");
    assert_eq!((stamped.username.as_str(), stamped.uid.as_str()), ("alice", "7"));
    assert_eq!(stamped.groups, ["staff", "system:authenticated"]);
    let stored = gateway.executions(&gateway.served).get("by-alice").await.expect("it is stored");
    assert_eq!(stored.spec.requested_by, Some(stamped));

    // The API server overwrites a forged name, as for all requesters.
    let mut forged = execution("forged");
    forged.spec.requested_by = stored.spec.requested_by.clone();
    let bob = gateway.caller(&person("bob", &["sre"])).await;
    let created = bob.create(&gateway.served, &forged).await.expect("the group may");
    assert_eq!(created.spec.requested_by.map(|requester| requester.username).as_deref(), Some("bob"));

    // A cancellation also uses the rights of the requester. The guard lets only alice cancel the executions of alice.
    let cancel = json!({"spec": {"cancelRequested": true}});
    let refused = bob.merge::<CommandExecution>(&gateway.served, "by-alice", &cancel).await.expect_err("not bob");
    assert!(matches!(&refused, ActingError::Forbidden { requester, .. } if requester == "bob"), "{refused}");
    let alice = gateway.caller(&alice).await;
    let cancelled: CommandExecution = alice.merge(&gateway.served, "by-alice", &cancel).await.expect("alice may");
    assert_eq!(cancelled.spec.cancelled_by.map(|by| by.username).as_deref(), Some("alice"));

    // Writ sends no request if the name means a subresource.
    let status = bob.merge::<CommandExecution>(&gateway.served, "by-alice/status", &cancel).await;
    assert!(matches!(status, Err(ActingError::InvalidName { .. })), "{status:?}");

    // A person without the right gets the refusal under their own name. The API server creates nothing.
    let mallory = gateway.caller(&person("mallory", &["guests"])).await;
    let refused = mallory.create(&gateway.served, &execution("by-mallory")).await.expect_err("not mallory");
    assert!(matches!(&refused, ActingError::Forbidden { requester, .. } if requester == "mallory"), "{refused}");
    assert!(refused.to_string().starts_with("mallory may not access CommandExecution"), "{refused}");
    assert!(refused.to_string().contains("User \"mallory\" cannot create resource"), "{refused}");
    assert_eq!(gateway.executions(&gateway.served).get_opt("by-mallory").await.expect("it is read"), None);

    // The gateway may not act in this namespace. So alice's own right allows nothing through Writ.
    let refused = alice.create(&gateway.foreign, &execution("elsewhere")).await.expect_err("not there");
    assert!(
        matches!(&refused, ActingError::Cluster(ClusterError::Forbidden { who, .. }) if who == "writ"),
        "{refused}"
    );
    assert!(refused.to_string().contains("writ-gateway-actions"), "{refused}");
    assert_eq!(gateway.executions(&gateway.foreign).get_opt("elsewhere").await.expect("it is read"), None);
}

#[tokio::test]
async fn a_service_account_acts_under_its_own_name() {
    let gateway = Gateway::new().await;
    gateway.let_it_act();
    gateway.world.kubectl_succeeds(&["create", "serviceaccount", "robot", "-n", &gateway.served]);
    gateway.grant(&gateway.served, &format!("--serviceaccount={}:robot", gateway.served));
    let name = format!("system:serviceaccount:{}:robot", gateway.served);
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{}", gateway.served)];
    let created = gateway.creates(&person(&name, &groups), "by-robot").await;
    let stamped = created.spec.requested_by.expect("a requester");
    assert_eq!((stamped.username, stamped.uid.as_str()), (name, ""));
    assert!(stamped.groups.contains(&groups[1].to_owned()), "{:?}", stamped.groups);

    // Writ does not act for the gateway's own ServiceAccount, nor for other ServiceAccounts of its namespace.
    let own = person(&format!("system:serviceaccount:{}:gateway", gateway.home), &[]);
    let neighbour = person(&format!("system:serviceaccount:{}:default", gateway.home), &[]);
    for caller in [own, neighbour] {
        assert!(gateway.acting.for_caller(&caller).await.is_err(), "{caller:?}");
    }
}

#[tokio::test]
async fn without_the_right_to_act_for_somebody_the_error_names_the_cluster_roles() {
    let gateway = Gateway::new().await;
    gateway.grant(&gateway.served, "--user=alice");
    for (caller, role) in [
        (person("alice", &["sre"]), "writ-gateway-identities"),
        (person("system:serviceaccount:ci:robot", &[]), "writ-gateway-serviceaccounts"),
    ] {
        let requester = gateway.caller(&caller).await;
        let refused = requester.create(&gateway.served, &execution("x")).await.expect_err("nothing is granted");
        let text = refused.to_string();
        assert!(
            matches!(&refused, ActingError::Cluster(ClusterError::Forbidden { who, .. }) if who == "writ"),
            "{text}"
        );
        assert!(text.contains(role) && text.contains("writ-gateway-actions"), "{text}");
    }
    assert_eq!(gateway.executions(&gateway.served).get_opt("x").await.expect("it is read"), None);
}
