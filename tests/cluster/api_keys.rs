//! API keys: `writ api-key` against a real API server, and the refusals of the admission policy `writ-api-keys`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use writ::api::ApiKey;
use writ::cluster::{ApiKeyAdmission, ApiKeyGrant, ClientOptions, Cluster};

use crate::lab::User;
use crate::world::{HOME, World, client_of, world};

/// Maximum wait until the API server applies new RBAC rights or policies.
const TIMEOUT: Duration = Duration::from_secs(60);
const EXPIRES: &str = "writ.dev/api-key-expires";
const GROUPS: &str = "writ.dev/api-key-groups";
const USER: &str = "writ.dev/api-key-user";

/// A user who may manage Secrets in the namespace of the release, and may impersonate `jane` and the group `sre`.
struct Maker {
    world: Arc<World>,
    kubeconfig: PathBuf,
    secrets: Api<Secret>,
    /// Prefix of names that belong to one test.
    own: String,
}

impl Maker {
    async fn new() -> Self {
        let world = world();
        let own = world.namespace_name();
        let user = format!("maker-of-{own}");
        let kubeconfig = world.control_plane.kubeconfig_for(&user, None).expect("a kubeconfig");
        let manifest = format!(
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {user}, namespace: {HOME}}}
rules:
- {{apiGroups: [""], resources: [secrets], verbs: [create, get, list, update, patch, delete]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {user}, namespace: {HOME}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {user}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {user}}}
rules:
- {{apiGroups: [""], resources: [users], resourceNames: [jane], verbs: [impersonate]}}
- {{apiGroups: [""], resources: [groups], resourceNames: [sre], verbs: [impersonate]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {user}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {user}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]
"#
        );
        let path = std::env::temp_dir().join(format!("writ-maker-{}-{own}.yaml", std::process::id()));
        std::fs::write(&path, manifest).expect("a manifest");
        world.kubectl_succeeds(&["apply", "-f", path.to_str().expect("UTF-8")]);
        std::fs::remove_file(&path).expect("it is removed");
        let secrets = Api::namespaced(client_of(&kubeconfig).await, HOME);
        let maker = Self { world, kubeconfig, secrets, own };
        maker.may_create_a_key().await;
        maker
    }

    /// Waits until the API server applies the rights of this user.
    async fn may_create_a_key(&self) {
        let started = Instant::now();
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        while let Err(error) = self.secrets.create(&dry_run, &self.secret("probe")).await {
            assert!(started.elapsed() < TIMEOUT, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.own)
    }

    /// Returns the Secret of a new key for `jane` with the group `sre`.
    fn secret(&self, name: &str) -> Secret {
        let expires_at = "2026-01-01T00:00:00Z".parse().expect("a time");
        let grant = ApiKeyGrant {
            name: self.name(name),
            user: "jane".to_owned(),
            groups: vec!["sre".to_owned()],
            expires_at,
            commands_per_minute: None,
        };
        grant.to_secret(&random_key())
    }

    async fn creates(&self, secret: &Secret) -> Result<Secret, kube::Error> {
        self.secrets.create(&PostParams::default(), secret).await
    }

    async fn patches(&self, name: &str, patch: Value) -> Result<Secret, kube::Error> {
        self.secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Runs `writ api-key` as this user.
    fn writ(&self, words: &[&str]) -> Output {
        writ_as(&self.kubeconfig, words)
    }

    /// Returns a cluster with the rights of the administrator, in the namespace of the release.
    async fn cluster(&self) -> Cluster {
        let kubeconfig = self.world.control_plane.kubeconfig(User::Admin);
        Cluster::connect(&ClientOptions::for_user(Some(&kubeconfig), Some(HOME))).await.expect("a client")
    }

    async fn as_admin(&self) -> Api<Secret> {
        Api::namespaced(self.world.client().await, HOME)
    }
}

fn random_key() -> ApiKey {
    let mut random = [0_u8; 32];
    let text = std::fs::read("/proc/sys/kernel/random/uuid").expect("a UUID");
    for (byte, from) in random.iter_mut().zip(text) {
        *byte = from;
    }
    ApiKey::from_random(random)
}

fn writ_as(kubeconfig: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.arg("api-key").args(words).arg("--kubeconfig").arg(kubeconfig);
    command.env_remove("KUBECONFIG").output().expect("writ runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn refused(result: Result<Secret, kube::Error>, code: u16, words: &str) {
    match result {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, code, "{}", status.message);
            assert!(status.message.contains(words), "{words} is not in: {}", status.message);
        }
        other => panic!("it was not refused: {other:?}"),
    }
}

