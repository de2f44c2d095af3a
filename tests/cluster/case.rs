//! One test's own: a namespace, an sshd, a controller, and sentences to say what is applied and what must come of it.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use writ::api::{CommandExecution, CommandExecutionStatus, Phase, Reason, Whitelist};

use crate::lab::asked::without_mark;
use crate::lab::processes::{Process, signal};
use crate::lab::{Sshd, SshdOptions};
use crate::work;
use crate::world::{ACCOUNT, HOME, World, world};

/// How long something that must happen may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(90);

/// A namespace with a Machine `web-1` that is a real sshd, its Secret, a Whitelist `web`, and `writ serve`.
pub struct Case {
    pub world: Arc<World>,
    pub client: Client,
    pub namespace: String,
    pub sshd: Sshd,
    writ: Option<Process>,
    logs: PathBuf,
    flags: Vec<String>,
    /// What the next `writ serve` has as /etc/hosts, in a mount namespace of its own. For root only.
    pub hosts: Option<PathBuf>,
    /// What the next `writ serve` finds in its environment.
    pub environment: Vec<(String, String)>,
    pub kubeconfig: PathBuf,
    /// How much `writ serve` says (RUST_LOG). `WRIT_TEST_LOG=trace` makes the whole run as loud as it can be.
    pub log_level: String,
}

impl Case {
    /// With a controller that runs.
    pub async fn new() -> Self {
        Self::with(world(), SshdOptions::default(), &[]).await
    }

    /// With a controller that has further flags, in a world, against an sshd.
    pub async fn with(world: Arc<World>, options: SshdOptions, flags: &[&str]) -> Self {
        let sshd = Sshd::start(&world.reaper, &options).expect("an sshd");
        let client = world.client().await;
        let namespace = world.namespace_name();
        let logs = world.reaper.make_folder("writ", 0o700).expect("a folder for logs");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let kubeconfig = world.operator.clone();
        let log_level = std::env::var("WRIT_TEST_LOG").unwrap_or_else(|_| "warn,writ=debug".to_owned());
        let mut case = Self {
            world,
            client,
            namespace,
            sshd,
            writ: None,
            logs,
            flags,
            hosts: None,
            environment: Vec::new(),
            kubeconfig,
            log_level,
        };
        case.make_namespace().await;
        case.apply_secret("web-ssh", &case.sshd.private_key().expect("a key")).await;
        let host_key = case.sshd.host_key().expect("a host key");
        case.apply_machine("web-1", json!({"hostKeys": [host_key]})).await;
        case.apply_whitelist("web", standard_rules()).await;
        case.start_writ();
        case.writ_serves().await;
        case
    }

    /// With a machine that runs commands durably, a Lease that is over soon, and the rules of [`work`].
    pub async fn durable() -> Self {
        Self::durable_with(SshdOptions::default(), &["--lease-seconds", "3"]).await
    }

    pub async fn durable_with(options: SshdOptions, flags: &[&str]) -> Self {
        Self::durable_in(world(), options, flags).await
    }

