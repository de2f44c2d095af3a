//! Near misses: the rule that is nearest to a denied request, and the reason why the rule did not match. The requester
//! and the readers of the policy get different texts.
//!
//! # Guarantees
//! The text for the requester shows facts that requesters need for their requests:
//!
//! - Names of rules and parameters, and the maximum timeout.
//! - A difference in the directory of the program, if there is no other difference.
//!
//! The text for the requester shows no text, pattern or value of a rule. A requester who guesses a word cannot find out
//! which part of the word was correct.

mod other_way;

use std::cmp::Ordering;

use crate::api::Reason;

use super::compile::CompiledRule;
use super::index::{END_OF_WORD, PrefixIndex};
use super::subjects::Identity;
use super::template::{TemplateMismatch, TemplateMismatchKind};
use super::values::ValueError;
use super::verdict::{Denial, NearMiss};
use super::{CommandForm, CompiledWhitelist, MAXIMUM_COMMAND_BYTES, Request, RuleSet};
use other_way::OtherWay;

/// Reason why a rule does not match a request. [`Mismatch::nearness`] returns how near the rule is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mismatch {
    /// The request names another rule.
    OtherRule,
    /// The text or the words of the request differ from the rule, or a parameter does not admit its value.
    Command(TemplateMismatch),
    /// The request names a parameter that the rule does not have.
    UndeclaredParameter,
    /// The request has no value for the parameter with this index, and the parameter has no default.
    NoValue(usize),
    /// The rule would match the command in another form of request.
    OtherWay(OtherWay),
    ActionType,
    Machine,
    /// The request is for an interactive session, and the rule does not permit it.
    Session,
    Subject,
    IdentityUnknown,
    /// The rule does not allow the variable with this index in the request.
    Variable(usize),
    VariableValue(usize),
    Timeout,
    /// The command would be longer than a machine accepts.
    TooLong,
}

/// Nearest rules among the rules considered so far.
pub(super) struct NearestRules<'a> {
    /// Key of the request in the index. Matched bytes are counted from the beginning of this key.
    key: &'a str,
    /// Character that ends a word in the key.
    end_of_word: char,
    /// Nearest rule by matched bytes, for readers of the policy.
    for_policy_reader: Option<Near<'a>>,
    /// Nearest rule by whole words, for the requester. Parts of words do not count, so that nobody can guess a word
    /// byte by byte.
    for_requester: Option<Near<'a>>,
    /// True if several rules are equally near to the request.
    is_tied: bool,
}

type Near<'a> = (&'a CompiledWhitelist, &'a CompiledRule, Mismatch);

impl Mismatch {
    /// Returns the nearness: the number of the failed step of the decision, and the progress within this step.
    fn nearness(self) -> (u8, usize) {
        match self {
            Mismatch::OtherRule => (0, 0),
            Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text }) => (1, matched),
            Mismatch::UndeclaredParameter => (2, 0),
            Mismatch::NoValue(_) => (2, 1),
            Mismatch::Command(TemplateMismatch { matched, .. }) => (3, matched),
            Mismatch::OtherWay(_) => (3, usize::MAX),
            Mismatch::ActionType => (4, 0),
            Mismatch::Machine => (5, 0),
            Mismatch::Session => (6, 0),
            Mismatch::Subject | Mismatch::IdentityUnknown => (7, 0),
            Mismatch::Variable(_) => (8, 0),
            Mismatch::VariableValue(_) => (9, 0),
            Mismatch::Timeout => (10, 0),
            Mismatch::TooLong => (11, 0),
        }
    }
}

impl<'a> NearestRules<'a> {
    /// Starts a search for the nearest rule. No rule has been considered yet.
    pub fn new(form: &CommandForm, key: &'a str) -> Self {
        let end_of_word = if matches!(form, CommandForm::Text(_)) { ' ' } else { END_OF_WORD };
        Self { key, end_of_word, for_policy_reader: None, for_requester: None, is_tied: false }
    }

    /// Rounds a number of matched bytes of the key down to the end of a word.
    fn words(&self, matched: usize) -> usize {
        let part = self.key.get(..matched).unwrap_or_default();
        part.rfind(self.end_of_word).map_or(0, |end| end + 1)
    }

    /// Stores a rule if it is nearer than all earlier rules.
    pub fn consider(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch) {
        self.note(whitelist, rule, mismatch);
        self.tell(whitelist, rule, mismatch, false);
    }

