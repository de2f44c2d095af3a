//! Policies and requests from arbitrary bytes, for the property tests and the fuzzer (`fuzz/`). The fuzzer includes
//! this file, so the file uses the crate only through `super::{api, policy}`.
//!
//! A policy is first a model, which `oracle.rs` evaluates without the module `policy`. The model is then converted
//! into Whitelists. Texts consist of a few letters (q, x, z), so that they often collide. These letters are rare in
//! messages, so a test can search messages for the texts.

use std::collections::BTreeMap;

use super::api::command_execution::{Requester, RuleRequest};
use super::api::selector::MachineSelector;
use super::api::whitelist::{Effect, IntegerRange, Parameter, Subject, SubjectKind, TimeoutLimits};
use super::api::{CommandExecutionSpec, SessionRequest, Whitelist, WhitelistRule, WhitelistSpec};
use super::known_patterns::PATTERNS;

/// Source of choices from bytes. After the last byte, each choice is the first option.
pub struct Source<'a>(pub &'a [u8]);

impl Source<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Returns true in one of `times` calls on average. Returns false after the last byte.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

#[derive(Clone, Debug)]
pub enum Kind {
    OneOf(Vec<String>),
    Integer(u32, u32),
    /// Index in [`PATTERNS`].
    Pattern(usize),
}

#[derive(Clone, Debug)]
pub struct Values {
    pub name: String,
    pub kind: Kind,
    pub default: Option<String>,
    pub maximum: Option<u32>,
}

/// Part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(String),
    Place(usize),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub is_deny: bool,
    pub action_type: Option<String>,
    pub text: Option<Vec<Piece>>,
    pub run: Vec<Vec<Piece>>,
    pub parameters: Vec<Values>,
    pub role: Option<String>,
    pub subjects: Option<Vec<(SubjectKind, String)>>,
    pub run_as: Option<String>,
    pub environment: Vec<Values>,
    pub maximum_seconds: Option<u32>,
    pub is_interactive: bool,
    pub records_input: bool,
}

#[derive(Clone, Debug)]
pub struct List {
    pub name: String,
    pub rules: Vec<Rule>,
}

const LITERALS: &[&str] = &["qzqz", "zq=", "/qxz", "z", " ", "a", "-", "9", "{", ",", "xzx qz", "}", "--", "{pa}"];
const PROGRAMS: &[&str] = &["/qzx/qctl", "/qzx/qctl2", "/usr/bin/zrun", "/bin/zrun"];
/// Launchers with their options, and the user of the inner command.
pub const LAUNCHED_BY: &[(&[&str], Option<&str>)] = &[
    (&["/usr/bin/timeout", "9"], None),
    (&["/usr/bin/nice", "-n5"], None),
    (&["/usr/bin/env", "QZ=z"], None),
    (&["/usr/bin/busybox"], None),
    (&["/usr/bin/sudo", "-n"], Some("root")),
    (&["/usr/bin/sudo", "-u", "quzza"], Some("quzza")),
];
const LISTED: &[&str] = &["qzqz", "xzxz-1", "a", "aa", "web-1", "-qxq", "z z", "qzqzqz", "--", "q{z}x"];
const USERS: &[&str] = &["quzza", "quzzb", "quzzgroup"];
const VARIABLES: &[&str] = &["LOG_LEVEL", "TZ", "QZ"];
const TYPES: &[&str] = &["custom", "xzxq_type"];

/// Returns a policy: one or two Whitelists, each with one to four rules.
pub fn policy(source: &mut Source<'_>) -> Vec<List> {
    let mut known: Vec<Rule> = Vec::new();
    let lists = 1 + source.below(2);
    (0..lists)
        .map(|list| {
            let count = 1 + source.below(4);
            let mut rules = Vec::new();
            for index in 0..count {
                let mut rule = rule(source);
                if !known.is_empty() && source.once_in(2) {
                    let other = source.pick(&known);
                    rule = related(source, &other);
                }
                rule.name = format!("r{index}");
                known.push(rule.clone());
                rules.push(rule);
            }
            List { name: format!("w{list}"), rules }
        })
        .collect()
}

