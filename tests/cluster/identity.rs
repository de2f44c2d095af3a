//! The requester: how the API server stamps it, and how `subjects` of rules use it. While the API server does not stamp
//! it, Writ trusts no requester.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use writ::api::command_execution::Requester;
use writ::api::{CommandExecution, Phase, Reason};

use crate::case::Case;
use crate::lab::{SshdOptions, User};
use crate::world::{World, client_of};

/// Returns a case in which every authenticated user may create executions, and the group `sre` may run `greet`.
async fn case_in(world: Arc<World>, flags: &[&str]) -> Case {
    let case = Case::with(world.clone(), SshdOptions::default(), flags).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writ-requester"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:authenticated"}],
    });
    case.apply(&format!("{group}/v1"), "RoleBinding", "writ-user", binding).await;
    let rule = json!({
        "name": "greet", "match": "greet", "run": ["/bin/echo", "hello"], "subjects": [{"kind": "Group", "name": "sre"}],
    });
    case.apply_whitelist("greet", json!([rule])).await;
    case
}

/// Creates an execution with the client of a user.
async fn create(case: &Case, client: Client, name: &str, spec: Value) -> Result<CommandExecution, kube::Error> {
    let mut spec = spec;
    spec["machineRef"] = json!({"name": "web-1"});
    let resource = ApiResource::erase::<CommandExecution>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &case.namespace, &resource);
    // The API server applies a new RoleBinding only after a moment.
    let started = Instant::now();
    loop {
        let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("cannot create resource") =>
            {
                assert!(started.elapsed() < Duration::from_secs(30), "{}", status.message);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(created) => return Ok(created.try_parse().expect("an execution")),
            Err(error) => return Err(error),
        }
    }
}

async fn as_user(case: &Case, user: User) -> Client {
    client_of(&case.world.control_plane.kubeconfig(user)).await
}

fn forged() -> Value {
    json!({"username": "jane", "uid": "", "groups": ["sre", "system:masters"]})
}

#[tokio::test]
async fn who_creates_an_execution_is_written_into_it_whatever_they_write_themselves() {
    let case = case_in(crate::world::world(), &[]).await;
    let (jane, mallory) = (as_user(&case, User::Jane).await, as_user(&case, User::Mallory).await);
    let created = create(&case, jane, "jane", json!({"command": "greet"})).await.expect("created");
    let requester = created.spec.requested_by.expect("a requester");
    assert_eq!((requester.username.as_str(), requester.groups.contains(&"sre".to_owned())), ("jane", true));
    let lie = json!({"command": "greet", "requestedBy": forged(), "cancelledBy": {"username": "jane"}});
    let created = create(&case, mallory, "mallory", lie).await.expect("created");
    let requester = created.spec.requested_by.expect("a requester");
    assert_eq!((requester.username.as_str(), requester.groups.contains(&"sre".to_owned())), ("mallory", false));
    assert_eq!(created.spec.cancelled_by, None);
    case.ends("jane", Phase::Succeeded, Reason::Completed).await;
    let status = case.ends("mallory", Phase::Rejected, Reason::NotPermitted).await;
    assert!(status.message.unwrap_or_default().contains("its subjects do not include the requester"));
    assert_eq!(case.ledger().len(), 1);
    let table = case.world.kubectl_succeeds(&["get", "cmdexec", "-n", &case.namespace]);
    assert!(table.contains("REQUESTER") && table.contains("mallory"), "{table}");
}

