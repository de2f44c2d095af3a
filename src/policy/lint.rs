//! What is allowed in a Whitelist and may yet not be what was meant: warnings for who writes one.

mod denials;
mod overlap;
mod patterns;
mod relation;
mod scope;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::Whitelist;
use crate::api::whitelist::{Effect, Parameter, WhitelistRule};

use super::compile::CompiledRule;
use super::template::Template;
use super::{BrokenRule, CompiledWhitelist, compile, environment, programs};

/// Something that a rule does which its writer may not have meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// The rule.
    pub rule: String,
    /// What it does, and what to do about it.
    pub message: String,
}

/// What was found in one Whitelist.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Why nothing would be allowed in its namespace, where that is so.
    pub closed: Option<String>,
    /// The rules that would be out of force, and why.
    pub broken: Vec<BrokenRule>,
    /// Rules whose name is no name, or another one's: the API server would refuse the Whitelist.
    pub names: Vec<String>,
    /// What may not be meant.
    pub warnings: Vec<Warning>,
    /// How many rules would be in force.
    pub rule_count: usize,
}

/// The most requests that are made up for one rule.
const MAX_EXAMPLES: usize = 32;

/// Looks at a Whitelist as the controller would, and for what may not be meant, as if its namespace had no other one.
pub fn lint(whitelist: &Whitelist) -> Findings {
    let compiled = compile(whitelist);
    let mut findings = lint_alone(whitelist, &compiled);
    findings.warnings.extend(denials::warnings(&[&compiled]).into_iter().flatten());
    findings
}

/// The most pairs of a Deny and an Allow that [`lint_among`] compares. A pair takes up to a millisecond.
const MAX_PAIRS: usize = 4096;

/// Looks at a Whitelist beside the others of its namespace, as the cluster holds them: its Deny rules are compared with the
/// rules of all. With more than 4096 pairs they are not; `writ lint` compares any number. `compiled` is what `whitelist` compiles
/// into.
pub fn lint_among(whitelist: &Whitelist, compiled: &CompiledWhitelist, others: &[Arc<CompiledWhitelist>]) -> Findings {
    let mut findings = lint_alone(whitelist, compiled);
    let others = others.iter().map(Arc::as_ref).filter(|other| other.record.name != compiled.record.name);
    let all: Vec<&CompiledWhitelist> = std::iter::once(compiled).chain(others).collect();
    let allows: usize = all.iter().map(|whitelist| whitelist.allowing.len()).sum();
    let denies: usize = all.iter().map(|whitelist| whitelist.forbidding.len()).sum();
    if allows.saturating_mul(denies) <= MAX_PAIRS {
        findings.warnings.extend(denials::warnings(&all).into_iter().next().unwrap_or_default());
    }
    findings
}

/// Looks at Whitelists together, in their order: a Deny holds against the rules of all Whitelists of its namespace. Those
/// without a namespace are taken to be in the same one.
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

