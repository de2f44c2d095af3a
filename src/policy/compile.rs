//! Compiles a Whitelist once into rules that requests can be matched against.
//!
//! - If an Allow rule is invalid, Writ ignores this rule. The other rules of the Whitelist stay in force.
//! - If a Deny rule is invalid, its namespace fails closed: Writ allows no request in the namespace until the rule is
//!   valid (see [`super::RuleSet::closed_by`]). If Writ ignored the Deny rule, forbidden commands could run.

use std::collections::BTreeMap;

use crate::api::Whitelist;
use crate::api::execution_status::{ObjectRecord, OutputBounds};
use crate::api::selector::MachineSelector;
use crate::api::whitelist::{Effect, Parameter, WhitelistRule};

use super::checks::{self, Limits};
use super::subjects::{self, Principal};
use super::template::{ParameterSpec, Template};
use super::values::{ValueSpec, ValueUse};
use super::wording::Wording;
use super::{RuleError, environment, options, parents, programs};

/// Action type of a rule without `actionType`.
pub const DEFAULT_ACTION_TYPE: &str = "custom";
/// Maximum cost of all patterns of one Whitelist (see [`ValueSpec::cost`]). Protects the other namespaces of the
/// controller. At this maximum, the slowest request takes about 0.1 s. A usual pattern costs about 1000 in an Allow
/// rule, and 16 times as much in a Deny rule.
const PATTERN_COST: usize = 1024 * 1024;

/// Remedy for a word of `run` that allows two readings. For example, `x-y-z` matches `{a}-{b}` in two ways.
const A_WORD_OF_ITS_OWN: &str = "give what follows it a word of its own in run";
/// Remedy for a `match` that allows two readings.
const AT_THE_END: &str = "move it to the end of match";
/// Remedy for a rule without `match`, if the words of `run`, joined with spaces, allow two readings.
const A_MATCH_OF_ITS_OWN: &str = "give the rule a match of its own with this parameter at the end";

/// One compiled Whitelist.
#[derive(Clone, Debug)]
pub struct CompiledWhitelist {
    /// Name, UID and generation of the object.
    pub record: ObjectRecord,
    /// Allow rules in force, in their order in the Whitelist.
    pub(super) allow_rules: Vec<CompiledRule>,
    /// Deny rules in force.
    pub(super) deny_rules: Vec<CompiledRule>,
    /// Invalid rules, each with its problem. These rules are not in force.
    pub invalid_rules: Vec<InvalidRule>,
    /// Problem of this Whitelist that makes its namespace fail closed. `None` if there is no such problem.
    pub closed: Option<String>,
}

/// One rule in force.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub name: String,
    /// Purpose of the rule, for people.
    pub description: Option<String>,
    pub action_type: Option<String>,
    pub parameters: Vec<ParameterSpec>,
    /// Text of requests that this rule matches. `None` only for a Deny without `match`.
    pub text: Option<Template>,
    /// Words of the command. Empty only for a Deny without `run`.
    pub run: Vec<Template>,
    pub selector: Option<MachineSelector>,
    pub subjects: Option<Vec<Principal>>,
    pub run_as: Option<String>,
    pub working_directory: Option<String>,
    pub environment: BTreeMap<String, ValueSpec>,
    pub limits: Limits,
    pub interactive: bool,
    pub record_input: bool,
    /// True if the author states that the program gives a shell. Only `writ lint` uses it.
    pub interactive_shell: bool,
    pub output: OutputBounds,
    pub redact: Vec<String>,
    pub minimum_retention_seconds: Option<u32>,
}

/// One rule that is not in force, because it is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidRule {
    /// Name of the rule.
    pub rule: String,
    /// Effect that the rule would have in force.
    pub effect: Effect,
    /// Reason why the rule is out of force.
    pub problem: RuleError,
    /// Text and words of the rule. Writ uses both to find requests that the rule would match if the rule were valid.
    pub wording: Wording,
}

impl CompiledWhitelist {
    /// Returns a substitute for a Whitelist that cannot be decoded. Its namespace fails closed, because the Whitelist
    /// perhaps contains a Deny rule.
    pub fn unreadable(record: ObjectRecord, message: &str) -> Self {
        Self { closed: Some(format!("it cannot be read: {message}")), ..Self::empty(record) }
    }

    fn empty(record: ObjectRecord) -> Self {
        Self { record, allow_rules: Vec::new(), deny_rules: Vec::new(), invalid_rules: Vec::new(), closed: None }
    }

    /// Returns the number of rules in force.
    pub fn rule_count(&self) -> usize {
        self.allow_rules.len() + self.deny_rules.len()
    }

    /// Returns true if a rule in force with this effect names a group in its `subjects`.
    pub(super) fn names_group(&self, effect: Effect) -> bool {
        let rules = if effect == Effect::Deny { &self.deny_rules } else { &self.allow_rules };
        rules.iter().filter_map(|rule| rule.subjects.as_ref()).flatten().any(subjects::is_group)
    }

    /// Returns true if a rule in force has `subjects`.
    pub fn has_subjects(&self) -> bool {
        self.allow_rules.iter().chain(&self.deny_rules).any(|rule| rule.subjects.is_some())
    }
}

