//! A request held against the rules: a total function, whose answer can be recorded.
//!
//! 1. a namespace that is closed allows nothing;
//! 2. every Allow rule is held against the request: what it asks for, its action type, machine, subjects, environment
//!    variables, time (but for those that begin otherwise, which the index leaves out). Those that fit are candidates,
//!    each with the decision that it would give;
//! 3. a Deny rule that holds against the request or a candidate wins; its `run` is held against each command that the
//!    candidate comes to, behind launchers too;
//! 4. candidates that would give different decisions are ambiguous; else the first is the decision. The order is by
//!    name of the Whitelist, then by the list, so it is always the same one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::api::Reason;
use crate::api::command_execution::RuleRequest;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

use super::compile::CompiledRule;
use super::index::{END_OF_WORD, key_of_name, key_of_words};
use super::launchers::{self, Command};
use super::miss::{Mismatch, NearMiss, Nearest};
use super::rule_set::{Lookup, in_order};
use super::subjects::{self, Identity};
use super::template::{Miss, MissKind, Template};
use super::{Ask, CompiledWhitelist, MAXIMUM_COMMAND_BYTES, MAXIMUM_WORDS, Request, RuleSet};

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
        nearest.consider_other_ways(rules, request.ask(), LOOKED_AT);
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
    rule.selector.as_ref().is_none_or(|selector| selector.matches(labels))
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
    let read = read_words(rule, &rule.run, argv.iter().map(String::as_str), values);
    // Of a vector of another shape no value is to blame: what is in its place is no value.
    let is_other =
        |(template, word): (&Template, &String)| template.constant().is_some_and(|constant| constant != word);
    let has_shape = argv.len() == rule.run.len() && !rule.run.iter().zip(argv).any(is_other);
    match read {
        Ok(_) if has_shape => Ok(()),
        Err(miss) if has_shape => Err(Mismatch::Ask(miss)),
        Ok(matched) | Err(Miss { matched, .. }) => Err(Mismatch::Ask(Miss { matched, what: MissKind::Text })),
    }
}

/// Reads as many words as there are templates and words; how many bytes that were.
pub(super) fn read_words<'a>(
    rule: &CompiledRule,
    templates: &[Template],
    words: impl Iterator<Item = &'a str>,
    values: &mut [Option<&'a str>],
) -> Result<usize, Miss> {
    let mut matched = 0;
    for (template, word) in templates.iter().zip(words) {
        let misses = |miss: Miss| Miss { matched: matched + miss.matched, ..miss };
        template.read(word, &rule.parameters, values).map_err(misses)?;
        matched += word.len() + 1;
    }
    Ok(matched)
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
    if !rules.has_denies() {
        return None;
    }
    let outcomes: Vec<Outcome<'a>> = candidates.iter().map(Outcome::from_candidate).collect();
    let (asked_text, asked_words) = match asked.request.ask() {
        Ask::Command(_) => (Some(key), None),
        Ask::Argv(_) => (None, Some(key_by_base_name(key.split_terminator(END_OF_WORD)))),
        Ask::Rule(_) => (None, None),
    };
    let texts = candidates.iter().filter_map(|candidate| candidate.text.as_deref());
    let commands = outcomes.iter().flat_map(|outcome| &outcome.commands);
    // A Deny has no more words than that.
    let words = commands.filter(|command| command.words.len() <= MAXIMUM_WORDS);
    let words = words.map(|command| key_by_base_name(command.words.iter().copied()));
    let mut may_hold = rules.forbidding(asked_text.into_iter().chain(texts), asked_words.into_iter().chain(words));
    may_hold.find(|(_, rule)| forbids(rule, asked, &outcomes))
}

/// A candidate, and all commands that it would execute.
pub(super) struct Outcome<'a> {
    action_type: &'a str,
    text: Option<&'a str>,
    commands: Vec<Command<'a, &'a str>>,
}

impl<'a> Outcome<'a> {
    fn from_candidate(Candidate { decision, text }: &'a Candidate) -> Self {
        Self::new(&decision.action_type, text.as_deref(), &decision.argv, decision.run_as.as_deref())
    }

    pub fn new(action_type: &'a str, text: Option<&'a str>, argv: &'a [String], run_as: Option<&'a str>) -> Self {
        let commands = launchers::commands(argv.iter().map(String::as_str).collect(), run_as);
        Self { action_type, text, commands }
    }
}

/// Words as a key for [`RuleSet::forbidding`], which goes by the program's name without its directory.
pub(super) fn key_by_base_name<'a>(words: impl Iterator<Item = &'a str>) -> String {
    key_of_words(words.enumerate().map(|(index, word)| if index == 0 { super::base_name(word) } else { word }))
}

/// Whether a Deny rule holds against what is asked. Where something about it is not known (who asks), it does.
fn forbids(rule: &CompiledRule, asked: Asked<'_>, outcomes: &[Outcome<'_>]) -> bool {
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
            _ => outcomes.iter().any(|outcome| is_of_type(outcome.action_type)),
        };
    }
    // What was asked for, as it was written (as whom it would run is not known of that) ...
    let asked_type = asked.request.action_type().unwrap_or_default();
    let holds_as_written = rule.run_as.is_none()
        && is_of_type(asked_type)
        && match asked.request.ask() {
            Ask::Command(text) => forbids_text(rule, text),
            Ask::Argv(argv) => forbids_words(rule, &argv.iter().map(String::as_str).collect::<Vec<_>>(), false),
            Ask::Rule(_) => false,
        };
    // ... and what it would come to, so that asking in another way, or another program in front, leads nowhere else.
    holds_as_written || outcomes.iter().any(|outcome| is_of_type(outcome.action_type) && forbids_outcome(rule, outcome))
}

/// Whether a Deny rule forbids the text, or a command that is executed.
pub(super) fn forbids_outcome(rule: &CompiledRule, outcome: &Outcome<'_>) -> bool {
    let by_text_or_user = match outcome.text {
        _ if rule.text.is_none() && rule.run.is_empty() => true,
        Some(text) => forbids_text(rule, text),
        None => false,
    };
    outcome.commands.iter().any(|command| {
        rule.run_as.as_ref().is_none_or(|user| command.user.may_be(user))
            && (by_text_or_user || forbids_words(rule, &command.words, command.is_launched))
    })
}

fn forbids_text(rule: &CompiledRule, text: &str) -> bool {
    let mut values = vec![None; rule.parameters.len()];
    rule.text.as_ref().is_some_and(|template| template.read(text, &rule.parameters, &mut values).is_ok())
}

/// Whether the `run` of a Deny rule describes these words. Its program is also the same one by another path.
pub(super) fn forbids_words(rule: &CompiledRule, words: &[&str], is_launched: bool) -> bool {
    let (Some((denied, denied_words)), Some((program, words))) = (rule.run.split_first(), words.split_first()) else {
        return false;
    };
    if denied_words.len() != words.len() {
        return false;
    }
    if let Some(path) = denied.constant() {
        let mut values = vec![None; rule.parameters.len()];
        return launchers::may_be_program(program, is_launched, path)
            && read_words(rule, denied_words, words.iter().copied(), &mut values).is_ok();
    }
    launchers::spellings(program, is_launched).iter().any(|program| {
        let mut values = vec![None; rule.parameters.len()];
        let words = std::iter::once(program.as_str()).chain(words.iter().copied());
        read_words(rule, &rule.run, words, &mut values).is_ok()
    })
}
