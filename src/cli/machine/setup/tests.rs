use std::process::{Command, Stdio};

use serde_json::json;

use super::*;
use crate::api::MachineSpec;

fn rules() -> Vec<WhitelistRule> {
    serde_json::from_value(json!([
        {"name": "restart", "run": ["/usr/bin/systemctl", "restart", "--", "{unit}"], "runAs": "root",
         "parameters": {"unit": {"enum": ["nginx.service", "a,b=c:d*.service"]}}},
        {"name": "release", "run": ["/usr/local/bin/release", "{version}"], "runAs": "deploy",
         "parameters": {"version": {"pattern": "[0-9]+"}}, "environment": {"CHANNEL": {"enum": ["a"]}}},
        {"name": "bare", "run": ["/usr/bin/uptime"], "runAs": "root"},
        {"name": "own", "run": ["/usr/bin/id"], "runAs": "writ"},
        {"name": "plain", "run": ["/usr/bin/id"]},
        {"name": "elsewhere", "run": ["/usr/bin/id"], "runAs": "root", "machineSelector": {"matchLabels": {"role": "db"}}},
        {"name": "never", "run": ["/usr/bin/id"], "runAs": "root", "effect": "Deny"},
    ]))
    .unwrap()
}

fn machine() -> Machine {
    Machine::new("web-1", MachineSpec::new("192.0.2.1", "writ", "web-ssh"))
}

fn keys(has_certificate: bool) -> anyhow::Result<AuthorizedKeys> {
    let [entry, fingerprint, line] = ["ssh-privatekey", "SHA256:x", "ssh-ed25519 AAAA"].map(str::to_owned);
    Ok(AuthorizedKeys { keys: vec![AuthorizedKey { entry, fingerprint, line }], has_certificate })
}

#[test]
fn without_the_secret_the_sudo_lines_are_printed() {
    let error = anyhow::anyhow!("the Secret web-ssh: forbidden\nmallory ALL=(ALL) NOPASSWD: ALL");
    let text = text(&machine(), &Err(error), &rules());
    assert!(!text.contains("\nmallory"), "{text}");
    assert!(
        text.starts_with("# ~writ/.ssh/authorized_keys on the machine: the Secret cannot be read (the Secret web-ssh")
    );
    assert!(text.contains("writ ALL=(root) NOPASSWD: /usr/bin/systemctl restart -- nginx.service"), "{text}");
}

#[test]
fn the_lines_are_as_narrow_as_the_rules() {
    let text = text(&machine(), &keys(false), &rules());
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            "restrict ssh-ed25519 AAAA writ",
            "writ ALL=(root) NOPASSWD: /usr/bin/systemctl restart -- nginx.service",
            r"writ ALL=(root) NOPASSWD: /usr/bin/systemctl restart -- a\,b\=c\:d\*.service",
            "writ ALL=(deploy) NOPASSWD: /usr/local/bin/release",
            "Defaults!/usr/local/bin/release env_keep += \"CHANNEL\"",
            "writ ALL=(root) NOPASSWD: /usr/bin/uptime \"\"",
        ]
    );
}

#[test]
fn each_key_of_a_secret_is_named_before_its_line() {
    let mut keys = keys(false).unwrap();
    let [entry, fingerprint, line] = ["ssh-privatekey-2", "SHA256:y", "ssh-ed25519 BBBB"].map(str::to_owned);
    keys.keys.push(AuthorizedKey { entry, fingerprint, line });
    let text = text(&machine(), &Ok(keys), &[]);
    let lines: Vec<&str> = text.lines().take(5).collect();
    assert_eq!(
        lines,
        [
            "# ~writ/.ssh/authorized_keys on the machine, one line for each key of the Secret (add only the lines that are missing):",
            "# ssh-privatekey, SHA256:x",
            "restrict ssh-ed25519 AAAA writ",
            "# ssh-privatekey-2, SHA256:y",
            "restrict ssh-ed25519 BBBB writ",
        ]
    );
}

#[test]
fn sudo_takes_the_lines() {
    let text = text(&machine(), &keys(false), &rules());
    let (_, sudoers) = text.split_once("# visudo").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# visudo{sudoers}")).unwrap();
    let mut visudo = Command::new("visudo");
    match visudo.arg("-cf").arg(file.path()).stdout(Stdio::null()).status() {
        Ok(status) => assert!(status.success(), "{sudoers}"),
        Err(error) => println!("no visudo here ({error}): passed over"),
    }
}

#[test]
fn a_machine_to_go_through_may_forward_and_a_certificate_is_told_of() {
    let mut machine = machine();
    machine.spec.allow_jump = true;
    let text = text(&machine, &keys(true), &[]);
    assert!(text.contains("restrict,port-forwarding ssh-ed25519 AAAA"));
    assert!(text.contains("TrustedUserCAKeys") && text.contains("no sudo lines are needed"));
}

/// A `runAs` with a special meaning in sudoers (ALL, `,` or `!`) gets no sudo line. In other user names, special
/// characters are escaped.
#[test]
fn a_user_of_a_directory_service_is_no_other_grant() {
    for (run_as, line) in [
        (r"CORP\deploy", Some(r"writ ALL=(CORP\\deploy) NOPASSWD: /usr/bin/id")),
        ("d@corp.example", Some(r"writ ALL=(d\@corp.example) NOPASSWD: /usr/bin/id")),
        ("Deploy", Some("writ ALL=(Deploy) NOPASSWD: /usr/bin/id")),
        ("ALL", None),
        ("root,deploy", None),
        ("!root", None),
    ] {
        let rule = json!([{"name": "r", "run": ["/usr/bin/id"], "runAs": run_as}]);
        let rules: Vec<WhitelistRule> = serde_json::from_value(rule).unwrap();
        let text = text(&machine(), &keys(false), &rules);
        let grant = text.lines().find(|line| line.starts_with("writ "));
        assert_eq!(grant.map(|grant| grant.trim_end_matches(" \"\"")), line, "{text}");
    }
}

/// The CRD limits only the length of a parameter's value, so the API server accepts a line break. Writ ignores such a
/// rule. `writ machine setup` must not print the second line of the value.
#[test]
fn a_value_cannot_add_a_line_to_sudoers() {
    let rules: Vec<WhitelistRule> = serde_json::from_value(json!([
        {"name": "restart", "run": ["/usr/bin/systemctl", "restart", "{unit}"], "runAs": "root",
         "parameters": {"unit": {"enum": ["a\nmallory ALL=(ALL) NOPASSWD: ALL"]}}},
    ]))
    .unwrap();
    let text = text(&machine(), &keys(false), &rules);
    assert!(!text.lines().any(|line| line.starts_with("mallory")), "{text}");
}