/// Returns a rule that is similar to `other`: a Deny with its words or text, or a rule with nearly the same effect.
fn related(source: &mut Source<'_>, other: &Rule) -> Rule {
    let mut rule = other.clone();
    match source.below(8) {
        0 => rule.run_as = Some("quzza".to_owned()),
        1 => rule.maximum_seconds = Some(20),
        7 => (rule.is_interactive, rule.records_input) = (true, !rule.records_input),
        2 => rule.run.push(vec![Piece::Text("qzqz".to_owned())]),
        3 => rule.subjects = subjects(source),
        4 => launched(source, &mut rule),
        _ => {
            rule = Rule { is_deny: true, environment: Vec::new(), maximum_seconds: None, ..rule };
            (rule.is_interactive, rule.records_input) = (false, false);
            if source.once_in(2) {
                rule.text = None;
            } else if rule.text.is_some() && source.once_in(2) {
                rule.run = Vec::new();
            }
            let runs_as = rule.run_as.take();
            rule.run_as = runs_as.filter(|_| source.once_in(2));
            rule.run_as = source.once_in(4).then(|| source.pick(&["root", "quzza"]).to_owned()).or(rule.run_as);
            rule.action_type = rule.action_type.filter(|_| source.once_in(2));
            for values in &mut rule.parameters {
                (values.default, values.maximum) = (None, None);
                if source.once_in(2) {
                    values.kind = Kind::Pattern(PATTERNS.len() - 1);
                }
            }
            keep_used(&mut rule);
        }
    }
    rule
}

/// Puts a launcher before the words of an Allow. In some cases, removes the directory of the launched program.
fn launched(source: &mut Source<'_>, rule: &mut Rule) {
    let Some([Piece::Text(program)]) = rule.run.first_mut().map(Vec::as_mut_slice) else { return };
    if rule.is_deny || !program.starts_with('/') {
        return;
    }
    if PROGRAMS.contains(&program.as_str()) && source.once_in(2) {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    let (words, _) = source.pick(LAUNCHED_BY);
    rule.run.splice(0..0, words.iter().map(|word| vec![Piece::Text((*word).to_owned())]));
}

/// Removes all parameters if one of them has no placeholder.
fn keep_used(rule: &mut Rule) {
    let is_used = |index: usize| {
        let pieces = rule.run.iter().chain(&rule.text).flatten();
        pieces.into_iter().any(|piece| *piece == Piece::Place(index))
    };
    if !(0..rule.parameters.len()).all(is_used) {
        // Words or a text with placeholders would be invalid without their parameters, so they are removed too.
        let constant = |pieces: &Vec<Piece>| pieces.iter().all(|piece| matches!(piece, Piece::Text(_)));
        rule.parameters.clear();
        rule.run.retain(constant);
        rule.text = rule.text.take().filter(constant);
    }
}

fn rule(source: &mut Source<'_>) -> Rule {
    let parameters: Vec<Values> =
        (0..source.below(5)).map(|index| values(source, ["pa", "pb", "pc", "pd"][index])).collect();
    let mut run = vec![vec![Piece::Text(source.pick(PROGRAMS).to_owned())]];
    for _ in 0..source.below(4) {
        run.push(pieces(source, parameters.len(), 3));
    }
    if source.once_in(3) {
        run.push(vec![Piece::Text("--".to_owned())]);
    }
    for index in 0..parameters.len() {
        if !run.iter().flatten().any(|piece| *piece == Piece::Place(index)) {
            run.push(vec![Piece::Place(index)]);
        }
    }
    let text = source.once_in(2).then(|| {
        let mut text = vec![Piece::Text(source.pick(&["qzqz", "qzqz zx", "zx"]).to_owned())];
        text.extend(pieces(source, parameters.len(), 4));
        for (index, values) in parameters.iter().enumerate() {
            if values.default.is_none() && !text.contains(&Piece::Place(index)) {
                text.extend([Piece::Text(" ".to_owned()), Piece::Place(index)]);
            }
        }
        text
    });
    let environment = VARIABLES.iter().take(source.below(3)).map(|name| values(source, name)).collect();
    Rule {
        name: String::new(),
        is_deny: false,
        action_type: source.once_in(3).then(|| source.pick(TYPES).to_owned()),
        text,
        run,
        parameters,
        role: source.once_in(4).then(|| source.pick(&["web", "db"]).to_owned()),
        subjects: if source.once_in(4) { subjects(source) } else { None },
        run_as: source.once_in(4).then(|| "quzzb".to_owned()),
        environment,
        maximum_seconds: source.once_in(4).then_some(10),
        is_interactive: source.once_in(3),
        records_input: false,
    }
}

fn pieces(source: &mut Source<'_>, parameters: usize, most: usize) -> Vec<Piece> {
    let count = source.below(most + 1);
    let piece = |source: &mut Source<'_>| match parameters {
        1.. if source.once_in(2) => Piece::Place(source.below(parameters)),
        _ => Piece::Text(source.pick(LITERALS).to_owned()),
    };
    (0..count).map(|_| piece(source)).collect()
}

