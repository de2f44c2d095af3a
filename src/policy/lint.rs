//! Warnings for authors of Whitelists. Each warning is about a valid rule with an effect that the author perhaps did
//! not intend.

mod denials;
mod examples;
mod findings;
mod overlap;
mod patterns;
mod relation;
mod scope;
mod sessions;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::Whitelist;
use crate::api::whitelist::{Effect, Parameter, WhitelistRule};

use super::compile::CompiledRule;
use super::template::Template;
use super::{CompiledWhitelist, compile, environment, programs};
use examples::examples;
pub use findings::{Findings, Warning};

/// Checks a Whitelist in the same way as the controller, and collects warnings. Assumes that the namespace has no other
/// Whitelist.
pub fn lint(whitelist: &Whitelist) -> Findings {
    let compiled = compile(whitelist);
    let mut findings = lint_alone(whitelist, &compiled);
    findings.warnings.extend(denials::warnings(&[&compiled]).into_iter().flatten());
    findings
}

/// Maximum number of pairs of a Deny and an Allow that [`lint_among`] compares. The comparison of one pair takes up to
/// 1 ms, so all comparisons take up to about 4 s.
const MAX_PAIRS: usize = 4096;

/// Checks a Whitelist together with `others`, the Whitelists of its namespace. Compares the Deny rules of the Whitelist
/// with the Allow rules of all these Whitelists, if there are at most 4096 pairs of a Deny and an Allow. `compiled` is
/// the result of compiling `whitelist`.
///
/// A caller can reuse the result while `record` (name, UID and generation) of `compiled` and of all `others` stays the
/// same.
pub fn lint_among(whitelist: &Whitelist, compiled: &CompiledWhitelist, others: &[Arc<CompiledWhitelist>]) -> Findings {
    let mut findings = lint_alone(whitelist, compiled);
    let others = others.iter().map(Arc::as_ref).filter(|other| other.record.name != compiled.record.name);
    let all: Vec<&CompiledWhitelist> = std::iter::once(compiled).chain(others).collect();
    let allows: usize = all.iter().map(|whitelist| whitelist.allow_rules.len()).sum();
    let denies: usize = all.iter().map(|whitelist| whitelist.deny_rules.len()).sum();
    if allows.saturating_mul(denies) <= MAX_PAIRS {
        findings.warnings.extend(denials::warnings(&all).into_iter().next().unwrap_or_default());
    }
    findings
}

/// Checks Whitelists together, and returns their findings in the same order. A Deny is compared with the Allow rules of
/// all Whitelists of its namespace. Whitelists without a namespace are compared as if they were in one namespace.
pub fn lint_all(whitelists: &[&Whitelist]) -> Vec<Findings> {
    let compiled: Vec<_> = whitelists.iter().map(|whitelist| compile(whitelist)).collect();
    let mut all: Vec<_> =
        whitelists.iter().zip(&compiled).map(|(whitelist, compiled)| lint_alone(whitelist, compiled)).collect();
    let mut namespaces: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (index, whitelist) in whitelists.iter().enumerate() {
        namespaces.entry(whitelist.metadata.namespace.as_deref()).or_default().push(index);
    }
    for indexes in namespaces.into_values() {
        let members: Vec<_> = indexes.iter().filter_map(|index| compiled.get(*index)).collect();
        let found = denials::warnings(&members);
        for (index, warnings) in indexes.into_iter().zip(found) {
            all.get_mut(index).into_iter().for_each(|findings| findings.warnings.extend(warnings.iter().cloned()));
        }
    }
    all
}

