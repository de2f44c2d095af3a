//! Which rule came nearest to a request, and why it did not fit: in one form for who asked, in another for who may read
//! the policy.
//!
//! The promise kept here: what is said to who asked shows no text, pattern or value of a rule, nor how much of a word
//! was right that was guessed. Names of rules and parameters it does show, and the most seconds: they are what one asks with.
//! If all words are a rule's except the directory of the program, it says so.

mod other_way;

use std::cmp::Ordering;

use crate::api::Reason;

use super::compile::CompiledRule;
use super::index::{END_OF_WORD, Index};
use super::subjects::Identity;
use super::template::{Miss, MissKind};
use super::values::Misfit;
use super::{Ask, CompiledWhitelist, Denial, MAXIMUM_COMMAND_BYTES, Request, RuleSet};
use other_way::OtherWay;

/// A rule that nearly fitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NearMiss {
    /// Its Whitelist.
    pub whitelist: String,
    /// Its name; empty where the Whitelist as a whole is at fault.
    pub rule: String,
    /// Why it did not fit, with what it would have taken.
    pub why: String,
}

/// Why a rule is no candidate, from what is farthest to what is nearest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mismatch {
    /// It is another rule than the one that was asked for.
    Other,
    /// The text or the words are others, or a value is none of a parameter's.
    Ask(Miss),
    /// The request names a parameter that the rule does not have.
    UndeclaredParameter,
    /// The request has no value for this parameter, and there is no default.
    NoValue(usize),
    /// The rule describes what is asked for, in another way of asking.
    OtherWay(OtherWay),
    ActionType,
    Machine,
    Subject,
    IdentityUnknown,
    /// This variable of the request (by its place) is none that may be set.
    Variable(usize),
    VariableValue(usize),
    Timeout,
    /// What would be executed is longer than a machine takes.
    TooLong,
}

/// The nearest rules so far.
pub(super) struct Nearest<'a> {
    /// What is asked for, as the index has it: what is matched of a request is a part of it.
    key: &'a str,
    /// What ends a word in it.
    end_of_word: char,
    /// By bytes: for who may read the policy.
    in_full: Option<Near<'a>>,
    /// By whole words, for who asked: which one is nearest must not tell either how much of a word was right.
    told: Option<Near<'a>>,
    /// Whether several are as near as that by their texts.
    is_tied: bool,
}

type Near<'a> = (&'a CompiledWhitelist, &'a CompiledRule, Mismatch);

impl Mismatch {
    /// How near: the step of the decision that was reached, and how far within it.
    fn nearness(self) -> (u8, usize) {
        match self {
            Mismatch::Other => (0, 0),
            Mismatch::Ask(Miss { matched, what: MissKind::Text }) => (1, matched),
            Mismatch::UndeclaredParameter => (2, 0),
            Mismatch::NoValue(_) => (2, 1),
            Mismatch::Ask(Miss { matched, .. }) => (3, matched),
            Mismatch::OtherWay(_) => (3, usize::MAX),
            Mismatch::ActionType => (4, 0),
            Mismatch::Machine => (5, 0),
            Mismatch::Subject | Mismatch::IdentityUnknown => (6, 0),
            Mismatch::Variable(_) => (7, 0),
            Mismatch::VariableValue(_) => (8, 0),
            Mismatch::Timeout => (9, 0),
            Mismatch::TooLong => (10, 0),
        }
    }
}

impl<'a> Nearest<'a> {
    /// Of no rule yet.
    pub fn new(ask: &Ask, key: &'a str) -> Self {
        let end_of_word = if matches!(ask, Ask::Command(_)) { ' ' } else { END_OF_WORD };
        Self { key, end_of_word, in_full: None, told: None, is_tied: false }
    }

    /// How much of the first so many bytes are whole words.
    fn words(&self, matched: usize) -> usize {
        let part = self.key.get(..matched).unwrap_or_default();
        part.rfind(self.end_of_word).map_or(0, |end| end + 1)
    }

    /// Takes a rule where it is nearer than those before.
    pub fn consider(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch) {
        self.note(whitelist, rule, mismatch);
        self.tell(whitelist, rule, mismatch, false);
    }

    fn note(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch) {
        if mismatch.nearness() > self.in_full.map_or((0, 0), |(_, _, nearest)| nearest.nearness()) {
            self.in_full = Some((whitelist, rule, mismatch));
        }
    }

