//! Sessions of the gateway: a person makes one with the own login, and nobody makes one for somebody else.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use writ::api::GatewaySession;

use crate::case::Case;
use crate::gateway::socket::Socket;
use crate::gateway::{Answer, Gated, grant, rule, served_at};
use crate::lab::{SshdOptions, User};
use crate::protection::{root, with_role};
use crate::world::{GATEWAY_ACCOUNT, HOME, World, client_of};

/// Maximum wait for an expected event. The machine also runs other tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum wait for the end of the shortest session, and for its deletion.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(240);
/// A machine of the case, as a WebSocket that runs a command.
const STREAM: &str = "/api/v1/machines/web-1/commands/stream";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A session, and the value of its header.
struct Session {
    name: String,
    key: String,
    header: String,
}

/// Returns a key that no other test uses. A real key is random.
fn new_key() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let digest = Sha256::digest(format!("{} {number}", std::process::id()));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of(key: &str) -> String {
    let digits: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn api(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<GatewaySession>(&()))
}

/// Returns a session with changes to its metadata and its spec.
fn session(key: &str, metadata: &Value, spec: &Value) -> DynamicObject {
    let mut object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "GatewaySession",
        "metadata": {"generateName": "session-"}, "spec": {"keyDigest": digest_of(key)}});
    for (part, changes) in [("metadata", metadata), ("spec", spec)] {
        for (field, value) in changes.as_object().expect("an object") {
            object[part][field] = value.clone();
        }
    }
    serde_json::from_value(object).expect("a session")
}

async fn create(client: &Client, namespace: &str, object: &DynamicObject) -> Result<DynamicObject, kube::Error> {
    api(client, namespace).create(&PostParams::default(), object).await
}

/// Makes a session, as a person does.
async fn make(client: &Client, namespace: &str, spec: &Value) -> Session {
    let key = new_key();
    let created = create(client, namespace, &session(&key, &json!({}), spec)).await.expect("a session");
    let name = created.name_any();
    Session { header: format!("{namespace}/{name}/{key}"), name, key }
}

async fn call(gated: &Gated, header: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let body = body.map(|body| body.to_string());
    gated.send(method, gated.url(path), "", &[("x-writ-session", header)], body).await
}

async fn me(gated: &Gated, header: &str) -> Answer {
    call(gated, header, "GET", "/api/v1/me", None).await
}

