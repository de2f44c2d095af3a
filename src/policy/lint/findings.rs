//! Findings of lint, for the authors of Whitelists.

use crate::api::whitelist::Effect;
use crate::policy::InvalidRule;

/// Effect of a rule that its author perhaps did not intend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// Name of the rule.
    pub rule: String,
    /// Effect of the rule, and the remedy.
    pub message: String,
}

/// Findings in one Whitelist.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Problem of the Whitelist that would make its namespace fail closed. `None` if there is no such problem.
    pub closed: Option<String>,
    /// Rules that would be out of force, each with its problem.
    pub invalid_rules: Vec<InvalidRule>,
    /// Invalid and repeated names of rules. The API server would refuse a Whitelist with such names.
    pub names: Vec<String>,
    /// Effects of rules that the author perhaps did not intend.
    pub warnings: Vec<Warning>,
    /// Number of rules that would be in force.
    pub rule_count: usize,
}

impl Findings {
    /// Returns true if the API server would accept the Whitelist, and the controller would report it Ready.
    pub fn is_sound(&self) -> bool {
        self.closed.is_none() && self.invalid_rules.is_empty() && self.names.is_empty()
    }

    /// Returns the errors, one line each.
    pub fn errors(&self) -> Vec<String> {
        let names = self.names.iter().map(|name| {
            format!("rule {name}: name must be lower case letters, digits and -, at most 63, and no other rule's; the API server refuses it")
        });
        let broken = self.invalid_rules.iter().map(|broken| {
            let effect = match broken.effect {
                Effect::Allow => "it would be out of force",
                Effect::Deny => "it is a Deny, so nothing would be allowed in its namespace",
            };
            format!("rule {}: {} ({effect})", broken.rule, broken.problem)
        });
        let by_rule = self.invalid_rules.iter().any(|broken| broken.effect == Effect::Deny);
        let closed = self
            .closed
            .iter()
            .filter(|_| !by_rule)
            .map(|why| format!("nothing would be allowed in its namespace: {why}"));
        closed.chain(names).chain(broken).collect()
    }
}