/// Creates executions from one manifest, in every way that kubectl offers.
#[tokio::test]
async fn every_way_to_create_is_stamped_and_applying_again_changes_nothing() {
    let case = case_in(crate::world::world(), &[]).await;
    let manifest = |name: &str| {
        let path = case.sshd.home().join(format!("{name}.yaml"));
        let text = format!(
            "apiVersion: writ.dev/v1alpha1\nkind: CommandExecution\nmetadata: {{{name}}}\n\
             spec: {{machineRef: {{name: web-1}}, command: greet, requestedBy: {{username: somebody}}}}\n"
        );
        std::fs::write(&path, text).expect("a manifest");
        path
    };
    let kubectl = |arguments: &[&str], path: &Path| -> Output {
        let path = path.to_str().expect("UTF-8");
        let all = ["-n", &case.namespace, "-f", path, "-o", "jsonpath={.spec.requestedBy.username}"];
        case.world.kubectl(&[arguments, &all[..]].concat())
    };
    let stamped = |arguments: &[&str], path: &Path, who: &str| {
        let output = kubectl(arguments, path);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), who, "{arguments:?}: {errors}");
    };
    let ways: [(&str, &[&str]); 5] = [
        ("create", &["create"]),
        ("apply", &["apply"]),
        ("ssa", &["apply", "--server-side"]),
        ("dry", &["create", "--dry-run=server"]),
        ("replace", &["replace", "--force"]),
    ];
    for (name, arguments) in ways {
        let path = manifest(&format!("name: {name}"));
        stamped(arguments, &path, "admin");
    }
    stamped(&["create"], &manifest("generateName: made-"), "admin");
    let account = "system:serviceaccount:argo:deployer";
    stamped(&["create", "--as", account], &manifest("name: as-account"), account);
    stamped(
        &["create", "--as", "jane", "--as-group", "sre", "--as-group", "system:authenticated"],
        &manifest("name: as-jane"),
        "jane",
    );
    // A second apply succeeds, also by another user, and keeps the requester.
    for again in [&["apply"][..], &["apply", "--server-side", "--force-conflicts"]] {
        stamped(again, &manifest("name: apply"), "admin");
        stamped(again, &manifest("name: ssa"), "admin");
        stamped(again, &manifest("name: as-jane"), "jane");
    }
    case.ends("as-jane", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn who_cancels_is_written_into_it_once() {
    let case = case_in(crate::world::world(), &[]).await;
    let jane = as_user(&case, User::Jane).await;
    let spec = json!({"command": "sleep-long", "timeoutSeconds": 300});
    let created = create(&case, jane, "x", spec).await.expect("created");
    assert_eq!(created.spec.cancelled_by, None);
    case.in_phase("x", Phase::Running).await;
    let lie = json!({"cancelRequested": true, "cancelledBy": {"username": "jane", "uid": "1"}});
    let cancelled = case.change_spec("x", lie).await.expect("cancelled");
    let canceller = cancelled.spec.cancelled_by.expect("a canceller");
    assert_eq!((canceller.username.as_str(), canceller.uid.as_str()), ("admin", ""));
    assert_eq!(cancelled.spec.requested_by.map(|requester| requester.username).as_deref(), Some("jane"));
    for change in
        [json!({"cancelledBy": {"username": "jane"}}), json!({"cancelledBy": null}), json!({"requestedBy": null})]
    {
        // The stamping restores the value, so the patch changes nothing.
        let unchanged = case.change_spec("x", change).await.expect("no change");
        assert_eq!(unchanged.spec.cancelled_by.map(|canceller| canceller.username).as_deref(), Some("admin"));
        assert_eq!(unchanged.spec.requested_by.map(|requester| requester.username).as_deref(), Some("jane"));
    }
    case.until("x", "cancelled", |status| status.phase == Phase::Cancelled).await;
}

/// Waits until the condition `RequesterKnown` of the Whitelist `greet` has this status.
async fn requester_known(case: &Case, is: &str) {
    let started = Instant::now();
    loop {
        let status = case.whitelists().get("greet").await.expect("a Whitelist").status.unwrap_or_default();
        let condition = status.conditions.iter().find(|condition| condition.type_ == "RequesterKnown");
        if condition.is_some_and(|condition| condition.status == is) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "RequesterKnown is not {is}: {status:?}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn while_nobody_is_stamped_everybody_counts_as_nobody() {
    let world = World::without_stamping();
    let mut case = case_in(world.clone(), &["--requester-check-seconds", "1"]).await;
    let deny = json!([{"name": "no-joe", "effect": "Deny", "match": "say hello", "subjects": [{"kind": "User", "name": "joe"}]}]);
    case.apply_whitelist("deny", deny).await;
    requester_known(&case, "False").await;
    let mallory = as_user(&case, User::Mallory).await;
    let lie = || json!({"command": "greet", "requestedBy": forged()});
    // A requester with a forged name is allowed nothing, and cannot avoid a Deny.
    create(&case, mallory.clone(), "forged", lie()).await.expect("created");
    let status = case.ends("forged", Phase::Rejected, Reason::NotPermitted).await;
    assert!(status.message.unwrap_or_default().contains("admission policy"));
    // Without the stamping, the CRD protects the value: the API server refuses the change.
    for change in [
        json!({"requestedBy": {"username": "joe"}}),
        json!({"requestedBy": null}),
        json!({"cancelledBy": {"username": "joe"}}),
    ] {
        let kube::Error::Api(status) = case.change_spec("forged", change).await.expect_err("refused") else { panic!() };
        assert!(status.code == 422 && status.message.contains("spec"), "{}", status.message);
    }
    create(&case, mallory.clone(), "denied", json!({"command": "say hello", "requestedBy": forged()}))
        .await
        .expect("created");
    case.ends("denied", Phase::Rejected, Reason::Denied).await;
    // This execution waits until Writ trusts requesters.
    case.apply_machine("web-1", json!({"port": 1})).await;
    create(&case, mallory.clone(), "waits", json!({"command": "sleep-one", "requestedBy": forged()}))
        .await
        .expect("created");
    case.in_phase("waits", Phase::Queued).await;
    let narrowed = json!([{"name": "s", "match": "sleep-one", "run": ["/bin/sh", "-c", "sleep 1; echo done"], "subjects": [{"kind": "User", "name": "jane"}]}]);

    world.upgrade(&[]);
    requester_known(&case, "True").await;
    // The execution `waits` is older than the stamping, so its requester may be forged.
    case.apply_whitelist("web", narrowed).await;
    case.ends("waits", Phase::Rejected, Reason::NotPermitted).await;
    case.apply_machine("web-1", json!({})).await;
    create(&case, as_user(&case, User::Jane).await, "jane", json!({"command": "greet"})).await.expect("created");
    case.ends("jane", Phase::Succeeded, Reason::Completed).await;
    create(&case, mallory.clone(), "again", lie()).await.expect("created");
    case.ends("again", Phase::Rejected, Reason::NotPermitted).await;

    // An administrator removes the stamping while Writ runs.
    world.upgrade(&["--set", "admission.install=false"]);
    requester_known(&case, "False").await;
    create(&case, mallory.clone(), "last", lie()).await.expect("created");
    case.ends("last", Phase::Rejected, Reason::NotPermitted).await;
    // The stamping is also missing while Writ is stopped. An administrator restores the stamping before Writ starts.
    case.kill_writ();
    create(&case, mallory.clone(), "meanwhile", lie()).await.expect("created");
    world.upgrade(&[]);
    tokio::time::sleep(Duration::from_secs(8)).await;
    case.start_writ();
    case.ends("meanwhile", Phase::Rejected, Reason::NotPermitted).await;
    let commands = case.ledger();
    assert_eq!(commands.len(), 1, "{commands:?}");
}

#[tokio::test]
async fn who_asked_is_still_known_after_a_restart() {
    let mut case = case_in(crate::world::world(), &[]).await;
    case.apply_machine("web-1", json!({"port": 1})).await;
    create(&case, as_user(&case, User::Jane).await, "queued", json!({"command": "greet"})).await.expect("created");
    case.in_phase("queued", Phase::Queued).await;
    case.kill_writ();
    create(&case, as_user(&case, User::Jane).await, "meanwhile", json!({"command": "greet"})).await.expect("created");
    case.apply_machine("web-1", json!({})).await;
    case.start_writ();
    case.ends("queued", Phase::Succeeded, Reason::Completed).await;
    case.ends("meanwhile", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn where_the_api_server_can_only_refuse_a_forged_name_is_refused_and_an_own_one_counts() {
    let world = World::without_stamping();
    // Without stamping by the API server, the chart installs no gateway.
    world.upgrade(&["--set", "admission.stamping=validate,gateway.enabled=false"]);
    let case = case_in(world.clone(), &["--requester-check-seconds", "1"]).await;
    requester_known(&case, "True").await;
    let (jane, mallory) = (as_user(&case, User::Jane).await, as_user(&case, User::Mallory).await);
    let error = create(&case, mallory, "forged", json!({"command": "greet", "requestedBy": forged()})).await;
    let kube::Error::Api(status) = error.expect_err("refused") else { panic!("not an answer of the API server") };
    assert!(status.code == 422 && status.message.contains("mallory"), "{} {}", status.code, status.message);
    let own = Requester {
        username: "jane".to_owned(),
        uid: String::new(),
        groups: vec!["sre".to_owned(), "system:authenticated".to_owned()],
    };
    let spec = json!({"command": "greet", "requestedBy": own});
    create(&case, jane.clone(), "own", spec).await.expect("created");
    case.ends("own", Phase::Succeeded, Reason::Completed).await;
    create(&case, jane.clone(), "unnamed", json!({"command": "greet"})).await.expect("created");
    case.ends("unnamed", Phase::Rejected, Reason::NotPermitted).await;
    create(&case, jane, "open", json!({"command": "say hello"})).await.expect("created");
    case.ends("open", Phase::Succeeded, Reason::Completed).await;
    let lie = json!({"cancelRequested": true, "cancelledBy": {"username": "jane"}});
    case.execute("slow", "sleep-long").await;
    case.change_spec("slow", lie).await.expect_err("a forged canceller is refused");
    case.change_spec("slow", json!({"cancelRequested": true})).await.expect("cancelled");
}