/// Returns a copy of a Secret with other annotations. `None` removes an annotation.
fn annotated(secret: &Secret, changes: &[(&str, Option<&str>)]) -> Secret {
    let mut secret = secret.clone();
    let annotations = secret.metadata.annotations.as_mut().expect("annotations");
    for (name, value) in changes {
        match value {
            Some(value) => annotations.insert((*name).to_owned(), (*value).to_owned()),
            None => annotations.remove(*name),
        };
    }
    secret
}

#[tokio::test]
async fn a_key_is_shown_once_listed_and_revoked() {
    let maker = Maker::new().await;
    let name = maker.name("ci");
    let create = ["create", &name, "--user", "jane", "--group", "sre", "--commands-per-minute", "20"];
    let created = maker.writ(&create);
    assert!(created.status.success(), "{created:?}");
    let text = stdout(&created);
    let key = ApiKey::parse(text.strip_suffix('\n').expect("one line")).expect("a key and nothing else");
    let note = stderr(&created);
    for part in [name.as_str(), "user jane", "groups: sre", "expires at", "shown once", "writ api-key revoke"] {
        assert!(note.contains(part), "{part} is not in: {note}");
    }
    assert!(!note.contains(key.text()));

    let cluster = maker.cluster().await;
    let stored = cluster.read_api_key(&key).await.expect("a read").expect("a stored key");
    assert!(stored.verify(&key) && !stored.is_expired(cluster.now()));
    let days = stored.grant.expires_at.duration_since(stored.created_at).as_hours() / 24;
    assert!((89..=90).contains(&days), "{days}");
    assert_eq!(stored.grant.commands_per_minute, Some(20));
    let user = stored.user_info();
    let groups = ["sre", "system:authenticated"].map(str::to_owned).to_vec();
    assert_eq!((user.username.as_deref(), user.groups), (Some("jane"), Some(groups)));
    assert!(cluster.read_api_key(&random_key()).await.expect("a read").is_none());

    the_cluster_does_not_contain(&maker.world, &key);
    let again = maker.writ(&create);
    assert_eq!(again.status.code(), Some(2));
    assert!(stdout(&again).is_empty() && stderr(&again).contains("choose another name"), "{again:?}");

    let listed = maker.writ(&["list"]);
    let table = stdout(&listed);
    let row = table.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains("jane") && row.contains("sre") && row.ends_with("active"), "{row}");
    let json: Value = serde_json::from_str(&stdout(&maker.writ(&["list", "-o", "json"]))).expect("JSON");
    let entry = json.as_array().expect("an array").iter().find(|entry| entry["name"] == name.as_str());
    assert_eq!(entry.expect("the key")["state"], "active");

    let revoked = maker.writ(&["revoke", &name]);
    assert!(revoked.status.success() && stdout(&revoked).contains("at most 10 s"), "{revoked:?}");
    assert!(cluster.read_api_key(&key).await.expect("a read").is_none());
    let again = maker.writ(&["revoke", &name]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("has no API key"), "{again:?}");
    assert!(maker.writ(&create).status.success(), "the name is free again");
}

