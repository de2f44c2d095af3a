use super::*;
use crate::api::command_execution::{Canceller, Requester, RuleRequest};
use crate::api::{Phase, SessionRequest, WhenOffline};

fn execution(name: &str, status: serde_json::Value) -> CommandExecution {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
        "metadata": {"name": name, "namespace": "team", "uid": "uid-1"},
        "spec": {"machineRef": {"name": "web-1"}, "command": "say hello"}, "status": status,
    }))
    .unwrap()
}

/// Receipts in existing clusters contain these digests. If a digest changed, Writ would not find the receipt, and the
/// command could run again.
#[test]
fn the_digest_of_a_spec_is_the_same_for_ever() {
    let small = CommandExecutionSpec::with_command("say hello");
    let all = CommandExecutionSpec {
        rule: Some(RuleRequest {
            name: "greet".to_owned(),
            parameters: [("who".to_owned(), "world".to_owned())].into(),
            whitelist: Some("web".to_owned()),
        }),
        argv: Some(vec!["/bin/echo".to_owned(), "\"quoted\" \\".to_owned()]),
        action_type: Some("custom".to_owned()),
        environment: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
        reason: Some("because ä".to_owned()),
        timeout_seconds: Some(7),
        starting_deadline_seconds: 0,
        ..small.clone()
    };
    // printf '{"command":"say hello","machineRef":{"name":"web-1"},"startingDeadlineSeconds":300}' | sha256sum
    assert_eq!(digest(&small), "275323e4fd507d62ecc7ababca46255ee5b1de8ec81765da1e73689cfddeaa08");
    assert_eq!(digest(&all), "d7f9edef16cb43d7b12517114d823eb39d777e7637cfc4913cffd4cee55d111d");
}

#[test]
fn digest_has_all_fields_except_requester_and_ttl() {
    let spec = CommandExecutionSpec::with_command("say hello");
    let same = CommandExecutionSpec {
        requested_by: Some(Requester { username: "jane".to_owned(), ..Requester::default() }),
        cancelled_by: Some(Canceller::default()),
        cancel_requested: true,
        ttl_seconds_after_finished: Some(7),
        ..spec.clone()
    };
    assert_eq!(digest(&spec), digest(&same));
    let others = [
        CommandExecutionSpec { reason: Some(String::new()), ..spec.clone() },
        CommandExecutionSpec { starting_deadline_seconds: 299, ..spec.clone() },
        CommandExecutionSpec { when_offline: WhenOffline::Fail, ..spec.clone() },
        CommandExecutionSpec { timeout_seconds: Some(30), ..spec.clone() },
        CommandExecutionSpec { session: Some(SessionRequest::default()), ..spec.clone() },
        CommandExecutionSpec { command: Some("say hello ".to_owned()), ..spec.clone() },
        CommandExecutionSpec { environment: [("A".to_owned(), String::new())].into(), ..spec.clone() },
        CommandExecutionSpec::on_machine("web-1"),
    ];
    for other in others {
        assert_ne!(digest(&spec), digest(&other), "{other:?}");
    }
}

/// Receipts from before a field was added still apply, also if the API server or the user adds the default.
#[test]
fn default_of_a_later_field_keeps_the_digest() {
    let spec = |when_offline: Option<&str>| -> CommandExecutionSpec {
        let mut fields = serde_json::json!({"machineRef": {"name": "web-1"}, "command": "say hello"});
        if let Some(value) = when_offline {
            fields["whenOffline"] = value.into();
        }
        serde_json::from_value(fields).unwrap()
    };
    let before = "275323e4fd507d62ecc7ababca46255ee5b1de8ec81765da1e73689cfddeaa08";
    assert_eq!(digest(&spec(None)), before);
    assert_eq!(digest(&spec(Some("Wait"))), before);
    // The same text with `,"whenOffline":"Fail"` after 300.
    assert_eq!(digest(&spec(Some("Fail"))), "82d43f016f441dc864f24969bdab139f50c749f589554164753cc8d0f013343d");
}

