//! A request held against the rules: a total function, whose answer can be recorded.
//!
//! 1. a namespace that is closed allows nothing;
//! 2. every Allow rule is held against the request: what it asks for, its action type, machine, subjects, environment
//!    variables, time (but for those that begin otherwise, which the index leaves out). Those that fit are candidates,
//!    each with the decision that it would give;
//! 3. a Deny rule that holds against the request or a candidate wins;
//! 4. candidates that would give different decisions are ambiguous; else the first is the decision. The order is by
//!    name of the Whitelist, then by the list, so it is always the same one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::api::Reason;
use crate::api::command_execution::RuleRequest;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

use super::compile::CompiledRule;
use super::index::{key_of_name, key_of_words};
use super::miss::{Mismatch, NearMiss, Nearest};
use super::rule_set::{Lookup, in_order};
use super::subjects::{self, Identity};
use super::template::{Miss, MissKind};
use super::{Ask, CompiledWhitelist, MAXIMUM_COMMAND_BYTES, Request, RuleSet};

/// The most rules that cannot match and are read all the same, for what to tell: with very many that begin alike, the
/// first ones will do.
const LOOKED_AT: usize = 32;

/// The answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may run, exactly so.
    Allow(Box<Decision>),
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
    /// The rule's action type.
    pub action_type: String,
    /// The argument vector.
    pub argv: Vec<String>,
    /// The user to run as, by sudo; None: the login user.
    pub run_as: Option<String>,
    /// The folder to run in; None: the login directory.
    pub working_directory: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// How long it may take, in seconds.
    pub timeout_seconds: u32,
    /// Whether it may be given a terminal and standard input.
    pub interactive: bool,
    /// How much output is kept and allowed.
    pub output: OutputBounds,
    /// The patterns by which output is redacted.
    pub redact: Vec<String>,
    /// How long the record is kept at least, in seconds; None: as the installation says.
    pub minimum_retention_seconds: Option<u32>,
}

/// Why a request may not run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// NoMatchingRule, NotPermitted, Denied, Ambiguous or PolicyBroken.
    pub reason: Reason,
    /// What to tell and what to do about it. It is for the one who asked, who may not be allowed to read the policy: it
    /// names rules and parameters, and shows neither texts nor patterns nor how far a text was right.
    pub message: String,
    /// The rule that came nearest, and why it did not match, in full: only for who may read the policy.
    pub nearest: Option<NearMiss>,
}

/// What is asked, of what, by whom.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a Request,
    labels: &'a BTreeMap<String, String>,
    identity: Identity<'a>,
}

/// A rule that fits, and what it would give.
struct Candidate {
    decision: Decision,
    /// The rule's text with the values of the request: what a caller would have written.
    text: Option<String>,
}

/// Holds a request against the rules. `labels` are the Machine's, `identity` is who asks. Default deny.
pub fn decide(
    rules: &RuleSet,
    request: &Request,
    labels: &BTreeMap<String, String>,
    identity: Identity<'_>,
) -> Verdict {
    if let Some(whitelist) = rules.closed_by() {
        return closed(whitelist);
    }
    let asked = Asked { request, labels, identity };
    let (lookup, key) = key(request.ask());
    let mut nearest = Nearest::new(request.ask(), &key);
    let mut candidates = Vec::new();
    let may_match = rules.that_may_match(lookup, &key).into_iter().filter_map(|place| rules.allowing(place));
    for (whitelist, rule) in may_match.filter(|(_, rule)| ends_like(rule, request.ask())) {
        match candidate(whitelist, rule, asked) {
            Ok(candidate) => candidates.push(candidate),
            Err(mismatch) => nearest.consider(whitelist, rule, mismatch),
        }
    }
    if let Some((whitelist, rule)) = forbidden(rules, asked, &key, &candidates) {
        let name = format!("{}/{}", whitelist.record.name, rule.name);
        let message = format!("the rule {name} denies it, whatever other rules allow");
        return Verdict::Deny(Denial { reason: Reason::Denied, message, nearest: None });
    }
    if let Some(index) = rules.beginnings(lookup).filter(|_| candidates.is_empty()) {
        // None of these can match; they are looked at for what to tell.
        let like_it = in_order(|found| index.find(&key, found));
        for (whitelist, rule) in like_it.into_iter().take(LOOKED_AT).filter_map(|place| rules.allowing(place)) {
            if let Err(mismatch) = read(whitelist, rule, request.ask()) {
                nearest.consider(whitelist, rule, mismatch);
            }
        }
        nearest.consider_by_beginning(rules, index);
    }
    let mut candidates = candidates.into_iter().map(|candidate| candidate.decision);
    let Some(first) = candidates.next() else {
        return Verdict::Deny(nearest.denial(rules, request, identity));
    };
    match candidates.find(|other| !gives_the_same(&first, other)) {
        Some(other) => ambiguous(&first, &other),
        None => Verdict::Allow(Box::new(first)),
    }
}

