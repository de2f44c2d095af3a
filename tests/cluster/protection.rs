//! Guards of the API server, which apply whatever rights RBAC gives. Users cannot write the record, delete it before
//! its end, remove its finalizer, or run a copy of it again.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use writ::api::{AUDIT_FINALIZER, CommandExecution, Machine, Phase, Reason, Whitelist};

use crate::case::Case;
use crate::lab::{SshdOptions, User};
use crate::world::{World, client_of, world};

/// Returns the client of a user with every right that RBAC can give. The guards still apply to this user.
pub async fn root(case: &Case) -> Client {
    let who = format!("root-of-{}", case.namespace);
    let kubeconfig = case.world.control_plane.kubeconfig_for(&who, None).expect("a kubeconfig");
    let user = format!("--user={who}");
    case.world.kubectl_succeeds(&["create", "clusterrolebinding", &who, "--clusterrole=cluster-admin", &user]);
    let client = client_of(&kubeconfig).await;
    let api: Api<CommandExecution> = Api::namespaced(client.clone(), &case.namespace);
    until_allowed(|| async { api.list(&ListParams::default()).await.map(drop) }).await;
    client
}

/// Returns the client of a user with a role of the chart in the case's namespace.
pub async fn with_role(case: &Case, user: User, role: &str) -> Client {
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user.name()}],
    });
    case.apply(&format!("{group}/v1"), "RoleBinding", &format!("{role}-{}", user.name()), binding).await;
    let client = client_of(&case.world.control_plane.kubeconfig(user)).await;
    let api: Api<CommandExecution> = Api::namespaced(client.clone(), &case.namespace);
    until_allowed(|| async { api.list(&ListParams::default()).await.map(drop) }).await;
    client
}

/// Retries until the request is allowed, because RBAC rights take effect a moment after they are stored.
async fn until_allowed<F: Future<Output = Result<(), kube::Error>>>(ask: impl Fn() -> F) {
    let started = Instant::now();
    while let Err(error) = ask().await {
        assert!(started.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn executions(case: &Case, client: &Client) -> Api<CommandExecution> {
    Api::namespaced(client.clone(), &case.namespace)
}

/// Returns the message of a refusal. Panics if the request was not refused.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn create(
    case: &Case,
    client: &Client,
    metadata: Value,
    command: &str,
) -> Result<CommandExecution, kube::Error> {
    let resource = ApiResource::erase::<CommandExecution>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &case.namespace, &resource);
    let object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": metadata,
        "spec": {"machineRef": {"name": "web-1"}, "command": command}});
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    Ok(api.create(&PostParams::default(), &object).await?.try_parse().expect("an execution"))
}

#[tokio::test]
async fn nobody_but_the_operator_writes_the_record() {
    let case = Case::new().await;
    let (root, jane) = (root(&case).await, with_role(&case, User::Jane, "writ-requester").await);
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    let forged = Patch::Merge(json!({"status": {"phase": "Succeeded", "exitCode": 0}}));
    for client in [&root, &jane] {
        let refusal = refused(executions(&case, client).patch_status("x", &PatchParams::default(), &forged).await);
        assert!(refusal.contains("only Writ writes it") || refusal.contains("jane"), "{refusal}");
        // A write of the status through the object itself is not refused, but has no effect.
        let done = executions(&case, client).patch("x", &PatchParams::default(), &forged).await.expect("no change");
        assert_eq!(done.phase(), Phase::Running);
    }
    let key = json!({"algorithm": "ssh-ed25519", "fingerprint": "SHA256:mine", "trust": "FirstUse", "firstSeenTime": "2026-11-21T00:00:00Z"});
    let machines: Api<Machine> = Api::namespaced(root.clone(), &case.namespace);
    for (keys, may) in [(json!([key]), false), (json!([]), true), (json!(null), true)] {
        let patch = Patch::Merge(json!({"status": {"hostKeys": keys}}));
        let result = machines.patch_status("web-1", &PatchParams::default(), &patch).await;
        match may {
            true => drop(result.expect("a person may say that the next key is to be trusted")),
            false => assert!(refused(result).contains("writ-guard")),
        }
    }
    let whitelists: Api<Whitelist> = Api::namespaced(root.clone(), &case.namespace);
    let count = Patch::Merge(json!({"status": {"ruleCount": 9}}));
    assert!(refused(whitelists.patch_status("web", &PatchParams::default(), &count).await).contains("writ-guard"));
    // Users may still make all other changes.
    let label = Patch::Merge(json!({"metadata": {"labels": {"ticket": "7"}}}));
    executions(&case, &jane).patch("x", &PatchParams::default(), &label).await.expect("labelled");
    let cancel = Patch::Merge(json!({"spec": {"cancelRequested": true}}));
    executions(&case, &root).patch("x", &PatchParams::default(), &cancel).await.expect("cancelled");
    case.until("x", "cancelled", |status| status.phase == Phase::Cancelled).await;
}