/// Searches the Secrets, the events and the log of the API server for a key.
#[track_caller]
fn the_cluster_does_not_contain(world: &World, key: &ApiKey) {
    let secrets = world.kubectl_succeeds(&["get", "secrets", "-n", HOME, "-o", "json", "--show-managed-fields"]);
    assert!(secrets.contains(&key.secret_name()));
    let events = world.kubectl_succeeds(&["get", "events", "-A", "-o", "json", "--show-managed-fields"]);
    let log = std::fs::read_to_string(world.control_plane.folder().join("kube-apiserver.log")).expect("a log");
    let encoded = STANDARD.encode(key.text());
    for place in [secrets, events, log] {
        assert!(!place.contains(&key.text()[5..]) && !place.contains(encoded.trim_end_matches('=')));
    }
}

#[tokio::test]
async fn a_key_needs_the_right_to_impersonate_its_identity() {
    let maker = Maker::new().await;
    let secret = maker.secret("x");
    for (user, groups, words) in [
        ("ceo", "[]", "the right to impersonate this user"),
        ("jane ", "[]", "the annotation writ.dev/api-key-user"),
        ("jane", r#"["sre","ops"]"#, "the right to impersonate each of these groups"),
        ("jane", r#"["ops"]"#, "the right to impersonate each of these groups"),
        ("jane", r#"["sre","sre","sre","ops"]"#, "the right to impersonate each of these groups"),
    ] {
        let code = if words.starts_with("the right") { 403 } else { 422 };
        let changed = annotated(&secret, &[(USER, Some(user)), (GROUPS, Some(groups))]);
        refused(maker.creates(&changed).await, code, words);
    }
    let made = maker.writ(&["create", &maker.name("x"), "--user", "ceo"]);
    assert_eq!(made.status.code(), Some(2));
    assert!(stdout(&made).is_empty() && stderr(&made).contains("impersonate this user"), "{made:?}");
    // The name `x` is still free.
    maker.creates(&annotated(&secret, &[(GROUPS, Some("[]"))])).await.expect("a key without groups");
}

#[tokio::test]
async fn a_key_of_another_form_is_refused_to_everybody() {
    let maker = Maker::new().await;
    let (admin, secret) = (maker.as_admin().await, maker.secret("x"));
    let create = async |secret: &Secret| admin.create(&PostParams::default(), secret).await;
    let long = format!("[\"{}\"]", ["g"; 17].join("\",\""));
    let too_late = "2099-01-01T00:00:00Z";
    for (name, value) in [
        (USER, None),
        (USER, Some("")),
        (USER, Some("system:admin")),
        (USER, Some("system:serviceaccount:writ-system:writ")),
        (USER, Some("\tjane")),
        (USER, Some("ja\nne")),
        (USER, Some("ja\u{85}ne")),
        (USER, Some("jane\u{2003}")),
        (GROUPS, None),
        (GROUPS, Some("")),
        (GROUPS, Some("sre")),
        (GROUPS, Some(r#"["sre", "ops"]"#)),
        (GROUPS, Some(r#"["system:masters"]"#)),
        (GROUPS, Some(r#"["sre","system:masters"]"#)),
        (GROUPS, Some(r#"[" sre"]"#)),
        (GROUPS, Some(r#"[""]"#)),
        (GROUPS, Some(r#"["a\",\"b"]"#)),
        (GROUPS, Some(r#"["a\u0022"]"#)),
        (GROUPS, Some("[\"a\nb\"]")),
        (GROUPS, Some(long.as_str())),
        (EXPIRES, None),
        (EXPIRES, Some("never")),
        (EXPIRES, Some("2026-01-01T00:00:00+00:00")),
        (EXPIRES, Some(too_late)),
        ("writ.dev/api-key-commands-per-minute", Some("601")),
        ("writ.dev/api-key-commands-per-minute", Some("-1")),
    ] {
        refused(create(&annotated(&secret, &[(name, value)])).await, 422, name);
    }
    let mut changed = secret.clone();
    changed.type_ = Some("Opaque".to_owned());
    refused(create(&changed).await, 422, "both of them");
    for labels in [None, Some(BTreeMap::from([("writ.dev/api-key".to_owned(), "false".to_owned())]))] {
        changed = secret.clone();
        changed.metadata.labels = labels;
        refused(create(&changed).await, 422, "both of them");
    }
    changed = secret.clone();
    changed.metadata.labels.as_mut().expect("labels").insert("writ.dev/api-key-name".to_owned(), "A".to_owned());
    refused(create(&changed).await, 422, "writ.dev/api-key-name");
}

#[tokio::test]
async fn a_key_with_the_maximum_of_groups_is_accepted() {
    let maker = Maker::new().await;
    let groups: Vec<String> = (0..16).map(|index| format!("{}-{index}", "g".repeat(200))).collect();
    let text = serde_json::to_string(&groups).expect("JSON");
    let user = "https://issuer.example#\"jane\\";
    let secret = annotated(&maker.secret("x"), &[(USER, Some(user)), (GROUPS, Some(&text))]);
    let admin = maker.as_admin().await;
    admin.create(&PostParams::default(), &secret).await.expect("16 groups are within the cost limit");
    // The check of the last group counts.
    refused(maker.creates(&annotated(&maker.secret("y"), &[(GROUPS, Some(&text))])).await, 403, "these groups");
    let sixteen = format!("[{}\"ops\"]", "\"sre\",".repeat(15));
    refused(maker.creates(&annotated(&maker.secret("y"), &[(GROUPS, Some(&sixteen))])).await, 403, "these groups");
    let sixteen = sixteen.replace("ops", "sre");
    maker.creates(&annotated(&maker.secret("y"), &[(GROUPS, Some(&sixteen))])).await.expect("all may be impersonated");
}

#[tokio::test]
async fn no_secret_becomes_a_key_and_no_key_changes() {
    let maker = Maker::new().await;
    let (key, plain) = (maker.secret("x"), maker.name("plain"));
    let key_name = key.metadata.name.clone().expect("a name");
    maker.creates(&key).await.expect("a key");
    let data = BTreeMap::from([("digest".to_owned(), ByteString(b"x".to_vec()))]);
    let mut other = Secret { data: Some(data), ..Secret::default() };
    other.metadata.name = Some(plain.clone());
    maker.creates(&other).await.expect("another Secret");

    let labels = json!({"metadata": {"labels": {"writ.dev/api-key": "true"}}});
    refused(maker.patches(&plain, labels).await, 422, "cannot become an API key");
    for change in [
        json!({"metadata": {"annotations": {USER: "ceo"}}}),
        json!({"metadata": {"annotations": {GROUPS: r#"["ops"]"#}}}),
        json!({"metadata": {"annotations": {GROUPS: "[]"}}}),
        json!({"metadata": {"annotations": {EXPIRES: "2026-06-01T00:00:00Z"}}}),
        json!({"metadata": {"annotations": {EXPIRES: null}}}),
        json!({"metadata": {"annotations": null}}),
        json!({"metadata": {"annotations": {"writ.dev/api-key-commands-per-minute": "600"}}}),
        json!({"metadata": {"labels": {"writ.dev/api-key": null}}}),
        json!({"metadata": {"labels": {"writ.dev/api-key": "false"}}}),
        json!({"metadata": {"labels": {"writ.dev/api-key-name": "other"}}}),
    ] {
        refused(maker.patches(&key_name, change.clone()).await, 422, "an API key cannot change");
        let by_admin = maker.as_admin().await.patch(&key_name, &PatchParams::default(), &Patch::Merge(change)).await;
        refused(by_admin, 422, "an API key cannot change");
    }
    // The API server itself keeps the data of an immutable Secret, and the type.
    for change in [json!({"data": {"digest": "eA=="}}), json!({"stringData": {"digest": "x"}}), json!({"type": "x"})] {
        maker.patches(&key_name, change).await.expect_err("it is kept");
    }
    let unrelated = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}});
    maker.patches(&key_name, unrelated).await.expect("other metadata may change");
    maker.secrets.delete(&key_name, &DeleteParams::default()).await.expect("a key may be deleted");
}

#[tokio::test]
async fn an_expired_key_and_a_broken_one_are_marked() {
    let maker = Maker::new().await;
    let key = random_key();
    let expires_at = "2020-01-01T00:00:00Z".parse().expect("a time");
    let (user, groups) = ("jane".to_owned(), vec!["sre".to_owned()]);
    let grant = ApiKeyGrant { name: maker.name("old"), user, groups, expires_at, commands_per_minute: None };
    maker.creates(&grant.to_secret(&key)).await.expect("an expired key harms nobody");
    let mut broken = maker.secret("broken");
    broken.data = None;
    maker.creates(&broken).await.expect("a Secret without digest is no key");
    let cluster = maker.cluster().await;
    let stored = cluster.read_api_key(&key).await.expect("a read").expect("a stored key");
    assert!(stored.is_expired(cluster.now()));
    let table = stdout(&maker.writ(&["list"]));
    let state_of = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name));
        row.map(str::to_owned).unwrap_or_else(|| panic!("{name} is not in {table}"))
    };
    assert!(state_of(&grant.name).ends_with("expired"), "{table}");
    assert!(state_of(&maker.name("broken")).contains("invalid: the entry digest"), "{table}");
    assert!(maker.writ(&["revoke", &maker.name("broken")]).status.success(), "a broken key can be revoked");
}

#[tokio::test]
async fn a_maker_without_the_right_to_list_gets_a_note() {
    let maker = Maker::new().await;
    let role = format!("maker-of-{}", maker.own);
    let only_create = r#"[{"op":"replace","path":"/rules/0/verbs","value":["create"]}]"#;
    maker.world.kubectl_succeeds(&["patch", "role", &role, "-n", HOME, "--type=json", "-p", only_create]);
    let started = Instant::now();
    while maker.writ(&["list"]).status.success() {
        assert!(started.elapsed() < TIMEOUT, "the right to list remains");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let created = maker.writ(&["create", &maker.name("x"), "--user", "jane", "--expires", "1h"]);
    assert!(created.status.success(), "{created:?}");
    assert!(ApiKey::parse(stdout(&created).trim_end()).is_ok());
    assert!(stderr(&created).contains("you may not list Secrets"), "{created:?}");
}

#[tokio::test]
async fn the_policy_protects_only_the_namespace_of_the_release() {
    let maker = Maker::new().await;
    let Ok(ApiKeyAdmission::Since(since)) = maker.cluster().await.api_key_admission().await else {
        panic!("the policy does not protect {HOME}");
    };
    let created = maker.creates(&maker.secret("x")).await.expect("a key");
    let created_at = created.metadata.creation_timestamp.expect("a time").0;
    assert!(created_at > since, "{created_at} {since}");
    let elsewhere = maker.world.namespace_name();
    maker.world.kubectl_succeeds(&["create", "namespace", &elsewhere]);
    let kubeconfig = maker.world.control_plane.kubeconfig(User::Admin);
    let options = ClientOptions::for_user(Some(&kubeconfig), Some(&elsewhere));
    let cluster = Cluster::connect(&options).await.expect("a client");
    let admission = cluster.api_key_admission().await.expect("an answer");
    assert!(matches!(admission, ApiKeyAdmission::Missing(why) if why.contains("namespace")), "{admission:?}");
    let admin: Api<Secret> = Api::namespaced(maker.world.client().await, &elsewhere);
    let secret = annotated(&maker.secret("x"), &[(USER, Some("system:admin"))]);
    admin.create(&PostParams::default(), &secret).await.expect("this namespace has no gateway");
}