/// What a request is looked for by.
fn key(ask: &Ask) -> (Lookup, Cow<'_, str>) {
    match ask {
        Ask::Command(text) => (Lookup::Text, Cow::Borrowed(text)),
        Ask::Argv(argv) => (Lookup::Words, Cow::Owned(key_of_words(argv.iter().map(String::as_str)))),
        Ask::Rule(wanted) => (Lookup::Name, Cow::Owned(key_of_name(&wanted.name))),
    }
}

/// Whether a rule ends as the request does: one that does not cannot match.
fn ends_like(rule: &CompiledRule, ask: &Ask) -> bool {
    match ask {
        Ask::Command(text) => rule.text.as_ref().is_some_and(|template| text.ends_with(template.ending())),
        Ask::Argv(argv) => {
            let last = rule.run.last().zip(argv.last());
            argv.len() == rule.run.len() && last.is_some_and(|(template, word)| word.ends_with(template.ending()))
        }
        Ask::Rule(_) => true,
    }
}

fn closed(whitelist: &CompiledWhitelist) -> Verdict {
    let name = &whitelist.record.name;
    let message = format!(
        "nothing is allowed in this namespace until its Whitelist {name} is mended \
         (kubectl describe whitelist {name} says what is wrong with it)"
    );
    let why = whitelist.closed.clone().unwrap_or_default();
    let nearest = Some(NearMiss { whitelist: name.clone(), rule: String::new(), why });
    Verdict::Deny(Denial { reason: Reason::PolicyBroken, message, nearest })
}

fn ambiguous(first: &Decision, other: &Decision) -> Verdict {
    let message = format!(
        "the rules {}/{} and {}/{} match the request and would execute it differently; say which one is meant with \
         spec.rule, or give the rules different texts",
        first.whitelist.name, first.rule, other.whitelist.name, other.rule
    );
    Verdict::Deny(Denial { reason: Reason::Ambiguous, message, nearest: None })
}

/// Whether two decisions have the same effect, by whichever rule.
fn gives_the_same(left: &Decision, right: &Decision) -> bool {
    left.argv == right.argv
        && left.run_as == right.run_as
        && left.working_directory == right.working_directory
        && left.environment == right.environment
        && left.timeout_seconds == right.timeout_seconds
        && left.interactive == right.interactive
        && left.output == right.output
        && left.redact == right.redact
        && left.minimum_retention_seconds == right.minimum_retention_seconds
}

/// Whether the rule is for this machine.
fn is_for_machine(rule: &CompiledRule, labels: &BTreeMap<String, String>) -> bool {
    rule.selector.as_ref().is_none_or(|selector| selector.chooses(labels))
}

