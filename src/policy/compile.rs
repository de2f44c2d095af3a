//! Whitelists compiled once into rules that can be held against requests.
//!
//! An Allow rule with a problem is out of force alone; the others of its Whitelist hold. A Deny that is passed over
//! would open what somebody closed, so a broken one closes the namespace (see [`super::RuleSet::closed_by`]).

use std::collections::BTreeMap;

use crate::api::Whitelist;
use crate::api::execution_status::{ObjectRecord, OutputBounds};
use crate::api::selector::MachineSelector;
use crate::api::whitelist::{Effect, Parameter, WhitelistRule};

use super::checks::{self, Limits};
use super::out_of_force::Wording;
use super::subjects::{self, Principal};
use super::template::{NamedValues, Template};
use super::values::{Use, Values};
use super::{RuleProblem, environment, options, parents, programs};

/// What the action type of a rule is that does not say.
pub const DEFAULT_ACTION_TYPE: &str = "custom";
/// What the patterns of one Whitelist may cost together (see [`Values::cost`]): a namespace's Whitelists must not take the
/// time and the memory of a controller that serves others too. The usual pattern costs about 1000, on a Deny 16 times
/// that; a Whitelist at this bound takes about a tenth of a second for a request that was made for it.
const PATTERN_COST: usize = 1024 * 1024;

/// What helps where a text can be read in two ways.
const A_WORD_OF_ITS_OWN: &str = "give what follows it a word of its own in run";
const AT_THE_END: &str = "move it to the end of match";
const A_MATCH_OF_ITS_OWN: &str = "give the rule a match of its own with this parameter at the end";

/// One Whitelist, as it was when it was compiled.
#[derive(Clone, Debug)]
pub struct CompiledWhitelist {
    /// Name, UID and generation.
    pub record: ObjectRecord,
    /// The rules in force that allow, in the order of the list.
    pub(super) allowing: Vec<CompiledRule>,
    /// The rules in force that forbid.
    pub(super) forbidding: Vec<CompiledRule>,
    /// The rules out of force, and why.
    pub broken: Vec<BrokenRule>,
    /// Why it closes its namespace, where it does.
    pub closed: Option<String>,
}

/// One rule in force.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub name: String,
    pub action_type: Option<String>,
    pub parameters: Vec<NamedValues>,
    /// The text that asks for it; None: only a Deny that does not look at the text.
    pub text: Option<Template>,
    /// The words; empty: only a Deny that does not look at them.
    pub run: Vec<Template>,
    pub selector: Option<MachineSelector>,
    pub subjects: Option<Vec<Principal>>,
    pub run_as: Option<String>,
    pub working_directory: Option<String>,
    pub environment: BTreeMap<String, Values>,
    pub limits: Limits,
    pub interactive: bool,
    pub output: OutputBounds,
    pub redact: Vec<String>,
    pub minimum_retention_seconds: Option<u32>,
}

/// One rule out of force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokenRule {
    /// Its name.
    pub rule: String,
    /// What it would do if it were in force.
    pub effect: Effect,
    /// What is wrong with it.
    pub problem: RuleProblem,
    /// What it would be asked for by.
    pub wording: Wording,
}

impl CompiledWhitelist {
    /// One that does not decode: it may forbid something, so it closes its namespace.
    pub fn unreadable(record: ObjectRecord, message: &str) -> Self {
        Self { closed: Some(format!("it cannot be read: {message}")), ..Self::empty(record) }
    }

    fn empty(record: ObjectRecord) -> Self {
        Self { record, allowing: Vec::new(), forbidding: Vec::new(), broken: Vec::new(), closed: None }
    }

    /// How many of its rules are in force.
    pub fn rule_count(&self) -> usize {
        self.allowing.len() + self.forbidding.len()
    }

    /// Whether one of its rules in force asks who it is that asks.
    pub fn has_subjects(&self) -> bool {
        self.allowing.iter().chain(&self.forbidding).any(|rule| rule.subjects.is_some())
    }
}

