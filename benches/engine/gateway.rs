//! Measures a synchronous call of the gateway on a kept connection, on a quiet cluster. Compares it with the same
//! requests without `writ serve` (create, read, two writes), and with a new `ssh` process.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::create::{SshClient, execute};
use crate::fleet::cycle;
use crate::lab::User;
use crate::measure::{Row, Target, p50, percentile, shown};
use crate::site::{Site, sshd};
use crate::world::{HOME, World};

const SAMPLES: usize = 200;
/// Number of warm-up samples, which do not count.
const WARM_UP: usize = 10;
/// Pause before each measurement, so that no other request is in progress.
const QUIET: Duration = Duration::from_millis(100);

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let rules = json!([{"name": "true", "match": "true", "run": ["/bin/true"]}]);
    let flags = ["--listen-gateway=127.0.0.1:0", "--commands-per-minute=100000"];
    let site = Site::with_one_machine(world, &sshd, rules, &flags).await;
    let nobodys = Site::new(world).await;
    open(world, &site.namespace);
    let key = make_key(world, &site.namespace);
    let url = format!(
        "http://{}/api/v1/machines/m0/commands/execute?namespace={}",
        site.logged_address("gateway is served").await,
        site.namespace
    );
    let ssh = SshClient::new(&sshd);
    let http = reqwest::Client::builder().build().expect("a client");
    let mut watch = site.watch().await;
    let (_, statuses) = execute(&site, &mut watch, "first").await;
    drop(watch);
    let (mut calls, mut alone, mut logins): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    for turn in 0..SAMPLES + WARM_UP {
        tokio::time::sleep(QUIET).await;
        let call = call(&http, &url, &key).await;
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

/// Lets the gateway act in the namespace, and jane run commands there.
fn open(world: &World, namespace: &str) {
    let gateway = format!("--serviceaccount={HOME}:writ-gateway");
    for arguments in [
        ["create", "rolebinding", "writ-gateway", "--clusterrole=writ-gateway-actions", &gateway],
        ["create", "rolebinding", "jane", "--clusterrole=cluster-admin", "--user=jane"],
    ] {
        world.kubectl_succeeds(&[&["-n", namespace], &arguments[..]].concat());
    }
}

fn make_key(world: &World, name: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["api-key", "create", name, "--user", "jane", "--namespace", HOME, "--expires", "1d", "--kubeconfig"]);
    let output = command.arg(world.control_plane.kubeconfig(User::Admin)).output().expect("writ runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