/// What can be seen of a Whitelist by itself.
fn lint_alone(whitelist: &Whitelist, compiled: &CompiledWhitelist) -> Findings {
    let mut seen = BTreeSet::new();
    let rules = &whitelist.spec.rules;
    let names = rules.iter().filter(|rule| !is_name(&rule.name) || !seen.insert(&rule.name));
    // What is out of force is mended first.
    let is_in_force = |rule: &&WhitelistRule| compiled.broken.iter().all(|broken| broken.rule != rule.name);
    let mut warnings: Vec<Warning> = rules.iter().filter(is_in_force).flat_map(of_rule).collect();
    warnings.extend(compiled.allowing.iter().flat_map(patterns::of_rule));
    for rule in &compiled.allowing {
        let found = programs::warnings(&rule.run, &rule.parameters).into_iter();
        warnings.extend(found.map(|message| Warning { rule: rule.name.clone(), message }));
    }
    warnings.extend(shadows(compiled));
    Findings {
        names: names.map(|rule| rule.name.clone()).collect(),
        rule_count: compiled.rule_count(),
        closed: compiled.closed.clone(),
        broken: compiled.broken.clone(),
        warnings,
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// What can be seen of a rule by itself.
fn of_rule(rule: &WhitelistRule) -> Vec<Warning> {
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
        messages.extend(words::of_rule(rule));
        for word in rule.run.iter().filter(|word| chooses_an_option(word)) {
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

/// Returns true if a variable can bring a program what its author did not mean. A listed value was chosen by the author.
fn is_doubtful(name: &str, parameter: &Parameter) -> bool {
    let Some(text) = parameter.pattern.as_ref().filter(|_| !environment::is_harmless(name)) else { return false };
    let Ok(pattern) = super::pattern::Pattern::compile(name, text) else { return false };
    let is_reaching = pattern.bytes.find(|byte| b" /=".contains(&byte)).is_some() || pattern.first.contains(b'-');
    is_reaching || (programs::is_telling(name) && pattern.bytes.find(|byte| !byte.is_ascii_digit()).is_some())
}

/// Whether a place follows nothing but dashes.
fn chooses_an_option(word: &str) -> bool {
    let rest = word.trim_start_matches('-');
    rest.len() < word.len() && rest.starts_with('{') && !rest.starts_with("{{")
}

/// Rules that come to the same request: shown by an example for each.
fn shadows(compiled: &CompiledWhitelist) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, rule) in compiled.allowing.iter().enumerate() {
        let Some((text, argv)) = examples(rule).into_iter().next() else { continue };
        let by_run = |other: &CompiledRule| reads_words(&other.run, other, &argv);
        let by_text =
            |other: &CompiledRule| other.text.as_ref().is_some_and(|own| own.admits(&other.parameters, &text));
        let others = compiled.allowing.iter().enumerate().filter(|(other, _)| *other != index);
        if let Some((other_index, other)) = others.into_iter().find(|(_, other)| by_text(other) || by_run(other)) {
            let what = if by_text(other) { format!("{text:?}") } else { format!("{argv:?}") };
            let message = if other_index < index {
                format!(
                    "the rule {} before it answers to {what} too: where both would do the same that one is recorded, else it is Rejected as Ambiguous",
                    other.name
                )
            } else {
                format!(
                    "the rule {} behind it answers to {what} too: unless both would do the same it is Rejected as Ambiguous",
                    other.name
                )
            };
            warnings.push(Warning { rule: rule.name.clone(), message });
        }
    }
    warnings
}

/// Requests that the rule allows, as text and as words: one for each value that a parameter lists, if those are few.
fn examples(rule: &CompiledRule) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for parameter in &rule.parameters {
        let listed = parameter.values.listed().filter(|listed| listed.len() * all.len() <= MAX_EXAMPLES);
        let values = listed.map_or_else(|| parameter.values.example().into_iter().collect(), <[String]>::to_vec);
        let values: Vec<String> = values.into_iter().filter(|value| parameter.values.check(value).is_ok()).collect();
        let with = |before: &Vec<String>| {
            values.iter().map(|value| before.iter().chain([value]).cloned().collect()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    let example = |values: &Vec<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let argv = rule.run.iter().map(|word| word.expand(&values)).collect();
        Some((rule.text.as_ref()?.expand(&values), argv))
    };
    all.iter().filter_map(example).collect()
}

fn reads_words(run: &[Template], rule: &CompiledRule, argv: &[String]) -> bool {
    let mut values = vec![None; rule.parameters.len()];
    run.len() == argv.len()
        && !run.is_empty()
        && run.iter().zip(argv).all(|(template, word)| template.read(word, &rule.parameters, &mut values).is_ok())
}

impl Findings {
    /// Whether the controller would call the Whitelist Ready, and the API server take it.
    pub fn is_sound(&self) -> bool {
        self.closed.is_none() && self.broken.is_empty() && self.names.is_empty()
    }

    /// What is wrong, a line each.
    pub fn errors(&self) -> Vec<String> {
        let names = self.names.iter().map(|name| {
            format!("rule {name}: name must be lower case letters, digits and -, at most 63, and no other rule's; the API server refuses it")
        });
        let broken = self.broken.iter().map(|broken| {
            let effect = match broken.effect {
                Effect::Allow => "it would be out of force",
                Effect::Deny => "it is a Deny, so nothing would be allowed in its namespace",
            };
            format!("rule {}: {} ({effect})", broken.rule, broken.problem)
        });
        let by_rule = self.broken.iter().any(|broken| broken.effect == Effect::Deny);
        let closed = self
            .closed
            .iter()
            .filter(|_| !by_rule)
            .map(|why| format!("nothing would be allowed in its namespace: {why}"));
        closed.chain(names).chain(broken).collect()
    }
}