/// Holds one Allow rule against what is asked. The steps are in the order of how near a rule comes.
fn candidate(whitelist: &CompiledWhitelist, rule: &CompiledRule, asked: Asked<'_>) -> Result<Candidate, Mismatch> {
    let values = read(whitelist, rule, asked.request.ask())?;
    if asked.request.action_type().is_some_and(|named| rule.action_type.as_deref() != Some(named)) {
        return Err(Mismatch::ActionType);
    }
    if !is_for_machine(rule, asked.labels) {
        return Err(Mismatch::Machine);
    }
    if let Some(subjects) = &rule.subjects {
        match asked.identity {
            Identity::Unknown | Identity::Undecided => return Err(Mismatch::IdentityUnknown),
            Identity::Known(requester) if !subjects::include(subjects, requester) => return Err(Mismatch::Subject),
            Identity::Known(_) => {}
        }
    }
    let environment = environment(rule, asked.request)?;
    let timeout_seconds = asked.request.timeout_seconds().unwrap_or(rule.limits.default);
    if timeout_seconds > rule.limits.maximum {
        return Err(Mismatch::Timeout);
    }
    let argv: Vec<String> = rule.run.iter().map(|word| word.expand(&values)).collect();
    let length = argv.iter().chain(environment.values()).map(String::len).sum::<usize>();
    if length > MAXIMUM_COMMAND_BYTES {
        return Err(Mismatch::TooLong);
    }
    let decision = Decision {
        whitelist: whitelist.record.clone(),
        rule: rule.name.clone(),
        action_type: rule.action_type.clone().unwrap_or_default(),
        argv,
        run_as: rule.run_as.clone(),
        working_directory: rule.working_directory.clone(),
        environment,
        timeout_seconds,
        interactive: rule.interactive,
        output: rule.output,
        redact: rule.redact.clone(),
        minimum_retention_seconds: rule.minimum_retention_seconds,
    };
    Ok(Candidate { decision, text: rule.text.as_ref().map(|text| text.expand(&values)) })
}

/// The values of the rule's parameters, in their order, as the request gives them.
fn read<'a>(whitelist: &CompiledWhitelist, rule: &'a CompiledRule, ask: &'a Ask) -> Result<Vec<&'a str>, Mismatch> {
    let mut values = vec![None; rule.parameters.len()];
    match ask {
        Ask::Command(text) => {
            let template = rule.text.as_ref().ok_or(Mismatch::Other)?;
            template.read(text, &rule.parameters, &mut values).map_err(Mismatch::Ask)?;
        }
        Ask::Argv(argv) => read_argv(rule, argv, &mut values)?,
        Ask::Rule(wanted) => read_named(whitelist, rule, wanted, &mut values)?,
    }
    let filled = rule.parameters.iter().zip(values).enumerate().map(|(index, (parameter, value))| {
        let value = value.or(parameter.values.default.as_deref());
        value.ok_or(Mismatch::NoValue(index))
    });
    filled.collect()
}

fn read_argv<'a>(rule: &'a CompiledRule, argv: &'a [String], values: &mut [Option<&'a str>]) -> Result<(), Mismatch> {
    let mut matched = 0;
    for (template, word) in rule.run.iter().zip(argv) {
        template
            .read(word, &rule.parameters, values)
            .map_err(|miss| Mismatch::Ask(Miss { matched: matched + miss.matched, ..miss }))?;
        matched += word.len() + 1;
    }
    if argv.len() == rule.run.len() { Ok(()) } else { Err(Mismatch::Ask(Miss { matched, what: MissKind::Text })) }
}

fn read_named<'a>(
    whitelist: &CompiledWhitelist,
    rule: &'a CompiledRule,
    wanted: &'a RuleRequest,
    values: &mut [Option<&'a str>],
) -> Result<(), Mismatch> {
    let is_meant =
        rule.name == wanted.name && wanted.whitelist.as_ref().is_none_or(|name| *name == whitelist.record.name);
    if !is_meant {
        return Err(Mismatch::Other);
    }
    if wanted.parameters.keys().any(|name| rule.parameters.iter().all(|parameter| parameter.name != *name)) {
        return Err(Mismatch::UndeclaredParameter);
    }
    for (index, (parameter, slot)) in rule.parameters.iter().zip(values).enumerate() {
        let Some(value) = wanted.parameters.get(&parameter.name) else { continue };
        let fits = parameter.values.check(value);
        fits.map_err(|misfit| Mismatch::Ask(Miss { matched: 0, what: MissKind::Value(index, misfit) }))?;
        *slot = Some(value);
    }
    Ok(())
}

