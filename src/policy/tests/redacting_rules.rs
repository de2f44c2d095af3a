//! The `redact` patterns of a rule are checked together with the rule.

use super::*;

#[test]
fn a_redaction_that_could_not_be_applied_puts_the_rule_out_of_force() {
    for pattern in ["(", "a*", "", "é"] {
        let rule = serde_json::json!([{"name": "r", "run": ["/bin/true"], "redact": ["ok", pattern]}]).to_string();
        let compiled = compile(&whitelist("web", &rule));
        let problem = &compiled.invalid_rules.first().unwrap_or_else(|| panic!("{pattern:?} is in force")).problem;
        assert!(matches!(problem, RuleError::Redaction(RedactionError::Pattern { position: 1, .. })), "{problem:?}");
    }
    let many = serde_json::json!([{"name": "r", "run": ["/bin/true"], "redact": vec!["x"; 9]}]).to_string();
    assert_eq!(compile(&whitelist("web", &many)).rule_count(), 0);
}

#[test]
fn what_a_rule_redacts_and_bounds_is_in_the_decision() {
    let rules = sound("- {name: r, run: [/bin/true], redact: ['password=\\S+'], output: {inlineBytes: 100}}");
    let decision = allowed(&rules, &command("/bin/true"));
    assert_eq!(decision.redact, ["password=\\S+"]);
    assert_eq!((decision.output.inline_bytes, decision.output.maximum_bytes), (100, 67_108_864));
}