    pub async fn durable_in(world: Arc<World>, options: SshdOptions, flags: &[&str]) -> Self {
        let case = Self::with(world, options, flags).await;
        case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 16})).await;
        case.apply_whitelist("work", json!([work::rule(&case.sshd)])).await;
        case
    }

    async fn make_namespace(&self) {
        let metadata = ObjectMeta { name: Some(self.namespace.clone()), ..ObjectMeta::default() };
        let namespace = k8s_openapi::api::core::v1::Namespace { metadata, ..Default::default() };
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
        // What a namespace does to open its Secrets to Writ; all else the chart has given.
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writ-operator-credentials"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
        });
        self.apply(&format!("{group}/v1"), "RoleBinding", "writ-credentials", binding).await;
    }

    /// Applies an object of any kind, server-side, as the administrator.
    pub async fn apply(&self, version: &str, kind: &str, name: &str, content: Value) {
        self.try_apply(version, kind, name, content).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    pub async fn try_apply(&self, version: &str, kind: &str, name: &str, content: Value) -> Result<(), kube::Error> {
        let mut object = content;
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.map(|_| ())
    }

    pub async fn apply_secret(&self, name: &str, key: &str) {
        let metadata = json!({"labels": {"writ.dev/credentials": "true"}});
        let content =
            json!({"metadata": metadata, "type": "kubernetes.io/ssh-auth", "stringData": {"ssh-privatekey": key}});
        self.apply("v1", "Secret", name, content).await;
    }

    /// A Machine that is the case's sshd, but for what `changes` says.
    pub async fn apply_machine(&self, name: &str, changes: Value) {
        self.apply_machine_with_labels(name, json!({}), changes).await;
    }

    /// The same, with labels for rules to choose by.
    pub async fn apply_machine_with_labels(&self, name: &str, labels: Value, changes: Value) {
        let mut spec = json!({
            "address": "127.0.0.1", "port": self.sshd.port(), "user": self.sshd.user(),
            "credentialsRef": {"name": "web-ssh"}, "hostKeys": [self.sshd.host_key().expect("a host key")],
            // Most tests look at what the login shell is asked for; those of the launcher say otherwise.
            "execution": {"mode": "Direct"},
            // Nothing connects but for what a test asks for; those of Machines say otherwise.
            "probe": {"intervalSeconds": 0},
        });
        for (field, value) in changes.as_object().expect("an object of changes") {
            spec[field] = value.clone();
        }
        let machine = json!({"metadata": {"labels": labels}, "spec": spec});
        self.apply("writ.dev/v1alpha1", "Machine", name, machine).await;
    }

    pub async fn apply_whitelist(&self, name: &str, rules: Value) {
        self.apply("writ.dev/v1alpha1", "Whitelist", name, json!({"spec": {"rules": rules}})).await;
    }

    pub fn whitelists(&self) -> Api<Whitelist> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn executions(&self) -> Api<CommandExecution> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an execution of `command` on `web-1`.
    pub async fn execute(&self, name: &str, command: &str) -> CommandExecution {
        self.execute_with(name, json!({"command": command})).await
    }

    /// Creates an execution on `web-1` with these further fields of its spec.
    pub async fn execute_with(&self, name: &str, spec: Value) -> CommandExecution {
        self.try_execute(name, spec).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub async fn try_execute(&self, name: &str, mut spec: Value) -> Result<CommandExecution, kube::Error> {
        if spec.get("machineRef").is_none() {
            spec["machineRef"] = json!({"name": "web-1"});
        }
        let resource = ApiResource::erase::<CommandExecution>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
        let created = api.create(&PostParams::default(), &object).await?;
        Ok(created.try_parse().expect("an execution that decodes"))
    }

    pub async fn change_spec(&self, name: &str, spec: Value) -> Result<CommandExecution, kube::Error> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.executions().patch(name, &PatchParams::default(), &patch).await
    }

    /// Waits until the status of an execution is as it must be.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&CommandExecutionStatus) -> bool,
    ) -> CommandExecutionStatus {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            // The API server may be away in a test that takes it away.
            if let Ok(execution) = self.executions().get(name).await {
                if let Some(status) = execution.status.as_ref().filter(|status| is_so(status)) {
                    return status.clone();
                }
                last = execution.status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is not {what} after {PATIENCE:?}: {last:?}\nwrit's log:\n{}", self.log());
    }

    pub async fn finished(&self, name: &str) -> CommandExecutionStatus {
        self.until(name, "finished", |status| status.phase.is_finished()).await
    }

    pub async fn in_phase(&self, name: &str, phase: Phase) -> CommandExecutionStatus {
        self.until(name, phase.as_str(), |status| status.phase == phase).await
    }

    /// Waits until an execution that was deleted is gone.
    pub async fn gone(&self, name: &str) {
        let started = Instant::now();
        while !matches!(self.executions().get_opt(name).await, Ok(None)) {
            assert!(started.elapsed() < PATIENCE, "{name} is not gone after {PATIENCE:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the end, and checks how it ended.
    pub async fn ends(&self, name: &str, phase: Phase, reason: Reason) -> CommandExecutionStatus {
        let status = self.finished(name).await;
        assert_eq!(
            (status.phase, status.reason),
            (phase, Some(reason)),
            "{name}: {:?}\n{}",
            status.message,
            self.log()
        );
        status
    }

    /// What reached the login shell, in order; of a command in Direct mode without its mark.
    pub fn ledger(&self) -> Vec<String> {
        let records = self.sshd.ledger().unwrap_or_default().into_iter();
        records.map(|record| without_mark(&record).unwrap_or(record)).collect()
    }

    /// How often something stands in sshd's log.
    pub fn sshd_logged(&self, what: &str) -> usize {
        self.sshd.log().unwrap_or_default().matches(what).count()
    }

    pub async fn events(&self, reason: &str) -> usize {
        let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = api.list(&ListParams::default()).await.expect("events");
        events.items.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
    }

    /// Starts `writ serve` as the chart's ServiceAccount, for this namespace.
    pub fn start_writ(&mut self) {
        let program = env!("CARGO_BIN_EXE_writ");
        let mut command = match &self.hosts {
            None => Command::new(program),
            Some(hosts) => {
                let mut unshare = Command::new("unshare");
                unshare
                    .args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
                    .arg(hosts)
                    .arg(program);
                unshare
            }
        };
        command
            .args(["serve", "--namespace", &self.namespace, "--lease-namespace", HOME])
            .args(crate::lab::LOOPBACK)
            .args(["--missing-grace-seconds=1"].iter().filter(|_| !self.has_flag("--missing-grace-seconds")))
            // A flag of the test's own counts more.
            .args(["--minimum-retention-seconds=0"].iter().filter(|_| !self.has_flag("--minimum-retention-seconds")))
            .env("WRIT_OUTPUT_STORE", self.store())
            .args(&self.flags)
            .arg("--state-directory")
            .arg(self.logs.join("state"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env("RUST_LOG", &self.log_level)
            .env_remove("RUST_BACKTRACE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = self.world.reaper.spawn("writ", &mut command, &self.logs.join("writ.log")).expect("writ starts");
        self.writ = Some(process);
    }

    /// Whether the test has this flag of its own; else it gets a short time, as tests have no day to wait.
    fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.starts_with(name))
    }

    /// The next `writ serve` gets these flags too.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// A folder of this case's own, which is removed with it.
    pub fn folder(&self) -> &std::path::Path {
        &self.logs
    }

    /// The folder in which the controller stores whole outputs.
    pub fn store(&self) -> String {
        self.logs.join("outputs").display().to_string()
    }

    /// Waits until the controller is at work: what a test gives a deadline must not spend it on the start.
    pub async fn writ_serves(&self) {
        let started = Instant::now();
        while !std::fs::read_to_string(self.logs.join("writ.log")).unwrap_or_default().contains("writ serves") {
            assert!(started.elapsed() < PATIENCE && self.writ_runs(), "writ does not start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts `writ serve` anew, by way of another address of the API server that asks for no credentials.
    pub fn restart_writ_through(&mut self, port: u16) {
        self.go_through(port);
        self.kill_writ();
        self.start_writ();
    }

    /// The next `writ serve` is to go by way of this address.
    pub fn go_through(&mut self, port: u16) {
        let cluster = json!({"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}});
        let context = json!({"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}});
        let users = json!([{"name": "nobody", "user": {}}]);
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [cluster], "contexts": [context], "users": users});
        self.kubeconfig = self.logs.join("proxy.kubeconfig");
        std::fs::write(&self.kubeconfig, kubeconfig.to_string()).expect("a kubeconfig");
    }

    /// A power cut of the controller's host.
    pub fn kill_writ(&mut self) {
        self.writ.take().expect("writ runs").kill();
    }

    /// Stops the process where it is, as a suspended host does.
    pub fn pause_writ(&self) {
        signal("STOP", &[self.writ.as_ref().expect("writ runs").pid()]);
    }

    pub fn resume_writ(&self) {
        signal("CONT", &[self.writ.as_ref().expect("writ runs").pid()]);
    }

    /// SIGTERM; returns at once.
    pub fn terminate_writ(&self) {
        signal("TERM", &[self.writ.as_ref().expect("writ runs").pid()]);
    }

    /// Waits for the end of `writ serve`.
    pub async fn writ_ended(&self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.writ.as_ref().expect("writ was started").ended() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "writ does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn writ_pid(&self) -> u32 {
        self.writ.as_ref().expect("writ runs").pid()
    }

    pub fn writ_runs(&self) -> bool {
        self.writ.as_ref().is_some_and(|process| process.ended().is_none())
    }

    /// All that the controller logged.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.logs.join("writ.log")).expect("a log")
    }

    /// What the controller logged, at its end.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.logs.join("writ.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Case {
    /// Commands that a test left running are ended with it. Whatever a test was about: no part of the key is in the log.
    fn drop(&mut self) {
        self.sshd.kill_commands();
        if let (false, Ok(key), Ok(log)) =
            (std::thread::panicking(), self.sshd.private_key(), std::fs::read_to_string(self.logs.join("writ.log")))
        {
            for line in key.lines().filter(|line| !line.starts_with("-----")).skip(2) {
                assert!(line.len() < 20 || !log.contains(line), "a part of the private key is in the log");
            }
        }
    }
}

/// A rule that runs a line of sh, asked for by its name.
pub fn sh(name: &str, line: &str) -> Value {
    json!({"name": name, "match": name, "run": ["/bin/sh", "-c", line]})
}

fn standard_rules() -> Value {
    json!([
        {"name": "hello", "match": "say hello", "run": ["/bin/echo", "hello"]},
        sh("exit-three", "echo sorry >&2; exit 3"),
        sh("sleep-long", "echo begun; exec sleep 300"),
        sh("sleep-one", "sleep 1; echo done"),
        sh("sleep-eight", "sleep 8; echo done"),
    ])
}
