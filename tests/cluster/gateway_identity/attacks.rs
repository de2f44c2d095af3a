//! The attempts of an attacker with a token of the gateway: raw requests with impersonation headers, and the expected
//! answer to each one. Attempts with the number 0 are permitted: without them, every refusal could have another cause.

use std::sync::atomic::{AtomicU32, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::world::{ACCOUNT, GATEWAY_ACCOUNT, HOME};

/// Part of each refusal because the gateway may not act for somebody, or not in this way.
const NO_IMPERSONATION: &str = "cannot impersonate";
/// Part of each refusal because no requester has this name.
const NO_REQUESTER: &str = "writ-requester-names";
/// Part of each refusal because only the gateway may set a session.
pub const NO_SESSION: &str = "only the gateway sets spec.session";
/// Part of each refusal because the gateway itself lacks a right.
const NOT_THE_GATEWAY: &str = "system:serviceaccount:writ-system:writ-gateway\" cannot";

/// Impersonation headers of a request. Empty for a request as the gateway itself.
pub type Caller = Vec<(&'static str, String)>;

/// A request to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub body: Value,
}

/// Expected answer of the API server.
#[derive(Clone, Copy)]
pub enum Expected {
    /// A refusal with this status, and with these words in its message.
    Refused(u16, &'static str),
    /// An object for which the function returns true.
    Stored(fn(&Value) -> bool),
}

/// An attempt: its number, its name, the request, the caller, and the expected answer.
pub type Attempt = (u32, &'static str, Call, Caller, Expected);

/// Namespaces of the attempts.
pub struct Places {
    /// The gateway acts here. The group `sre`, alice, and the robots may create executions, and carol may only patch.
    pub served: String,
    /// The gateway acts here. Nobody may create executions.
    pub other: String,
    /// The gateway does not act here. Alice may create executions.
    pub unserved: String,
    /// ServiceAccounts of this namespace may be callers: `robot`, and `gone`, which is deleted.
    pub callers: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Returns headers for a user with these groups.
pub fn person(name: &str, groups: &[&str]) -> Caller {
    let user = ("impersonate-user", name.to_owned());
    let groups = groups.iter().map(|group| ("impersonate-group", (*group).to_owned()));
    [user].into_iter().chain(groups).collect()
}

/// Returns headers for alice, with one more header.
fn alice_with(name: &'static str, value: &str) -> Caller {
    [alice(), vec![(name, value.to_owned())]].concat()
}

pub fn alice() -> Caller {
    person("alice", &["staff", "system:authenticated"])
}

fn itself() -> Caller {
    Vec::new()
}

/// Returns an execution with a name of its own, with changes to its spec.
fn execution(spec: Value) -> Value {
    let mut object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
        "metadata": {"name": format!("attempt-{}", NUMBER.fetch_add(1, Ordering::Relaxed))},
        "spec": {"machineRef": {"name": "none"}, "command": "say hello"}});
    for (field, value) in spec.as_object().expect("an object") {
        object["spec"][field] = value.clone();
    }
    object
}

fn with_annotation(name: &str, value: &str) -> Value {
    let mut object = execution(json!({}));
    object["metadata"]["annotations"] = json!({name: value});
    object
}

fn writ_path(namespace: &str, rest: &str) -> String {
    format!("/apis/writ.dev/v1alpha1/namespaces/{namespace}/{rest}")
}

fn call(method: Method, path: String, content_type: &'static str, body: Value) -> Call {
    Call { method, path, content_type, body }
}

fn post(path: String, body: Value) -> Call {
    call(Method::POST, path, "application/json", body)
}

fn get(path: String) -> Call {
    call(Method::GET, path, "application/json", Value::Null)
}

fn patch(path: String, body: Value) -> Call {
    call(Method::PATCH, path, "application/merge-patch+json", body)
}

/// Returns a request that creates an execution in a namespace.
pub fn create(namespace: &str) -> Call {
    post(writ_path(namespace, "commandexecutions"), execution(json!({})))
}

/// Returns a request that creates an execution with an annotation, as a dry run.
pub fn dry_run_with_annotation(namespace: &str, name: &str, value: &str) -> Call {
    post(writ_path(namespace, "commandexecutions?dryRun=All"), with_annotation(name, value))
}

/// Returns a request that creates an execution with a forged requester, as a dry run.
pub fn dry_run_forged(namespace: &str) -> Call {
    post(writ_path(namespace, "commandexecutions?dryRun=All"), execution(json!({"requestedBy": forged()})))
}

/// Returns a request that creates an execution with a session, as a dry run.
pub fn dry_run_session(namespace: &str) -> Call {
    post(writ_path(namespace, "commandexecutions?dryRun=All"), execution(json!({"session": {}})))
}

/// Returns a request that changes the status of an execution.
pub fn patch_status(namespace: &str, name: &str) -> Call {
    let forged = json!({"status": {"phase": "Succeeded", "exitCode": 0}});
    patch(writ_path(namespace, &format!("commandexecutions/{name}/status")), forged)
}

fn forged() -> Value {
    json!({"username": "mallory", "uid": "", "groups": ["system:masters"]})
}

/// Returns true if alice is the requester of an object.
pub fn is_alices(object: &Value) -> bool {
    let requester = &object["spec"]["requestedBy"];
    requester["username"] == "alice" && requester["groups"] == json!(["staff", "system:authenticated"])
}

/// Returns true if an object has the finalizer that keeps the record.
pub fn is_kept(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| all.contains(&json!("writ.dev/audit")))
}

/// Returns the mark of an object that a person created through the gateway.
pub fn mark(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"]["writ.dev/via"].as_str()
}

fn is_robots(object: &Value) -> bool {
    let requester = &object["spec"]["requestedBy"];
    let name = requester["username"].as_str().unwrap_or_default();
    let namespace = name.split(':').nth(2).unwrap_or_default();
    let group = json!(format!("system:serviceaccounts:{namespace}"));
    let has_group = requester["groups"].as_array().is_some_and(|groups| groups.contains(&group));
    name.starts_with("system:serviceaccount:") && has_group && mark(object).is_none()
}

/// Returns all attempts. `target` is an execution of alice in the served namespace.
pub fn attempts(places: &Places, target: &str) -> Vec<Attempt> {
    [
        reads_and_deletes(places, target),
        scope(places, target),
        people(places),
        accounts(places),
        sessions(places, target),
        records(places, target),
    ]
    .concat()
}

fn reads_and_deletes(places: &Places, target: &str) -> Vec<Attempt> {
    let all = writ_path(&places.served, "commandexecutions");
    let one = format!("{all}/{target}");
    let refused = Expected::Refused(403, NO_IMPERSONATION);
    let json = "application/json";
    vec![
        (4, "get", get(one.clone()), alice(), refused),
        (5, "list", get(all.clone()), alice(), refused),
        (6, "watch", get(format!("{all}?watch=true&timeoutSeconds=1")), alice(), refused),
        (7, "replace", call(Method::PUT, one.clone(), json, execution(json!({}))), alice(), refused),
        (8, "delete", call(Method::DELETE, one.clone(), json, json!({})), alice(), refused),
        (8, "delete as itself", call(Method::DELETE, one.clone(), json, json!({})), itself(), itself_refused()),
        (9, "deletecollection", call(Method::DELETE, all.clone(), json, json!({})), alice(), refused),
        (10, "status", patch_status(&places.served, target), alice(), refused),
        (10, "status as itself", patch_status(&places.served, target), itself(), itself_refused()),
        (16, "Secret as itself", get(secrets(&places.served, "/x")), itself(), itself_refused()),
        (16, "Secrets of its namespace", get(secrets(HOME, "")), itself(), itself_refused()),
        (16, "watch Secrets of its namespace", get(secrets(HOME, "?watch=true")), itself(), itself_refused()),
        (16, "Secret as alice", get(secrets(HOME, "/x")), alice(), refused),
        (16, "Secret of the control plane", get(secrets("kube-system", "/x")), itself(), itself_refused()),
    ]
}

fn secrets(namespace: &str, rest: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets{rest}")
}

fn itself_refused() -> Expected {
    Expected::Refused(403, NOT_THE_GATEWAY)
}

fn scope(places: &Places, target: &str) -> Vec<Attempt> {
    let served = &places.served;
    let refused = Expected::Refused(403, NO_IMPERSONATION);
    let object = |resource: &str| post(writ_path(served, resource), json!({"metadata": {"name": "x"}}));
    let token = |name: &str| {
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        post(format!("/api/v1/namespaces/{HOME}/serviceaccounts/{name}/token"), request)
    };
    let bindings = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{served}/rolebindings");
    let bind = || {
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
        let subject = json!({"kind": "ServiceAccount", "name": GATEWAY_ACCOUNT, "namespace": HOME});
        post(bindings.clone(), json!({"metadata": {"name": "x"}, "roleRef": role, "subjects": [subject]}))
    };
    let one = writ_path(served, &format!("commandexecutions/{target}"));
    let mut applied = execution(json!({}));
    applied["metadata"]["name"] = json!("applied");
    let apply = writ_path(served, "commandexecutions/applied?fieldManager=x");
    let apply = call(Method::PATCH, apply, "application/apply-patch+yaml", applied);
    let another = json!({"spec": {"command": "rm -rf /"}});
    let without_finalizer = json!({"metadata": {"finalizers": null}});
    vec![
        (1, "create as itself", create(served), itself(), itself_refused()),
        (2, "alice without a right", create(&places.other), alice(), Expected::Refused(403, "User \"alice\" cannot")),
        (3, "namespace not served", create(&places.unserved), alice(), refused),
        (11, "Whitelist", object("whitelists"), alice(), refused),
        (11, "Whitelist as itself", object("whitelists"), itself(), itself_refused()),
        (12, "Machine", object("machines"), alice(), refused),
        (12, "Machine as itself", object("machines"), itself(), itself_refused()),
        (13, "receipt", object("executionreceipts"), alice(), refused),
        (14, "approval as bob", object("commandapprovals"), person("bob", &["sre"]), refused),
        (15, "approval as itself", object("commandapprovals"), itself(), itself_refused()),
        (17, "RoleBinding as alice", bind(), alice(), refused),
        (17, "RoleBinding as itself", bind(), itself(), itself_refused()),
        (18, "token of Writ", token(ACCOUNT), itself(), itself_refused()),
        (18, "token of Writ as alice", token(ACCOUNT), alice(), refused),
        (18, "token of itself", token(GATEWAY_ACCOUNT), itself(), itself_refused()),
        (19, "another command", patch(one.clone(), another), alice(), Expected::Refused(422, "spec must not change")),
        (20, "finalizer off", patch(one, without_finalizer), alice(), Expected::Stored(is_kept)),
        (
            21,
            "apply without right",
            apply,
            person("carol", &["staff"]),
            Expected::Refused(403, "cannot create resource"),
        ),
    ]
}

fn people(places: &Places) -> Vec<Attempt> {
    let create = || create(&places.served);
    let refused = |words| Expected::Refused(403, words);
    let of_alice = |group| person("alice", &["staff", "system:authenticated", group]);
    let five = ["a", "b", "system:masters", "c", "d"];
    vec![
        (
            0,
            "alice",
            create(),
            alice_with(VIA, "gateway"),
            Expected::Stored(|x| is_alices(x) && mark(x) == Some("gateway")),
        ),
        (0, "bob by a group", create(), person("bob", &["sre"]), Expected::Stored(|x| mark(x).is_none())),
        (22, "system:masters alone", create(), person("alice", &["system:masters"]), refused("system:masters")),
        (23, "system:masters among 5", create(), person("alice", &five), refused("system:masters")),
        (24, "empty group", create(), person("alice", &["", "staff"]), refused("empty string group")),
        (
            25,
            "group without user",
            create(),
            vec![("impersonate-group", "sre".to_owned())],
            Expected::Refused(400, "without impersonating a user"),
        ),
        (26, "controller manager", create(), person("system:kube-controller-manager", &["sre"]), refused(NO_REQUESTER)),
        (27, "system:admin", create(), person("system:admin", &["sre"]), refused(NO_REQUESTER)),
        (28, "anonymous", create(), person("system:anonymous", &["sre"]), refused(NO_REQUESTER)),
        (29, "node", create(), person("system:node:n1", &[]), refused(NO_IMPERSONATION)),
        (29, "node with group", create(), person("system:node:n1", &["sre"]), refused(NO_IMPERSONATION)),
        (30, "malformed node", create(), person("system:node:N_1", &["sre"]), refused(NO_REQUESTER)),
        (31, "group of nodes", create(), of_alice("system:nodes"), refused(NO_REQUESTER)),
        (32, "group of accounts", create(), of_alice("system:serviceaccounts:ops"), refused(NO_REQUESTER)),
        (32, "group of all accounts", create(), of_alice("system:serviceaccounts"), refused(NO_REQUESTER)),
        (33, "unauthenticated", create(), person("alice", &["system:unauthenticated"]), refused(NO_REQUESTER)),
        (33, "bootstrapper", create(), of_alice("system:bootstrappers"), refused(NO_REQUESTER)),
    ]
}

/// Header with the mark of a gateway.
const VIA: &str = "impersonate-extra-writ.dev%2fvia";

fn accounts(places: &Places) -> Vec<Attempt> {
    let create = || create(&places.served);
    let refused = Expected::Refused(403, NO_IMPERSONATION);
    let account = |namespace: &str, name: &str| format!("system:serviceaccount:{namespace}:{name}");
    let robot = account(&places.callers, "robot");
    let as_robot = |name: &'static str, value: &str| [person(&robot, &[]), vec![(name, value.to_owned())]].concat();
    let malformed = |name: &str| person(name, &["sre"]);
    let no_requester = Expected::Refused(403, NO_REQUESTER);
    let group = format!("system:serviceaccounts:{}", places.callers);
    vec![
        (0, "robot", create(), person(&robot, &[]), Expected::Stored(is_robots)),
        (34, "Writ", create(), person(&account(HOME, ACCOUNT), &[]), refused),
        (34, "the gateway", create(), person(&account(HOME, GATEWAY_ACCOUNT), &[]), refused),
        (35, "kube-system", create(), person(&account("kube-system", "generic-garbage-collector"), &[]), refused),
        (35, "other namespace", create(), person(&account(&places.other, "robot"), &[]), refused),
        (36, "with UID", create(), as_robot("impersonate-uid", "1"), refused),
        (36, "with extra", create(), as_robot(VIA, "gateway"), refused),
        (37, "with groups", create(), person(&robot, &["sre"]), refused),
        (37, "with its own groups", create(), person(&robot, &[&group]), refused),
        (38, "without name", create(), malformed("system:serviceaccount:ops"), no_requester),
        (38, "malformed name", create(), malformed("system:serviceaccount:ops:ROBOT"), no_requester),
        (38, "too many parts", create(), malformed("system:serviceaccount:ops:a:b"), no_requester),
        (39, "upper case", create(), malformed("system:serviceaccount:OPS:robot"), no_requester),
        (40, "deleted", create(), person(&account(&places.callers, "gone"), &[]), Expected::Stored(is_robots)),
    ]
}

/// Returns true if an object has a session of alice, with the default size.
fn is_alices_session(object: &Value) -> bool {
    is_alices(object) && object["spec"]["session"] == json!({"tty": true, "columns": 80, "rows": 24})
}

/// Returns the attempts with an interactive session. Only a gateway that acts for a person may set one.
fn sessions(places: &Places, target: &str) -> Vec<Attempt> {
    let all = writ_path(&places.served, "commandexecutions");
    let create = |session: Value| post(all.clone(), execution(json!({"session": session})));
    let later = patch(format!("{all}/{target}"), json!({"spec": {"session": {}}}));
    let robot = person(&format!("system:serviceaccount:{}:robot", places.callers), &[]);
    let by_gateway = || alice_with(VIA, "gateway");
    let refused = Expected::Refused(403, NO_SESSION);
    vec![
        (0, "session", create(json!({"tty": true})), by_gateway(), Expected::Stored(is_alices_session)),
        (78, "session without mark", create(json!({})), alice(), refused),
        (78, "session of a ServiceAccount", create(json!({})), robot, refused),
        (78, "session later", later, alice(), Expected::Refused(422, "spec must not change")),
        (78, "no columns", create(json!({"columns": 0})), by_gateway(), Expected::Refused(422, "spec.session.columns")),
        (78, "too many rows", create(json!({"rows": 1001})), by_gateway(), Expected::Refused(422, "spec.session.rows")),
    ]
}

fn records(places: &Places, target: &str) -> Vec<Attempt> {
    let served = &places.served;
    let refused = Expected::Refused(403, NO_IMPERSONATION);
    let one = writ_path(served, &format!("commandexecutions/{target}"));
    let create_with = |object: Value| post(writ_path(served, "commandexecutions"), object);
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"});
    let owned = json!({"metadata": {"ownerReferences": [owner]}});
    let manager = || person("system:kube-controller-manager", &["sre"]);
    let without_finalizer = json!({"metadata": {"finalizers": null}});
    let cancel = json!({"spec": {"cancelRequested": true, "cancelledBy": {"username": "mallory"}}});
    let id = "impersonate-extra-authentication.kubernetes.io%2fcredential-id";
    let forged_mark = || create_with(with_annotation("writ.dev/via", "gateway"));
    let by_alice = |x: &Value| x["spec"]["cancelledBy"]["username"] == "alice";
    vec![
        (41, "another mark", create(served), alice_with(VIA, "kubectl"), refused),
        (
            41,
            "two marks",
            create(served),
            [alice_with(VIA, "gateway"), vec![(VIA, "kubectl".to_owned())]].concat(),
            refused,
        ),
        (42, "made-up credential", create(served), alice_with(id, "JTI=1"), refused),
        (43, "extra not granted", create(served), alice_with("impersonate-extra-example.org%2fscopes", "x"), refused),
        (44, "mark without extra", forged_mark(), alice(), Expected::Stored(|x| is_alices(x) && mark(x).is_none())),
        (
            45,
            "forged requester",
            create_with(execution(json!({"requestedBy": forged(), "cancelledBy": forged_canceller()}))),
            alice(),
            Expected::Stored(|x| is_alices(x) && x["spec"].get("cancelledBy").is_none()),
        ),
        (46, "owner", patch(one.clone(), owned.clone()), manager(), Expected::Refused(403, NO_REQUESTER)),
        (46, "owner by alice", patch(one.clone(), owned), alice(), Expected::Refused(403, "ownerReferences")),
        (
            47,
            "finalizer off",
            patch(one.clone(), without_finalizer),
            person("admin", &["sre"]),
            Expected::Stored(is_kept),
        ),
        (
            26,
            "cancel as controller",
            patch(one.clone(), cancel.clone()),
            manager(),
            // By the guard or by the policy for names, because the API server evaluates policies in no fixed order.
            Expected::Refused(403, "denied request"),
        ),
        // The last attempt, because a cancelled execution cannot be cancelled again.
        (0, "cancel", patch(one, cancel), alice(), Expected::Stored(by_alice)),
    ]
}

fn forged_canceller() -> Value {
    json!({"username": "mallory"})
}
