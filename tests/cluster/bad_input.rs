//! Bad input: Writ or the API server answers each with a clear error, and no part of it reaches a machine.

use serde_json::{Value, json};
use writ::api::{Phase, Reason};

use crate::case::Case;

/// Checks that the login shell received no request, and that no client connected to sshd.
#[track_caller]
fn nothing_reached(case: &Case) {
    assert_eq!(case.ledger(), Vec::<String>::new());
    assert_eq!(case.sshd_logged("Connection from"), 0, "{}", case.sshd.log().unwrap_or_default());
}

/// Checks that the login shell received no request. Clients may have connected to sshd.
#[track_caller]
fn nothing_ran(case: &Case) {
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_listed_never_reaches_sshd() {
    let case = Case::new().await;
    let hostile = [
        "rm -rf /",
        "say hello; id",
        "say hello && id",
        "say hello | sh",
        "say hello ",
        " say hello",
        "Say hello",
        "say  hello",
        "$(say hello)",
        "say hello > /tmp/x",
        "/bin/echo hello; id",
        "'say hello'",
        "say hello #",
    ];
    for (index, command) in hostile.iter().enumerate() {
        case.execute(&format!("x{index}"), command).await;
    }
    case.execute_with("argv", json!({"argv": ["/bin/echo", "hello", "; id"]})).await;
    case.execute_with("prefix", json!({"argv": ["/bin/echo"]})).await;
    for (index, command) in hostile.iter().enumerate() {
        let status = case.ends(&format!("x{index}"), Phase::Rejected, Reason::NoMatchingRule).await;
        assert!(status.claim.is_none() && status.decision.is_none(), "{command}");
    }
    case.ends("argv", Phase::Rejected, Reason::NoMatchingRule).await;
    case.ends("prefix", Phase::Rejected, Reason::NoMatchingRule).await;
    nothing_reached(&case);
}

#[tokio::test]
async fn a_wrong_host_key_gets_no_authentication_attempt() {
    let case = Case::new().await;
    // A well-formed key of another host.
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    case.apply_machine("web-1", json!({"hostKeys": [other]})).await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains("SHA256:") && message.contains("spec.hostKeys"), "{message}");
    assert!(status.claim.is_none() && status.exit_code.is_none());
    nothing_ran(&case);
    assert!(case.sshd_logged("Connection from") >= 1, "it was connected to");
    for attempt in ["userauth-request", "Postponed publickey", "Failed publickey", "Accepted publickey"] {
        assert_eq!(case.sshd_logged(attempt), 0, "{attempt}");
    }
}

#[tokio::test]
async fn a_login_does_show_in_the_log_that_the_test_before_reads() {
    let case = Case::new().await;
    case.execute("x", "say hello").await;
    case.finished("x").await;
    for attempt in ["userauth-request", "Accepted publickey"] {
        assert!(case.sshd_logged(attempt) >= 1, "{attempt} is not in:\n{}", case.sshd.log().unwrap_or_default());
    }
}

#[tokio::test]
async fn a_machine_that_has_no_key_of_a_pinned_type_is_a_mismatch() {
    let case = Case::new().await;
    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";
    case.apply_machine("web-1", json!({"hostKeys": [ecdsa]})).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    nothing_ran(&case);
}

#[tokio::test]
async fn without_a_machine_it_is_rejected_and_says_which() {
    let case = Case::new().await;
    case.execute_with("x", json!({"command": "say hello", "machineRef": {"name": "web-9"}})).await;
    case.execute_with("y", json!({"command": "say hello", "machineRef": {"name": "something-else"}})).await;
    for (name, machine, is_near) in [("x", "web-9", true), ("y", "something-else", false)] {
        let message = case.ends(name, Phase::Rejected, Reason::MachineNotFound).await.message.unwrap_or_default();
        assert!(message.contains(machine) && message.contains(&case.namespace), "{message}");
        assert_eq!(message.contains("did you mean web-1?"), is_near, "{message}");
    }
    nothing_reached(&case);
}

#[tokio::test]
async fn without_a_whitelist_nothing_runs() {
    let case = Case::new().await;
    case.whitelists().delete("web", &kube::api::DeleteParams::default()).await.expect("deleted");
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Rejected, Reason::NoMatchingRule).await;
    assert!(status.message.unwrap_or_default().contains("no Whitelist"));
    nothing_reached(&case);
}

