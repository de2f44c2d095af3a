//! A tenant with full write access to one namespace tries to delay, read or stop executions in another one.
//!
//! `make tenant-attack` is the long form (`WRIT_TENANT_ATTACK_SECONDS=3600`). It reports the time from creation to
//! start of the other namespace's executions, with and without the attack. Both take turns, so that the load of the
//! host affects both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use writ::api::Phase;

use crate::case::{Case, sh};
use crate::keys::Keys;
use crate::lab::{User, say};
use crate::world::client_of;

/// Duration of the attack in the short form, in seconds.
const SHORT_SECONDS: u64 = 12;
/// Maximum duration of one turn of the attack. The turn without the attack lasts a third of it.
const TURN: Duration = Duration::from_secs(45);
/// Number of objects that the attacker keeps for each action. The number is limited, because the API server and etcd
/// are not the target.
const NAMES: u64 = 40;
/// Number of concurrent attackers.
const ATTACKERS: u64 = 4;
/// Pause between two actions of one attacker. A shorter pause overloads the API server itself.
const PACE: Duration = Duration::from_millis(100);
/// Pause between two executions of the other namespace.
const BETWEEN: Duration = Duration::from_millis(300);
/// Output of the other namespace's commands.
const SECRET: &str = "the-other-namespace-prints-this";

/// User with write access to one namespace and to no other.
struct Tenant {
    client: Client,
    own: String,
    other: String,
    /// Port of the other namespace's machine. `silent` is a port that accepts connections and sends nothing.
    port: u16,
    silent: u16,
    user: String,
    host_key: String,
    costly: String,
    plain: String,
    refused_reads: AtomicU64,
    actions: AtomicU64,
    /// Numbers of the actions to run (`WRIT_TENANT_ACTIONS=0,7`), to find the action that causes a delay. `None` means
    /// all.
    only: Option<Vec<u64>>,
}

