//! The setting of one test: a namespace, an sshd, a controller, and functions to apply objects and to check the
//! results.

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

use crate::lab::asked::{concerns_no_execution, without_mark};
use crate::lab::processes::{Process, signal};
use crate::lab::{Sshd, SshdOptions};
use crate::work;
use crate::world::{ACCOUNT, HOME, World, world};

/// Maximum wait for an expected event. The machine also runs other tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// A namespace with `writ serve`, a Machine `web-1` that is a real sshd, its Secret, and a Whitelist `web`.
pub struct Case {
    pub world: Arc<World>,
    pub client: Client,
    pub namespace: String,
    pub sshd: Sshd,
    writ: Option<Process>,
    logs: PathBuf,
    flags: Vec<String>,
    /// File that the next `writ serve` has as /etc/hosts, in its own mount namespace. For root only.
    pub hosts: Option<PathBuf>,
    /// Environment variables of the next `writ serve`.
    pub environment: Vec<(String, String)>,
    pub kubeconfig: PathBuf,
    /// Log level of `writ serve` (RUST_LOG). `WRIT_TEST_LOG=trace` sets the most detailed level for all tests.
    pub log_level: String,
}

impl Case {
    /// Returns a case with a running controller.
    pub async fn new() -> Self {
        Self::with(world(), SshdOptions::default(), &[]).await
    }

    /// Returns a case in a world, with the options of its sshd and further flags of its controller.
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

    /// Returns a case with a machine in Durable mode, a Lease of 3 s, and the rules of [`work`].
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
        // A namespace needs this RoleBinding so that Writ can read its Secrets. The chart grants all other rights.
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

    /// Applies a Machine for the case's sshd, with `changes` to its spec.
    pub async fn apply_machine(&self, name: &str, changes: Value) {
        self.apply_machine_with_labels(name, json!({}), changes).await;
    }

    /// Applies a Machine like [`Case::apply_machine`], with labels that rules can select.
    pub async fn apply_machine_with_labels(&self, name: &str, labels: Value, changes: Value) {
        let mut spec = json!({
            "address": "127.0.0.1", "port": self.sshd.port(), "user": self.sshd.user(),
            "credentialsRef": {"name": "web-ssh"}, "hostKeys": [self.sshd.host_key().expect("a host key")],
            // Most tests read the requests to the login shell. Tests of the launcher override this.
            "execution": {"mode": "Direct"},
            // Without probes, only executions open connections. Tests of Machines override this.
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

    /// Creates an execution with these fields of its spec. The default Machine is `web-1`.
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

    /// Waits until the status of an execution fulfils `is_so`. `what` names this state for the error.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&CommandExecutionStatus) -> bool,
    ) -> CommandExecutionStatus {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            // Some tests stop the API server, so an error is not fatal.
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

    /// Waits until a deleted execution no longer exists.
    pub async fn gone(&self, name: &str) {
        let started = Instant::now();
        while !matches!(self.executions().get_opt(name).await, Ok(None)) {
            assert!(started.elapsed() < PATIENCE, "{name} is not gone after {PATIENCE:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the end of an execution, and checks its phase and reason.
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

    /// Returns the requests to the login shell, in order. Commands in Direct mode are without their mark. Requests that
    /// concern no execution are missing, because a probe can send such a request at any time.
    pub fn ledger(&self) -> Vec<String> {
        let records = self.sshd.ledger().unwrap_or_default().into_iter();
        let records = records.filter(|record| !concerns_no_execution(record));
        records.map(|record| without_mark(&record).unwrap_or(record)).collect()
    }

    /// Returns the number of occurrences of a text in the log of sshd.
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
            // The test's own flag takes precedence.
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

    /// Returns true if the test has its own value of a flag. Otherwise the value is short, because tests cannot wait
    /// for a day.
    fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.starts_with(name))
    }

    /// Adds flags for the next `writ serve`.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// Returns the directory of this case. The reaper deletes it at the end of the run.
    pub fn folder(&self) -> &std::path::Path {
        &self.logs
    }

    /// Returns the directory in which the controller stores complete outputs.
    pub fn store(&self) -> String {
        self.logs.join("outputs").display().to_string()
    }

    /// Waits until the controller works, so that its start does not use up a deadline of the test.
    pub async fn writ_serves(&self) {
        let started = Instant::now();
        while !std::fs::read_to_string(self.logs.join("writ.log")).unwrap_or_default().contains("writ serves") {
            assert!(started.elapsed() < PATIENCE && self.writ_runs(), "writ does not start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Restarts `writ serve`. The new process reaches the API server through a local port that requires no credentials.
    pub fn restart_writ_through(&mut self, port: u16) {
        self.go_through(port);
        self.kill_writ();
        self.start_writ();
    }

    /// Lets the next `writ serve` reach the API server through a local port that requires no credentials.
    pub fn go_through(&mut self, port: u16) {
        let cluster = json!({"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}});
        let context = json!({"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}});
        let users = json!([{"name": "nobody", "user": {}}]);
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [cluster], "contexts": [context], "users": users});
        self.kubeconfig = self.logs.join("proxy.kubeconfig");
        std::fs::write(&self.kubeconfig, kubeconfig.to_string()).expect("a kubeconfig");
    }

    /// Kills `writ serve`, to simulate a power failure of the controller's host.
    pub fn kill_writ(&mut self) {
        self.writ.take().expect("writ runs").kill();
    }

    /// Stops the process with SIGSTOP, to simulate a suspended host.
    pub fn pause_writ(&self) {
        signal("STOP", &[self.writ.as_ref().expect("writ runs").pid()]);
    }

    pub fn resume_writ(&self) {
        signal("CONT", &[self.writ.as_ref().expect("writ runs").pid()]);
    }

    /// Sends SIGTERM and returns at once.
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

    /// Returns the complete log of the controller.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.logs.join("writ.log")).expect("a log")
    }

    /// Waits until the controller has logged a text.
    pub async fn has_logged(&self, text: &str) {
        let started = Instant::now();
        while !self.whole_log().contains(text) {
            assert!(started.elapsed() < PATIENCE, "not logged after {PATIENCE:?}: {text}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the last 40 lines of the controller's log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.logs.join("writ.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Case {
    /// Ends the commands that the test left running. Checks in every test that the log has no part of the private key.
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

/// Returns a rule that runs a line of sh. The name of the rule is also its request.
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