fn values(source: &mut Source<'_>, name: &str) -> Values {
    let kind = match source.below(4) {
        0 => Kind::OneOf((0..1 + source.below(4)).map(|_| source.pick(LISTED).to_owned()).collect()),
        1 => {
            let minimum = source.pick(&[0, 1, 7, 10]);
            Kind::Integer(minimum, minimum + source.pick(&[0, 1, 90, 4_000_000]))
        }
        _ => Kind::Pattern(source.below(PATTERNS.len() - 1)),
    };
    let mut values = Values { name: name.to_owned(), kind, default: None, maximum: None };
    values.maximum = source.once_in(4).then_some(3);
    values.default = source.once_in(3).then(|| fitting(source, &values));
    values
}

fn subjects(source: &mut Source<'_>) -> Option<Vec<(SubjectKind, String)>> {
    let kinds = [SubjectKind::User, SubjectKind::Group, SubjectKind::ServiceAccount];
    Some((0..1 + source.below(2)).map(|_| (source.pick(&kinds), source.pick(USERS).to_owned())).collect())
}

/// Returns a value that the parameter probably admits.
pub fn fitting(source: &mut Source<'_>, values: &Values) -> String {
    match &values.kind {
        Kind::OneOf(listed) => source.pick(listed),
        Kind::Integer(minimum, maximum) => source.pick(&[*minimum, *maximum, (*minimum + *maximum) / 2]).to_string(),
        Kind::Pattern(index) => source.pick(PATTERNS[*index].samples).to_owned(),
    }
}

/// Returns a Whitelist that means the same as the model.
pub fn whitelist(list: &List) -> Whitelist {
    let rules = list.rules.iter().map(whitelist_rule).collect();
    let mut whitelist = Whitelist::new(&list.name, WhitelistSpec { rules, unknown_fields: BTreeMap::new() });
    whitelist.metadata.namespace = Some("team".to_owned());
    whitelist
}

