//! Limits of the wait for output and of the retention. Writ checks these limits together with the rule, and stores them
//! in the decision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::api::execution_status::DecisionRecord;
use crate::api::whitelist::OutputLimits;

#[test]
fn the_wait_for_output_is_in_the_decision() {
    for (limits, seconds) in [("{}", 2), ("{drainSeconds: 0}", 0), ("{drainSeconds: 60}", 60)] {
        let rules = sound(&format!("- {{name: r, run: [/bin/true], output: {limits}}}"));
        let decision = allowed(&rules, &command("/bin/true"));
        assert_eq!(decision.output.drain_seconds, seconds, "{limits}");
    }
}

#[test]
fn rules_that_wait_for_output_differently_are_not_the_same() {
    let rule = |name: &str, seconds: u32| {
        format!("- {{name: {name}, run: [/bin/true], output: {{drainSeconds: {seconds}}}}}\n")
    };
    allowed(&sound(&(rule("a", 2) + "- {name: b, run: [/bin/true]}\n")), &command("/bin/true"));
    let denial = denied(&sound(&(rule("a", 2) + &rule("b", 3))), &command("/bin/true"));
    assert_eq!(denial.reason, Reason::Ambiguous);
}

#[test]
fn a_stored_decision_without_the_wait_is_one_with_the_default() {
    let decision = allowed(&sound("- {name: r, run: [/bin/true]}"), &command("/bin/true"));
    let record = decision.record(MicroTime("2026-11-21T12:00:00Z".parse().unwrap()));
    let mut stored = serde_json::to_value(&record).unwrap();
    assert_eq!(stored["output"]["drainSeconds"], 2);
    stored["output"].as_object_mut().unwrap().remove("drainSeconds");
    assert_eq!(serde_json::from_value::<DecisionRecord>(stored).unwrap(), record);
}

#[test]
fn a_wait_out_of_bounds_puts_the_rule_out_of_force() {
    for seconds in [61, 3600, u32::MAX] {
        let rule = format!("- {{name: r, run: [/bin/true], output: {{drainSeconds: {seconds}}}}}");
        let compiled = compile(&whitelist("web", &rule));
        let problem = &compiled.invalid_rules.first().unwrap_or_else(|| panic!("{seconds} is in force")).problem;
        assert_eq!(*problem, RuleError::Output, "{seconds}");
        assert!(problem.to_string().contains("output.drainSeconds 0 to 60"), "{problem}");
    }
    let compiled = compile(&whitelist("web", "- {name: r, run: [/bin/true], output: {drainMinutes: 1}}"));
    let field = "output.drainMinutes".to_owned();
    assert_eq!(compiled.invalid_rules.first().unwrap().problem, RuleError::UnknownField { field });
}

/// The API server refuses these values of `drainSeconds`. A Whitelist with such a value cannot be decoded, so its
/// namespace fails closed.
#[test]
fn a_wait_that_is_no_whole_number_of_seconds_does_not_decode() {
    for seconds in
        [serde_json::json!(-1), serde_json::json!(1.5), serde_json::json!("2"), serde_json::json!(1_u64 << 32)]
    {
        let limits = serde_json::from_value::<OutputLimits>(serde_json::json!({"drainSeconds": seconds}));
        assert!(limits.is_err(), "{seconds}: {limits:?}");
    }
}

#[test]
fn the_minimum_retention_of_a_rule_is_in_the_decision_and_within_its_bounds() {
    let decided = |field: &str| {
        let rules = sound(&format!("- {{name: r, run: [/bin/true]{field}}}"));
        allowed(&rules, &command("/bin/true")).record(MicroTime("2026-11-21T12:00:00Z".parse().unwrap()))
    };
    let (absent, none) = (decided(""), decided(", minimumRetentionSeconds: 0"));
    assert_eq!((absent.minimum_retention_seconds, none.minimum_retention_seconds), (None, Some(0)));
    assert_ne!(absent.digest, none.digest);
    let rule = |name: &str, seconds: u32| {
        format!("- {{name: {name}, run: [/bin/true], minimumRetentionSeconds: {seconds}}}\n")
    };
    let denial = denied(&sound(&(rule("a", 0) + &rule("b", 60))), &command("/bin/true"));
    assert_eq!(denial.reason, Reason::Ambiguous);
}
