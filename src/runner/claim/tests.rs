use super::*;
use crate::api::execution_status::DecisionRecord;

fn decision(redact: &[&str]) -> DecisionRecord {
    serde_json::from_value(serde_json::json!({
        "whitelist": {"name": "web", "uid": "u", "generation": 1}, "rule": "r", "argv": ["/bin/true"],
        "timeoutSeconds": 30, "redact": redact, "decidedTime": "2026-11-21T12:00:00.000000Z",
    }))
    .unwrap()
}

#[test]
fn a_stored_decision_whose_patterns_cannot_be_used_is_refused_before_anything_is_sent() {
    assert!(redaction(&decision(&[])).unwrap().is_empty());
    assert!(!redaction(&decision(&["secret"])).unwrap().is_empty());
    let problem = redaction(&decision(&["fine", "("])).unwrap_err();
    assert_eq!(problem.reason, Reason::PolicyBroken);
    for part in ["web/r", "decision.redact[1]", "nothing was sent"] {
        assert!(problem.message.contains(part), "{}", problem.message);
    }
}
