//! The gateway over the network: real API server, sshd and `writ serve`, and callers with real credentials.

mod answers;
mod compat;
mod departures;
mod downloads;
mod exec;
mod feature_gate;
mod guide;
mod idempotency;
mod noisy_tenant;
mod reads;
mod restarts;
mod secrecy;
pub mod socket;
mod streams;
mod tenants;
mod viewers;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::{Case, sh};
use crate::lab::SshdOptions;
use crate::world::{HOME, World, world};

/// Maximum wait for an expected event. The machine also runs other tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deadline of one call: longer than the longest wait of the API.
const CALL_DEADLINE: Duration = Duration::from_secs(150);

/// A case whose `writ serve` has a gateway, and the credentials of its callers.
pub struct Gated {
    pub case: Case,
    pub address: SocketAddr,
    http: reqwest::Client,
    /// API key of jane, who may run commands.
    pub jane: String,
}

/// Answer of a call.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    /// Returns a field of the body as text.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {self:?}"))
    }
}

impl Gated {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Returns a case with further flags of its `writ serve`.
    pub async fn with(flags: &[&str]) -> Self {
        Self::start_in(world(), flags).await
    }

    /// Returns a case in a world of its own, with further flags.
    pub async fn start_in(world: Arc<World>, flags: &[&str]) -> Self {
        let mut all = [&["--listen-gateway=127.0.0.1:0"], flags].concat();
        if !flags.iter().any(|flag| flag.starts_with("--commands-per-minute")) {
            all.push("--commands-per-minute=1000");
        }
        let case = Case::with(world, SshdOptions::default(), &all).await;
        let address = served_at(&case).await;
        grant(&case, "jane", &["create", "get", "list", "patch"]);
        let jane = make_key(&case, "jane", &[]);
        let http = reqwest::Client::builder().timeout(CALL_DEADLINE).build().expect("a client");
        Self { case, address, http, jane }
    }

    pub fn url(&self, path: &str) -> String {
        let join = if path.contains('?') { '&' } else { '?' };
        format!("http://{}{path}{join}namespace={}", self.address, self.case.namespace)
    }

    /// Sends a request with a credential and headers. An empty credential sends none.
    pub async fn send(
        &self,
        method: &str,
        url: String,
        key: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, url).header("content-type", "application/json");
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.case.log()));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", self.url(path), &self.jane, &[], Some(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", format!("http://{}{path}", self.address), &self.jane, &[], None).await
    }

    /// Restarts `writ serve`, which then listens on another port.
    pub async fn restart(&mut self) {
        self.case.kill_writ();
        // The next process writes its address into a new log.
        std::fs::remove_file(self.case.folder().join("writ.log")).expect("a log");
        self.case.start_writ();
        self.address = served_at(&self.case).await;
    }

    pub async fn execute(&self, command: &str) -> Answer {
        self.post("/api/v1/machines/web-1/commands/execute", json!({"command": command, "action_type": "shell"})).await
    }

    /// Waits for the end of a command, by polling its view.
    pub async fn ended(&self, id: &str) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.get(&format!("/api/v1/commands/{id}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if !answer.body["completed_at"].is_null() {
                return answer.body;
            }
            assert!(started.elapsed() < PATIENCE, "{id} does not end: {answer:?}\n{}", self.case.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until the gateway listens, and returns its address.
pub async fn served_at(case: &Case) -> SocketAddr {
    case.has_logged("gateway is served").await;
    case.has_logged("gateway acts for its callers").await;
    let log = case.whole_log();
    let line = log.lines().find(|line| line.contains("gateway is served")).expect("the line");
    let port = line.split("127.0.0.1:").nth(1).expect("an address");
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}").parse().expect("an address")
}

/// Grants a user rights on executions, and lets the gateway act in the namespace of the case.
pub fn grant(case: &Case, user: &str, verbs: &[&str]) {
    let (world, namespace) = (&case.world, case.namespace.as_str());
    let verbs = format!("--verb={}", verbs.join(","));
    let role = format!("{user}-runs");
    let kubectl = |arguments: &[&str]| {
        world.kubectl_succeeds(&[&["-n", namespace], arguments].concat());
    };
    kubectl(&["create", "role", &role, &verbs, "--resource=commandexecutions.writ.dev"]);
    kubectl(&["create", "rolebinding", &role, &format!("--role={role}"), &format!("--user={user}")]);
    let gateway = format!("--serviceaccount={HOME}:writ-gateway");
    let bound = world.kubectl(&["-n", namespace, "get", "rolebinding", "writ-gateway-actions"]);
    if !bound.status.success() {
        for role in ["writ-gateway-actions", "writ-gateway-serviceaccounts"] {
            kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &gateway]);
        }
    }
}

/// Creates an API key for a user, and returns its text. The name of the key is unique in the shared world.
pub fn make_key(case: &Case, user: &str, flags: &[&str]) -> String {
    let name = format!("{user}-{}", case.namespace);
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["api-key", "create", &name, "--user", user, "--namespace", HOME, "--expires", "1d"]).args(flags);
    command.arg("--kubeconfig").arg(case.world.control_plane.kubeconfig(crate::lab::User::Admin));
    let output = command.output().expect("writ runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Returns a rule with the action type of these tests.
pub fn rule(name: &str, line: &str) -> Value {
    let mut rule = sh(name, line);
    rule["actionType"] = json!("shell");
    rule
}
