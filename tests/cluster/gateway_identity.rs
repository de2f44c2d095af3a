//! A stolen token of the gateway's ServiceAccount, with the roles and policies of the chart. It is worth creating and
//! cancelling executions as a person who has that right there, reading executions, and nothing else.
//!
//! The numbers of the attempts are those of the design. `docs/design/20261130-gateway-identity.md` has the decision.

mod attacks;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Client;
use serde_json::{Value, json};
use writ::cluster::{Acting, ActingError, ClientOptions, Cluster, RequesterError};

use crate::world::{ACCOUNT, GATEWAY_ACCOUNT, HOME, World, client_of, world};
use attacks::{
    Attempt, Call, Caller, Expected, NO_SESSION, Places, alice, attempts, create, is_alices, is_kept, mark, person,
};

/// Maximum wait for an expected event. The machine also runs other tests.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum time for which the API server caches a permitted impersonation, and time for a busy machine.
const CACHE_TIMEOUT: Duration = Duration::from_secs(25);
/// Policies that the test deletes and creates again: kind, name.
const RELOADED: [(&str, &str); 5] = [
    ("validatingadmissionpolicy", "writ-requester-names"),
    ("validatingadmissionpolicy", "writ-session"),
    ("mutatingadmissionpolicy", "writ-via"),
    ("mutatingadmissionpolicy", "writ-requester-create"),
    ("mutatingadmissionpolicy", "writ-audit"),
];

/// A client with the gateway's token. Impersonation headers are up to the caller.
struct Thief {
    world: Arc<World>,
    client: Client,
}

/// Refusal by the API server: status and message.
type Refusal = (u16, String);

impl Thief {
    async fn new(world: Arc<World>) -> Self {
        let kubeconfig = world.control_plane.service_account_kubeconfig(HOME, GATEWAY_ACCOUNT).expect("a token");
        let client = client_of(&kubeconfig).await;
        Self { world, client }
    }

    async fn send(&self, call: &Call, caller: &Caller) -> Result<Value, Refusal> {
        let body = if call.body.is_null() { Vec::new() } else { call.body.to_string().into_bytes() };
        let request = http::Request::builder().method(&call.method).uri(&call.path);
        let mut request = request.header("content-type", call.content_type).body(body).expect("a request");
        for (name, value) in caller {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
            Err(error) => panic!("{call:?} as {caller:?}: {error}"),
        }
    }

