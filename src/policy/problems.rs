//! Finds all problems of a rule for its author. Compiling a rule stops at the first problem.
//!
//! # Caveats
//! The total cost of the patterns has no maximum here, so the search can take long. Only tools that a user runs may
//! therefore use it. The controller must not use it.

use crate::api::whitelist::{Effect, WhitelistRule};

use super::values::{ValueSpec, ValueUse};
use super::{InvalidRule, RuleError, checks, subjects};

/// Returns all problems of a rule out of force: first the problem of `broken`, then the problems of other fields.
pub fn all_problems(rule: &WhitelistRule, namespace: &str, broken: &InvalidRule) -> Vec<InvalidRule> {
    let mut found = vec![broken.problem.clone()];
    let mut note = |checked: Result<(), RuleError>| {
        if let Err(problem) = checked
            && !found.contains(&problem)
        {
            found.push(problem);
        }
    };
    let usage = if broken.effect == Effect::Deny { ValueUse::Deny } else { ValueUse::Argument };
    note(checks::fields_are_known(rule));
    if broken.effect == Effect::Deny {
        note(checks::reject_execution_fields_on_deny(rule));
    } else {
        note(checks::session_fields_are_used(rule));
    }
    for (name, parameter) in &rule.parameters {
        note(checks::name("parameters", name));
        note(ValueSpec::compile(&format!("parameters.{name}"), parameter, usage).map(drop));
    }
    note(checks::run_length(rule, broken.effect));
    rule.run.iter().for_each(|word| note(checks::word("run", word)));
    rule.match_text.iter().for_each(|text| note(checks::text("match", text)));
    for (name, parameter) in &rule.environment {
        note(checks::variable(name));
        note(ValueSpec::compile(&format!("environment.{name}"), parameter, ValueUse::Environment).map(drop));
    }
    note(checks::selector(rule).map(drop));
    note(subjects::compile(rule, namespace).map(drop));
    note(checks::run_as(rule).map(drop));
    note(checks::working_directory(rule).map(drop));
    note(checks::limits(rule).map(drop));
    note(checks::output(rule).map(drop));
    note(checks::redact(rule).map(drop));
    note(checks::minimum_retention(rule).map(drop));
    found.into_iter().map(|problem| InvalidRule { problem, ..broken.clone() }).collect()
}
