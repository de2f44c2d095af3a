//! Finds the correct decision without the matching code of `policy`: tries every way to split a text into values. The
//! fuzzer includes this file and `model.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api::command_execution::Requester;
use super::api::whitelist::SubjectKind;
use super::api::{CommandExecutionSpec, Reason};
use super::known_patterns::PATTERNS;
use super::model::{Kind, LAUNCHED_BY, List, Piece, Rule, Values, expanded, whitelist};
use super::policy::{Decision, Denial, Identity, Request, RuleSet, Verdict, compile, decide};

/// Policy as a model, as compiled rules, and as compiled rules with the Whitelists in another order.
pub struct World {
    pub lists: Vec<List>,
    pub rules: RuleSet,
    shuffled: RuleSet,
}

/// Matching rule, with its decision.
struct Candidate<'a> {
    list: &'a str,
    rule: &'a Rule,
    values: Vec<String>,
    argv: Vec<String>,
    environment: BTreeMap<String, String>,
    seconds: u32,
}

/// Request, labels of the Machine, and requester.
pub struct Question<'a> {
    pub spec: &'a CommandExecutionSpec,
    pub labels: &'a BTreeMap<String, String>,
    pub requester: Option<&'a Requester>,
}

impl World {
    pub fn new(lists: Vec<List>) -> Self {
        let compiled: Vec<_> = lists.iter().map(|list| Arc::new(compile(&whitelist(list)))).collect();
        let shuffled = RuleSet::new(compiled.iter().rev().cloned().collect());
        Self { lists, rules: RuleSet::new(compiled), shuffled }
    }

    pub fn is_closed(&self) -> bool {
        self.rules.closed_by().is_some()
    }

    /// Returns the rules in force, in order.
    pub fn in_force(&self) -> Vec<(&str, &Rule)> {
        let rules = self.lists.iter().flat_map(|list| list.rules.iter().map(move |rule| (list.name.as_str(), rule)));
        let is_broken = |list: &str, rule: &str| {
            let whitelist = self.rules.whitelists().iter().find(|whitelist| whitelist.record.name == list);
            whitelist.is_none_or(|whitelist| whitelist.invalid_rules.iter().any(|broken| broken.rule == rule))
        };
        rules.filter(|(list, rule)| !is_broken(list, &rule.name)).collect()
    }

    /// Decides a request, and panics if the decision is wrong. Returns the decision for more checks.
    pub fn judge(&self, question: &Question<'_>) -> Option<Verdict> {
        let parsed = Request::parse(question.spec);
        assert_eq!(parsed.is_ok(), is_well_formed(question.spec), "{:?}", question.spec);
        let request = parsed.ok()?;
        let identity = question.requester.map_or(Identity::Unknown, Identity::Known);
        let verdict = decide(&self.rules, &request, question.labels, identity);
        let again = decide(&self.shuffled, &request, question.labels, identity);
        assert_eq!(verdict, again, "the order of the Whitelists must not matter");
        match (&verdict, self.expected(question)) {
            (Verdict::Allow(decision), Ok(candidate)) => assert_same(decision, &candidate),
            (Verdict::Deny(denial), Err(reason)) => {
                assert_eq!(denial.reason, reason, "{denial:?}\n{:?}\n{:#?}", question.spec, self.lists);
                self.assert_nothing_is_told(denial, question.spec);
            }
            (verdict, expected) => panic!(
                "{verdict:?}\nbut it must be {:?}\n{:?} {:?} {:?}\n{:#?}",
                expected.map(|candidate| candidate.argv),
                question.spec,
                question.labels,
                question.requester,
                self.lists
            ),
        }
        Some(verdict)
    }

    fn expected<'a>(&'a self, question: &Question<'_>) -> Result<Candidate<'a>, Reason> {
        if self.is_closed() {
            return Err(Reason::PolicyBroken);
        }
        let in_force = self.in_force();
        let (mut candidates, mut is_listed) = (Vec::new(), false);
        for (list, rule) in in_force.iter().filter(|(_, rule)| !rule.is_deny) {
            for values in readings(list, rule, question.spec) {
                is_listed = true;
                candidates.extend(permitted(list, rule, values, question));
            }
        }
        if in_force.iter().any(|(_, rule)| rule.is_deny && denies(rule, question, &candidates)) {
            return Err(Reason::Denied);
        }
        let is_ambiguous = candidates.windows(2).any(|pair| !is_same(&pair[0], &pair[1]));
        match candidates.into_iter().next() {
            Some(_) if is_ambiguous => Err(Reason::Ambiguous),
            Some(first) => Ok(first),
            None if is_listed => Err(Reason::NotPermitted),
            None => Err(Reason::NoMatchingRule),
        }
    }