/// Compiles one Whitelist. Never fails: the result contains the problems.
pub fn compile(whitelist: &Whitelist) -> CompiledWhitelist {
    let metadata = &whitelist.metadata;
    let record = ObjectRecord {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
    };
    if let Some(field) = whitelist.spec.unknown_fields.keys().next() {
        let problem = RuleError::UnknownField { field: format!("spec.{field}") };
        return CompiledWhitelist { closed: Some(problem.to_string()), ..CompiledWhitelist::empty(record) };
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let mut compiled = CompiledWhitelist::empty(record);
    let mut cost = 0;
    for rule in &whitelist.spec.rules {
        let effect = rule.effect.unwrap_or_default();
        match compile_rule(rule, effect, namespace, &mut cost) {
            Ok(rule) if effect == Effect::Allow => compiled.allow_rules.push(rule),
            Ok(rule) => compiled.deny_rules.push(rule),
            Err(problem) => {
                if effect == Effect::Deny && compiled.closed.is_none() {
                    compiled.closed = Some(format!("its rule {}, a Deny, is broken: {problem}", rule.name));
                }
                let wording = Wording::new(rule.match_text.as_ref(), &rule.run);
                compiled.invalid_rules.push(InvalidRule { rule: rule.name.clone(), effect, problem, wording });
            }
        }
    }
    compiled
}

/// Compiles one rule. If the rule has several problems, the error is the first problem in the order of the checks.
fn compile_rule(
    rule: &WhitelistRule,
    effect: Effect,
    namespace: &str,
    cost: &mut usize,
) -> Result<CompiledRule, RuleError> {
    checks::fields_are_known(rule)?;
    if effect == Effect::Deny {
        checks::reject_execution_fields_on_deny(rule)?;
    }
    checks::session_fields_are_used(rule)?;
    if *cost > PATTERN_COST {
        return Err(RuleError::PatternsTooLarge);
    }
    let usage = if effect == Effect::Deny { ValueUse::Deny } else { ValueUse::Argument };
    let parameters = compile_parameters(&rule.parameters, usage, cost)?;
    let run = compile_run(rule, effect, &parameters)?;
    let text = compile_text(rule, effect, &run, &parameters)?;
    checks::parameters_are_used(rule, effect, &parameters, &run, text.as_ref())?;
    if effect == Effect::Allow {
        options::check(&run, &parameters)?;
        if let Some(problem) = programs::check(&run, &parameters) {
            return Err(problem);
        }
    }
    let environment = compile_environment(&rule.environment, cost)?;
    if effect == Effect::Allow {
        parents::check(&run, &parameters, &environment)?;
    }
    Ok(CompiledRule {
        name: rule.name.clone(),
        description: rule.description.clone(),
        action_type: match effect {
            Effect::Allow => Some(rule.action_type.clone().unwrap_or_else(|| DEFAULT_ACTION_TYPE.to_owned())),
            Effect::Deny => rule.action_type.clone(),
        },
        text,
        run,
        selector: checks::selector(rule)?,
        subjects: subjects::compile(rule, namespace)?,
        run_as: checks::run_as(rule)?,
        working_directory: checks::working_directory(rule)?,
        environment,
        limits: checks::limits(rule)?,
        interactive: rule.interactive,
        record_input: rule.record_input,
        interactive_shell: rule.interactive_shell,
        output: checks::output(rule)?,
        redact: checks::redact(rule)?,
        minimum_retention_seconds: checks::minimum_retention(rule)?,
        parameters,
    })
}

fn compile_parameters(
    declared: &BTreeMap<String, Parameter>,
    usage: ValueUse,
    cost: &mut usize,
) -> Result<Vec<ParameterSpec>, RuleError> {
    declared
        .iter()
        .map(|(name, parameter)| {
            checks::name("parameters", name)?;
            let values = ValueSpec::compile(&format!("parameters.{name}"), parameter, usage)?;
            *cost += values.cost();
            Ok(ParameterSpec { name: name.clone(), values })
        })
        .collect()
}

fn compile_environment(
    declared: &BTreeMap<String, Parameter>,
    cost: &mut usize,
) -> Result<BTreeMap<String, ValueSpec>, RuleError> {
    declared
        .iter()
        .map(|(name, parameter)| {
            checks::variable(name)?;
            let values = ValueSpec::compile(&format!("environment.{name}"), parameter, ValueUse::Environment)?;
            if environment::loads(name) && programs::is_free(&values) {
                return Err(RuleError::LoadingVariable { name: name.clone() });
            }
            *cost += values.cost();
            Ok((name.clone(), values))
        })
        .collect()
}

fn compile_run(rule: &WhitelistRule, effect: Effect, parameters: &[ParameterSpec]) -> Result<Vec<Template>, RuleError> {
    checks::run_length(rule, effect)?;
    let run = rule.run.iter().map(|word| {
        checks::word("run", word)?;
        let template = Template::parse("run", word, parameters)?;
        template.check_unambiguous("run", parameters, false, A_WORD_OF_ITS_OWN)?;
        Ok::<_, RuleError>(template)
    });
    let run = run.collect::<Result<Vec<_>, RuleError>>()?;
    if effect == Effect::Allow {
        checks::program(&run)?;
    }
    Ok(run)
}

fn compile_text(
    rule: &WhitelistRule,
    effect: Effect,
    run: &[Template],
    parameters: &[ParameterSpec],
) -> Result<Option<Template>, RuleError> {
    let text = match &rule.match_text {
        Some(text) => {
            checks::text("match", text)?;
            Template::parse("match", text, parameters)?
        }
        // If a Deny has no `match`, only its words are compared with the request.
        None if effect == Effect::Deny => return Ok(None),
        None => Template::join(run),
    };
    let remedy = if rule.match_text.is_some() { AT_THE_END } else { A_MATCH_OF_ITS_OWN };
    text.check_unambiguous("match", parameters, true, remedy)?;
    Ok(Some(text))
}