/// Waits until the gateway refuses a session.
async fn until_refused(gated: &Gated, header: &str, patience: Duration) {
    let started = Instant::now();
    loop {
        let answer = me(gated, header).await;
        if answer.status == 401 {
            return;
        }
        assert!(answer.status == 200 && started.elapsed() < patience, "{answer:?}\n{}", gated.case.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[track_caller]
fn refused(what: &str, result: Result<DynamicObject, kube::Error>, code: u16, words: &str) {
    match result {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, code, "{what}: {}", status.message);
            assert!(status.message.contains(words), "{what}: {words} is not in: {}", status.message);
        }
        other => panic!("{what} was not refused: {other:?}"),
    }
}

/// Returns a case with a gateway and a rule, and the client of jane.
async fn gated() -> (Gated, Client) {
    let gated = Gated::new().await;
    gated.case.apply_whitelist("work", json!([rule("greet", "echo hello")])).await;
    let jane = with_role(&gated.case, User::Jane, "writ-requester").await;
    (gated, jane)
}

#[tokio::test]
async fn a_session_runs_commands_as_its_creator_until_it_is_deleted() {
    let (gated, jane) = gated().await;
    let namespace = gated.case.namespace.clone();
    let session = make(&jane, &namespace, &json!({})).await;
    let stored = api(&jane, &namespace).get(&session.name).await.expect("a session");
    let stamp = &stored.data["spec"]["requestedBy"];
    assert_eq!((&stamp["username"], &stored.data["spec"]["expirationSeconds"]), (&json!("jane"), &json!(3600)));

    let answer = me(&gated, &session.header).await;
    assert_eq!((answer.status, answer.text("user"), answer.text("credential")), (200, "jane", "session"), "{answer:?}");
    assert_eq!(answer.body["groups"], stamp["groups"], "{answer:?}");
    let run = json!({"command": "greet", "action_type": "shell"});
    let path = "/api/v1/machines/web-1/commands/execute";
    let answer = call(&gated, &session.header, "POST", path, Some(run.clone())).await;
    assert_eq!((answer.status, answer.text("stdout")), (200, "hello\n"), "{answer:?}\n{}", gated.case.log());
    let name = answer.header("writ-execution").split('/').nth(1).expect("a name").to_owned();
    let execution = gated.case.executions().get(&name).await.expect("an execution");
    assert_eq!(serde_json::to_value(&execution.spec.requested_by).expect("JSON"), *stamp);
    assert_eq!(execution.annotations().get("writ.dev/via").map(String::as_str), Some("gateway"));

    // A browser cannot set headers.
    let credential = URL_SAFE_NO_PAD.encode(format!("writ-session:{}", session.header));
    let protocols = format!("v1.writ.dev, base64url.bearer.authorization.k8s.io.{credential}");
    let own = format!("http://{}", gated.address);
    let headers = [("Origin", own.as_str()), ("Sec-WebSocket-Protocol", protocols.as_str())];
    let stream = format!("{STREAM}?namespace={namespace}");
    let (head, socket) = Socket::try_open(&gated, &stream, &headers).await;
    let mut socket = socket.unwrap_or_else(|| panic!("{head}\n{}", gated.case.log()));
    assert!(!head.contains(&credential), "{head}");
    socket.send(&run.to_string()).await;
    let (messages, code) = socket.all().await;
    assert_eq!((messages.last(), code), (Some(&json!({"type": "exit", "data": 0})), 1000), "{messages:?}");

    api(&jane, &namespace).delete(&session.name, &DeleteParams::default()).await.expect("it ends");
    until_refused(&gated, &session.header, PATIENCE).await;
    let answer = call(&gated, &session.header, "POST", path, Some(run)).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let (head, socket) = Socket::try_open(&gated, &stream, &headers).await;
    assert!(socket.is_none() && head.starts_with("HTTP/1.1 401 "), "{head}");
    let log = gated.case.whole_log();
    assert!(!log.contains(&session.key) && !log.contains(&credential), "the key is in the log");
}

#[tokio::test]
async fn a_session_gives_its_creator_no_right_of_others() {
    let (gated, _) = gated().await;
    let namespace = &gated.case.namespace;
    let joe = client_of(&gated.case.world.control_plane.kubeconfig_for("joe", None).expect("a kubeconfig")).await;
    let verbs = ["--verb=create", "--resource=gatewaysessions.writ.dev"];
    let world = &gated.case.world;
    world.kubectl_succeeds(&[&["-n", namespace, "create", "role", "joe"], &verbs[..]].concat());
    world.kubectl_succeeds(&["-n", namespace, "create", "rolebinding", "joe", "--role=joe", "--user=joe"]);
    let started = Instant::now();
    while create(&joe, namespace, &session(&new_key(), &json!({}), &json!({}))).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "joe may create no session");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let session = make(&joe, namespace, &json!({})).await;
    assert_eq!(me(&gated, &session.header).await.text("user"), "joe");
    let run = json!({"command": "greet", "action_type": "shell"});
    let answer = call(&gated, &session.header, "POST", "/api/v1/machines/web-1/commands/execute", Some(run)).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let answer = call(&gated, &session.header, "GET", "/api/v1/commands", None).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    // Nobody can act for a member of system:masters.
    let admin = make(&gated.case.client, namespace, &json!({})).await;
    let run = json!({"command": "greet", "action_type": "shell"});
    let answer = call(&gated, &admin.header, "POST", "/api/v1/machines/web-1/commands/execute", Some(run)).await;
    assert!(answer.status == 403 && answer.text("message").contains("system:masters"), "{answer:?}");
}