    /// Checks that a message contains no text of rules except names.
    fn assert_nothing_is_told(&self, denial: &Denial, spec: &CommandExecutionSpec) {
        let asked = format!("{spec:?}");
        for rule in self.lists.iter().flat_map(|list| &list.rules) {
            let literals = rule.run.iter().chain(&rule.text).flatten().filter_map(|piece| match piece {
                Piece::Text(text) => Some(text.clone()),
                Piece::Place(_) => None,
            });
            let values = rule.parameters.iter().chain(&rule.environment).flat_map(|values| match &values.kind {
                Kind::OneOf(listed) => listed.clone(),
                Kind::Integer(minimum, maximum) => vec![minimum.to_string(), maximum.to_string()],
                Kind::Pattern(index) => vec![PATTERNS[*index].text.to_owned()],
            });
            let subjects = rule.subjects.iter().flatten().map(|(_, name)| name.clone());
            let others = rule.run_as.iter().chain(&rule.action_type).cloned();
            for secret in literals.chain(values).chain(subjects).chain(others) {
                // A message can contain short texts and texts of the request by chance, so these texts are not checked.
                let is_told = secret.len() >= 4 && denial.message.contains(&secret) && !asked.contains(&secret);
                assert!(!is_told, "{secret:?} is in: {}", denial.message);
            }
        }
    }
}

#[track_caller]
fn assert_same(decision: &Decision, candidate: &Candidate<'_>) {
    let rule = candidate.rule;
    assert_eq!((decision.whitelist.name.as_str(), &decision.rule), (candidate.list, &rule.name));
    assert_eq!(decision.argv, candidate.argv);
    assert_eq!(decision.environment, candidate.environment);
    assert_eq!((&decision.run_as, decision.timeout_seconds), (&rule.run_as, candidate.seconds));
    assert_eq!((decision.interactive, decision.record_input), (rule.is_interactive, rule.records_input));
    assert_eq!(decision.action_type, rule.action_type.as_deref().unwrap_or("custom"));
}

fn is_same(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    (&one.argv, &one.environment, one.seconds) == (&other.argv, &other.environment, other.seconds)
        && one.rule.run_as == other.rule.run_as
        && one.rule.is_interactive == other.rule.is_interactive
        && one.rule.records_input == other.rule.records_input
}

fn is_well_formed(spec: &CommandExecutionSpec) -> bool {
    let is_text = |text: &String| text.len() <= 4096 && text.chars().all(|character| (' '..='~').contains(&character));
    let is_filled = |text: &String| !text.is_empty() && is_text(text);
    let is_name = |name: &String| {
        name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
            && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
    };
    let are_values =
        |values: &BTreeMap<String, String>| values.iter().all(|(name, value)| is_name(name) && is_text(value));
    let ways = [spec.command.is_some(), spec.argv.is_some(), spec.rule.is_some()];
    ways.iter().filter(|is_there| **is_there).count() == 1
        && spec.command.iter().all(is_filled)
        && spec.argv.iter().all(|words| (1..=64).contains(&words.len()) && words.iter().all(is_text))
        && spec
            .rule
            .iter()
            .all(|rule| is_filled(&rule.name) && rule.whitelist.iter().all(is_filled) && are_values(&rule.parameters))
        && spec.action_type.iter().all(is_filled)
        && are_values(&spec.environment)
        && spec.timeout_seconds.is_none_or(|seconds| (1..=86_400).contains(&seconds))
}

/// Returns true if the parameter admits the value.
fn admits(values: &Values, value: &str, is_deny: bool) -> bool {
    let fits = match &values.kind {
        Kind::OneOf(listed) => listed.iter().any(|listed| listed == value),
        Kind::Integer(minimum, maximum) => {
            // For a Deny, a plus sign and leading zeros do not change the number.
            let value = if is_deny { value.strip_prefix('+').unwrap_or(value) } else { value };
            let is_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let is_plain = is_deny || value == "0" || !value.starts_with('0');
            let digits = value.trim_start_matches('0');
            let number = if digits.is_empty() { Ok(0) } else { digits.parse::<u32>() };
            is_digits && is_plain && number.is_ok_and(|number| (*minimum..=*maximum).contains(&number))
        }
        Kind::Pattern(index) => (PATTERNS[*index].admits)(value),
    };
    let maximum = values.maximum.unwrap_or(256) as usize;
    fits && (is_deny || value.len() <= maximum)
}

