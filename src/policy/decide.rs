//! Matches a request against the rules. Each request gets a verdict that can be recorded.
//!
//! 1. A namespace that failed closed allows nothing.
//! 2. The request is matched against every Allow rule that the index finds. Writ compares command, action type,
//!    machine, session, subjects, environment variables and timeout. Each matching rule becomes a candidate with its decision.
//! 3. If a Deny rule matches the request or a candidate, the request is denied. The `run` of a Deny rule is matched
//!    against each command that the candidate executes. For example, `nice rm` executes `rm`.
//! 4. If the candidates have different decisions, the request is ambiguous. Otherwise the first candidate is the
//!    decision. Candidates are sorted by the name of the Whitelist, then by the order of its rules.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::api::Reason;
use crate::api::command_execution::RuleRequest;

use super::compile::CompiledRule;
use super::index::{END_OF_WORD, key_by_base_name, key_of_name, key_of_words};
use super::launchers::{self, Command};
use super::near_miss::{Mismatch, NearestRules};
use super::rule_set::{LookupKind, in_order};
use super::subjects::{self, Identity};
use super::template::{Template, TemplateMismatch, TemplateMismatchKind, read_words};
use super::verdict::{Decision, Denial, NearMiss, Verdict};
use super::{CommandForm, CompiledWhitelist, MAXIMUM_COMMAND_BYTES, MAXIMUM_WORDS, Request, RuleSet};

/// Maximum number of rules that Writ compares with a denied request to find its near miss. Further rules are ignored.
const MAX_NEAR_MISS_CANDIDATES: usize = 32;

/// Request, labels of the Machine, and requester.
#[derive(Clone, Copy)]
struct MatchInput<'a> {
    request: &'a Request,
    labels: &'a BTreeMap<String, String>,
    identity: Identity<'a>,
}

/// Allow rule that matches the request, with its decision.
struct Candidate {
    decision: Decision,
    /// Text of the rule, with the values of the request in its placeholders.
    text: Option<String>,
}

/// Returns the decision for a request on a Machine with these labels. Denies by default.
pub fn decide(
    rules: &RuleSet,
    request: &Request,
    labels: &BTreeMap<String, String>,
    identity: Identity<'_>,
) -> Verdict {
    if let Some(whitelist) = rules.closed_by() {
        return deny_fail_closed(whitelist);
    }
    let asked = MatchInput { request, labels, identity };
    let (lookup, key) = lookup_key(request.form());
    let mut nearest = NearestRules::new(request.form(), &key);
    let mut candidates = Vec::new();
    let may_match = rules.candidates(lookup, &key).into_iter().filter_map(|place| rules.allow_rule(place));
    for (whitelist, rule) in may_match.filter(|(_, rule)| has_matching_suffix(rule, request.form())) {
        match candidate(whitelist, rule, asked) {
            Ok(candidate) => candidates.push(candidate),
            Err(mismatch) => nearest.consider(whitelist, rule, mismatch),
        }
    }
    if let Some((whitelist, rule)) = find_deny(rules, asked, &key, &candidates) {
        let name = format!("{}/{}", whitelist.record.name, rule.name);
        let message = format!("the rule {name} denies it, whatever other rules allow");
        return Verdict::Deny(Denial { reason: Reason::Denied, message, nearest: None });
    }
    if let Some(index) = rules.prefix_index(lookup).filter(|_| candidates.is_empty()) {
        // No rule allows the request. The code below only finds the near miss.
        let like_it = in_order(|found| index.rules_with_prefix_of(&key, found));
        for (whitelist, rule) in
            like_it.into_iter().take(MAX_NEAR_MISS_CANDIDATES).filter_map(|place| rules.allow_rule(place))
        {
            if let Err(mismatch) = extract_values(whitelist, rule, request.form()) {
                nearest.consider(whitelist, rule, mismatch);
            }
        }
        nearest.consider_prefix_matches(rules, index);
        nearest.consider_other_ways(rules, request.form(), MAX_NEAR_MISS_CANDIDATES);
    }
    let mut candidates = candidates.into_iter().map(|candidate| candidate.decision);
    let Some(first) = candidates.next() else {
        return Verdict::Deny(nearest.denial(rules, request, identity));
    };
    match candidates.find(|other| !is_equivalent(&first, other)) {
        Some(other) => deny_ambiguous(&first, &other),
        None => Verdict::Allow(Box::new(first)),
    }
}

/// Returns the index that Writ searches for matching rules, and the key of the request in this index.
fn lookup_key(form: &CommandForm) -> (LookupKind, Cow<'_, str>) {
    match form {
        CommandForm::Text(text) => (LookupKind::Text, Cow::Borrowed(text)),
        CommandForm::Argv(argv) => (LookupKind::Words, Cow::Owned(key_of_words(argv.iter().map(String::as_str)))),
        CommandForm::Rule(wanted) => (LookupKind::Name, Cow::Owned(key_of_name(&wanted.name))),
    }
}