    fn note(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch) {
        if mismatch.nearness() > self.for_policy_reader.map_or((0, 0), |(_, _, nearest)| nearest.nearness()) {
            self.for_policy_reader = Some((whitelist, rule, mismatch));
        }
    }

    fn tell(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch, is_tied: bool) {
        let mismatch = match mismatch {
            Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text }) => {
                Mismatch::Command(TemplateMismatch { matched: self.words(matched), what: TemplateMismatchKind::Text })
            }
            other => other,
        };
        let before = self.for_requester.map_or((0, 0), |(_, _, nearest)| nearest.nearness());
        let is_another = self.for_requester.is_none_or(|(_, told, _)| !std::ptr::eq(told, rule));
        match mismatch.nearness().cmp(&before) {
            Ordering::Greater => (self.for_requester, self.is_tied) = (Some((whitelist, rule, mismatch)), is_tied),
            Ordering::Equal => self.is_tied |= is_tied || is_another,
            Ordering::Less => {}
        }
    }

    /// Considers the rules that have the longest common prefix with the request. Other searches skip these rules,
    /// because the request does not begin with their whole prefix.
    pub fn consider_prefix_matches(&mut self, rules: &'a RuleSet, index: &PrefixIndex) {
        let Some(matched) = index.longest_common_prefix(self.key) else { return };
        let alike = |matched: usize| {
            let (first, count) = index.first_with_prefix(self.key.get(..matched)?)?;
            let mismatch = Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text });
            Some((rules.allow_rule(first)?, mismatch, count))
        };
        let (by_bytes, by_words) = (alike(matched), alike(self.words(matched)));
        if let Some(((whitelist, rule), mismatch, _)) = by_bytes {
            self.note(whitelist, rule, mismatch);
        }
        if let Some(((whitelist, rule), mismatch, count)) = by_words {
            self.tell(whitelist, rule, mismatch, count > 1);
        }
    }

    /// Considers the rules that would match the command in another form of request.
    pub fn consider_other_ways(&mut self, rules: &'a RuleSet, form: &CommandForm, limit: usize) {
        for (whitelist, rule, way) in other_way::find(rules, form, limit) {
            self.consider(whitelist, rule, Mismatch::OtherWay(way));
        }
    }

    /// Returns the denial of a request that no rule allows.
    pub fn denial(&self, rules: &RuleSet, request: &Request, identity: Identity<'_>) -> Denial {
        let field = match request.form() {
            CommandForm::Text(_) => "spec.command",
            CommandForm::Argv(_) => "spec.argv",
            CommandForm::Rule(_) => "spec.rule",
        };
        let (Some((whitelist, rule, mismatch)), Some((full_whitelist, full_rule, full_mismatch))) =
            (self.for_requester, self.for_policy_reader)
        else {
            return Denial {
                reason: Reason::NoMatchingRule,
                message: format!(
                    "{field} is not whitelisted: {}{}",
                    no_similar_rule(rules, request),
                    invalid_rule_hint(rules)
                ),
                nearest: None,
            };
        };
        let name = format!("{}/{}", whitelist.record.name, rule.name);
        let (reason, message) = match mismatch {
            Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text })
                if matched <= first_word(request.form()) =>
            {
                (Reason::NoMatchingRule, format!("{field} is not whitelisted: {}", no_similar_rule(rules, request)))
            }
            Mismatch::Command(TemplateMismatch { what: TemplateMismatchKind::Text, .. }) if self.is_tied => (
                Reason::NoMatchingRule,
                format!(
                    "{field} is not whitelisted: several rules begin like it, and none is equal to it byte for byte"
                ),
            ),
            Mismatch::OtherRule
            | Mismatch::Command(_)
            | Mismatch::UndeclaredParameter
            | Mismatch::NoValue(_)
            | Mismatch::OtherWay(_) => {
                let why = for_requester(rule, request, mismatch);
                (Reason::NoMatchingRule, format!("{field} is not whitelisted; the nearest rule is {name}, but {why}"))
            }
            _ => (
                Reason::NotPermitted,
                format!("the rule {name} lists it, but {}", for_requester(rule, request, mismatch)),
            ),
        };
        let hint = "; `writ explain` shows more to those who may read the Whitelists";
        let message = format!("{message}{}{hint}", invalid_rule_hint(rules));
        let why = for_policy_reader(full_rule, request, identity, full_mismatch);
        let nearest = NearMiss { whitelist: full_whitelist.record.name.clone(), rule: full_rule.name.clone(), why };
        Denial { reason, message, nearest: Some(nearest) }
    }
}

