//! A request held against the rules: a total function, whose answer can be recorded.

use crate::api::Reason;
use crate::api::execution_status::ObjectRecord;

use super::{Ask, CompiledRule, Request, RuleSet};

/// The answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may run, exactly so.
    Allow(Decision),
    /// It may not.
    Deny(Denial),
}

/// What runs, fixed before anything is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// The Whitelist of the rule that allowed it.
    pub whitelist: ObjectRecord,
    /// The rule.
    pub rule: String,
    /// The argument vector.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_seconds: u32,
}

/// Why a request may not run. The message is for the one who asked, who may not be allowed to read the policy: it
/// names no rule that did not match.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// NoMatchingRule, Ambiguous or PolicyBroken.
    pub reason: Reason,
    /// What to tell and what to do about it.
    pub message: String,
}

/// Holds a request against the rules. Default deny.
pub fn decide(rules: &RuleSet, request: &Request) -> Verdict {
    if let Some(broken) = rules.closed_by() {
        return deny(
            Reason::PolicyBroken,
            format!(
                "nothing is allowed in this namespace until the Whitelist {} is mended: rule {}: {}",
                broken.whitelist, broken.rule, broken.problem
            ),
        );
    }
    let mut matching = rules.rules.iter().filter(|rule| rule_matches(rule, request.ask()));
    let Some(first) = matching.next() else { return deny(Reason::NoMatchingRule, no_match(rules, request.ask())) };
    match matching.find(|other| other.argv != first.argv) {
        Some(other) => deny(
            Reason::Ambiguous,
            format!(
                "rules {}/{} and {}/{} match the request and would execute different things; \
                 ask with spec.argv, or give the rules different texts",
                first.whitelist.name, first.name, other.whitelist.name, other.name
            ),
        ),
        None => Verdict::Allow(Decision {
            whitelist: first.whitelist.clone(),
            rule: first.name.clone(),
            argv: first.argv.clone(),
            timeout_seconds: request.timeout_seconds(),
        }),
    }
}

fn rule_matches(rule: &CompiledRule, ask: &Ask) -> bool {
    match ask {
        Ask::Command(text) => rule.text == *text,
        Ask::Argv(argv) => rule.argv == *argv,
    }
}

fn no_match(rules: &RuleSet, ask: &Ask) -> String {
    let (field, against) = match ask {
        Ask::Command(_) => ("spec.command", "match"),
        Ask::Argv(_) => ("spec.argv", "run"),
    };
    let hint = if rules.rules.is_empty() && rules.broken.is_empty() {
        "there is no Whitelist in this namespace".to_owned()
    } else {
        format!("no rule of this namespace has this {against}; it must be equal byte for byte")
    };
    let broken = match rules.broken.len() {
        0 => String::new(),
        count => format!(" ({count} broken rules are out of force)"),
    };
    format!("{field} is not whitelisted: {hint}{broken}")
}

fn deny(reason: Reason, message: String) -> Verdict {
    Verdict::Deny(Denial { reason, message })
}