/// Returns false if the request does not end with the constant suffix of the rule. Such a rule cannot match.
fn has_matching_suffix(rule: &CompiledRule, form: &CommandForm) -> bool {
    match form {
        CommandForm::Text(text) => rule.text.as_ref().is_some_and(|template| text.ends_with(template.literal_suffix())),
        CommandForm::Argv(argv) => {
            let last = rule.run.last().zip(argv.last());
            argv.len() == rule.run.len()
                && last.is_some_and(|(template, word)| word.ends_with(template.literal_suffix()))
        }
        CommandForm::Rule(_) => true,
    }
}

fn deny_fail_closed(whitelist: &CompiledWhitelist) -> Verdict {
    let name = &whitelist.record.name;
    let message = format!(
        "nothing is allowed in this namespace until its Whitelist {name} is fixed \
         (kubectl describe whitelist {name} says what is wrong with it)"
    );
    let why = whitelist.closed.clone().unwrap_or_default();
    let nearest = Some(NearMiss { whitelist: name.clone(), rule: String::new(), why });
    Verdict::Deny(Denial { reason: Reason::PolicyBroken, message, nearest })
}

fn deny_ambiguous(first: &Decision, other: &Decision) -> Verdict {
    let message = format!(
        "the rules {}/{} and {}/{} match the request and would execute it differently; say which one is meant with \
         spec.rule, or give the rules different texts",
        first.whitelist.name, first.rule, other.whitelist.name, other.rule
    );
    Verdict::Deny(Denial { reason: Reason::Ambiguous, message, nearest: None })
}

/// Returns true if two decisions have the same effect, even if different rules gave them.
fn is_equivalent(left: &Decision, right: &Decision) -> bool {
    left.argv == right.argv
        && left.run_as == right.run_as
        && left.working_directory == right.working_directory
        && left.environment == right.environment
        && left.timeout_seconds == right.timeout_seconds
        && left.interactive == right.interactive
        && left.record_input == right.record_input
        && left.output == right.output
        && left.redact == right.redact
        && left.minimum_retention_seconds == right.minimum_retention_seconds
}

/// Returns true if the rule applies to a Machine with these labels.
fn is_for_machine(rule: &CompiledRule, labels: &BTreeMap<String, String>) -> bool {
    rule.selector.as_ref().is_none_or(|selector| selector.matches(labels))
}

/// Matches a request against one Allow rule.
///
/// # Errors
/// The first check that fails. The later this check is in the order, the nearer the rule is to the request.
fn candidate(whitelist: &CompiledWhitelist, rule: &CompiledRule, asked: MatchInput<'_>) -> Result<Candidate, Mismatch> {
    let values = extract_values(whitelist, rule, asked.request.form())?;
    if asked.request.action_type().is_some_and(|named| rule.action_type.as_deref() != Some(named)) {
        return Err(Mismatch::ActionType);
    }
    if !is_for_machine(rule, asked.labels) {
        return Err(Mismatch::Machine);
    }
    if asked.request.is_interactive() && !rule.interactive {
        return Err(Mismatch::Session);
    }
    if let Some(subjects) = &rule.subjects {
        match asked.identity {
            Identity::Unknown | Identity::Undecided => return Err(Mismatch::IdentityUnknown),
            Identity::Known(requester) if !subjects::contains(subjects, requester) => return Err(Mismatch::Subject),
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
        record_input: rule.record_input,
        output: rule.output,
        redact: rule.redact.clone(),
        minimum_retention_seconds: rule.minimum_retention_seconds,
    };
    Ok(Candidate { decision, text: rule.text.as_ref().map(|text| text.expand(&values)) })
}

/// Returns the value of each parameter of the rule, in the order of the parameters. If the request gives no value, the
/// value is the default.
fn extract_values<'a>(
    whitelist: &CompiledWhitelist,
    rule: &'a CompiledRule,
    form: &'a CommandForm,
) -> Result<Vec<&'a str>, Mismatch> {
    let mut values = vec![None; rule.parameters.len()];
    match form {
        CommandForm::Text(text) => {
            let template = rule.text.as_ref().ok_or(Mismatch::OtherRule)?;
            template.extract(text, &rule.parameters, &mut values).map_err(Mismatch::Command)?;
        }
        CommandForm::Argv(argv) => extract_from_argv(rule, argv, &mut values)?,
        CommandForm::Rule(wanted) => extract_named(whitelist, rule, wanted, &mut values)?,
    }
    let filled = rule.parameters.iter().zip(values).enumerate().map(|(index, (parameter, value))| {
        let value = value.or(parameter.values.default.as_deref());
        value.ok_or(Mismatch::NoValue(index))
    });
    filled.collect()
}

fn extract_from_argv<'a>(
    rule: &'a CompiledRule,
    argv: &'a [String],
    values: &mut [Option<&'a str>],
) -> Result<(), Mismatch> {
    let read = read_words(&rule.parameters, &rule.run, argv.iter().map(String::as_str), values);
    // If the vector has another length or other constants than `run`, its words are not values of the parameters. The
    // error then names no value.
    let is_other =
        |(template, word): (&Template, &String)| template.constant().is_some_and(|constant| constant != word);
    let has_shape = argv.len() == rule.run.len() && !rule.run.iter().zip(argv).any(is_other);
    match read {
        Ok(_) if has_shape => Ok(()),
        Err(miss) if has_shape => Err(Mismatch::Command(miss)),
        Ok(matched) | Err(TemplateMismatch { matched, .. }) => {
            Err(Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text }))
        }
    }
}