/// Compiles one Whitelist. Never fails: what is wrong with it is in the result.
pub fn compile(whitelist: &Whitelist) -> CompiledWhitelist {
    let metadata = &whitelist.metadata;
    let record = ObjectRecord {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
    };
    if let Some(field) = whitelist.spec.unknown_fields.keys().next() {
        let problem = RuleProblem::UnknownField { field: format!("spec.{field}") };
        return CompiledWhitelist { closed: Some(problem.to_string()), ..CompiledWhitelist::empty(record) };
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let mut compiled = CompiledWhitelist::empty(record);
    let mut cost = 0;
    for rule in &whitelist.spec.rules {
        let effect = rule.effect.unwrap_or_default();
        match compile_rule(rule, effect, namespace, &mut cost) {
            Ok(rule) if effect == Effect::Allow => compiled.allowing.push(rule),
            Ok(rule) => compiled.forbidding.push(rule),
            Err(problem) => {
                if effect == Effect::Deny && compiled.closed.is_none() {
                    compiled.closed = Some(format!("its rule {}, a Deny, is broken: {problem}", rule.name));
                }
                let wording = Wording::new(rule.match_text.as_ref(), &rule.run);
                compiled.broken.push(BrokenRule { rule: rule.name.clone(), effect, problem, wording });
            }
        }
    }
    compiled
}

/// The checks, in order; the first problem is the one that is told.
fn compile_rule(
    rule: &WhitelistRule,
    effect: Effect,
    namespace: &str,
    cost: &mut usize,
) -> Result<CompiledRule, RuleProblem> {
    checks::fields_are_known(rule)?;
    if effect == Effect::Deny {
        checks::fits_a_deny(rule)?;
    }
    if *cost > PATTERN_COST {
        return Err(RuleProblem::PatternsTooLarge);
    }
    let usage = if effect == Effect::Deny { Use::Denial } else { Use::Argument };
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
        output: checks::output(rule)?,
        redact: checks::redact(rule)?,
        minimum_retention_seconds: checks::minimum_retention(rule)?,
        parameters,
    })
}

fn compile_parameters(
    declared: &BTreeMap<String, Parameter>,
    usage: Use,
    cost: &mut usize,
) -> Result<Vec<NamedValues>, RuleProblem> {
    declared
        .iter()
        .map(|(name, parameter)| {
            checks::name("parameters", name)?;
            let values = Values::compile(&format!("parameters.{name}"), parameter, usage)?;
            *cost += values.cost();
            Ok(NamedValues { name: name.clone(), values })
        })
        .collect()
}

fn compile_environment(
    declared: &BTreeMap<String, Parameter>,
    cost: &mut usize,
) -> Result<BTreeMap<String, Values>, RuleProblem> {
    declared
        .iter()
        .map(|(name, parameter)| {
            checks::variable(name)?;
            let values = Values::compile(&format!("environment.{name}"), parameter, Use::Environment)?;
            if environment::loads(name) && programs::is_free(&values) {
                return Err(RuleProblem::LoadingVariable { name: name.clone() });
            }
            *cost += values.cost();
            Ok((name.clone(), values))
        })
        .collect()
}

fn compile_run(rule: &WhitelistRule, effect: Effect, parameters: &[NamedValues]) -> Result<Vec<Template>, RuleProblem> {
    checks::run_length(rule, effect)?;
    let run = rule.run.iter().map(|word| {
        checks::word("run", word)?;
        let template = Template::parse("run", word, parameters)?;
        template.check_readable("run", parameters, false, A_WORD_OF_ITS_OWN)?;
        Ok::<_, RuleProblem>(template)
    });
    let run = run.collect::<Result<Vec<_>, RuleProblem>>()?;
    if effect == Effect::Allow {
        checks::program(&run)?;
    }
    Ok(run)
}

fn compile_text(
    rule: &WhitelistRule,
    effect: Effect,
    run: &[Template],
    parameters: &[NamedValues],
) -> Result<Option<Template>, RuleProblem> {
    let text = match &rule.match_text {
        Some(text) => {
            checks::text("match", text)?;
            Template::parse("match", text, parameters)?
        }
        // A Deny is held against the words themselves.
        None if effect == Effect::Deny => return Ok(None),
        None => Template::joined(run),
    };
    let remedy = if rule.match_text.is_some() { AT_THE_END } else { A_MATCH_OF_ITS_OWN };
    text.check_readable("match", parameters, true, remedy)?;
    Ok(Some(text))
}