#[tokio::test]
async fn wrong_keys_foreign_namespaces_and_hostile_headers_are_refused_alike() {
    let (gated, jane) = gated().await;
    let namespace = &gated.case.namespace;
    let session = make(&jane, namespace, &json!({})).await;
    assert_eq!(me(&gated, &session.header).await.status, 200, "{}", gated.case.log());
    let Session { name, key, .. } = &session;
    // The session exists there, and this gateway does not serve the namespace.
    let elsewhere = gated.case.world.namespace_name();
    gated.case.world.kubectl_succeeds(&["create", "namespace", &elsewhere]);
    let root = root(&gated.case).await;
    let other = make(&root, &elsewhere, &json!({})).await;
    let log_before = gated.case.whole_log().matches("gateway session").count();
    let other_key = new_key();
    let none = me(&gated, &format!("{namespace}/nothing/{key}")).await;
    for header in [
        format!("{namespace}/{name}/{other_key}"),
        format!("{namespace}/{name}/{}", key.to_uppercase()),
        format!("{namespace}/{name}/{}", digest_of(key)),
        format!("{namespace}/{name}/{key}0"),
        format!("{elsewhere}/{name}/{key}"),
        other.header.clone(),
        format!("{elsewhere}/{}/{key}", other.name),
        format!("{namespace}/{name}"),
        format!("{namespace}/../{name}/{key}"),
        format!("{namespace}/{name}%2f/{key}"),
        format!("{namespace}/{name}?watch=true/{key}"),
        key.clone(),
        String::new(),
        "/".repeat(600),
        format!("{namespace}/{name}/{}", "k".repeat(4000)),
        format!("{namespace}/{}/{key}", "n".repeat(4000)),
    ] {
        let answer = me(&gated, &header).await;
        assert_eq!((answer.status, &answer.body), (401, &none.body), "{header}");
    }
    // Two credentials, and two sessions.
    let one = [("x-writ-session", session.header.as_str())];
    assert_eq!(gated.send("GET", gated.url("/api/v1/me"), &gated.jane, &one, None).await.status, 401);
    let both = [("x-writ-session", session.header.as_str()); 2];
    assert_eq!(gated.send("GET", gated.url("/api/v1/me"), "", &both, None).await.status, 401);
    // The path and the query never have a credential.
    let query = gated.url(&format!("/api/v1/me?session={}", session.header));
    assert_eq!(gated.send("GET", query, "", &[], None).await.status, 401);
    assert_eq!(me(&gated, &session.header).await.status, 200);
    let log = gated.case.whole_log();
    assert!(!log.contains(key) && !log.contains(&other_key), "a key is in the log");
    assert_eq!(log.matches("gateway session").count(), log_before, "outsiders fill the log: {}", gated.case.log());
}

#[tokio::test]
async fn nobody_makes_a_session_for_somebody_else() {
    let (gated, jane) = gated().await;
    let namespace = &gated.case.namespace;
    let root = root(&gated.case).await;
    let own = make(&jane, namespace, &json!({})).await;
    let stored = api(&jane, namespace).get(&own.name).await.expect("a session");
    let stamp = stored.data["spec"]["requestedBy"].clone();
    let new = |metadata: Value, spec: Value| session(&new_key(), &metadata, &spec);
    let with = |change: Value| new(json!({}), change);
    let mut more_groups = stamp.clone();
    more_groups["groups"].as_array_mut().expect("groups").push(json!("sre"));
    let nameless = json!({"requestedBy": {"username": "", "groups": []}});
    let not_me = "must be its creator";
    // The administrator is also in admission.exemptUsers. A restored copy has the stamp of its first creator.
    for client in [&root, &gated.case.client] {
        let copy = json!({"requestedBy": stamp.clone(), "keyDigest": stored.data["spec"]["keyDigest"]});
        refused("a copy", create(client, namespace, &with(copy)).await, 403, not_me);
        refused(
            "jane",
            create(client, namespace, &with(json!({"requestedBy": {"username": "jane"}}))).await,
            403,
            not_me,
        );
    }
    refused("more groups", create(&jane, namespace, &with(json!({"requestedBy": more_groups}))).await, 403, not_me);
    refused("no name", create(&jane, namespace, &with(nameless)).await, 403, not_me);
    create(&jane, namespace, &with(json!({"requestedBy": stamp}))).await.expect("her own name");
}