#[tokio::test]
async fn a_machine_and_a_rule_that_come_a_moment_later_are_waited_for() {
    // Longer than the default, because other tests keep the API server busy.
    let flags = ["--missing-grace-seconds", "60"];
    let case = Case::with(crate::world::world(), crate::lab::SshdOptions::default(), &flags).await;
    case.execute_with("x", json!({"command": "later", "machineRef": {"name": "web-2"}})).await;
    case.apply_machine("web-2", json!({})).await;
    case.apply_whitelist("later", json!([{"name": "later", "match": "later", "run": ["/bin/echo", "later"]}])).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_fails_the_launch_and_says_how_to_mend_it() {
    let case = Case::new().await;
    let key = case.sshd.private_key().expect("a key");
    let secret = |type_: &str, labels: Value, field: &str, value: &str| json!({"type": type_, "metadata": {"labels": labels}, "stringData": {field: value}});
    let labelled = || json!({"writ.dev/credentials": "true"});
    let ssh = "kubernetes.io/ssh-auth";
    case.apply("v1", "Secret", "unlabelled", secret(ssh, json!({}), "ssh-privatekey", &key)).await;
    case.apply(
        "v1",
        "Secret",
        "label-false",
        secret(ssh, json!({"writ.dev/credentials": "no"}), "ssh-privatekey", &key),
    )
    .await;
    case.apply("v1", "Secret", "opaque", secret("Opaque", labelled(), "ssh-privatekey", &key)).await;
    case.apply("v1", "Secret", "garbage", secret(ssh, labelled(), "ssh-privatekey", "not a key")).await;
    case.apply("v1", "Secret", "cut", secret(ssh, labelled(), "ssh-privatekey", &key[..key.len() / 2])).await;
    case.apply("v1", "Secret", "empty", secret(ssh, labelled(), "ssh-privatekey", "\n")).await;
    let expected = [
        ("missing", Reason::CredentialsNotFound, "create it"),
        ("unlabelled", Reason::CredentialsInvalid, "label secret"),
        ("label-false", Reason::CredentialsInvalid, "label secret"),
        ("opaque", Reason::CredentialsInvalid, "kubernetes.io/ssh-auth"),
        ("garbage", Reason::CredentialsInvalid, "does not parse"),
        ("cut", Reason::CredentialsInvalid, "does not parse"),
        ("empty", Reason::CredentialsInvalid, "does not parse"),
    ];
    for (name, _, _) in expected {
        case.apply_machine(name, json!({"credentialsRef": {"name": name}})).await;
        case.execute_with(name, json!({"command": "say hello", "machineRef": {"name": name}})).await;
    }
    for (name, reason, remedy) in expected {
        let message = case.ends(name, Phase::LaunchFailed, reason).await.message.unwrap_or_default();
        assert!(message.contains(remedy), "{name}: {message}");
        assert!(!message.contains("PRIVATE KEY"), "{message}");
    }
    nothing_reached(&case);
}

#[tokio::test]
async fn a_key_that_the_machine_does_not_know_fails_the_launch() {
    let options = crate::lab::SshdOptions { refuse_key: true, ..crate::lab::SshdOptions::default() };
    let case = Case::with(crate::world::world(), options, &[]).await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::LaunchFailed, Reason::AuthenticationRefused).await;
    assert!(status.message.unwrap_or_default().contains("authorized_keys"));
    nothing_ran(&case);
}

