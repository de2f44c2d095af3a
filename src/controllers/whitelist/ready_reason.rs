//! Reason and message of the condition Ready of a Whitelist.

use crate::policy::CompiledWhitelist;

/// Returns reason and message of the condition Ready.
pub(super) fn ready_reason(compiled: &CompiledWhitelist) -> (&'static str, String) {
    let broken: Vec<String> =
        compiled.invalid_rules.iter().map(|broken| format!("{}: {}", broken.rule, broken.problem)).collect();
    match &compiled.closed {
        Some(why) => ("FailedClosed", format!("nothing is allowed in this namespace until this is fixed: {why}")),
        None if broken.is_empty() => {
            let message = match compiled.rule_count() {
                1 => "1 rule is in force".to_owned(),
                count => format!("{count} rules are in force"),
            };
            ("AllRulesInForce", message)
        }
        None => {
            let are = if broken.len() == 1 { "is" } else { "are" };
            let all = broken.len() + compiled.rule_count();
            let message = format!("{} of {all} rules {are} out of force: ", broken.len());
            ("RulesBroken", message + &broken.join("; "))
        }
    }
}
