//! Lists the rules that a requester can use on a Machine. Decisions do not use this list.

use std::collections::BTreeMap;

use super::RuleSet;
use super::compile::{CompiledRule, CompiledWhitelist, DEFAULT_ACTION_TYPE};
use super::subjects::{self, Identity};
use super::template::Template;
use super::values::{Shape, ValueSpec};

/// Allow rule that a requester can use on a Machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PermittedRule<'a> {
    /// Name of the Whitelist.
    pub whitelist: &'a str,
    /// Name of the rule.
    pub rule: &'a str,
    /// Purpose of the rule, for people.
    pub description: Option<&'a str>,
    /// Action type.
    pub action_type: &'a str,
    /// Text of requests. `{name}` stands for the value of a parameter.
    pub text: String,
    /// Words of the command, with placeholders as in `text`.
    pub run: Vec<String>,
    /// User that runs the command. `None` for the login user.
    pub run_as: Option<&'a str>,
    /// Parameters, sorted by name.
    pub parameters: Vec<PermittedValue<'a>>,
    /// Environment variables that a request can set, sorted by name.
    pub environment: Vec<PermittedValue<'a>>,
    /// Timeout of a request without a timeout, in seconds.
    pub default_timeout_seconds: u32,
    /// Longest timeout of a request, in seconds.
    pub maximum_timeout_seconds: u32,
    /// True if the rule permits a terminal and standard input.
    pub interactive: bool,
    /// True if the recording of a session contains the input.
    pub record_input: bool,
}

/// Parameter or environment variable of a rule, and its values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PermittedValue<'a> {
    /// Name.
    pub name: &'a str,
    /// Meaning, for people.
    pub description: Option<&'a str>,
    /// Admitted values.
    pub values: AdmittedValues<'a>,
    /// Maximum length of a value, in bytes.
    pub maximum_bytes: Option<usize>,
    /// Value of a request that sets no value.
    pub default: Option<&'a str>,
}

/// Values that a rule admits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdmittedValues<'a> {
    /// One of these values.
    OneOf(&'a [String]),
    /// A whole number in this range.
    Integer {
        /// Smallest number.
        minimum: u64,
        /// Largest number.
        maximum: u64,
    },
    /// A text that this regular expression matches as a whole.
    Pattern(&'a str),
}

/// Returns the Allow rules that apply to a Machine with these labels and to this requester, in order of precedence.
///
/// A Deny without `match` and `run` forbids all requests of some action types or users, so the list leaves such rules
/// out. Another Deny can forbid single requests of a listed rule. Returns no rule if the namespace has failed closed.
pub fn permitted_rules<'a>(
    rules: &'a RuleSet,
    labels: &BTreeMap<String, String>,
    identity: Identity<'_>,
) -> Vec<PermittedRule<'a>> {
    if rules.closed_by().is_some() {
        return Vec::new();
    }
    let is_for_machine = |rule: &CompiledRule| rule.selector.as_ref().is_none_or(|selector| selector.matches(labels));
    let denies: Vec<&CompiledRule> = rules
        .whitelists()
        .iter()
        .flat_map(|whitelist| &whitelist.deny_rules)
        .filter(|rule| rule.text.is_none() && rule.run.is_empty())
        .filter(|rule| is_for_machine(rule) && denies_requester(rule, identity))
        .collect();
    let of_whitelist =
        |whitelist: &'a CompiledWhitelist| whitelist.allow_rules.iter().map(move |rule| (whitelist, rule));
    let allowed = rules.whitelists().iter().flat_map(|whitelist| of_whitelist(whitelist.as_ref()));
    allowed
        .filter(|(_, rule)| is_for_machine(rule) && allows_requester(rule, identity))
        .filter(|(_, rule)| !denies.iter().any(|deny| is_forbidden_by(rule, deny)))
        .map(|(whitelist, rule)| permitted_rule(whitelist, rule))
        .collect()
}

/// Returns true if an Allow rule applies to the requester. A requester who is not verified matches no subjects.
fn allows_requester(rule: &CompiledRule, identity: Identity<'_>) -> bool {
    match (&rule.subjects, identity) {
        (None, _) => true,
        (Some(subjects), Identity::Known(requester)) => subjects::contains(subjects, requester),
        (Some(_), Identity::Unknown | Identity::Undecided) => false,
    }
}

/// Returns true if a Deny rule applies to the requester. A requester who is not verified matches all subjects.
fn denies_requester(rule: &CompiledRule, identity: Identity<'_>) -> bool {
    match (&rule.subjects, identity) {
        (Some(subjects), Identity::Known(requester)) => subjects::contains(subjects, requester),
        (None, _) | (Some(_), Identity::Unknown | Identity::Undecided) => true,
    }
}

/// Returns true if a Deny without `match` and `run` forbids each request that an Allow rule matches.
fn is_forbidden_by(rule: &CompiledRule, deny: &CompiledRule) -> bool {
    (deny.action_type.is_none() || deny.action_type == rule.action_type)
        && (deny.run_as.is_none() || deny.run_as == rule.run_as)
}

fn permitted_rule<'a>(whitelist: &'a CompiledWhitelist, rule: &'a CompiledRule) -> PermittedRule<'a> {
    let display = |template: &Template| template.display(&rule.parameters);
    PermittedRule {
        whitelist: &whitelist.record.name,
        rule: &rule.name,
        description: rule.description.as_deref(),
        action_type: rule.action_type.as_deref().unwrap_or(DEFAULT_ACTION_TYPE),
        text: rule.text.as_ref().map(display).unwrap_or_default(),
        run: rule.run.iter().map(display).collect(),
        run_as: rule.run_as.as_deref(),
        parameters: rule.parameters.iter().map(|spec| permitted_value(&spec.name, &spec.values)).collect(),
        environment: rule.environment.iter().map(|(name, values)| permitted_value(name, values)).collect(),
        default_timeout_seconds: rule.limits.default,
        maximum_timeout_seconds: rule.limits.maximum,
        interactive: rule.interactive,
        record_input: rule.record_input,
    }
}

fn permitted_value<'a>(name: &'a str, values: &'a ValueSpec) -> PermittedValue<'a> {
    PermittedValue {
        name,
        description: values.description.as_deref(),
        values: match values.shape() {
            Shape::OneOf(listed) => AdmittedValues::OneOf(listed),
            Shape::Integer(minimum, maximum) => AdmittedValues::Integer { minimum, maximum },
            Shape::Pattern(pattern) => AdmittedValues::Pattern(pattern),
        },
        maximum_bytes: values.maximum_bytes(),
        default: values.default.as_deref(),
    }
}