#[tokio::test]
async fn a_session_is_bounded_and_never_changes() {
    let (gated, jane) = gated().await;
    let namespace = &gated.case.namespace;
    let root = root(&gated.case).await;
    let own = make(&jane, namespace, &json!({})).await;
    let new = |metadata: Value, spec: Value| session(&new_key(), &metadata, &spec);
    for (field, value) in [
        ("keyDigest", json!("sha256:0")),
        ("keyDigest", json!(own.key)),
        ("expirationSeconds", json!(59)),
        ("expirationSeconds", json!(3601)),
        ("expirationSeconds", json!(-1)),
    ] {
        refused(
            field,
            create(&jane, namespace, &new(json!({}), json!({field: value}))).await,
            422,
            &format!("spec.{field}"),
        );
    }
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "0"}]);
    for (metadata, words) in [
        (json!({"ownerReferences": owner}), "ownerReferences"),
        (json!({"finalizers": ["writ.dev/audit"]}), "finalizers of Writ"),
        (json!({"annotations": {"big": "v".repeat(16_384)}}), "metadata.annotations"),
    ] {
        refused(words, create(&root, namespace, &new(metadata.clone(), json!({}))).await, 403, words);
        let change = Patch::Merge(json!({"metadata": metadata}));
        let patched = api(&root, namespace).patch(&own.name, &PatchParams::default(), &change).await;
        refused(words, patched, 403, words);
    }
    for change in [
        json!({"expirationSeconds": 3599}),
        json!({"keyDigest": digest_of("x")}),
        json!({"requestedBy": {"username": "ceo"}}),
        json!({"requestedBy": null}),
        json!({"fieldOfALaterVersion": true}),
    ] {
        let merge = Patch::Merge(json!({"spec": change.clone()}));
        for client in [&root, &gated.case.client] {
            let changed = api(client, namespace).patch(&own.name, &PatchParams::default(), &merge).await;
            refused(&change.to_string(), changed, 422, "must not change");
        }
    }
    assert_eq!(me(&gated, &own.header).await.text("user"), "jane");
    // A field of a later version perhaps limits the session.
    let unknown = make(&jane, namespace, &json!({"fieldOfALaterVersion": true})).await;
    assert_eq!(me(&gated, &unknown.header).await.status, 401);
    gated.case.has_logged("a field that this version of Writ does not know").await;
}