#[tokio::test]
async fn an_object_that_violates_the_schema_is_refused_with_the_field() {
    let case = Case::new().await;
    let refused = [
        (json!({"command": "say hello", "argv": ["/bin/echo"]}), "exactly one way"),
        (json!({}), "exactly one way"),
        (json!({"command": ""}), "spec.command"),
        (json!({"command": "a\nb"}), "spec.command"),
        (json!({"command": "réstart"}), "spec.command"),
        (json!({"command": "x".repeat(4097)}), "spec.command"),
        (json!({"argv": []}), "spec.argv"),
        (json!({"argv": vec!["x"; 65]}), "spec.argv"),
        (json!({"argv": ["a\u{0}"]}), "spec.argv[0]"),
        (json!({"command": "x", "timeoutSeconds": 0}), "spec.timeoutSeconds"),
        (json!({"command": "x", "timeoutSeconds": 86401}), "spec.timeoutSeconds"),
        (json!({"command": "x", "startingDeadlineSeconds": 604_801}), "spec.startingDeadlineSeconds"),
        (json!({"command": "x", "whenOffline": "Later"}), "spec.whenOffline"),
        (json!({"command": "x", "whenOffline": "fail"}), "spec.whenOffline"),
        (json!({"command": "x", "whenOffline": ""}), "spec.whenOffline"),
        (json!({"command": "x", "whenOffline": true}), "spec.whenOffline"),
        (json!({"command": "x", "machineRef": {"name": ""}}), "spec.machineRef.name"),
        (json!({"command": "x", "machineRef": {"name": "../x"}}), "spec.machineRef.name"),
        (json!({"command": "x", "machineRef": {}}), "spec.machineRef.name"),
        (json!({"command": 7}), "spec.command"),
    ];
    for (index, (spec, field)) in refused.into_iter().enumerate() {
        let error = case.try_execute(&format!("x{index}"), spec.clone()).await.expect_err("it is refused");
        let kube::Error::Api(status) = &error else { panic!("{error}") };
        assert_eq!(status.code, 422, "{spec}: {}", status.message);
        assert!(status.message.contains(field), "{field} is not in: {}", status.message);
    }
    nothing_reached(&case);
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_by_kubectl() {
    let case = Case::new().await;
    let path = case.sshd.home().join("typo.yaml");
    let manifest = "apiVersion: writ.dev/v1alpha1\nkind: CommandExecution\nmetadata: {name: typo}\n\
                    spec: {machineRef: {name: web-1}, comand: say hello, command: say hello}\n";
    std::fs::write(&path, manifest).expect("a manifest");
    let output = case.world.kubectl(&["apply", "-n", &case.namespace, "-f", path.to_str().expect("UTF-8")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("comand"), "{errors}");
}

#[tokio::test]
async fn machines_that_make_no_sense_are_refused() {
    let case = Case::new().await;
    let machine = |changes: Value| {
        let mut spec = json!({"address": "192.0.2.1", "user": "deploy", "credentialsRef": {"name": "k"},
            "hostKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z"]});
        changes.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
        json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Machine", "metadata": {"name": "m"}, "spec": spec})
    };
    let cases = [
        (machine(json!({})), None),
        (machine(json!({"hostKeys": []})), Some("must be known by something")),
        (machine(json!({"hostKeys": [], "hostKeyPolicy": "TrustOnFirstUse"})), None),
        (machine(json!({"hostKeys": [], "hostKeyPolicy": "Trust"})), Some("spec.hostKeyPolicy")),
        (machine(json!({"hostKeys": [], "hostKeyAuthorities": ["ecdsa-sha2-nistp256 AAAA ca"]})), None),
        (machine(json!({"hostKeyAuthorities": ["cert-authority ssh-ed25519 AAAA"]})), Some("each authority")),
        (machine(json!({"revokedHostKeys": [format!("SHA256:{}", "a".repeat(43))]})), None),
        (machine(json!({"revokedHostKeys": ["MD5:aa"]})), Some("revokedHostKeys")),
        (machine(json!({"jumpHosts": [{"name": "a"}, {"name": "b"}], "allowJump": true, "suspend": true})), None),
        (machine(json!({"jumpHosts": vec![json!({"name": "a"}); 9]})), Some("spec.jumpHosts")),
        (machine(json!({"probe": {"intervalSeconds": 5}})), Some("must be 0 (never) or at least 10")),
        (machine(json!({"probe": {"timeoutSeconds": 61}})), Some("spec.probe.timeoutSeconds")),
        (machine(json!({"hostKeys": ["ssh-dss AAAA"]})), Some("keyscan")),
        (machine(json!({"hostKeys": ["web-1 ssh-ed25519 AAAA"]})), Some("keyscan")),
        (machine(json!({"port": 0})), Some("spec.port")),
        (machine(json!({"port": 65536})), Some("spec.port")),
        (machine(json!({"address": "-oProxyCommand=x"})), Some("spec.address")),
        (machine(json!({"address": "fe80::1%eth0"})), None),
        (machine(json!({"address": "web-1%eth0"})), Some("spec.address")),
        (machine(json!({"address": "127.0.0.1:22022"})), Some("put the port into spec.port")),
        (machine(json!({"address": "web-1.example:22"})), Some("put the port into spec.port")),
        (machine(json!({"address": "10.0.0.1:22:33"})), Some("put the port into spec.port")),
        (machine(json!({"address": "2001:db8::1:22"})), None),
        (machine(json!({"address": "::ffff:10.0.0.1"})), None),
        (machine(json!({"address": "fe80::1%$(id)"})), Some("spec.address")),
        (machine(json!({"address": "web;id"})), Some("spec.address")),
        (machine(json!({"user": "a b"})), Some("spec.user")),
        (machine(json!({"user": "-l"})), Some("spec.user")),
        (machine(json!({"user": "$(id)"})), Some("spec.user")),
        (machine(json!({"user": "jane.doe@example.org"})), None),
        (machine(json!({"maxConcurrent": 0})), Some("spec.maxConcurrent")),
    ];
    check(&case, &cases);
}

#[tokio::test]
async fn whitelists_that_make_no_sense_are_refused() {
    let case = Case::new().await;
    let whitelist = |rules: Value| json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist", "metadata": {"name": "w"}, "spec": {"rules": rules}});
    let good = json!({"name": "r", "run": ["/bin/true"]});
    let cases = [
        (whitelist(json!([good])), None),
        (whitelist(json!([])), Some("spec.rules")),
        (whitelist(json!([good, good])), Some("Duplicate value")),
        (whitelist(json!([{"name": "r", "run": []}])), Some("run")),
        (whitelist(json!([{"name": "r", "effect": "Deny"}])), None),
        (whitelist(json!([{"name": "r"}])), Some("must say in `run`")),
        (whitelist(json!([{"name": "r", "effect": "Allow"}])), Some("must say in `run`")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo"], "effect": "deny"}])), Some("effect")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo", "é"]}])), Some("run[1]")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo"], "match": "a\nb"}])), Some("match")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo"], "runAs": "-u"}])), Some("runAs")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo"], "subjects": []}])), Some("subjects")),
        (whitelist(json!([{"name": "r", "run": ["/bin/echo"], "timeoutSeconds": {"maximum": 0}}])), Some("maximum")),
        (whitelist(json!([{"name": "R", "run": ["/bin/echo"]}])), Some("name")),
    ];
    check(&case, &cases);
}