    /// Repeats a request until its answer fulfils `is_so`, because roles and policies take effect a moment after they
    /// are stored. Returns the time that this took.
    async fn until(&self, what: &str, call: impl Fn() -> Call, caller: &Caller, is_so: Condition) -> Duration {
        let started = Instant::now();
        loop {
            let answer = self.send(&call(), caller).await;
            if is_so(&answer) {
                return started.elapsed();
            }
            assert!(started.elapsed() < TIMEOUT, "{what}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes all attempts. Panics with the list of those that have an unexpected answer.
    async fn attack(&self, places: &Places, after: &str) {
        let target = self.send(&create(&places.served), &alice()).await.expect("alice may");
        let target = target["metadata"]["name"].as_str().expect("a name").to_owned();
        let all = attempts(places, &target);
        let mut wrong = Vec::new();
        for (number, name, call, caller, expected) in &all {
            let answer = self.send(call, caller).await;
            let is_expected = match (&answer, expected) {
                (Err((status, message)), Expected::Refused(expected, words)) => {
                    status == expected && message.contains(words)
                }
                (Ok(object), Expected::Stored(is_so)) => is_so(object),
                _ => false,
            };
            if !is_expected {
                wrong.push(format!("{number} {name}: {answer:?}"));
            }
        }
        assert!(wrong.is_empty(), "{after}, of {} attempts:\n{}", all.len(), wrong.join("\n"));
        assert!(has_every_number(&all), "{after}: an attempt is missing");
    }
}

type Condition = fn(&Result<Value, Refusal>) -> bool;

/// Returns true if the attempts 1 to 47 are among these. Other tests make the attempts 48 to 52.
fn has_every_number(all: &[Attempt]) -> bool {
    (1..=47).all(|number| all.iter().any(|attempt| attempt.0 == number))
}

fn is_stored(answer: &Result<Value, Refusal>) -> bool {
    answer.is_ok()
}

fn is_refused(answer: &Result<Value, Refusal>) -> bool {
    answer.as_ref().is_err_and(|(status, _)| *status == 403)
}

fn bind(world: &World, namespace: &str, name: &str, role: &str, subject: &str) {
    let role = format!("--clusterrole={role}");
    world.kubectl_succeeds(&["-n", namespace, "create", "rolebinding", name, &role, subject]);
}

/// Applies objects, as the administrator.
fn apply(world: &World, folder: &str, objects: &[Value]) {
    let folder = world.reaper.make_folder(folder, 0o700).expect("a directory");
    let path = folder.join("objects.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    std::fs::write(&path, list.to_string()).expect("a manifest");
    // As Helm does, so that a later upgrade of the release finds its own fields.
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f"];
    world.kubectl_succeeds(&[&apply[..], &[path.to_str().expect("UTF-8")]].concat());
}

/// Creates the namespaces of the attempts, and grants rights to callers. The chart grants the rights of the gateway.
fn prepare(world: &World) -> Places {
    let [served, other, unserved, callers] = [(), (), (), ()].map(|()| world.namespace_name());
    let places = Places { served, other, unserved, callers };
    for namespace in [&places.served, &places.other, &places.unserved, &places.callers] {
        world.kubectl_succeeds(&["create", "namespace", namespace]);
    }
    bind(world, &places.unserved, "alice", "writ-requester", "--user=alice");
    bind(world, &places.served, "alice", "writ-requester", "--user=alice");
    bind(world, &places.served, "sre", "writ-requester", "--group=sre");
    bind(world, &places.served, "carol", "writ-on-call", "--user=carol");
    for robot in ["robot", "gone"] {
        world.kubectl_succeeds(&["-n", &places.callers, "create", "serviceaccount", robot]);
        let account = format!("--serviceaccount={}:{robot}", places.callers);
        bind(world, &places.served, robot, "writ-requester", &account);
    }
    world.kubectl_succeeds(&["-n", &places.callers, "delete", "serviceaccount", "gone"]);
    upgrade(world, &places, &[]);
    places
}

/// Changes the release to these namespaces, with further values.
fn upgrade(world: &World, places: &Places, values: &[&str]) {
    let served = format!(r#"watchNamespaces=["{}","{}"]"#, places.served, places.other);
    let callers = format!(r#"gateway.callerNamespaces=["{}"]"#, places.callers);
    world.upgrade(&[&["--set-json", &served, "--set-json", &callers], values].concat());
}

/// Waits until a policy is in force, or until it is not. The answer to a dry run shows it.
async fn until_policy(thief: &Thief, places: &Places, name: &str, is_in_force: bool) {
    let served = &places.served;
    let started = Instant::now();
    loop {
        let manager = person("system:kube-controller-manager", &["sre"]);
        let dry_run = |key: &str| attacks::dry_run_with_annotation(served, key, "gateway");
        let is = match name {
            "writ-requester-names" => is_refused(&thief.send(&dry_run("x"), &manager).await),
            "writ-session" => is_refused(&thief.send(&attacks::dry_run_session(served), &alice()).await),
            "writ-via" => thief.send(&dry_run("writ.dev/via"), &alice()).await.is_ok_and(|x| mark(&x).is_none()),
            "writ-audit" => thief.send(&dry_run("x"), &alice()).await.is_ok_and(|x| is_kept(&x)),
            _ => thief.send(&attacks::dry_run_forged(served), &alice()).await.is_ok_and(|x| is_alices(&x)),
        };
        if is == is_in_force {
            return;
        }
        assert!(started.elapsed() < TIMEOUT, "{name}: in force is {is}, not {is_in_force}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Returns an object of the cluster as it can be created again.
fn saved(world: &World, kind: &str, name: &str) -> Value {
    let text = world.kubectl_succeeds(&["get", kind, name, "-o", "json"]);
    let mut object: Value = serde_json::from_str(&text).expect("JSON");
    let metadata = &object["metadata"];
    let kept = json!({"name": name, "labels": metadata["labels"], "annotations": metadata["annotations"]});
    object["metadata"] = kept;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// Deletes a policy with its binding, and creates both again.
async fn reload(thief: &Thief, places: &Places, kind: &str, name: &str) {
    let binding = format!("{kind}binding");
    let objects = [saved(&thief.world, kind, name), saved(&thief.world, &binding, name)];
    for kind in [binding.as_str(), kind] {
        thief.world.kubectl_succeeds(&["delete", kind, name]);
    }
    until_policy(thief, places, name, false).await;
    apply(&thief.world, &format!("reload-{name}"), &objects);
    until_policy(thief, places, name, true).await;
}

#[tokio::test]
async fn a_stolen_token_gives_no_more_than_callers_have_also_after_policies_are_created_again() {
    let thief = Thief::new(World::start()).await;
    let places = prepare(&thief.world);
    let robot = person(&format!("system:serviceaccount:{}:robot", places.callers), &[]);
    thief.until("alice", || create(&places.served), &alice(), is_stored).await;
    thief.until("the robot", || create(&places.served), &robot, is_stored).await;
    for (_, name) in RELOADED {
        until_policy(&thief, &places, name, true).await;
    }
    thief.attack(&places, "at first").await;
    for (kind, name) in RELOADED {
        reload(&thief, &places, kind, name).await;
        thief.attack(&places, &format!("after {name} was created again")).await;
    }

    // The probe of the gateway: it acts for a user that has no rights, and reads the name back.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut probe = create(&places.served);
    (probe.path, probe.body) = ("/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(), review);
    let answer = thief.send(&probe, &person("writ:probe", &[])).await.expect("the probe");
    assert_eq!(answer["status"]["userInfo"]["username"], "writ:probe");

    // Only listed groups, and only listed extra keys.
    let values = ["--set-json", r#"gateway.groups=["sre","staff"]"#, "--set", "gateway.extraKeys={example.org/scopes}"];
    upgrade(&thief.world, &places, &values);
    let wheel = person("alice", &["staff", "wheel"]);
    thief.until("the group wheel", || create(&places.served), &wheel, is_refused).await;
    let five = person("alice", &["staff", "sre", "system:authenticated", "a", "wheel"]);
    assert!(is_refused(&thief.send(&create(&places.served), &five).await));
    let scoped = [alice(), vec![("impersonate-extra-example.org%2fscopes", "read".to_owned())]].concat();
    thief.until("the extra key", || create(&places.served), &scoped, is_stored).await;
    assert!(is_stored(&thief.send(&create(&places.served), &alice()).await));

    // A namespace of callers that the release no longer lists.
    thief.world.kubectl_succeeds(&["-n", &places.callers, "delete", "rolebinding", "writ-gateway-serviceaccounts"]);
    let taken = thief.until("the robot", || create(&places.served), &robot, is_refused).await;
    assert!(taken < CACHE_TIMEOUT, "{taken:?}");
}

/// Attempt 48: roles that an administrator bound by mistake let the gateway act as Writ. The guards still do not treat
/// it as Writ.
#[tokio::test]
async fn the_gateway_does_not_write_the_record_even_if_it_may_act_as_writ() {
    let thief = Thief::new(World::start()).await;
    let places = prepare(&thief.world);
    thief.until("alice", || create(&places.served), &alice(), is_stored).await;
    let target = thief.send(&create(&places.served), &alice()).await.expect("alice may");
    let target = target["metadata"]["name"].as_str().expect("a name").to_owned();
    let group = "rbac.authorization.k8s.io";
    let rule = json!({"apiGroups": ["writ.dev"], "resources": ["commandexecutions/status"],
        "verbs": ["impersonate-on:serviceaccount:patch"]});
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "mistake"},
        "rules": [rule]});
    apply(&thief.world, "mistake", &[role]);
    let gateway = format!("--serviceaccount={HOME}:{GATEWAY_ACCOUNT}");
    bind(&thief.world, &places.served, "mistake", "mistake", &gateway);
    bind(&thief.world, HOME, "mistake", "writ-gateway-serviceaccounts", &gateway);
    let as_writ = person(&format!("system:serviceaccount:{HOME}:{ACCOUNT}"), &[]);
    let by_guard: Condition =
        |answer| answer.as_ref().is_err_and(|(_, message)| message.contains("only Writ writes it"));
    let forge = || attacks::patch_status(&places.served, &target);
    thief.until("the guard refuses", forge, &as_writ, by_guard).await;
    // The real Writ is exempt: its token has an ID.
    let writ = Thief { client: client_of(&thief.world.operator).await, world: Arc::clone(&thief.world) };
    let answer = writ.send(&forge(), &Caller::new()).await;
    assert!(!by_guard(&answer), "{answer:?}");
    // That write finished the execution, so the next attempt needs another one.
    let target = thief.send(&create(&places.served), &alice()).await.expect("alice may");
    let target = target["metadata"]["name"].as_str().expect("a name").to_owned();
    // Other users whose names are exempt have the same restriction, also by the legacy impersonation of kubectl.
    let patch = ["patch", "cmdexec", &target, "-n", &places.served, "--subresource=status", "--type=merge"];
    let forged = ["-p", r#"{"status":{"stdout":"forged"}}"#, "--as", "admin", "--as-group", "system:masters"];
    let output = thief.world.kubectl(&[&patch[..], &forged[..]].concat());
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && refusal.contains("only Writ writes it"), "{refusal}");
}

/// Attempt 78, by clients with access of their own. The mark of the gateway is in no request of theirs.
#[tokio::test]
async fn nobody_with_direct_access_sets_a_session_not_even_writ() {
    let world = world();
    let namespace = world.namespace_name();
    world.kubectl_succeeds(&["create", "namespace", &namespace]);
    let clients = [("administrator", world.client().await), ("Writ", client_of(&world.operator).await)];
    for (name, client) in clients {
        let direct = Thief { world: Arc::clone(&world), client };
        let without = attacks::dry_run_with_annotation(&namespace, "example.org/x", "y");
        let answer = direct.send(&without, &Caller::new()).await;
        assert!(is_stored(&answer), "{name}: {answer:?}");
        let answer = direct.send(&attacks::dry_run_session(&namespace), &Caller::new()).await;
        let refusal = answer.expect_err(name);
        assert!(refusal.0 == 403 && refusal.1.contains(NO_SESSION), "{name}: {refusal:?}");
    }
    // `admin` is in admission.exemptUsers, and alice is a person with the right to create executions.
    bind(&world, &namespace, "alice", "writ-requester", "--user=alice");
    let admin = Thief { client: world.client().await, world };
    for caller in [person("admin", &["system:masters"]), person("alice", &["staff"])] {
        let answer = admin.send(&attacks::dry_run_session(&namespace), &caller).await;
        assert!(answer.is_err_and(|(_, message)| message.contains(NO_SESSION)), "{caller:?}");
    }
}

/// Attempt 75, in a release that serves all namespaces. Each namespace opens itself by the command of the notes.
#[tokio::test]
async fn a_right_that_the_gateway_or_a_caller_loses_ends_within_seconds() {
    let thief = Thief::new(world()).await;
    let served = thief.world.namespace_name();
    thief.world.kubectl_succeeds(&["create", "namespace", &served]);
    bind(&thief.world, &served, "alice", "writ-requester", "--user=alice");
    assert!(is_refused(&thief.send(&create(&served), &alice()).await), "the namespace has not opened itself");
    let open = || {
        let gateway = format!("--serviceaccount={HOME}:{GATEWAY_ACCOUNT}");
        bind(&thief.world, &served, "writ-gateway", "writ-gateway-actions", &gateway);
    };
    open();
    thief.until("alice", || create(&served), &alice(), is_stored).await;
    thief.world.kubectl_succeeds(&["-n", &served, "delete", "rolebinding", "writ-gateway"]);
    let taken = thief.until("without the binding", || create(&served), &alice(), is_refused).await;
    assert!(taken < CACHE_TIMEOUT, "{taken:?}");
    for _ in 0..10 {
        assert!(is_refused(&thief.send(&create(&served), &alice()).await), "it comes back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The API server checks the right of the caller in each request, and caches nothing.
    open();
    thief.until("alice", || create(&served), &alice(), is_stored).await;
    thief.world.kubectl_succeeds(&["-n", &served, "delete", "rolebinding", "alice"]);
    let taken = thief.until("alice without right", || create(&served), &alice(), is_refused).await;
    assert!(taken < CACHE_TIMEOUT, "{taken:?}");
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { username: Some(name.to_owned()), groups: Some(groups), ..UserInfo::default() }
}

fn with_extra(key: &str) -> UserInfo {
    UserInfo { extra: Some(BTreeMap::from([(key.to_owned(), vec!["x".to_owned()])])), ..user("alice", &["sre"]) }
}

/// Attempts 49 to 52, and the names of the attempts 22 to 39: Writ itself refuses these callers, and sends nothing. The
/// attempts 53 to 56 are in [`tokens`].
#[tokio::test]
async fn callers_whom_headers_cannot_name_exactly_are_refused_before_any_request() {
    let world = world();
    let kubeconfig = world.control_plane.service_account_kubeconfig(HOME, GATEWAY_ACCOUNT).expect("a token");
    let options = ClientOptions { kubeconfig: Some(kubeconfig), ..ClientOptions::default() };
    let acting = Acting::new(Cluster::connect(&options).await.expect("a client"), vec!["example.org/known".to_owned()]);
    let refused = [
        (49, user(" alice", &["sre"])),
        (49, user("alice ", &["sre"])),
        (49, user("\talice", &["sre"])),
        (49, user("alice", &[" sre"])),
        (49, user("alice", &["sre "])),
        (49, user("alice", &["\tsre"])),
        (49, user("alice", &["sre\u{a0}"])),
        (49, user("", &["sre"])),
        (49, user("alice", &[""])),
        (50, user("alice\r\nImpersonate-Group: system:masters", &["sre"])),
        (50, user("alice", &["sre\r\nImpersonate-User: admin"])),
        (50, user("alice", &["sre\0"])),
        (51, with_extra("example.org/scopes")),
        (51, with_extra("example.org/Known")),
        (51, with_extra("writ.dev/via")),
        (52, user("alice", &["system:masters"])),
        (52, user("alice", &["a", "b", "system:masters", "c", "d"])),
        (26, user("system:kube-controller-manager", &["sre"])),
        (27, user("system:admin", &["sre"])),
        (28, user("system:anonymous", &["system:unauthenticated"])),
        (30, user("system:node:N_1", &["sre"])),
        (31, user("alice", &["system:nodes"])),
        (32, user("alice", &["system:serviceaccounts:ops"])),
        (34, user(&format!("system:serviceaccount:{HOME}:{ACCOUNT}"), &[])),
        (34, user(&format!("system:serviceaccount:{HOME}:{GATEWAY_ACCOUNT}"), &[])),
        (35, user("system:serviceaccount:kube-system:generic-garbage-collector", &[])),
        (38, user("system:serviceaccount:ops", &["sre"])),
        (39, user("system:serviceaccount:OPS:robot", &[])),
    ];
    for (number, caller) in &refused {
        match acting.for_caller(caller).await {
            Err(ActingError::Requester(_)) => {}
            Err(error) => panic!("{number} {caller:?}: {error}"),
            Ok(_) => panic!("{number}: {caller:?} is accepted"),
        }
    }
    let scopes = acting.for_caller(&with_extra("example.org/scopes")).await.err().expect("refused");
    assert!(matches!(scopes, ActingError::Requester(RequesterError::UnknownExtraKey(_))), "{scopes}");
    for caller in [user("alice", &["sre", "system:authenticated"]), with_extra("example.org/known")] {
        assert!(acting.for_caller(&caller).await.is_ok(), "{caller:?}");
    }
}