    fn tell(&mut self, whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule, mismatch: Mismatch, is_tied: bool) {
        let mismatch = match mismatch {
            Mismatch::Ask(Miss { matched, what: MissKind::Text }) => {
                Mismatch::Ask(Miss { matched: self.words(matched), what: MissKind::Text })
            }
            other => other,
        };
        let before = self.told.map_or((0, 0), |(_, _, nearest)| nearest.nearness());
        let is_another = self.told.is_none_or(|(_, told, _)| !std::ptr::eq(told, rule));
        match mismatch.nearness().cmp(&before) {
            Ordering::Greater => (self.told, self.is_tied) = (Some((whitelist, rule, mismatch)), is_tied),
            Ordering::Equal => self.is_tied |= is_tied || is_another,
            Ordering::Less => {}
        }
    }

    /// Takes those that begin otherwise, too, which were not looked at one by one.
    pub fn consider_by_beginning(&mut self, rules: &'a RuleSet, index: &Index) {
        let Some(matched) = index.most_in_common(self.key) else { return };
        let alike = |matched: usize| {
            let (first, count) = index.beginning_with(self.key.get(..matched)?)?;
            let mismatch = Mismatch::Ask(Miss { matched, what: MissKind::Text });
            Some((rules.allowing(first)?, mismatch, count))
        };
        let (by_bytes, by_words) = (alike(matched), alike(self.words(matched)));
        if let Some(((whitelist, rule), mismatch, _)) = by_bytes {
            self.note(whitelist, rule, mismatch);
        }
        if let Some(((whitelist, rule), mismatch, count)) = by_words {
            self.tell(whitelist, rule, mismatch, count > 1);
        }
    }

    /// Takes the rules that describe what is asked for, in another way of asking.
    pub fn consider_other_ways(&mut self, rules: &'a RuleSet, ask: &Ask, limit: usize) {
        for (whitelist, rule, way) in other_way::find(rules, ask, limit) {
            self.consider(whitelist, rule, Mismatch::OtherWay(way));
        }
    }