/// Runs `kubectl create` for a session with these flags, and returns its standard error if it was refused.
fn kubectl_creates(world: &World, namespace: &str, flags: &[&str]) -> Result<(), String> {
    let folder = world.reaper.make_folder("session", 0o700).expect("a folder");
    let path = folder.join("session.json");
    let object = session(&new_key(), &json!({}), &json!({}));
    std::fs::write(&path, serde_json::to_string(&object).expect("JSON")).expect("a manifest");
    let create = ["-n", namespace, "create", "-f", path.to_str().expect("UTF-8")];
    let output = world.kubectl(&[&create[..], flags].concat());
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test]
async fn neither_the_gateway_nor_a_restricted_login_makes_a_session() {
    let (gated, jane) = gated().await;
    let (world, namespace) = (&gated.case.world, gated.case.namespace.as_str());
    // A stolen token of the gateway: as itself, and as jane.
    let thief =
        client_of(&world.control_plane.service_account_kubeconfig(HOME, GATEWAY_ACCOUNT).expect("a token")).await;
    let object = session(&new_key(), &json!({}), &json!({}));
    refused("as itself", create(&thief, namespace, &object).await, 403, "writ-gateway\" cannot create");
    let body = serde_json::to_vec(&object).expect("JSON");
    let path = format!("/apis/writ.dev/v1alpha1/namespaces/{namespace}/gatewaysessions");
    let post = |extra: Option<(&str, &str)>| {
        let mut request = http::Request::post(&path).header("content-type", "application/json");
        request = request.header("impersonate-user", "jane").header("impersonate-group", "system:authenticated");
        if let Some((key, value)) = extra {
            request = request.header(format!("impersonate-extra-{key}"), value);
        }
        request.body(body.clone()).expect("a request")
    };
    let via = Some(("writ.dev%2fvia", "gateway"));
    // The gateway may act for jane here, and makes no session for her.
    for extra in [None, via] {
        refused("as jane", thief.request::<DynamicObject>(post(extra)).await, 403, "cannot impersonate");
    }
    let account = format!("system:serviceaccount:{HOME}:{GATEWAY_ACCOUNT}");
    for verb in ["create", "update", "patch", "delete", "list", "watch", "deletecollection"] {
        let can = ["auth", "can-i", verb, "gatewaysessions.writ.dev", "-n", namespace, "--as", &account];
        assert_eq!(String::from_utf8_lossy(&world.kubectl(&can).stdout).trim(), "no", "{verb}");
    }

    // The session would lose an extra attribute, and perhaps its restriction.
    let root = root(&gated.case).await;
    kubectl_creates(world, namespace, &["--as", "jane"]).expect("an administrator may act for jane");
    for extra in [Some(("example.org%2fscopes", "read")), via] {
        let made = root.request::<DynamicObject>(post(extra)).await;
        refused("with an extra", made, 403, "extra attributes");
    }
    let manager =
        kubectl_creates(world, namespace, &["--as", "system:kube-controller-manager", "--as-group", "system:masters"]);
    assert!(manager.as_ref().is_err_and(|text| text.contains("writ-requester-names")), "{manager:?}");

    // A ServiceAccount has a token that ends with it. Writ itself may create sessions, which the gateway refuses.
    world.kubectl_succeeds(&["-n", namespace, "create", "serviceaccount", "robot"]);
    let robot = format!("system:serviceaccount:{namespace}:robot");
    let robots = kubectl_creates(world, namespace, &["--as", &robot, "--as-group", "system:masters"]);
    assert!(robots.as_ref().is_err_and(|text| text.contains("ServiceAccount cannot have")), "{robots:?}");
    let writ = client_of(&world.operator).await;
    let of_writ = make(&writ, namespace, &json!({})).await;
    assert_eq!(me(&gated, &of_writ.header).await.status, 401);
    gated.case.has_logged("a ServiceAccount has created it").await;
    let session = make(&jane, namespace, &json!({})).await;
    assert_eq!(me(&gated, &session.header).await.status, 200, "{}", gated.case.log());
}

#[tokio::test]
async fn an_expired_session_is_refused_and_deleted_and_others_stay() {
    let (gated, jane) = gated().await;
    let namespace = &gated.case.namespace;
    let long = make(&jane, namespace, &json!({})).await;
    let short = make(&jane, namespace, &json!({"expirationSeconds": 60})).await;
    assert_eq!(me(&gated, &short.header).await.status, 200, "{}", gated.case.log());
    until_refused(&gated, &short.header, EXPIRY_PATIENCE).await;
    let sessions = api(&jane, namespace);
    let started = Instant::now();
    while sessions.get_opt(&short.name).await.expect("an answer").is_some() {
        assert!(started.elapsed() < EXPIRY_PATIENCE, "it is not deleted\n{}", gated.case.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(sessions.get_opt(&long.name).await.expect("an answer").is_some(), "the other one is deleted");
    assert_eq!(me(&gated, &long.header).await.status, 200);
    gated.case.has_logged("gateway sessions deleted").await;
}

/// Without the policy, everybody who may create sessions could make one for the chief.
#[tokio::test]
async fn no_session_counts_while_the_api_server_accepts_forged_creators() {
    let flags = ["--listen-gateway=127.0.0.1:0", "--requester-check-seconds=1"];
    let case = Case::with(World::without_stamping(), SshdOptions::default(), &flags).await;
    let address = served_at(&case).await;
    grant(&case, "ceo", &["create", "get", "list"]);
    let forged = json!({"requestedBy": {"username": "ceo", "groups": ["system:authenticated"]}});
    let session = make(&case.client, &case.namespace, &forged).await;
    let url = format!("http://{address}/api/v1/me");
    let request = reqwest::Client::new().get(url).header("x-writ-session", &session.header);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401, "{}", case.log());
    let text = answer.text().await.expect("a body");
    assert!(!text.contains("forged") && !text.contains("admission"), "{text}");
    case.has_logged("creators of GatewaySessions not verified").await;
    case.has_logged("a GatewaySession for another user was accepted").await;
}
