use serde_json::json;

use super::*;
use crate::api::Whitelist;
use crate::api::command_execution::Requester;
use crate::gateway::body::parse;
use crate::policy::compile;

fn rules() -> RuleSet {
    let whitelist: Whitelist = serde_json::from_value(json!({
        "apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist",
        "metadata": {"name": "web", "namespace": "ops"},
        "spec": {"rules": [
            {"name": "restart", "match": "restart {unit}", "run": ["/usr/bin/systemctl", "restart", "--", "{unit}"],
                "parameters": {"unit": {"enum": ["nginx.service"]}}, "runAs": "root",
                "machineSelector": {"matchLabels": {"role": "web"}}},
            {"name": "mine", "match": "mine", "run": ["/bin/true"], "subjects": [{"kind": "User", "name": "jane"}]},
            {"name": "broken", "match": "broken", "run": ["true"]},
        ]},
    }))
    .unwrap();
    RuleSet::new(vec![compile(&whitelist).into()])
}

fn request(body: &serde_json::Value) -> Result<Request, ApiError> {
    let body: ExplainRequest = parse(body.to_string().as_bytes())?;
    Request::parse(&spec(body)).map_err(|error| malformed(&error.to_string()))
}

fn explained(command: &str, identity: Identity<'_>) -> Explanation {
    let request = request(&json!({"machine": "web-1", "command": command})).unwrap();
    explain(&rules(), &request, &BTreeMap::from([("role".to_owned(), "web".to_owned())]), identity)
}

#[test]
fn an_allowed_request_has_a_decision_and_a_denied_one_its_nearest_rule() {
    let allowed = explained("restart nginx.service", Identity::Unknown);
    let decision = allowed.decision.as_ref().unwrap();
    assert!(allowed.allowed && allowed.reason.is_none() && allowed.message.contains("web/restart"));
    assert_eq!(decision.argv, ["/usr/bin/systemctl", "restart", "--", "nginx.service"]);
    assert_eq!((decision.run_as.as_deref(), decision.timeout_seconds), (Some("root"), 30));
    let denied = explained("restart sshd.service", Identity::Unknown);
    assert!(!denied.allowed && denied.reason.as_deref() == Some("NoMatchingRule"));
    assert_eq!(denied.nearest.as_ref().unwrap().rule, "restart");
    let broken = explained("broken", Identity::Unknown);
    assert!(broken.out_of_force.unwrap().starts_with("web/broken: "));
}

#[test]
fn callers_who_may_not_read_the_policy_get_the_verdict_only() {
    for command in ["restart nginx.service", "restart sshd.service", "broken"] {
        let full = explained(command, Identity::Unknown);
        let (allowed, message) = (full.allowed, full.message.clone());
        let text = serde_json::to_value(full.without_policy()).unwrap();
        assert_eq!((&text["allowed"], &text["message"]), (&json!(allowed), &json!(message)));
        for field in ["nearest", "decision", "out_of_force"] {
            assert!(text.get(field).is_none(), "{command}: {text}");
        }
    }
}

#[test]
fn subjects_are_compared_with_the_caller_and_an_unverified_caller_is_nobody() {
    let requester = |name: &str| Requester { username: name.to_owned(), ..Requester::default() };
    assert!(explained("mine", Identity::Known(&requester("jane"))).allowed);
    assert_eq!(explained("mine", Identity::Known(&requester("joe"))).reason.as_deref(), Some("NotPermitted"));
    assert!(!explained("mine", Identity::Unknown).allowed);
    assert_eq!(explained("mine", Identity::Undecided).reason.as_deref(), Some("Undecided"));
}

#[test]
fn a_malformed_request_names_its_field() {
    for (body, expected) in [
        (json!({"machine": "web-1"}), "command, argv or rule"),
        (json!({"machine": "web-1", "command": ""}), "command must not be empty"),
        (json!({"machine": "web-1", "command": "a\nb"}), "command must be printable ASCII"),
        (json!({"machine": "web-1", "command": "a", "argv": ["a"]}), "command, argv or rule"),
        (json!({"machine": "web-1", "command": "a", "timeout": 0}), "timeout must be 1 to 86400"),
        (json!({"machine": "web-1", "command": "a", "action_type": ""}), "action_type must not be empty"),
        (json!({"machine": "web-1", "rule": {"name": "a", "params": {}}}), "rule.params: unknown field"),
        (json!({"command": "a"}), "missing field `machine`"),
    ] {
        let error = request(&body).unwrap_err();
        assert_eq!(error.status.as_u16(), 422);
        let message = &error.body.message;
        assert!(message.contains(expected) && !message.contains("spec."), "{body}: {message}");
    }
}