#[test]
fn the_name_of_a_receipt_is_a_dns_name_of_bounded_length_that_hangs_on_name_and_digest() {
    let name = |execution: &str, digest: &str| {
        let (namespace, execution, digest) = ("team".to_owned(), execution.to_owned(), digest.to_owned());
        ReceiptKey { namespace, execution, digest }.object_name()
    };
    assert_eq!(name("x", "d"), "x-724e53a0f36dc9e0e6cc972bb6211b31");
    assert_ne!(name("x", "d"), name("x", "e"));
    assert_ne!(name("x", "yd"), name("xy", "d"));
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
    let (long, other) = (name(&long, "d"), name(&format!("{long}c"), "d"));
    assert_eq!(long.len(), 199 + 33);
    assert!(long.starts_with("aaa") && !long.contains('.') && long != other);
}

#[test]
fn receipt_records_the_first_execution() {
    let status = serde_json::json!({"phase": "Failed", "reason": "NonZeroExitCode", "exitCode": 3,
        "startTime": "2026-11-21T11:59:59.000000Z", "completionTime": "2026-11-21T12:00:00.000000Z"});
    let execution = execution("x", status);
    let key = ReceiptKey::of(&execution).unwrap();
    let receipt = key.receipt(&execution).unwrap();
    assert!(key.matches(&receipt));
    assert!(!ReceiptKey { execution: "y".to_owned(), ..key.clone() }.matches(&receipt));
    assert!(!ReceiptKey { digest: "0".repeat(64), ..key }.matches(&receipt));
    let spec = &receipt.spec;
    assert_eq!((spec.uid.as_str(), spec.expired_uid.as_str(), spec.machine.as_str()), ("uid-1", "uid-1", "web-1"));
    assert_eq!((spec.phase, spec.reason, spec.exit_code), (Phase::Failed, Some(Reason::NonZeroExitCode), Some(3)));
    assert!(spec.start_time.is_some());
    let message = message(&receipt);
    for word in ["uid-1", "2026-11-21T12:00:00", "exit code 3", "NonZeroExitCode", "spec.reason", &receipt.name_any()] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    assert_eq!(first_execution(&receipt).exit_code, Some(3));
}

#[test]
fn unfinished_execution_has_no_receipt() {
    for status in [serde_json::json!({"phase": "Running"}), serde_json::json!({"phase": "Failed"})] {
        let execution = execution("x", status);
        assert_eq!(ReceiptKey::of(&execution).unwrap().receipt(&execution), None);
    }
}

#[test]
fn only_a_name_that_the_api_server_or_argo_cd_made_up_does_not_come_again() {
    let is_generated = |generate: Option<&str>, name: &str| {
        let mut execution = execution(name, serde_json::json!({"phase": "Pending"}));
        execution.metadata.generate_name = generate.map(ToOwned::to_owned);
        ReceiptKey::of(&execution).is_none()
    };
    assert!(is_generated(Some("backup-"), "backup-x7k2p"));
    assert!(is_generated(Some(&"a".repeat(70)), &format!("{}x7k2p", "a".repeat(58))));
    for name in ["backup-hello", "backup-x7k2", "backup-x7k2pp", "restore-x7k2p", "backup-"] {
        assert!(!is_generated(Some("backup-"), name), "{name}");
    }
    assert!(is_generated(Some("backup-"), "backup-0123abc-presync-1795219200"));
    assert!(is_generated(Some("backup-"), "backup-v1.2.3-postsync-1795219200"));
    for name in
        ["backup-0123abc-presync-", "backup-presync-1795219200", "backup-0123abc-daily-1795219200", "backup-a-sync-17"]
    {
        assert!(!is_generated(Some("backup-"), name), "{name}");
    }
    assert!(!is_generated(None, "backup-0123abc-presync-1795219200"));
    assert!(!is_generated(None, "backup-x7k2p"));
    assert!(!is_generated(Some(""), "x7k2p"));
}