fn resource(group: &str, kind: &str) -> ApiResource {
    let version = if group.is_empty() { "v1" } else { "v1alpha1" };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Tenant {
    fn api(&self, namespace: &str, kind: &str) -> Api<DynamicObject> {
        let group = if kind == "Secret" { "" } else { "writ.dev" };
        Api::namespaced_with(self.client.clone(), namespace, &resource(group, kind))
    }

    /// Applies an object, and ignores a refusal of the API server.
    async fn apply(&self, kind: &str, name: &str, mut object: Value) {
        let version = if kind == "Secret" { "v1" } else { "writ.dev/v1alpha1" };
        (object["apiVersion"], object["kind"], object["metadata"]["name"]) = (json!(version), json!(kind), json!(name));
        let parameters = PatchParams::apply("tenant").force();
        let _ = self.api(&self.own, kind).patch(name, &parameters, &Patch::Apply(&object)).await;
    }

    async fn machine(&self, name: &str, changes: Value) {
        let mut spec = json!({
            "address": "127.0.0.1", "port": self.port, "user": self.user, "credentialsRef": {"name": "plain"},
            "hostKeys": [self.host_key], "probe": {"intervalSeconds": 10},
        });
        for (field, value) in changes.as_object().expect("an object") {
            spec[field] = value.clone();
        }
        self.apply("Machine", name, json!({"spec": spec})).await;
    }

    async fn ask(&self, name: &str, machine: &str, command: &str, more: Value) {
        // The deletion frees the name.
        let _ = self.api(&self.own, "CommandExecution").delete(name, &DeleteParams::default()).await;
        let mut object = more;
        object["spec"]["machineRef"] = json!({"name": machine});
        object["spec"]["command"] = json!(command);
        object["spec"]["ttlSecondsAfterFinished"] = json!(5);
        self.apply("CommandExecution", name, object).await;
    }

    async fn secret(&self, name: &str, key: &str) {
        let metadata = json!({"labels": {"writ.dev/credentials": "true", "turn": name}});
        let data = json!({"ssh-privatekey": key, "passphrase": "correct horse"});
        self.apply("Secret", name, json!({"metadata": metadata, "type": "kubernetes.io/ssh-auth", "stringData": data}))
            .await;
    }

    /// Runs one of the actions that such a tenant can do.
    async fn act(&self, number: u64) {
        let index = (number / KINDS) % NAMES;
        let name = format!("t{}-{index}", number % KINDS);
        if self.only.as_ref().is_some_and(|only| !only.contains(&(number % KINDS))) {
            return;
        }
        self.actions.fetch_add(1, Ordering::Relaxed);
        match number % KINDS {
            // Keys that take seconds to decrypt, each one new.
            0 => {
                self.secret(&name, &self.costly).await;
                self.machine(&name, json!({"credentialsRef": {"name": name}})).await;
                self.ask(&name, &name, "anything", json!({})).await;
            }
            // A Whitelist of patterns with the longest permitted compile time, changed each time.
            1 => self.apply("Whitelist", &name, heavy_whitelist(number)).await,
            2 => self.large_machine(&name).await,
            3 => self.unreachable_machine(&name, index).await,
            // A different name for each lookup.
            4 => self.machine(&name, json!({"address": format!("n{number}.invalid")})).await,
            // Refused logins at the other namespace's machine, every second one as the user `nobody`.
            5 => {
                self.machine(&name, json!({"user": if index.is_multiple_of(2) { "nobody" } else { &self.user }})).await;
                self.ask(&name, &name, "anything", json!({})).await;
            }
            // Executions that no rule lists, with 60,000 bytes of annotations.
            6 => {
                let metadata = json!({"annotations": {"a": "y".repeat(60_000)}});
                self.ask(&name, "web-1", "not listed", json!({"metadata": metadata})).await;
            }
            // Commands that print as fast as they can, and commands that keep running.
            7 => self.ask(&name, "web-1", "flood", json!({})).await,
            8 => {
                self.ask(&name, "web-1", "stay", json!({})).await;
                let cancel = Patch::Merge(json!({"spec": {"cancel": true}}));
                let _ = self.api(&self.own, "CommandExecution").patch(&name, &PatchParams::default(), &cancel).await;
            }
            9 => self.label_all(number).await,
            _ => self.pry(&name).await,
        }
    }

    /// Applies a Machine with labels as large as the API server accepts.
    async fn large_machine(&self, name: &str) {
        let labels: serde_json::Map<String, Value> =
            (0..1500).map(|label| (format!("{}/l{label:060}", "a".repeat(60)), json!("x".repeat(63)))).collect();
        let metadata = json!({"labels": labels});
        let spec = json!({
            "address": "192.0.2.1", "user": "x", "credentialsRef": {"name": "plain"}, "hostKeys": [self.host_key],
        });
        self.apply("Machine", name, json!({"metadata": metadata, "spec": spec})).await;
    }

    /// Applies Machines that do not answer, do not exist, or have no address.
    async fn unreachable_machine(&self, name: &str, index: u64) {
        let address = ["192.0.2.77", "127.0.0.1", "no-such-host.invalid", "198.51.100.3"];
        let address = address[usize::try_from(index % 4).expect("small")];
        self.machine(name, json!({"address": address, "port": self.silent})).await;
        self.ask(name, name, "anything", json!({})).await;
    }

    /// Changes a label of up to 20 objects of each kind.
    async fn label_all(&self, number: u64) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"turn": format!("{number}")}}}));
        for kind in ["Machine", "CommandExecution", "Whitelist"] {
            let api = self.api(&self.own, kind);
            let some = api.list(&ListParams::default().limit(20)).await;
            for object in some.map(|list| list.items).unwrap_or_default() {
                let name = object.metadata.name.unwrap_or_default();
                let _ = api.patch(&name, &PatchParams::default(), &patch).await;
            }
        }
    }

    /// Tries reads and writes for which the tenant has no rights. The API server refuses each of them.
    async fn pry(&self, name: &str) {
        for kind in ["Secret", "CommandExecution", "Machine", "Whitelist"] {
            let api = self.api(&self.other, kind);
            let refused = api.list(&ListParams::default()).await.is_err_and(|error| is_forbidden(&error))
                && api.get("web-ssh").await.is_err_and(|error| is_forbidden(&error));
            assert!(refused, "{kind} of the other namespace can be read");
            self.refused_reads.fetch_add(1, Ordering::Relaxed);
        }
        let forged = json!({"metadata": {"namespace": self.other}, "spec": {"machineRef": {"name": "web-1"}, "command": "print"}});
        self.apply("CommandExecution", name, forged).await;
        // References that could lead to a Secret of the other namespace.
        for reference in [format!("{}/web-ssh", self.other), "../web-ssh".to_owned(), "web-ssh".to_owned()] {
            self.machine(name, json!({"credentialsRef": {"name": reference}})).await;
        }
    }
}