/// Returns the length of the first word of a request. If a rule has only this word in common with the request, the rule
/// is not near.
fn first_word(form: &CommandForm) -> usize {
    match form {
        CommandForm::Text(text) => text.find(' ').unwrap_or(text.len()),
        CommandForm::Argv(argv) => argv.first().map_or(0, String::len),
        CommandForm::Rule(_) => 0,
    }
}

fn no_similar_rule(rules: &RuleSet, request: &Request) -> String {
    if rules.whitelists().is_empty() {
        return "there is no Whitelist in this namespace".to_owned();
    }
    match request.form() {
        CommandForm::Text(_) => "no rule of this namespace has this text; it must be equal byte for byte, also in upper and lower case and in \
             spaces"
            .to_owned(),
        CommandForm::Argv(argv) if argv.first().is_some_and(|program| !program.starts_with('/')) => {
            "no rule of this namespace runs these words; spec.argv[0] must be the absolute path of the program"
                .to_owned()
        }
        CommandForm::Argv(_) => {
            "no rule of this namespace runs these words; they must be equal byte for byte".to_owned()
        }
        CommandForm::Rule(wanted) => match &wanted.whitelist {
            Some(whitelist) => format!("there is no rule {} in force in a Whitelist {whitelist}", wanted.name),
            None => format!("there is no rule {} in force in this namespace", wanted.name),
        },
    }
}

/// Returns a hint with the number of rules out of force, because one of these rules would perhaps match the request.
/// Empty if no rule is out of force.
fn invalid_rule_hint(rules: &RuleSet) -> String {
    match rules.whitelists().iter().map(|whitelist| whitelist.invalid_rules.len()).sum::<usize>() {
        0 => String::new(),
        1 => " (1 rule of the namespace is broken and out of force: see `kubectl describe whitelists`)".to_owned(),
        count => {
            format!(" ({count} rules of the namespace are broken and out of force: see `kubectl describe whitelists`)")
        }
    }
}

/// Returns the text for the requester.
fn for_requester(rule: &CompiledRule, request: &Request, mismatch: Mismatch) -> String {
    match mismatch {
        Mismatch::OtherRule => "it is another rule".to_owned(),
        Mismatch::Command(TemplateMismatch { what, .. }) => match what {
            TemplateMismatchKind::Text => match request.form() {
                CommandForm::Argv(argv) if argv.len() != rule.run.len() => {
                    "its run has another number of words".to_owned()
                }
                CommandForm::Argv(_) => "it differs from the words of that one's run".to_owned(),
                CommandForm::Text(_) | CommandForm::Rule(_) => "it differs from that one's text".to_owned(),
            },
            TemplateMismatchKind::Value(index, misfit) => {
                format!("its parameter {} {}", parameter(rule, index), requester_text(misfit))
            }
            TemplateMismatchKind::Contradiction(index) => {
                format!("its parameter {} must have the same value everywhere", parameter(rule, index))
            }
        },
        Mismatch::UndeclaredParameter => "it has no parameter of that name".to_owned(),
        Mismatch::NoValue(index) => format!("its parameter {} needs a value", parameter(rule, index)),
        Mismatch::OtherWay(way) => way.for_requester(request.form()).to_owned(),
        Mismatch::ActionType => "spec.actionType is not its action type".to_owned(),
        Mismatch::Machine => "not for this Machine".to_owned(),
        Mismatch::Session => {
            "it does not permit interactive sessions: add `interactive: true` to the rule, or run it without \
             a session (the endpoints execute and commands)"
                .to_owned()
        }
        Mismatch::Subject => "its subjects do not include the requester (spec.requestedBy)".to_owned(),
        Mismatch::IdentityUnknown => {
            "only for certain subjects, and the requester is not verified: the admission policy \
             that stamps spec.requestedBy is missing or does not work (see docs/guides/roles.md)"
                .to_owned()
        }
        Mismatch::Variable(index) => format!("spec.environment must not have {}", variable(request, index).0),
        Mismatch::VariableValue(index) => {
            format!("spec.environment.{} must not have this value", variable(request, index).0)
        }
        Mismatch::Timeout => {
            format!("spec.timeoutSeconds is over its maximum of {} s (timeoutSeconds.maximum)", rule.limits.maximum)
        }
        Mismatch::TooLong => {
            format!("what would be executed has more than {MAXIMUM_COMMAND_BYTES} bytes, with its environment")
        }
    }
}