    /// The denial of a request that no rule allows.
    pub fn denial(&self, rules: &RuleSet, request: &Request, identity: Identity<'_>) -> Denial {
        let field = match request.ask() {
            Ask::Command(_) => "spec.command",
            Ask::Argv(_) => "spec.argv",
            Ask::Rule(_) => "spec.rule",
        };
        let (Some((whitelist, rule, mismatch)), Some((full_whitelist, full_rule, full_mismatch))) =
            (self.told, self.in_full)
        else {
            return Denial {
                reason: Reason::NoMatchingRule,
                message: format!("{field} is not whitelisted: {}{}", nothing_like_it(rules, request), broken(rules)),
                nearest: None,
            };
        };
        let name = format!("{}/{}", whitelist.record.name, rule.name);
        let (reason, message) = match mismatch {
            Mismatch::Ask(Miss { matched, what: MissKind::Text }) if matched <= first_word(request.ask()) => {
                (Reason::NoMatchingRule, format!("{field} is not whitelisted: {}", nothing_like_it(rules, request)))
            }
            Mismatch::Ask(Miss { what: MissKind::Text, .. }) if self.is_tied => (
                Reason::NoMatchingRule,
                format!(
                    "{field} is not whitelisted: several rules begin like it, and none is equal to it byte for byte"
                ),
            ),
            Mismatch::Other
            | Mismatch::Ask(_)
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
        let message = format!("{message}{}{hint}", broken(rules));
        let why = in_full(full_rule, request, identity, full_mismatch);
        let nearest = NearMiss { whitelist: full_whitelist.record.name.clone(), rule: full_rule.name.clone(), why };
        Denial { reason, message, nearest: Some(nearest) }
    }
}

/// How long the first word of a request is: a rule that has no more than that in common is not near.
fn first_word(ask: &Ask) -> usize {
    match ask {
        Ask::Command(text) => text.find(' ').unwrap_or(text.len()),
        Ask::Argv(argv) => argv.first().map_or(0, String::len),
        Ask::Rule(_) => 0,
    }
}

fn nothing_like_it(rules: &RuleSet, request: &Request) -> String {
    if rules.whitelists().is_empty() {
        return "there is no Whitelist in this namespace".to_owned();
    }
    match request.ask() {
        Ask::Command(_) => "no rule of this namespace has this text; it must be equal byte for byte".to_owned(),
        Ask::Argv(argv) if argv.first().is_some_and(|program| !program.starts_with('/')) => {
            "no rule of this namespace runs these words; spec.argv[0] must be the absolute path of the program"
                .to_owned()
        }
        Ask::Argv(_) => "no rule of this namespace runs these words; they must be equal byte for byte".to_owned(),
        Ask::Rule(wanted) => match &wanted.whitelist {
            Some(whitelist) => format!("there is no rule {} in force in a Whitelist {whitelist}", wanted.name),
            None => format!("there is no rule {} in force in this namespace", wanted.name),
        },
    }
}

/// A hint that the rule may be there, and broken.
fn broken(rules: &RuleSet) -> String {
    match rules.whitelists().iter().map(|whitelist| whitelist.broken.len()).sum::<usize>() {
        0 => String::new(),
        1 => " (1 rule of the namespace is broken and out of force: see `kubectl describe whitelists`)".to_owned(),
        count => {
            format!(" ({count} rules of the namespace are broken and out of force: see `kubectl describe whitelists`)")
        }
    }
}

/// What the one who asked is told.
fn for_requester(rule: &CompiledRule, request: &Request, mismatch: Mismatch) -> String {
    match mismatch {
        Mismatch::Other => "it is another rule".to_owned(),
        Mismatch::Ask(Miss { what, .. }) => match what {
            MissKind::Text => match request.ask() {
                Ask::Argv(argv) if argv.len() != rule.run.len() => "its run has another number of words".to_owned(),
                Ask::Argv(_) => "it differs from the words of that one's run".to_owned(),
                Ask::Command(_) | Ask::Rule(_) => "it differs from that one's text".to_owned(),
            },
            MissKind::Value(index, misfit) => format!("its parameter {} {}", parameter(rule, index), told(misfit)),
            MissKind::Contradiction(index) => {
                format!("its parameter {} must have the same value everywhere", parameter(rule, index))
            }
        },
        Mismatch::UndeclaredParameter => "it has no parameter of that name".to_owned(),
        Mismatch::NoValue(index) => format!("its parameter {} needs a value", parameter(rule, index)),
        Mismatch::OtherWay(way) => way.for_requester(request.ask()).to_owned(),
        Mismatch::ActionType => "spec.actionType is not its action type".to_owned(),
        Mismatch::Machine => "not for this Machine".to_owned(),
        Mismatch::Subject => "not for who asks (spec.requestedBy)".to_owned(),
        Mismatch::IdentityUnknown => {
            "only for certain subjects, and it is not established who asks: the admission policy \
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

fn told(misfit: Misfit) -> &'static str {
    match misfit {
        Misfit::NotListed => "has a value that is not listed",
        Misfit::NotAnInteger => "must be a whole number in plain decimal",
        Misfit::OutOfRange => "has a number that is out of range",
        Misfit::TooLong => "has a value that is too long",
        Misfit::NoMatch => "has a value that does not match",
    }
}

/// What those are told who may read the policy.
fn in_full(rule: &CompiledRule, request: &Request, identity: Identity<'_>, mismatch: Mismatch) -> String {
    let names = &rule.parameters;
    match mismatch {
        Mismatch::Ask(Miss { matched, what: MissKind::Text }) => {
            if let Ask::Argv(argv) = request.ask() {
                return format!("it takes {}; {}", words(rule), difference(rule, argv));
            }
            let expected = rule.text.as_ref().map(|text| format!("{:?}", text.display(names))).unwrap_or_default();
            format!("it takes {expected}; the request differs from byte {matched} on")
        }
        Mismatch::OtherWay(way) => {
            let text = rule.text.as_ref().map(|text| text.display(names)).unwrap_or_default();
            format!("{}; its match is {text:?}, its run {}", way.for_requester(request.ask()), words(rule))
        }
        Mismatch::Ask(Miss { what: MissKind::Value(index, _), .. }) => match names.get(index) {
            Some(parameter) => format!("its parameter {} must be {}", parameter.name, parameter.values),
            None => String::new(),
        },
        Mismatch::UndeclaredParameter => {
            let names: Vec<_> = names.iter().map(|parameter| parameter.name.as_str()).collect();
            format!("its parameters are: {}", names.join(", "))
        }
        Mismatch::ActionType => format!("its action type is {}", rule.action_type.as_deref().unwrap_or_default()),
        Mismatch::Machine => "its machineSelector does not choose a Machine with these labels".to_owned(),
        Mismatch::Subject => match identity {
            Identity::Known(requester) => {
                format!(
                    "its subjects are neither {} nor a group of {}",
                    requester.username,
                    requester.groups.join(", ")
                )
            }
            Identity::Unknown | Identity::Undecided => String::new(),
        },
        Mismatch::Variable(_) => {
            let names: Vec<_> = rule.environment.keys().map(String::as_str).collect();
            format!("it lets a caller set: {}", if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
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

/// The words of a rule as it has them.
fn words(rule: &CompiledRule) -> String {
    let words = rule.run.iter().map(|word| format!("{:?}", word.display(&rule.parameters)));
    words.collect::<Vec<_>>().join(", ")
}

/// How an argument vector differs from the words of a rule.
fn difference(rule: &CompiledRule, argv: &[String]) -> String {
    let mut values = vec![None; rule.parameters.len()];
    let mut equal = 0;
    for (template, word) in rule.run.iter().zip(argv) {
        if template.read(word, &rule.parameters, &mut values).is_err() {
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