/// Returns every combination of parameter values with which the templates result in the texts.
fn solutions(
    rule: &Rule,
    templates: &[Vec<Piece>],
    texts: &[String],
    bound: Vec<Option<String>>,
) -> Vec<Vec<Option<String>>> {
    match (templates.split_first(), texts.split_first()) {
        (None, None) => vec![bound],
        (Some((template, templates)), Some((text, texts))) => {
            let first = solutions_of_one(rule, template, text, bound);
            first.into_iter().flat_map(|bound| solutions(rule, templates, texts, bound)).collect()
        }
        _ => Vec::new(),
    }
}

fn solutions_of_one(rule: &Rule, pieces: &[Piece], text: &str, bound: Vec<Option<String>>) -> Vec<Vec<Option<String>>> {
    match pieces.split_first() {
        None if text.is_empty() => vec![bound],
        None => Vec::new(),
        Some((Piece::Text(literal), pieces)) => match text.strip_prefix(literal.as_str()) {
            Some(rest) => solutions_of_one(rule, pieces, rest, bound),
            None => Vec::new(),
        },
        Some((Piece::Place(index), pieces)) => {
            let mut all = Vec::new();
            for (value, rest) in (0..=text.len()).map(|end| text.split_at(end)) {
                let is_consistent = bound[*index].as_deref().is_none_or(|before| before == value);
                if is_consistent && admits(&rule.parameters[*index], value, rule.is_deny) {
                    let mut bound = bound.clone();
                    bound[*index] = Some(value.to_owned());
                    all.extend(solutions_of_one(rule, pieces, rest, bound));
                }
            }
            all
        }
    }
}

/// Returns the text of a rule. If the rule has no text, returns its words, joined with spaces.
fn text_of(rule: &Rule) -> Vec<Piece> {
    let joined = || rule.run.join(&Piece::Text(" ".to_owned()));
    rule.text.clone().unwrap_or_else(joined)
}

/// Returns every list of parameter values with which the request can be a request for the rule.
fn readings(list: &str, rule: &Rule, spec: &CommandExecutionSpec) -> Vec<Vec<String>> {
    let unbound = vec![None; rule.parameters.len()];
    let found = match (&spec.command, &spec.argv, &spec.rule) {
        (Some(text), None, None) => solutions_of_one(rule, &text_of(rule), text, unbound),
        (None, Some(words), None) => solutions(rule, &rule.run, words, unbound),
        (None, None, Some(named)) => {
            let is_it = named.name == rule.name && named.whitelist.as_deref().is_none_or(|name| name == list);
            let is_known = |name: &String| rule.parameters.iter().any(|values| values.name == *name);
            let given = rule.parameters.iter().map(|values| named.parameters.get(&values.name).cloned());
            let given: Vec<_> = given.collect();
            let fits = rule
                .parameters
                .iter()
                .zip(&given)
                .all(|(values, value)| value.as_ref().is_none_or(|value| admits(values, value, false)));
            if is_it && fits && named.parameters.keys().all(is_known) { vec![given] } else { Vec::new() }
        }
        _ => Vec::new(),
    };
    assert!(found.len() <= 1, "{rule:?} can be read in several ways: {found:?}");
    let complete = |given: Vec<Option<String>>| {
        given.into_iter().zip(&rule.parameters).map(|(value, values)| value.or(values.default.clone())).collect()
    };
    found.into_iter().filter_map(complete).collect()
}

fn is_for(rule: &Rule, question: &Question<'_>) -> bool {
    rule.role.is_none() || question.labels.get("role") == rule.role.as_ref()
}

/// Returns true if the rule has no subjects, or if the requester is one of them. Returns `None` if the rule has
/// subjects and the requester is not verified.
fn is_subject(rule: &Rule, question: &Question<'_>) -> Option<bool> {
    let Some(subjects) = &rule.subjects else { return Some(true) };
    let requester = question.requester?;
    Some(subjects.iter().any(|(kind, name)| match kind {
        SubjectKind::User => requester.username == *name,
        SubjectKind::Group => requester.groups.contains(name),
        SubjectKind::ServiceAccount => requester.username == format!("system:serviceaccount:team:{name}"),
    }))
}

fn type_of(rule: &Rule) -> &str {
    rule.action_type.as_deref().unwrap_or("custom")
}