/// Number of actions that [`Tenant::act`] can run.
const KINDS: u64 = 11;

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn heavy_whitelist(number: u64) -> Value {
    let rule = |index: u64| {
        let parameters: serde_json::Map<String, Value> = (0..8)
            .map(|parameter| {
                (
                    format!("p{parameter}"),
                    json!({"pattern": format!("([a-z]{{1,60}}|[0-9]{{1,{}}})", 20 + (number + index) % 40)}),
                )
            })
            .collect();
        let words: Vec<String> = (0..8).map(|parameter| format!("--w{parameter}={{p{parameter}}}")).collect();
        let run: Vec<String> = std::iter::once("/bin/true".to_owned()).chain(words).collect();
        json!({"name": format!("r{index}"), "match": format!("heavy {number} {index} {{p0}}"), "run": run, "parameters": parameters})
    };
    json!({"spec": {"rules": (0..100).map(rule).collect::<Vec<_>>()}})
}

/// Opens a port that accepts connections and sends nothing.
async fn silent_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            // The limit leaves the rest of the process enough open files.
            if held.len() > 200 {
                held.clear();
            }
        }
    });
    port
}

/// Gives the tenant all rights on Writ's objects and on Secrets of one namespace.
async fn admit(greedy: &Case) -> Client {
    let group = "rbac.authorization.k8s.io";
    let rules = json!([
        {"apiGroups": ["writ.dev"], "resources": ["machines", "whitelists", "commandexecutions"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
    ]);
    greedy.apply(&format!("{group}/v1"), "Role", "tenant", json!({"rules": rules})).await;
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "tenant"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "mallory"}],
    });
    greedy.apply(&format!("{group}/v1"), "RoleBinding", "tenant", binding).await;
    client_of(&greedy.world.control_plane.kubeconfig(User::Mallory)).await
}

/// Durations in milliseconds: from creation to start of executions, and of calls to the API server without Writ.
#[derive(Default)]
struct Delays {
    starts: Vec<i64>,
    calls: Vec<i64>,
}

/// Measures two writes and three reads of a ConfigMap in sequence, in milliseconds. The start of an execution makes
/// about the same number of calls to the API server.
async fn calls(case: &Case) -> i64 {
    let began = Instant::now();
    let api: Api<ConfigMap> = Api::namespaced(case.client.clone(), &case.namespace);
    let name = format!("c{}", uuid::Uuid::new_v4().simple());
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let object = ConfigMap { metadata, ..ConfigMap::default() };
    api.create(&PostParams::default(), &object).await.expect("a ConfigMap");
    for _ in 0..3 {
        api.get(&name).await.expect("a ConfigMap");
    }
    api.delete(&name, &DeleteParams::default()).await.expect("a ConfigMap");
    i64::try_from(began.elapsed().as_millis()).expect("small")
}

/// Returns the value that `hundredth` percent of the delays do not exceed.
fn percentile(delays: &[i64], hundredth: usize) -> i64 {
    let mut sorted = delays.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * hundredth / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Runs one execution of the other namespace, and checks that it succeeds. Returns the time to its start, in
/// milliseconds.
async fn run_one(case: &Case, number: u64) -> i64 {
    let name = format!("v{number}");
    let spec = json!({"command": "print", "ttlSecondsAfterFinished": 30, "timeoutSeconds": 30});
    let created = Timestamp::now();
    case.execute_with(&name, spec).await;
    let status = case.finished(&name).await;
    assert_eq!(status.phase, Phase::Succeeded, "{name}: {:?}\n{}", status.message, case.log());
    assert_eq!(status.stdout.as_deref(), Some(&*format!("{SECRET}\n")), "{name}");
    i64::try_from(status.start_time.expect("a start").0.duration_since(created).as_millis()).expect("small")
}

/// Starts one process that serves both namespaces. Returns the attacked case, the tenant's case and the tenant.
async fn set_up() -> (Case, Case, Arc<Tenant>) {
    let (mut case, mut greedy) = (Case::new().await, Case::new().await);
    greedy.kill_writ();
    case.kill_writ();
    let keys = Keys::new();
    keys.make_encrypted("costly", "-t ed25519 -a 256", "correct horse");
    let client = admit(&greedy).await;
    let tenant = Tenant {
        client,
        own: greedy.namespace.clone(),
        other: case.namespace.clone(),
        port: case.sshd.port(),
        silent: silent_port().await,
        user: case.sshd.user().to_owned(),
        host_key: case.sshd.host_key().expect("a host key"),
        costly: String::from_utf8(keys.private("costly")).expect("a key is text"),
        plain: greedy.sshd.private_key().expect("a key"),
        refused_reads: AtomicU64::new(0),
        actions: AtomicU64::new(0),
        only: std::env::var("WRIT_TENANT_ACTIONS")
            .ok()
            .map(|text| text.split(',').filter_map(|kind| kind.parse().ok()).collect()),
    };
    for each in [&case, &greedy] {
        each.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 8})).await;
    }
    let rules = [("flood", "yes | head -c 20000000"), ("stay", "exec sleep 300")];
    greedy.apply_whitelist("own", json!(rules.map(|(name, line)| sh(name, line)))).await;
    case.apply_whitelist("own", json!([{"name": "print", "match": "print", "run": ["/bin/echo", SECRET]}])).await;
    let served = greedy.namespace.clone();
    case.add_flags(&["--namespace", &served]);
    case.start_writ();
    case.writ_serves().await;
    let tenant = Arc::new(tenant);
    tenant.secret("plain", &tenant.plain.clone()).await;
    (case, greedy, tenant)
}