#[tokio::test]
async fn what_has_not_finished_cannot_be_deleted_and_what_has_can() {
    let case = Case::new().await;
    let (root, pipeline) = (root(&case).await, with_role(&case, User::Jane, "writ-pipeline").await);
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    for client in [&root, &pipeline] {
        let api = executions(&case, client);
        let refusal = refused(api.delete("x", &DeleteParams::default()).await);
        assert!(refusal.contains("has not finished (Running)"), "{refusal}");
        let remedy = format!(
            "kubectl -n {} patch cmdexec x --type=merge -p '{{\"spec\":{{\"cancelRequested\":true",
            case.namespace
        );
        assert!(refusal.contains(&remedy), "{refusal}");
    }
    let all = executions(&case, &root).delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    assert!(refused(all).contains("has not finished"));
    assert_eq!(case.executions().get("x").await.expect("it is there").metadata.deletion_timestamp, None);
    let cancel = Patch::Merge(json!({"spec": {"cancelRequested": true}}));
    executions(&case, &root).patch("x", &PatchParams::default(), &cancel).await.expect("cancelled");
    case.until("x", "cancelled", |status| status.phase == Phase::Cancelled).await;
    executions(&case, &pipeline).delete("x", &DeleteParams::default()).await.expect("deleted");
    case.gone("x").await;
}

#[tokio::test]
async fn the_finalizer_is_put_back_and_cannot_be_worn_down() {
    let case = Case::new().await;
    let (root, jane) = (root(&case).await, with_role(&case, User::Jane, "writ-requester").await);
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    let held = |execution: &CommandExecution| {
        execution.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == AUDIT_FINALIZER)
    };
    for finalizers in [json!(null), json!([]), json!(["example.org/other"])] {
        for client in [&root, &jane] {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
            let patched =
                executions(&case, client).patch("x", &PatchParams::default(), &patch).await.expect("put back");
            assert!(held(&patched), "{finalizers}");
        }
    }
    // Argo CD with `Replace=true` replaces the whole object with its version in Git.
    let mut object = executions(&case, &root).get("x").await.expect("it is there");
    (object.metadata.finalizers, object.metadata.managed_fields) = (None, None);
    let replaced = executions(&case, &root).replace("x", &PostParams::default(), &object).await.expect("put back");
    assert!(held(&replaced));
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
}