/// Returns a candidate if these values and all other fields of the request match the rule.
fn permitted<'a>(list: &'a str, rule: &'a Rule, values: Vec<String>, question: &Question<'_>) -> Option<Candidate<'a>> {
    let spec = question.spec;
    let is_of_type = spec.action_type.as_deref().is_none_or(|named| named == type_of(rule));
    let mut environment = BTreeMap::new();
    for known in &rule.environment {
        if let Some(value) = spec.environment.get(&known.name).or(known.default.as_ref()) {
            environment.insert(known.name.clone(), value.clone());
        }
    }
    let fits_environment = spec
        .environment
        .iter()
        .all(|(name, value)| rule.environment.iter().any(|known| known.name == *name && admits(known, value, false)));
    let maximum = rule.maximum_seconds.unwrap_or(3600);
    let seconds = spec.timeout_seconds.unwrap_or(maximum.min(30));
    let is_permitted = is_of_type
        && is_for(rule, question)
        && (spec.session.is_none() || rule.is_interactive)
        && is_subject(rule, question) == Some(true)
        && fits_environment
        && seconds <= maximum;
    let argv = rule.run.iter().map(|word| expanded(word, &values)).collect();
    is_permitted.then_some(Candidate { list, rule, values, argv, environment, seconds })
}

/// Returns true if a program is the program of a Deny.
fn is_same_program(program: &str, is_launched: bool, denied: &str) -> bool {
    let split = |path: &str| path.rsplit_once('/').map(|(directory, name)| (directory.to_owned(), name.to_owned()));
    let is_merged = |directory: &str| ["/bin", "/usr/bin", "/sbin", "/usr/sbin"].contains(&directory);
    match (split(program), split(denied)) {
        _ if program == denied => true,
        (Some((directory, name)), Some((other_directory, other))) => {
            name == other && is_merged(&directory) && is_merged(&other_directory)
        }
        (None, Some((_, other))) => is_launched && program == other,
        _ => false,
    }
}

/// Returns the command, and the commands that launchers in its words start. Each item contains the words of a command,
/// `true` if a launcher starts the command, and the user of the command.
fn commands(words: &[String], is_launched: bool, user: Option<&str>) -> Vec<(Vec<String>, bool, Option<String>)> {
    let mut all = vec![(words.to_vec(), is_launched, user.map(str::to_owned))];
    for (launcher, as_user) in LAUNCHED_BY {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let begins = words
            .iter()
            .zip(*launcher)
            .enumerate()
            .all(|(index, (word, known))| word == known || (index == 0 && name(word) == name(known)));
        if begins && words.len() > launcher.len() {
            all.extend(commands(&words[launcher.len()..], true, as_user.or(user)));
        }
    }
    all
}

fn denies(deny: &Rule, question: &Question<'_>, candidates: &[Candidate<'_>]) -> bool {
    if !is_for(deny, question) || is_subject(deny, question) == Some(false) {
        return false;
    }
    let asked_type = question.spec.action_type.as_deref();
    let is_of_type = |named: Option<&str>| deny.action_type.is_none() || deny.action_type.as_deref() == named;
    let unbound = || vec![None; deny.parameters.len()];
    let has_text = |text: &str| {
        deny.text.as_ref().is_some_and(|pieces| !solutions_of_one(deny, pieces, text, unbound()).is_empty())
    };
    let has_words = |words: &[String], is_launched: bool| {
        let Some([Piece::Text(denied)]) = deny.run.first().map(Vec::as_slice) else { return false };
        let mut words = words.to_vec();
        if words.first().is_some_and(|program| is_same_program(program, is_launched, denied)) {
            words[0] = denied.clone();
        }
        !solutions(deny, &deny.run, &words, unbound()).is_empty()
    };
    if deny.text.is_none() && deny.run.is_empty() && deny.run_as.is_none() {
        return is_of_type(asked_type) || candidates.iter().any(|candidate| is_of_type(Some(type_of(candidate.rule))));
    }
    let as_written = deny.run_as.is_none()
        && is_of_type(asked_type)
        && (question.spec.command.as_ref().is_some_and(|text| has_text(text))
            || question.spec.argv.as_ref().is_some_and(|words| has_words(words, false)));
    let by_outcome = |candidate: &Candidate<'_>| {
        let by_user_alone = deny.run.is_empty() && deny.text.is_none();
        let holds_always = by_user_alone || has_text(&expanded(&text_of(candidate.rule), &candidate.values));
        let all = commands(&candidate.argv, false, candidate.rule.run_as.as_deref());
        is_of_type(Some(type_of(candidate.rule)))
            && all.iter().any(|(words, is_launched, user)| {
                (deny.run_as.is_none() || deny.run_as == *user) && (holds_always || has_words(words, *is_launched))
            })
    };
    as_written || candidates.iter().any(by_outcome)
}