/// Checks that the API server accepts each object, or that its error contains the given text.
fn check(case: &Case, cases: &[(Value, Option<&str>)]) {
    for (object, field) in cases {
        let path = case.sshd.home().join("object.json");
        std::fs::write(&path, object.to_string()).expect("a manifest");
        let output = case.world.kubectl(&[
            "apply",
            "--dry-run=server",
            "-n",
            &case.namespace,
            "-f",
            path.to_str().expect("UTF-8"),
        ]);
        let errors = String::from_utf8_lossy(&output.stderr);
        match field {
            None => assert!(output.status.success(), "{errors}"),
            Some(field) => assert!(!output.status.success() && errors.contains(field), "{field} is not in: {errors}"),
        }
    }
}

/// A block in YAML adds a line end, and an editor adds typographic quotes. The error of the API server names such a
/// fault in words. It shows no regular expression.
#[tokio::test]
async fn what_the_schema_refuses_is_told_in_words() {
    let case = Case::new().await;
    let refused = |result: Result<(), kube::Error>| match result {
        Err(kube::Error::Api(status)) if status.code == 422 => status.message.clone(),
        other => panic!("not refused: {other:?}"),
    };
    for (spec, words) in [
        (json!({"command": "say hello\n"}), "spec.command has a line break"),
        (json!({"command": "say\u{a0}hello"}), "spec.command must be printable ASCII"),
        (
            json!({"argv": ["/bin/echo", "hello\n"]}),
            r#"spec.argv[1]: Invalid value: "hello\n": this word has a line break"#,
        ),
        (json!({"argv": ["/bin/echo", "\u{201c}hello\u{201d}"]}), "this word must be printable ASCII"),
        (json!({"rule": {"name": "say hello"}}), "spec.rule.name must be the name of a rule"),
        (json!({"command": "say hello", "actionType": "Restart it"}), "spec.actionType must be a word"),
        (
            json!({"command": "say hello", "machineRef": {"name": "ops/web-1"}}),
            "must be the name of an object in this namespace",
        ),
    ] {
        let message = refused(case.try_execute("x", spec).await.map(drop));
        assert!(message.contains(words) && !message.contains("should match"), "{words}: {message}");
    }
    for (spec, words) in [
        (json!({"user": "deploy\n"}), "spec.user must be a login name"),
        (json!({"user": "deploy@web-1:22"}), "spec.user must be a login name"),
        (json!({"execution": {"directory": "/srv/writ/"}}), "spec.execution.directory must be an absolute path"),
        (json!({"jumpHosts": [{"name": "Bastion"}]}), "must be the name of an object in this namespace"),
    ] {
        let whole = json!({"address": "192.0.2.1", "user": "deploy", "credentialsRef": {"name": "web-ssh"}, "hostKeyPolicy": "TrustOnFirstUse"});
        let mut spec_of = whole.as_object().cloned().expect("an object");
        spec_of.extend(spec.as_object().cloned().expect("an object"));
        let message = refused(case.try_apply("writ.dev/v1alpha1", "Machine", "new", json!({"spec": spec_of})).await);
        assert!(message.contains(words) && !message.contains("should match"), "{words}: {message}");
    }
    // The API server still accepts valid login names, words and names.
    for user in ["jane", "CORP\\jane", "jane@corp.example", "PC-1$"] {
        case.apply_machine("named", json!({"user": user})).await;
    }
    case.execute_with(
        "y",
        json!({"argv": ["/bin/echo", "hello"], "actionType": "read-only", "reason": "z\u{fc}ge\nzwei"}),
    )
    .await;
}