/// Returns the findings that do not depend on other Whitelists.
fn lint_alone(whitelist: &Whitelist, compiled: &CompiledWhitelist) -> Findings {
    let mut seen = BTreeSet::new();
    let rules = &whitelist.spec.rules;
    let names = rules.iter().filter(|rule| !is_name(&rule.name) || !seen.insert(&rule.name));
    // Rules out of force get no warnings, because the author must fix their problems first.
    let is_in_force = |rule: &&WhitelistRule| compiled.invalid_rules.iter().all(|broken| broken.rule != rule.name);
    let mut warnings: Vec<Warning> = rules.iter().filter(is_in_force).flat_map(rule_warnings).collect();
    warnings.extend(compiled.allow_rules.iter().flat_map(patterns::rule_warnings));
    warnings.extend(compiled.allow_rules.iter().flat_map(sessions::rule_warnings));
    for rule in &compiled.allow_rules {
        let found = programs::warnings(&rule.run, &rule.parameters).into_iter();
        warnings.extend(found.map(|message| Warning { rule: rule.name.clone(), message }));
    }
    warnings.extend(overlapping_rules(compiled));
    Findings {
        names: names.map(|rule| rule.name.clone()).collect(),
        rule_count: compiled.rule_count(),
        closed: compiled.closed.clone(),
        invalid_rules: compiled.invalid_rules.clone(),
        warnings,
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// Returns the warnings about one rule that do not depend on other rules.
fn rule_warnings(rule: &WhitelistRule) -> Vec<Warning> {
    let mut messages = Vec::new();
    if rule.effect == Some(Effect::Deny) {
        if rule.match_text.is_some() && rule.run.is_empty() {
            messages.push(
                "a Deny by match alone does not forbid rules that run the same under another text; say in run what \
                 must not run"
                    .to_owned(),
            );
        }
    } else {
        messages.extend(words::rule_warnings(rule));
        for word in rule.run.iter().filter(|word| is_option_placeholder(word)) {
            messages.push(format!("in {word} the caller chooses which option the program gets, not only its value; write one rule for each, or use enum"));
        }
        if rule.run_as.as_deref() == Some("root") && rule.subjects.is_none() {
            messages.push(
                "it runs as root for everybody who may create CommandExecutions; say in subjects who may".to_owned(),
            );
        }
    }
    for (name, _) in rule.environment.iter().filter(|(name, parameter)| is_doubtful(name, parameter)) {
        messages.push(format!("environment has {name}, which is not known to be harmless, and a caller may set it to a path, an option or several words: make sure that no program takes code, options or file names from it, or use enum"));
    }
    messages.into_iter().map(|message| Warning { rule: rule.name.clone(), message }).collect()
}

/// Returns true if the pattern of a variable admits values that the author perhaps did not intend:
///
/// - Values that contain a space, `/` or `=`, or begin with a dash.
/// - Any value that is not a number, if the name of the variable suggests code or a program.
///
/// Returns false for harmless variables, and for an enum.
fn is_doubtful(name: &str, parameter: &Parameter) -> bool {
    let Some(text) = parameter.pattern.as_ref().filter(|_| !environment::is_harmless(name)) else { return false };
    let Ok(pattern) = super::pattern::Pattern::compile(name, text) else { return false };
    let is_reaching = pattern.bytes.find(|byte| b" /=".contains(&byte)).is_some() || pattern.first.contains(b'-');
    is_reaching || (programs::is_telling(name) && pattern.bytes.find(|byte| !byte.is_ascii_digit()).is_some())
}

/// Returns true if a word begins with dashes and a placeholder follows directly, for example `--{name}`.
fn is_option_placeholder(word: &str) -> bool {
    let rest = word.trim_start_matches('-');
    rest.len() < word.len() && rest.starts_with('{') && !rest.starts_with("{{")
}

/// Returns a warning for each rule whose example request also matches another rule. The warning contains the example.
fn overlapping_rules(compiled: &CompiledWhitelist) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, rule) in compiled.allow_rules.iter().enumerate() {
        let Some((text, argv)) = examples(rule).into_iter().next() else { continue };
        let by_run = |other: &CompiledRule| argv_matches(&other.run, other, &argv);
        let by_text =
            |other: &CompiledRule| other.text.as_ref().is_some_and(|own| own.matches_whole(&other.parameters, &text));
        let others = compiled.allow_rules.iter().enumerate().filter(|(other, _)| *other != index);
        if let Some((other_index, other)) = others.into_iter().find(|(_, other)| by_text(other) || by_run(other)) {
            let what = if by_text(other) { format!("{text:?}") } else { format!("{argv:?}") };
            let message = if other_index < index {
                format!(
                    "the rule {} before it matches {what} too: if both would do the same, that rule is recorded; otherwise the request is Rejected as Ambiguous",
                    other.name
                )
            } else {
                format!(
                    "the rule {} behind it matches {what} too: unless both would do the same, the request is Rejected as Ambiguous",
                    other.name
                )
            };
            warnings.push(Warning { rule: rule.name.clone(), message });
        }
    }
    warnings
}

fn argv_matches(run: &[Template], rule: &CompiledRule, argv: &[String]) -> bool {
    let mut values = vec![None; rule.parameters.len()];
    run.len() == argv.len()
        && !run.is_empty()
        && run.iter().zip(argv).all(|(template, word)| template.extract(word, &rule.parameters, &mut values).is_ok())
}
