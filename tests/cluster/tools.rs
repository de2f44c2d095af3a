//! `writ machine keyscan`, `check` and `setup`, as the guide describes them.

use std::process::{Command, Output};

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};
use crate::lab::{LOOPBACK, SshdOptions};
use crate::world::world;

fn machine_tool(case: &Case, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.arg("machine").args(words);
    if words[0] != "keyscan" {
        command.args(["--namespace", &case.namespace, "--kubeconfig"]).arg(&case.kubeconfig);
    }
    command.output().expect("writ runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn what_keyscan_prints_can_be_pasted() {
    let options = SshdOptions { ecdsa_host_key: true, ..SshdOptions::default() };
    let case = Case::with(world(), options, &[]).await;
    let port = case.sshd.port().to_string();
    let refused = machine_tool(&case, &["keyscan", "127.0.0.1", "--port", &port]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-cidr"), "{refused:?}");
    let scanned = machine_tool(&case, &[&["keyscan", "127.0.0.1", "--port", &port][..], &LOOPBACK].concat());
    assert!(scanned.status.success(), "{scanned:?}");
    let pasted: serde_json::Value = serde_saphyr::from_str(&stdout(&scanned)).expect("YAML");
    let keys: Vec<&str> = pasted["hostKeys"].as_array().expect("a list").iter().flat_map(|key| key.as_str()).collect();
    let own = [case.sshd.host_key().expect("a key"), case.sshd.ecdsa_host_key().expect("a key")];
    let without_comment = |key: &str| key.split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys.iter().map(|key| without_comment(key)).collect::<Vec<_>>(),
        own.iter().map(|key| without_comment(key)).collect::<Vec<_>>()
    );
    assert_eq!(case.sshd_logged("userauth-request"), 0);
    case.apply_machine("web-1", json!({"hostKeys": keys})).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn check_says_each_step_and_where_it_fails() {
    let case = Case::durable().await;
    let check = || machine_tool(&case, &[&["check", "web-1"][..], &LOOPBACK].concat());
    let good = check();
    let said = stdout(&good);
    assert!(good.status.success(), "{said}");
    for step in ["Machine", "Secret", "connection", "host key", "login", "launcher", "system"] {
        assert!(said.contains(&format!("ok    {step}: ")), "{step} is not in: {said}");
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    let before = case.sshd_logged("userauth-request");
    case.apply_machine("web-1", json!({"hostKeys": [key]})).await;
    let bad = check();
    assert_eq!(bad.status.code(), Some(4));
    assert!(stdout(&bad).contains("FAIL  host key: host key changed: expected SHA256:"), "{}", stdout(&bad));
    assert_eq!(case.sshd_logged("userauth-request"), before);
    let missing = machine_tool(&case, &["check", "nobody"]);
    assert_eq!(missing.status.code(), Some(4));
    assert!(stdout(&missing).contains("nobody") && stdout(&missing).contains("get machines lists the existing ones"));
}

#[tokio::test]
async fn setup_prints_what_belongs_on_the_machine() {
    let case = Case::new().await;
    let mut rule = sh("as-root", "id");
    rule["run"] = json!(["/usr/bin/systemctl", "restart", "--", "nginx.service"]);
    rule["runAs"] = json!("root");
    case.apply_whitelist("web", json!([rule])).await;
    let output = machine_tool_as_admin(&case);
    let said = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    let public = std::fs::read_to_string(case.sshd.private_key_path().with_extension("pub")).expect("a public key");
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert!(said.contains(&format!("\nrestrict {} writ\n", public.trim())), "{said}");
    let line = format!("{} ALL=(root) NOPASSWD: /usr/bin/systemctl restart -- nginx.service\n", case.sshd.user());
    assert!(said.contains(&line), "{said}");
}

/// Runs `writ machine setup` as the administrator, because the command also reads the Whitelists.
fn machine_tool_as_admin(case: &Case) -> Output {
    let kubeconfig = case.world.control_plane.kubeconfig(crate::lab::User::Admin);
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["machine", "setup", "web-1", "--namespace", &case.namespace, "--kubeconfig"]).arg(kubeconfig);
    command.output().expect("writ runs")
}