fn requester_text(misfit: ValueError) -> &'static str {
    match misfit {
        ValueError::NotListed => "has a value that is not listed",
        ValueError::NotAnInteger => "must be a whole number in plain decimal",
        ValueError::OutOfRange => "has a number that is out of range",
        ValueError::TooLong => "has a value that is too long",
        ValueError::NoMatch => "has a value that does not match",
    }
}

/// Returns the text for readers of the policy.
fn for_policy_reader(rule: &CompiledRule, request: &Request, identity: Identity<'_>, mismatch: Mismatch) -> String {
    let names = &rule.parameters;
    match mismatch {
        Mismatch::Command(TemplateMismatch { matched, what: TemplateMismatchKind::Text }) => {
            if let CommandForm::Argv(argv) = request.form() {
                return format!("it takes {}; {}", words(rule), difference(rule, argv));
            }
            let expected = rule.text.as_ref().map(|text| format!("{:?}", text.display(names))).unwrap_or_default();
            format!("it takes {expected}; the request differs from character {} on", matched + 1)
        }
        Mismatch::OtherWay(way) => {
            let text = rule.text.as_ref().map(|text| text.display(names)).unwrap_or_default();
            format!("{}; its match is {text:?}, its run {}", way.for_requester(request.form()), words(rule))
        }
        Mismatch::Command(TemplateMismatch { what: TemplateMismatchKind::Value(index, _), .. }) => {
            match names.get(index) {
                Some(parameter) => format!("its parameter {} must be {}", parameter.name, parameter.values),
                None => String::new(),
            }
        }
        Mismatch::UndeclaredParameter => {
            let names: Vec<_> = names.iter().map(|parameter| parameter.name.as_str()).collect();
            format!("its parameters are: {}", names.join(", "))
        }
        Mismatch::ActionType => format!("its action type is {}", rule.action_type.as_deref().unwrap_or_default()),
        Mismatch::Machine => "its machineSelector does not choose a Machine with these labels".to_owned(),
        Mismatch::Subject => match identity {
            Identity::Known(requester) => {
                let name = &requester.username;
                match requester.groups.as_slice() {
                    [] => format!(
                        "its subjects do not name {name}, and no group of {name} is known (`writ explain` takes \
                         --as-group for each group)"
                    ),
                    groups => format!("its subjects name neither {name} nor a group of {name} ({})", groups.join(", ")),
                }
            }
            Identity::Unknown | Identity::Undecided => String::new(),
        },
        Mismatch::Variable(_) => {
            let names: Vec<_> = rule.environment.keys().map(String::as_str).collect();
            format!("a requester may set: {}", if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
        }
        Mismatch::VariableValue(index) => {
            let (name, _) = variable(request, index);
            let values = rule.environment.get(name).map(ToString::to_string).unwrap_or_default();
            format!("{name} must be {values}")
        }
        Mismatch::Timeout => format!("its timeoutSeconds.maximum is {}", rule.limits.maximum),
        other => for_requester(rule, request, other),
    }
}

/// Returns the words of a rule as its author wrote them.
fn words(rule: &CompiledRule) -> String {
    let words = rule.run.iter().map(|word| format!("{:?}", word.display(&rule.parameters)));
    words.collect::<Vec<_>>().join(", ")
}

/// Describes the first difference between an argument vector and the words of a rule.
fn difference(rule: &CompiledRule, argv: &[String]) -> String {
    let mut values = vec![None; rule.parameters.len()];
    let mut equal = 0;
    for (template, word) in rule.run.iter().zip(argv) {
        if template.extract(word, &rule.parameters, &mut values).is_err() {
            break;
        }
        equal += 1;
    }
    let count = match argv.len() == rule.run.len() {
        true => String::new(),
        false => format!("it has {} words and spec.argv {}, ", rule.run.len(), argv.len()),
    };
    match rule.run.get(equal).zip(argv.get(equal)) {
        Some((template, word)) => {
            format!("{count}spec.argv[{equal}] is {word:?} and not {:?}", template.display(&rule.parameters))
        }
        None => format!("{count}the first {equal} are equal"),
    }
}

fn parameter(rule: &CompiledRule, index: usize) -> &str {
    rule.parameters.get(index).map_or("", |parameter| &parameter.name)
}

fn variable(request: &Request, index: usize) -> (&str, &str) {
    request.environment().iter().nth(index).map_or(("", ""), |(name, value)| (name, value))
}
