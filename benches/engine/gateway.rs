//! Measures a synchronous call of the gateway on a kept connection, on a quiet cluster. Compares it with the same
//! requests without `writ serve` (create, read, two writes), and with a new `ssh` process.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::create::{SshClient, execute};
use crate::fleet::cycle;
use crate::lab::{Sshd, User};
use crate::measure::{Row, Target, p50, percentile, shown};
use crate::site::{Site, sshd};
use crate::socket::Socket;
use crate::world::{HOME, World};

const SAMPLES: usize = 200;
/// Number of warm-up samples, which do not count.
const WARM_UP: usize = 10;
/// Pause before each measurement, so that no other request is in progress.
const QUIET: Duration = Duration::from_millis(100);
/// Pause after a refused viewer. A caller may read 50 times per second.
const REFUSED: Duration = Duration::from_millis(300);
/// Maximum number of attempts to open a viewer.
const ATTEMPTS: usize = 50;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let rules = json!([{"name": "true", "match": "true", "run": ["/bin/true"]}]);
    let gated = GatedSite::new(world, &sshd, rules).await;
    let (site, key) = (&gated.site, gated.key.as_str());
    let nobodys = Site::new(world).await;
    let url = format!("http://{}/api/v1/machines/m0/commands/execute?namespace={}", gated.address, site.namespace);
    let ssh = SshClient::new(&sshd);
    let http = reqwest::Client::builder().build().expect("a client");
    let mut watch = site.watch().await;
    let (_, statuses) = execute(site, &mut watch, "first").await;
    drop(watch);
    let (mut calls, mut alone, mut logins): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    for turn in 0..SAMPLES + WARM_UP {
        tokio::time::sleep(QUIET).await;
        let call = call(&http, &url, key).await;
        let login = ssh.run();
        tokio::time::sleep(QUIET).await;
        let started = Instant::now();
        cycle(&nobodys, &format!("x{turn}"), &statuses).await;
        if turn >= WARM_UP {
            alone.push(started.elapsed());
            calls.push(call);
            logins.push(login);
        }
    }
    let (p99, login) = (percentile(&calls, 990), p50(&logins));
    vec![
        Row::ratio(
            "POST execute of `true` on a kept connection, p50, against the API server alone",
            shown(&calls),
            shown(&alone),
            p50(&calls) / p50(&alone),
            Target::AtMost(1.5),
        ),
        Row::ratio(
            "POST execute of `true`, p99, against the median of a fresh `ssh`",
            shown(&calls),
            shown(&logins),
            p99.as_secs_f64() / login,
            Target::AtMost(1.0 / 3.0),
        ),
    ]
}

async fn call(http: &reqwest::Client, url: &str, key: &str) -> Duration {
    let body = json!({"command": "true", "action_type": "custom"}).to_string();
    let request = http.post(url).bearer_auth(key).header("content-type", "application/json").body(body);
    let started = Instant::now();
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    let taken = started.elapsed();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(status == 200 && body["exit_code"] == 0, "{status} {text}");
    taken
}

/// A site whose `writ serve` has a gateway.
pub struct GatedSite<'a> {
    pub site: Site<'a>,
    /// Address of the gateway.
    pub address: String,
    /// API key of jane, who may run commands.
    pub key: String,
}

impl<'a> GatedSite<'a> {
    /// Creates a namespace with one machine, `m0`, that runs up to 16 commands, and starts a `writ serve` with a
    /// gateway for it.
    pub async fn new(world: &'a World, sshd: &Sshd, rules: Value) -> Self {
        let mut site = Site::new(world).await;
        site.add_machine("m0", sshd).await;
        site.change_machine("m0", sshd, json!({"maxConcurrent": 16})).await;
        site.allow(rules).await;
        open(world, &site.namespace, "jane");
        let key = make_key(world, &site.namespace, "jane");
        site.serve(&["--listen-gateway=127.0.0.1:0", "--commands-per-minute=100000"]).await;
        let address = site.logged_address("gateway is served").await;
        Self { site, address, key }
    }

    /// Returns the path of the WebSocket that runs commands on the machine.
    pub fn stream_path(&self) -> String {
        format!("/api/v1/machines/m0/commands/stream?namespace={}", self.site.namespace)
    }

    /// Runs a command over a WebSocket, and returns the socket after its first message, and the id of the command.
    pub async fn start(&self, command: &str) -> (Socket, String) {
        let mut socket = Socket::open(&self.address, &self.stream_path(), &self.key).await;
        socket.send(&json!({"command": command, "action_type": "custom"}).to_string()).await;
        let first: Value = serde_json::from_slice(socket.next().await.expect("a message")).expect("JSON");
        let id = first["command_id"].as_str().unwrap_or_else(|| panic!("{first}")).to_owned();
        (socket, id)
    }

    /// Opens a viewer of a command. Waits if the caller opens too many at once.
    pub async fn view(&self, id: &str, key: &str) -> Socket {
        let path = format!("/api/v1/commands/{id}/stream");
        for _ in 0..ATTEMPTS {
            match Socket::try_open(&self.address, &path, key).await {
                Ok(socket) => return socket,
                Err(head) => assert!(head.starts_with("HTTP/1.1 429 "), "{path}: {head}"),
            }
            tokio::time::sleep(REFUSED).await;
        }
        panic!("{path}: the caller may not read");
    }
}

/// Lets the gateway act in the namespace, and a user run commands there. Can be called for several users.
pub fn open(world: &World, namespace: &str, user: &str) {
    let gateway = format!("--serviceaccount={HOME}:writ-gateway");
    if !world.kubectl(&["-n", namespace, "get", "rolebinding", "writ-gateway"]).status.success() {
        let bind = ["create", "rolebinding", "writ-gateway", "--clusterrole=writ-gateway-actions", &gateway];
        world.kubectl_succeeds(&[&["-n", namespace], &bind[..]].concat());
    }
    let subject = format!("--user={user}");
    let bind = ["create", "rolebinding", user, "--clusterrole=cluster-admin", &subject];
    world.kubectl_succeeds(&[&["-n", namespace], &bind[..]].concat());
}

/// Creates an API key of a user, and returns its text.
pub fn make_key(world: &World, namespace: &str, user: &str) -> String {
    let name = format!("{user}-{namespace}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["api-key", "create", &name, "--user", user, "--namespace", HOME, "--expires", "1d", "--kubeconfig"]);
    let output = command.arg(world.control_plane.kubeconfig(User::Admin)).output().expect("writ runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