fn whitelist_rule(rule: &Rule) -> WhitelistRule {
    let write = |pieces: &Vec<Piece>| -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Piece::Place(index) => format!("{{{}}}", rule.parameters[*index].name),
        };
        pieces.iter().map(piece).collect()
    };
    let parameters = |values: &[Values]| {
        values.iter().map(|values| (values.name.clone(), parameter(values, rule.is_deny))).collect()
    };
    WhitelistRule {
        name: rule.name.clone(),
        effect: rule.is_deny.then_some(Effect::Deny),
        action_type: rule.action_type.clone(),
        match_text: rule.text.as_ref().map(write),
        run: rule.run.iter().map(write).collect(),
        parameters: parameters(&rule.parameters),
        machine_selector: rule.role.as_ref().map(|role| MachineSelector {
            match_labels: BTreeMap::from([("role".to_owned(), role.clone())]),
            ..MachineSelector::default()
        }),
        subjects: rule.subjects.as_ref().map(|subjects| {
            let subject = |(kind, name): &(SubjectKind, String)| Subject {
                kind: *kind,
                name: name.clone(),
                namespace: None,
                unknown_fields: BTreeMap::new(),
            };
            subjects.iter().map(subject).collect()
        }),
        run_as: rule.run_as.clone(),
        environment: parameters(&rule.environment),
        timeout_seconds: rule
            .maximum_seconds
            .map(|seconds| TimeoutLimits { maximum: Some(seconds), ..TimeoutLimits::default() }),
        interactive: rule.is_interactive,
        record_input: rule.records_input,
        ..WhitelistRule::default()
    }
}

fn parameter(values: &Values, is_deny: bool) -> Parameter {
    let mut parameter = Parameter {
        default: values.default.clone(),
        max_length: values.maximum,
        // Without this field, an Allow with a pattern that admits `..` is invalid.
        allow_parent_directory: matches!(values.kind, Kind::Pattern(index) if !is_deny && (PATTERNS[index].admits)("..")),
        ..Parameter::default()
    };
    match &values.kind {
        Kind::OneOf(listed) => parameter.one_of = Some(listed.clone()),
        Kind::Integer(minimum, maximum) => {
            let (minimum, maximum) = (i64::from(*minimum), i64::from(*maximum));
            parameter.integer = Some(IntegerRange { minimum, maximum, unknown_fields: BTreeMap::new() });
        }
        Kind::Pattern(index) => parameter.pattern = Some(PATTERNS[*index].text.to_owned()),
    }
    parameter
}

/// Returns a spec without a command.
pub fn nothing() -> CommandExecutionSpec {
    CommandExecutionSpec::on_machine("m")
}

/// Returns requests for a rule: by text, by words, by name. The text has no value of a parameter without placeholder.
pub fn three_ways(rule: &Rule, values: &[String]) -> [CommandExecutionSpec; 3] {
    let expand = |pieces: &Vec<Piece>| expanded(pieces, values);
    let words: Vec<String> = rule.run.iter().map(expand).collect();
    let text = rule.text.as_ref().map_or_else(|| words.join(" "), expand);
    let parameters = rule.parameters.iter().zip(values).map(|(known, value)| (known.name.clone(), value.clone()));
    let named = RuleRequest { name: rule.name.clone(), parameters: parameters.collect(), whitelist: None };
    [
        CommandExecutionSpec { command: Some(text), ..nothing() },
        CommandExecutionSpec { argv: Some(words), ..nothing() },
        CommandExecutionSpec { rule: Some(named), ..nothing() },
    ]
}

/// Returns a text with values in its placeholders, by simple concatenation.
pub fn expanded(pieces: &[Piece], values: &[String]) -> String {
    pieces.iter().fold(String::new(), |text, piece| match piece {
        Piece::Text(literal) => text + literal,
        Piece::Place(index) => text + &values[*index],
    })
}

