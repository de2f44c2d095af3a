//! A namespace with machines and rules, and optionally a `writ serve`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use writ::api::{CommandExecution, Phase};

use crate::lab::processes::Process;
use crate::lab::{Sshd, SshdOptions};
use crate::world::{ACCOUNT, HOME, World};

/// Maximum time for any expected event.
pub const PATIENCE: Duration = Duration::from_secs(180);
const GROUP: &str = "writ.dev/v1alpha1";

pub struct Site<'a> {
    world: &'a World,
    pub client: Client,
    pub namespace: String,
    logs: PathBuf,
    writ: Option<Process>,
}

/// Starts an sshd with the usual settings of a machine: no ledger, the default log level.
pub fn sshd(world: &World) -> Sshd {
    let config = vec!["LogLevel INFO".to_owned()];
    Sshd::start(&world.reaper, &SshdOptions { config, plain: true, ..SshdOptions::default() }).expect("an sshd")
}

impl<'a> Site<'a> {
    pub async fn new(world: &'a World) -> Self {
        let (client, namespace) = (world.client().await, world.namespace_name());
        let logs = world.reaper.make_folder("writ", 0o700).expect("a folder for logs");
        let site = Self { world, client, namespace, logs, writ: None };
        let metadata = ObjectMeta { name: Some(site.namespace.clone()), ..ObjectMeta::default() };
        let namespace = k8s_openapi::api::core::v1::Namespace { metadata, ..Default::default() };
        Api::all(site.client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writ-operator-credentials"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
        });
        site.apply(&format!("{group}/v1"), "RoleBinding", "writ-credentials", binding).await;
        site
    }

    /// Creates a namespace with one machine, `m0`, and starts a `writ serve` for it.
    pub async fn with_one_machine(world: &'a World, sshd: &Sshd, rules: Value, flags: &[&str]) -> Self {
        let mut site = Self::new(world).await;
        site.add_machine("m0", sshd).await;
        site.allow(rules).await;
        site.serve(flags).await;
        site
    }

    pub async fn apply(&self, version: &str, kind: &str, name: &str, mut object: Value) {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let applied = api.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    pub async fn add_machine(&self, name: &str, sshd: &Sshd) {
        let secret = json!({"metadata": {"labels": {"writ.dev/credentials": "true"}},
            "type": "kubernetes.io/ssh-auth", "stringData": {"ssh-privatekey": sshd.private_key().expect("a key")}});
        self.apply("v1", "Secret", name, secret).await;
        self.apply(GROUP, "Machine", name, machine(name, sshd)).await;
    }

    /// Changes fields of the spec of a Machine.
    pub async fn change_machine(&self, name: &str, sshd: &Sshd, changes: Value) {
        let mut object = machine(name, sshd);
        for (field, value) in changes.as_object().expect("an object") {
            object["spec"][field] = value.clone();
        }
        self.apply(GROUP, "Machine", name, object).await;
    }

    pub async fn allow(&self, rules: Value) {
        self.apply(GROUP, "Whitelist", "bench", json!({"spec": {"rules": rules}})).await;
    }

    pub fn executions(&self) -> Api<CommandExecution> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Starts `writ serve` as the operator's user, and waits until it is ready.
    pub async fn serve(&mut self, flags: &[&str]) {
        self.start_writ(flags);
        let started = Instant::now();
        while !self.log().contains("writ serves") {
            assert!(started.elapsed() < PATIENCE, "writ does not start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn start_writ(&mut self, flags: &[&str]) {
        // This variable selects the path of another build to measure.
        let writ = std::env::var("WRIT_BENCH_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_writ").to_owned());
        let mut command = Command::new(&writ);
        command
            .args(["serve", "--namespace", &self.namespace, "--lease-namespace", HOME])
            .args(loopback_flags(&writ))
            .args(flags)
            .arg("--state-directory")
            .arg(self.logs.join("state"))
            .arg("--kubeconfig")
            .arg(&self.world.operator)
            .env("RUST_LOG", std::env::var("WRIT_BENCH_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env_remove("WRIT_OUTPUT_STORE");
        let process = self.world.reaper.spawn("writ", &mut command, &self.log_path());
        self.writ = Some(process.expect("writ starts"));
    }

    /// Returns the number of requests to the API server by operation, as `writ serve` counts them. It must run with
    /// `--listen-operations 127.0.0.1:0`.
    pub async fn api_requests(&self) -> BTreeMap<String, f64> {
        let mut stream =
            TcpStream::connect(self.logged_address("metrics and health are served").await).await.expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: writ\r\n\r\n").await.expect("a request");
        let mut text = String::new();
        // The server may close the connection with a reset after its answer.
        let _ = stream.read_to_string(&mut text).await;
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("writ_api_requests_total{")) {
            let operation = line.split('"').nth(1).expect("an operation");
            let count: f64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number");
            *counts.entry(operation.to_owned()).or_default() += count;
        }
        counts
    }

    /// Returns the loopback address in the last log line with this text. Waits until there is such a line.
    pub async fn logged_address(&self, text: &str) -> String {
        let started = Instant::now();
        loop {
            let log = self.log();
            let line = log.lines().rfind(|line| line.contains(text));
            let address = line.and_then(|line| line.split_whitespace().find_map(|word| word.split_once("127.0.0.1:")));
            if let Some((_, rest)) = address {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return format!("127.0.0.1:{port}");
            }
            assert!(started.elapsed() < PATIENCE, "no line with {text:?}:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn stop_writ(&mut self) {
        if let Some(writ) = self.writ.take() {
            writ.end(Duration::from_secs(20));
        }
    }

    /// Returns the process id of `writ serve`.
    pub fn writ(&self) -> u32 {
        self.writ.as_ref().expect("writ runs").pid()
    }

    pub fn log_path(&self) -> PathBuf {
        self.logs.join("writ.log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns an execution that is not created yet. A rule must match the command.
    pub fn execution(&self, name: &str, machine: &str, command: &str) -> CommandExecution {
        let object = json!({"apiVersion": GROUP, "kind": "CommandExecution", "metadata": {"name": name},
            "spec": {"machineRef": {"name": machine}, "command": command, "reason": "how long it takes"}});
        serde_json::from_value(object).expect("an execution")
    }

    /// Returns a watch of the executions from now on.
    pub async fn watch(&self) -> Watch {
        let api = self.executions();
        let list = api.list_metadata(&ListParams::default().limit(1)).await.expect("a list");
        let version = list.metadata.resource_version.expect("a version");
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(pass_on(api, version, sender));
        Watch { events, task, log: self.log_path() }
    }
}

/// Returns the flags that allow this build to connect to loopback. Returns no flags if the build does not know them.
fn loopback_flags(writ: &str) -> &'static [&'static str] {
    let help = Command::new(writ).args(["serve", "--help"]).output().expect("writ runs").stdout;
    if String::from_utf8_lossy(&help).contains("--allow-cidr") { &crate::lab::LOOPBACK } else { &[] }
}

pub fn machine(name: &str, sshd: &Sshd) -> Value {
    json!({"spec": {
        "address": "127.0.0.1", "port": sshd.port(), "user": sshd.user(), "credentialsRef": {"name": name},
        "hostKeys": [sshd.host_key().expect("a host key")], "execution": {"mode": "Durable"},
    }})
}

/// Sends the events of a watch to `sender`. If the watch ends, a new watch continues after the last event.
async fn pass_on(
    api: Api<CommandExecution>,
    mut version: String,
    sender: mpsc::UnboundedSender<(Instant, CommandExecution)>,
) {
    loop {
        let events = api.watch(&WatchParams::default().timeout(290), &version).await.expect("a watch");
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                version = object.resource_version().unwrap_or(version);
                let _ = sender.send((Instant::now(), object));
            }
        }
    }
}

/// Receives the watch events of executions.
pub struct Watch {
    events: mpsc::UnboundedReceiver<(Instant, CommandExecution)>,
    task: tokio::task::JoinHandle<()>,
    log: PathBuf,
}

impl Watch {
    /// Returns the next event and its time.
    pub async fn next(&mut self) -> (Instant, CommandExecution) {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await {
            Ok(Some(event)) => event,
            _ => panic!("nothing happens any more; see {}", self.log.display()),
        }
    }

    /// Returns the first event for which `is_so` returns true.
    pub async fn until(&mut self, is_so: impl Fn(&CommandExecution) -> bool) -> (Instant, CommandExecution) {
        loop {
            let event = self.next().await;
            if is_so(&event.1) {
                return event;
            }
        }
    }

    /// Waits for the end of an execution. Returns its watch event. Panics if the execution did not succeed.
    pub async fn succeeded(&mut self, name: &str) -> (Instant, CommandExecution) {
        let event = self.until(|object| object.name_any() == name && object.phase().is_finished()).await;
        assert_eq!(event.1.phase(), Phase::Succeeded, "{name}: {:?}", event.1.status);
        event
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
