//! All that is wrong with a rule, for its author: compiling stops at the first problem. Used where one person waits for the
//! answer, as the patterns of a rule out of force have no bound together.

use crate::api::whitelist::{Effect, WhitelistRule};

use super::values::{Use, Values};
use super::{BrokenRule, RuleProblem, checks, subjects};

/// The problem of a rule out of force, and those that its other fields have by themselves.
pub fn all_problems(rule: &WhitelistRule, namespace: &str, broken: &BrokenRule) -> Vec<BrokenRule> {
    let mut found = vec![broken.problem.clone()];
    let mut note = |checked: Result<(), RuleProblem>| {
        if let Err(problem) = checked
            && !found.contains(&problem)
        {
            found.push(problem);
        }
    };
    let usage = if broken.effect == Effect::Deny { Use::Denial } else { Use::Argument };
    note(checks::fields_are_known(rule));
    if broken.effect == Effect::Deny {
        note(checks::fits_a_deny(rule));
    }
    for (name, parameter) in &rule.parameters {
        note(checks::name("parameters", name));
        note(Values::compile(&format!("parameters.{name}"), parameter, usage).map(drop));
    }
    note(checks::run_length(rule, broken.effect));
    rule.run.iter().for_each(|word| note(checks::word("run", word)));
    rule.match_text.iter().for_each(|text| note(checks::text("match", text)));
    for (name, parameter) in &rule.environment {
        note(checks::variable(name));
        note(Values::compile(&format!("environment.{name}"), parameter, Use::Environment).map(drop));
    }
    note(checks::selector(rule).map(drop));
    note(subjects::compile(rule, namespace).map(drop));
    note(checks::run_as(rule).map(drop));
    note(checks::working_directory(rule).map(drop));
    note(checks::limits(rule).map(drop));
    note(checks::output(rule).map(drop));
    note(checks::redact(rule).map(drop));
    note(checks::minimum_retention(rule).map(drop));
    found.into_iter().map(|problem| BrokenRule { problem, ..broken.clone() }).collect()
}