fn extract_named<'a>(
    whitelist: &CompiledWhitelist,
    rule: &'a CompiledRule,
    wanted: &'a RuleRequest,
    values: &mut [Option<&'a str>],
) -> Result<(), Mismatch> {
    let is_meant =
        rule.name == wanted.name && wanted.whitelist.as_ref().is_none_or(|name| *name == whitelist.record.name);
    if !is_meant {
        return Err(Mismatch::OtherRule);
    }
    if wanted.parameters.keys().any(|name| rule.parameters.iter().all(|parameter| parameter.name != *name)) {
        return Err(Mismatch::UndeclaredParameter);
    }
    for (index, (parameter, slot)) in rule.parameters.iter().zip(values).enumerate() {
        let Some(value) = wanted.parameters.get(&parameter.name) else { continue };
        let fits = parameter.values.check(value);
        fits.map_err(|misfit| {
            Mismatch::Command(TemplateMismatch { matched: 0, what: TemplateMismatchKind::Value(index, misfit) })
        })?;
        *slot = Some(value);
    }
    Ok(())
}

/// Returns the variables to set: the variables of the request, and the rule's defaults for all other variables.
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

/// Returns the first Deny rule that matches.
fn find_deny<'a>(
    rules: &'a RuleSet,
    asked: MatchInput<'_>,
    key: &'a str,
    candidates: &'a [Candidate],
) -> Option<(&'a CompiledWhitelist, &'a CompiledRule)> {
    if !rules.has_denies() {
        return None;
    }
    let outcomes: Vec<Outcome<'a>> = candidates.iter().map(Outcome::from_candidate).collect();
    let (asked_text, asked_words) = match asked.request.form() {
        CommandForm::Text(_) => (Some(key), None),
        CommandForm::Argv(_) => (None, Some(key_by_base_name(key.split_terminator(END_OF_WORD)))),
        CommandForm::Rule(_) => (None, None),
    };
    let texts = candidates.iter().filter_map(|candidate| candidate.text.as_deref());
    let commands = outcomes.iter().flat_map(|outcome| &outcome.commands);
    // A Deny has at most `MAXIMUM_WORDS` words. A command with more words therefore matches no Deny.
    let words = commands.filter(|command| command.words.len() <= MAXIMUM_WORDS);
    let words = words.map(|command| key_by_base_name(command.words.iter().copied()));
    let mut may_hold = rules.deny_candidates(asked_text.into_iter().chain(texts), asked_words.into_iter().chain(words));
    may_hold.find(|(_, rule)| deny_matches(rule, asked, &outcomes))
}

/// Commands that a candidate would execute, including commands that its program launches.
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

/// Returns true if a Deny rule matches a request. If the requester is not verified, the `subjects` of the rule are
/// ignored.
fn deny_matches(rule: &CompiledRule, asked: MatchInput<'_>, outcomes: &[Outcome<'_>]) -> bool {
    if !is_for_machine(rule, asked.labels) {
        return false;
    }
    if let (Some(subjects), Identity::Known(requester)) = (&rule.subjects, asked.identity)
        && !subjects::contains(subjects, requester)
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
    // The rule is first compared with the request as it is written. A request names no user, so a Deny with `runAs`
    // cannot match here.
    let asked_type = asked.request.action_type().unwrap_or_default();
    let holds_as_written = rule.run_as.is_none()
        && is_of_type(asked_type)
        && match asked.request.form() {
            CommandForm::Text(text) => forbids_text(rule, text),
            CommandForm::Argv(argv) => forbids_words(rule, &argv.iter().map(String::as_str).collect::<Vec<_>>(), false),
            CommandForm::Rule(_) => false,
        };
    // The rule is then compared with the commands that the request would execute. A requester therefore cannot evade a
    // Deny with another form of request, or with a launcher such as `nice`.
    holds_as_written || outcomes.iter().any(|outcome| is_of_type(outcome.action_type) && forbids_outcome(rule, outcome))
}

/// Returns true if a Deny rule forbids the text or a command of an outcome.
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
    rule.text.as_ref().is_some_and(|template| template.extract(text, &rule.parameters, &mut values).is_ok())
}

/// Returns true if the `run` of a Deny rule matches these words. For example, `/bin/rm` also matches `/usr/bin/rm`.
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
            && read_words(&rule.parameters, denied_words, words.iter().copied(), &mut values).is_ok();
    }
    launchers::spellings(program, is_launched).iter().any(|program| {
        let mut values = vec![None; rule.parameters.len()];
        let words = std::iter::once(program.as_str()).chain(words.iter().copied());
        read_words(&rule.parameters, &rule.run, words, &mut values).is_ok()
    })
}