#[tokio::test]
async fn an_execution_gets_no_owner() {
    let case = Case::new().await;
    let root = root(&case).await;
    let machine: Api<Machine> = Api::namespaced(root.clone(), &case.namespace);
    let uid = machine.get("web-1").await.expect("a Machine").metadata.uid;
    let owner = json!([{"apiVersion": "writ.dev/v1alpha1", "kind": "Machine", "name": "web-1", "uid": uid}]);
    let refusal = refused(create(&case, &root, json!({"name": "x", "ownerReferences": owner}), "say hello").await);
    assert!(refusal.contains("must not have ownerReferences"), "{refusal}");
    create(&case, &root, json!({"name": "y"}), "say hello").await.expect("created");
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    let patch = Patch::Merge(json!({"metadata": {"ownerReferences": owner}}));
    refused(executions(&case, &root).patch("y", &PatchParams::default(), &patch).await);
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn a_copy_from_a_backup_does_not_run_unless_it_is_told_to() {
    let case = Case::new().await;
    let root = root(&case).await;
    create(&case, &root, json!({"name": "x"}), "say hello").await.expect("created");
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let path = case.sshd.home().join("backup.yaml");
    let path = path.to_str().expect("UTF-8");
    std::fs::write(path, case.world.kubectl_succeeds(&["get", "cmdexec", "x", "-n", &case.namespace, "-o", "yaml"]))
        .expect("a backup");
    executions(&case, &root).delete("x", &DeleteParams::default()).await.expect("deleted");
    case.gone("x").await;
    let who = format!("root-of-{}", case.namespace);
    let restore = |extra: &[&str]| {
        let arguments = ["create", "-f", path, "-n", &case.namespace, "--as", &who];
        case.world.kubectl(&[&arguments, extra].concat())
    };
    // A create request must not contain the `resourceVersion` of the deleted object.
    let text = std::fs::read_to_string(path).expect("a backup");
    let stripped: Vec<&str> = text.lines().filter(|line| !line.trim().starts_with("resourceVersion:")).collect();
    std::fs::write(path, stripped.join("\n")).expect("a backup");
    let output = restore(&[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("writ.dev/run-again"), "{errors}");
    let again =
        stripped.join("\n").replacen("metadata:\n", "metadata:\n  annotations: {writ.dev/run-again: \"true\"}\n", 1);
    std::fs::write(path, again.replace("name: x", "name: again")).expect("a backup");
    let output = restore(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    case.ends("again", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
    // Not even a user who is exempt from the guards, such as a restore tool, can create a copy that runs.
    std::fs::write(path, stripped.join("\n").replace("name: x", "name: once-more")).expect("a backup");
    let output = case.world.kubectl(&["create", "-f", path, "-n", &case.namespace]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("writ-restored"), "{errors}");
    // Users may neither set the mark nor leave it out.
    refused(
        create(&case, &root, json!({"name": "z", "annotations": {"writ.dev/restored": "true"}}), "say hello").await,
    );
}

#[tokio::test]
async fn who_may_ask_in_one_namespace_reads_nothing_of_another() {
    let (case, other) = (Case::new().await, Case::new().await);
    let jane = with_role(&case, User::Jane, "writ-requester").await;
    other.execute("secret", "say hello").await;
    let there: Api<CommandExecution> = Api::namespaced(jane.clone(), &other.namespace);
    assert!(refused(there.get("secret").await).contains("cannot get resource"));
    refused(there.list(&ListParams::default()).await);
    refused(Api::<CommandExecution>::all(jane.clone()).list(&ListParams::default()).await);
    refused(create(&other, &jane, json!({"name": "x"}), "say hello").await);
    refused(executions(&case, &jane).delete("x", &DeleteParams::default()).await);
}

/// The guards allow the namespace controller to delete executions. Before the namespace disappears, Writ stops and
/// records its running commands.
#[tokio::test]
async fn a_namespace_that_is_deleted_goes_with_all_that_is_in_it() {
    let case = Case::new().await;
    case.execute("runs", "sleep-long").await;
    case.execute("finished", "say hello").await;
    case.in_phase("runs", Phase::Running).await;
    case.ends("finished", Phase::Succeeded, Reason::Completed).await;
    case.world.kubectl_succeeds(&["delete", "namespace", &case.namespace, "--wait=false"]);
    let started = Instant::now();
    while case.world.kubectl(&["get", "namespace", &case.namespace]).status.success() {
        assert!(started.elapsed() < Duration::from_secs(90), "the namespace does not go\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn before_its_retention_is_over_nobody_deletes_a_record_and_afterwards_they_may() {
    let own = World::start();
    own.upgrade(&["--set", "serve.minimumRetentionSeconds=6"]);
    let flags = ["--minimum-retention-seconds", "6"];
    let case = Case::with(own.clone(), SshdOptions::default(), &flags).await;
    let root = root(&case).await;
    let spec = json!({"command": "say hello", "ttlSecondsAfterFinished": 0});
    case.execute("kept", "say hello").await;
    case.execute("short-lived", "say hello").await;
    case.execute_with("deleted", spec).await;
    case.ends("short-lived", Phase::Succeeded, Reason::Completed).await;
    case.ends("kept", Phase::Succeeded, Reason::Completed).await;
    let started = Instant::now();
    // A changed policy takes effect a moment later. The dry run tests the policy, and deletes nothing.
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    while executions(&case, &root).delete("kept", &dry).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "the changed policy is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refusal = refused(executions(&case, &root).delete("short-lived", &DeleteParams::default()).await);
    assert!(refusal.contains("at least 6 s"), "{refusal}");
    let mark = Patch::Merge(json!({"metadata": {"annotations": {"writ.dev/retention-over": "true"}}}));
    assert!(
        refused(executions(&case, &root).patch("short-lived", &PatchParams::default(), &mark).await)
            .contains("is Writ's")
    );
    refused(
        create(&case, &root, json!({"name": "z", "annotations": {"writ.dev/retention-over": "true"}}), "say hello")
            .await,
    );
    case.ends("kept", Phase::Succeeded, Reason::Completed).await;
    let bare = executions(&case, &root).get("kept").await.expect("it is there");
    assert!(case.executions().get_opt("deleted").await.expect("an answer").is_some(), "its time to live is shorter");
    while let Err(error) = executions(&case, &root).delete("short-lived", &DeleteParams::default()).await {
        assert!(started.elapsed() < Duration::from_secs(60), "{error}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    case.gone("short-lived").await;
    case.gone("deleted").await;
    replaced_without_its_mark_it_keeps_it(&case, &root, bare).await;
}

/// Checks that an execution keeps its mark if a pipeline replaces it with its version in Git.
async fn replaced_without_its_mark_it_keeps_it(case: &Case, root: &Client, mut bare: CommandExecution) {
    let is_marked = |object: &CommandExecution| {
        object.metadata.annotations.iter().flatten().any(|(name, _)| name == "writ.dev/retention-over")
    };
    assert!(!is_marked(&bare));
    bare.metadata.managed_fields = None;
    let started = Instant::now();
    loop {
        let latest = executions(case, root).get("kept").await.expect("it is there");
        if is_marked(&latest) {
            bare.metadata.resource_version = latest.metadata.resource_version;
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "it is not marked\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let replaced = executions(case, root).replace("kept", &PostParams::default(), &bare).await.expect("replaced");
    assert!(is_marked(&replaced), "it is put back");
}

#[tokio::test]
async fn without_the_guards_a_test_of_them_would_fail() {
    let case = Case::with(world(), SshdOptions::default(), &[]).await;
    // The administrator is exempt in these tests, so tests can forge records.
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    case.executions().delete("x", &DeleteParams::default()).await.expect("exempt");
    case.gone("x").await;
}