/// Starts attackers that act while `attacks` is true, until the set is dropped.
fn attackers(tenant: &Arc<Tenant>, attacks: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for attacker in 0..ATTACKERS {
        let (tenant, attacks) = (Arc::clone(tenant), Arc::clone(attacks));
        all.spawn(async move {
            let mut number = attacker;
            loop {
                tokio::time::sleep(PACE).await;
                if attacks.load(Ordering::Relaxed) {
                    tenant.act(number).await;
                    number += ATTACKERS;
                }
            }
        });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_delays_reads_and_stops_nothing_of_another_namespace() {
    let seconds = std::env::var("WRIT_TENANT_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    let attack = Duration::from_secs(seconds.unwrap_or(SHORT_SECONDS));
    let turn = TURN.min(attack / 2);
    let (case, greedy, tenant) = set_up().await;
    let attacks = Arc::new(AtomicBool::new(false));
    let mut attackers = attackers(&tenant, &attacks);
    let (mut calm, mut beside) = (Delays::default(), Delays::default());
    let (mut attacked, mut number) = (Duration::ZERO, 0);
    while attacked < attack {
        for is_attack in [false, true] {
            attacks.store(is_attack, Ordering::Relaxed);
            let began = Instant::now();
            // A third of the time without the attack is enough for the comparison.
            let length = if is_attack { turn } else { turn / 3 };
            while began.elapsed() < length {
                let delays = if is_attack { &mut beside } else { &mut calm };
                delays.calls.push(calls(&case).await);
                delays.starts.push(run_one(&case, number).await);
                number += 1;
                tokio::time::sleep(BETWEEN).await;
            }
            attacked += if is_attack { began.elapsed() } else { Duration::ZERO };
        }
        if let Some(Err(error)) = attackers.try_join_next() {
            panic!("an attacker found something: {error}");
        }
        report(&calm, &beside, &tenant, attacked);
    }
    attackers.abort_all();
    assert!(case.writ_runs(), "{}", case.log());
    assert!(tenant.only.is_some() || tenant.refused_reads.load(Ordering::Relaxed) > 0, "nobody pried");
    nothing_was_read(&greedy, &tenant, &case).await;
}

fn report(calm: &Delays, beside: &Delays, tenant: &Tenant, attacked: Duration) {
    let of = |delays: &[i64]| {
        let [middle, high, most] = [50, 99, 100].map(|hundredth| percentile(delays, hundredth));
        format!("median {middle}, p99 {high}, at most {most} ms")
    };
    let actions = tenant.actions.load(Ordering::Relaxed);
    say::note(format!("attacked for {} s, {actions} actions", attacked.as_secs()));
    for (name, delays) in [("without the attack", calm), ("beside the attack", beside)] {
        let (starts, calls) = (of(&delays.starts), of(&delays.calls));
        say::note(format!(
            "{name}, of {}: creation to start {starts}; five calls to the API server {calls}",
            delays.starts.len()
        ));
    }
}

/// Checks that the objects that the tenant can read contain nothing of the other namespace.
async fn nothing_was_read(greedy: &Case, tenant: &Tenant, case: &Case) {
    let key = case.sshd.private_key().expect("a key");
    let line = key.lines().nth(3).expect("a line of the key").to_owned();
    for kind in ["CommandExecution", "Machine", "Whitelist", "Secret"] {
        let all = tenant.api(&greedy.namespace, kind).list(&ListParams::default()).await.expect("its own objects");
        let text = serde_json::to_string(&all.items).expect("JSON");
        assert!(!text.contains(SECRET), "the other namespace's output is in a {kind}");
        assert!(!text.contains(&line), "the other namespace's key is in a {kind}");
    }
}