/// Returns a request for a rule of the policy. In most cases, the function first changes the request at random.
pub fn request(source: &mut Source<'_>, lists: &[List]) -> CommandExecutionSpec {
    let list = &lists[source.below(lists.len())];
    let rule = &list.rules[source.below(list.rules.len())];
    let values: Vec<String> = rule.parameters.iter().map(|values| fitting(source, values)).collect();
    let way = source.below(3);
    let mut spec = three_ways(rule, &values)[way].clone();
    for _ in 0..source.below(3) {
        spoil(source, &mut spec, lists);
    }
    spec.action_type = match source.below(6) {
        4 => rule.action_type.clone(),
        5 => Some(source.pick(TYPES).to_owned()),
        _ => None,
    };
    for values in &rule.environment {
        if source.once_in(3) {
            let mut value = fitting(source, values);
            if source.once_in(4) {
                mutate(source, &mut value);
            }
            spec.environment.insert(values.name.clone(), value);
        }
    }
    if source.once_in(12) {
        spec.environment.insert(source.pick(&["LD_PRELOAD", "PATH", "TZ", "A B", ""]).to_owned(), "qzqz".to_owned());
    }
    spec.session = source.once_in(4).then(SessionRequest::default);
    spec.timeout_seconds = if source.once_in(4) { Some(source.pick(&[10, 11, 3600, 3601, 0, 86_401])) } else { None };
    spec
}

fn spoil(source: &mut Source<'_>, spec: &mut CommandExecutionSpec, lists: &[List]) {
    if let Some(text) = &mut spec.command {
        mutate(source, text);
    }
    if let Some(words) = &mut spec.argv {
        let (one, other) = (source.below(words.len().max(1)), source.below(words.len().max(1)));
        match source.below(6) {
            0 if !words.is_empty() => words.swap(one, other),
            1 if !words.is_empty() => drop(words.remove(one)),
            2 => words.insert(one, source.pick(LITERALS).to_owned()),
            3 if !words.is_empty() => words.insert(other, words[one].clone()),
            _ => words.get_mut(one).into_iter().for_each(|word| mutate(source, word)),
        }
    }
    if let Some(named) = &mut spec.rule {
        match source.below(5) {
            0 => named.whitelist = Some(source.pick(lists).name),
            1 => named.name = source.pick(&["r0", "r1", "r2", "r9", "R0", ""]).to_owned(),
            2 => drop(named.parameters.insert(source.pick(&["pa", "pb", "pz", "p a"]).to_owned(), "qzqz".to_owned())),
            3 => drop(named.parameters.pop_first()),
            _ => named.parameters.values_mut().take(1).for_each(|value| mutate(source, value)),
        }
    }
}

/// Changes a text a little: inserts, removes or replaces a byte, repeats a part, or joins two texts.
fn mutate(source: &mut Source<'_>, text: &mut String) {
    let mut bytes: Vec<char> = text.chars().collect();
    let at = source.below(bytes.len() + 1);
    let any = |source: &mut Source<'_>| match source.below(4) {
        0 => source.pick(&['\n', '\0', 'é', '\t', '\u{7f}', '\u{2212}']),
        1 => char::from(source.byte() & 0x7f),
        _ => source.pick(&[' ', 'a', 'q', 'z', '-', '0', '=', '{', '}', ';', '\'', 'Q', '+']),
    };
    match source.below(6) {
        0 => bytes.insert(at, any(source)),
        1 if at < bytes.len() => drop(bytes.remove(at)),
        2 if at < bytes.len() => bytes[at] = any(source),
        3 => bytes.extend_from_within(at..),
        4 => bytes.truncate(at),
        _ => bytes.extend(source.pick(LITERALS).chars()),
    }
    *text = bytes.into_iter().collect();
}

/// Returns a requester, or `None` for a requester that is not verified.
pub fn requester(source: &mut Source<'_>) -> Option<Requester> {
    let service_account = "system:serviceaccount:team:quzza";
    let names = ["quzza", "quzzb", "quzzgroup", service_account, "system:serviceaccount:other:quzza", ""];
    (!source.once_in(5)).then(|| Requester {
        username: source.pick(&names).to_owned(),
        uid: String::new(),
        groups: (0..source.below(3)).map(|_| source.pick(USERS).to_owned()).collect(),
    })
}

pub fn labels(source: &mut Source<'_>) -> BTreeMap<String, String> {
    let roles: &[(&str, &str)] = source.pick(&[&[][..], &[("role", "web")], &[("role", "db")], &[("Role", "web")]]);
    roles.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