/// The variables to set: those that were asked for, and the rule's defaults.
fn environment(rule: &CompiledRule, request: &Request) -> Result<BTreeMap<String, String>, Mismatch> {
    if rule.environment.is_empty() && request.environment().is_empty() {
        return Ok(BTreeMap::new());
    }
    for (index, (name, value)) in request.environment().iter().enumerate() {
        let values = rule.environment.get(name).ok_or(Mismatch::Variable(index))?;
        values.check(value).map_err(|_| Mismatch::VariableValue(index))?;
    }
    let defaults = rule.environment.iter().filter_map(|(name, values)| Some((name, values.default.as_ref()?)));
    Ok(defaults.chain(request.environment()).map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The first Deny rule that holds.
fn forbidden<'a>(
    rules: &'a RuleSet,
    asked: Asked<'_>,
    key: &'a str,
    candidates: &'a [Candidate],
) -> Option<(&'a CompiledWhitelist, &'a CompiledRule)> {
    let (asked_text, asked_words) = match asked.request.ask() {
        Ask::Command(_) => (Some(key), None),
        Ask::Argv(_) => (None, Some(key.to_owned())),
        Ask::Rule(_) => (None, None),
    };
    let texts = candidates.iter().filter_map(|candidate| candidate.text.as_deref());
    let words = candidates.iter().map(|candidate| key_of_words(candidate.decision.argv.iter().map(String::as_str)));
    let mut may_hold = rules.forbidding(asked_text.into_iter().chain(texts), asked_words.into_iter().chain(words));
    may_hold.find(|(_, rule)| forbids(rule, asked, candidates))
}

/// Whether a Deny rule holds against what is asked. Where something about it is not known (who asks), it does.
fn forbids(rule: &CompiledRule, asked: Asked<'_>, candidates: &[Candidate]) -> bool {
    if !is_for_machine(rule, asked.labels) {
        return false;
    }
    if let (Some(subjects), Identity::Known(requester)) = (&rule.subjects, asked.identity)
        && !subjects::include(subjects, requester)
    {
        return false;
    }
    let is_of_type = |action_type: &str| rule.action_type.as_deref().is_none_or(|named| named == action_type);
    if rule.text.is_none() && rule.run.is_empty() && rule.run_as.is_none() {
        return match (&rule.action_type, asked.request.action_type()) {
            (None, _) => true,
            (Some(named), Some(asked)) if named == asked => true,
            _ => candidates.iter().any(|candidate| is_of_type(&candidate.decision.action_type)),
        };
    }
    // What was asked for, as it was written (as whom it would run is not known of that) ...
    let asked_type = asked.request.action_type().unwrap_or_default();
    let holds_as_written = rule.run_as.is_none()
        && is_of_type(asked_type)
        && match asked.request.ask() {
            Ask::Command(text) => forbids_text(rule, text),
            Ask::Argv(argv) => forbids_argv(rule, argv),
            Ask::Rule(_) => false,
        };
    // ... and what it would come to, so that asking in another way leads nowhere else.
    let is_by_user_alone = rule.text.is_none() && rule.run.is_empty();
    holds_as_written
        || candidates.iter().any(|Candidate { decision, text }| {
            is_of_type(&decision.action_type)
                && (rule.run_as.is_none() || rule.run_as == decision.run_as)
                && (is_by_user_alone
                    || text.as_ref().is_some_and(|text| forbids_text(rule, text))
                    || forbids_argv(rule, &decision.argv))
        })
}

fn forbids_text(rule: &CompiledRule, text: &str) -> bool {
    let mut values = vec![None; rule.parameters.len()];
    rule.text.as_ref().is_some_and(|template| template.read(text, &rule.parameters, &mut values).is_ok())
}

fn forbids_argv(rule: &CompiledRule, argv: &[String]) -> bool {
    let mut values = vec![None; rule.parameters.len()];
    !rule.run.is_empty() && read_argv(rule, argv, &mut values).is_ok()
}
