//! Checks of a rule at compile time. Each function checks one requirement.

use crate::api::execution_status::OutputBounds;
use crate::api::is_user_name;
use crate::api::selector::{LabelOperator, MachineSelector};
use crate::api::whitelist::{Effect, WhitelistRule};

use super::redaction::Redaction;
use super::template::{ParameterSpec, Template};
use super::{MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, RuleError, environment, is_plain_path, unprintable};

/// Default timeout and maximum timeout of a rule, in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    pub default: u32,
    pub maximum: u32,
}

/// Default of `timeoutSeconds.default`, in seconds.
const DEFAULT_TIMEOUT_SECONDS: u32 = 30;
/// Default of `timeoutSeconds.maximum`, in seconds. An hour is a long time for a command whose requester waits for the
/// result.
const DEFAULT_MAXIMUM_TIMEOUT_SECONDS: u32 = 3600;
const MAX_TIMEOUT_SECONDS: u32 = 86_400;
const MAX_INLINE_BYTES: u32 = 16_384;
const OUTPUT_BYTES: std::ops::RangeInclusive<i64> = 1024..=1 << 40;
/// Maximum of `output.drainSeconds`, in seconds. While Writ waits for more output after the command's exit (the drain),
/// the execution still occupies a slot of its machine.
const MAX_DRAIN_SECONDS: u32 = 60;
/// Maximum of `minimumRetentionSeconds`: 365 days, as for `spec.ttlSecondsAfterFinished`.
const MAX_RETENTION_SECONDS: u32 = 31_536_000;
const MAX_NAME: usize = 63;
/// Maximum length of a user name without a domain: the bound of useradd(8).
const MAX_LOCAL_USER_NAME: usize = 32;
const MAX_USER_NAME: usize = 64;

type Check = Result<(), RuleError>;

/// Refuses fields that this version of Writ does not know, at any depth.
pub(super) fn fields_are_known(rule: &WhitelistRule) -> Check {
    let top = rule.unknown_fields.keys().map(|field| ("", field));
    let selector = rule.machine_selector.iter().flat_map(|selector| selector.unknown_fields.keys());
    let expressions = rule.machine_selector.iter().flat_map(|selector| &selector.match_expressions);
    let expressions = expressions.flat_map(|expression| expression.unknown_fields.keys());
    let subjects = rule.subjects.iter().flatten().flat_map(|subject| subject.unknown_fields.keys());
    let timeout = rule.timeout_seconds.iter().flat_map(|limits| limits.unknown_fields.keys());
    let output = rule.output.iter().flat_map(|limits| limits.unknown_fields.keys());
    let first = top
        .chain(selector.map(|field| ("machineSelector.", field)))
        .chain(expressions.map(|field| ("machineSelector.matchExpressions[].", field)))
        .chain(subjects.map(|field| ("subjects[].", field)))
        .chain(timeout.map(|field| ("timeoutSeconds.", field)))
        .chain(output.map(|field| ("output.", field)))
        .next();
    match first {
        Some((path, field)) => Err(RuleError::UnknownField { field: format!("{path}{field}") }),
        None => Ok(()),
    }
}

/// Refuses a Deny rule with a field that only an Allow rule can use, for example `timeoutSeconds`.
pub(super) fn reject_execution_fields_on_deny(rule: &WhitelistRule) -> Check {
    let present = [
        ("workingDirectory", rule.working_directory.is_some()),
        ("environment", !rule.environment.is_empty()),
        ("timeoutSeconds", rule.timeout_seconds.is_some()),
        ("interactive", rule.interactive),
        ("recordInput", rule.record_input),
        ("interactiveShell", rule.interactive_shell),
        ("output", rule.output.is_some()),
        ("redact", !rule.redact.is_empty()),
        ("minimumRetentionSeconds", rule.minimum_retention_seconds.is_some()),
    ];
    match present.into_iter().find(|(_, is_present)| *is_present) {
        Some((field, _)) => Err(RuleError::NotAllowedOnDeny { field: field.to_owned() }),
        None => Ok(()),
    }
}

/// Refuses a rule with a field about interactive sessions that permits no interactive session.
pub(super) fn session_fields_are_used(rule: &WhitelistRule) -> Check {
    let present = [("recordInput", rule.record_input), ("interactiveShell", rule.interactive_shell)];
    match present.into_iter().find(|(_, is_present)| *is_present && !rule.interactive) {
        Some((field, _)) => Err(RuleError::OnlyForInteractive { field: field.to_owned() }),
        None => Ok(()),
    }
}

pub(super) fn run_length(rule: &WhitelistRule, effect: Effect) -> Check {
    let least = if effect == Effect::Deny { 0 } else { 1 };
    if (least..=MAXIMUM_WORDS).contains(&rule.run.len()) { Ok(()) } else { Err(RuleError::RunLength) }
}

/// Requires that the program is a constant absolute path without `.`, `..` and empty segments. A path with `=` is
/// refused, because env(1) would read it as a variable.
pub(super) fn program(run: &[Template]) -> Check {
    let program = run.first().and_then(Template::constant).unwrap_or_default();
    if is_plain_path(program) && !program.contains('=') { Ok(()) } else { Err(RuleError::ProgramNotAbsolute) }
}

/// Checks the length and the characters of a word of the command. The word can be empty.
pub(super) fn word(field: &'static str, word: &str) -> Check {
    if word.len() > MAXIMUM_TEXT_BYTES {
        return Err(RuleError::TextLength { field });
    }
    refuse(field, unprintable(word))
}

/// Checks the length and the characters of a text that is compared with requests. The text must not be empty.
pub(super) fn text(field: &'static str, text: &str) -> Check {
    if text.is_empty() || text.len() > MAXIMUM_TEXT_BYTES {
        return Err(RuleError::TextLength { field });
    }
    refuse(field, unprintable(text))
}

fn refuse(field: &'static str, found: Option<(usize, u8)>) -> Check {
    match found {
        Some((position, byte)) => Err(RuleError::ForbiddenByte { field, position, byte }),
        None => Ok(()),
    }
}

/// Checks the name of a parameter or of a variable.
pub(super) fn name(field: &'static str, name: &str) -> Check {
    let is_name = super::is_identifier(name) && name.len() <= MAX_NAME;
    if is_name { Ok(()) } else { Err(RuleError::Name { field, name: name.to_owned() }) }
}

pub(super) fn variable(variable: &str) -> Check {
    name("environment", variable)?;
    if environment::is_dangerous_variable(variable) {
        return Err(RuleError::DangerousVariable { name: variable.to_owned() });
    }
    Ok(())
}

/// Requires that a rule uses each of its parameters:
///
/// - In an Allow, `run` contains the parameter.
/// - In an Allow with `match`, `match` also contains the parameter, or the parameter has a default.
/// - In a Deny, `run` or `match` contains the parameter.
pub(super) fn parameters_are_used(
    rule: &WhitelistRule,
    effect: Effect,
    parameters: &[ParameterSpec],
    run: &[Template],
    text: Option<&Template>,
) -> Check {
    for (index, parameter) in parameters.iter().enumerate() {
        let name = || parameter.name.clone();
        let in_run = run.iter().any(|word| word.placeholders().any(|place| place == index));
        let in_text = text.is_some_and(|text| text.placeholders().any(|place| place == index));
        if effect == Effect::Deny {
            if !in_run && !in_text {
                return Err(RuleError::UnusedParameter { field: "run or match", name: name() });
            }
        } else if !in_run {
            return Err(RuleError::UnusedParameter { field: "run", name: name() });
        } else if rule.match_text.is_some() && !in_text && parameter.values.default.is_none() {
            return Err(RuleError::MissingFromMatch { name: name() });
        }
    }
    Ok(())
}

pub(super) fn selector(rule: &WhitelistRule) -> Result<Option<MachineSelector>, RuleError> {
    let Some(selector) = &rule.machine_selector else { return Ok(None) };
    for expression in &selector.match_expressions {
        let takes_values = matches!(expression.operator, LabelOperator::In | LabelOperator::NotIn);
        if takes_values == expression.values.is_empty() {
            return Err(RuleError::Selector { key: expression.key.clone() });
        }
    }
    Ok(Some(selector.clone()))
}

pub(super) fn run_as(rule: &WhitelistRule) -> Result<Option<String>, RuleError> {
    let Some(user) = &rule.run_as else { return Ok(None) };
    // A user name with a domain, for example `alice@example.com`, can be longer than a local name. A number is not a
    // name.
    let longest = if user.contains(['@', '\\']) { MAX_USER_NAME } else { MAX_LOCAL_USER_NAME };
    if user.len() > longest || !is_user_name(user) || user.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RuleError::RunAs);
    }
    Ok(Some(user.clone()))
}

pub(super) fn working_directory(rule: &WhitelistRule) -> Result<Option<String>, RuleError> {
    let Some(directory) = &rule.working_directory else { return Ok(None) };
    word("workingDirectory", directory)?;
    if directory == "/" || is_plain_path(directory) {
        return Ok(Some(directory.clone()));
    }
    Err(RuleError::WorkingDirectory)
}

pub(super) fn limits(rule: &WhitelistRule) -> Result<Limits, RuleError> {
    let (default, maximum) = match &rule.timeout_seconds {
        Some(limits) => (limits.default, limits.maximum),
        None => (None, None),
    };
    let limits = match (default, maximum) {
        (Some(default), Some(maximum)) => Limits { default, maximum },
        (Some(default), None) => Limits { default, maximum: default.max(DEFAULT_MAXIMUM_TIMEOUT_SECONDS) },
        (None, Some(maximum)) => Limits { default: maximum.min(DEFAULT_TIMEOUT_SECONDS), maximum },
        (None, None) => Limits { default: DEFAULT_TIMEOUT_SECONDS, maximum: DEFAULT_MAXIMUM_TIMEOUT_SECONDS },
    };
    let is_ordered = limits.default >= 1 && limits.default <= limits.maximum;
    if is_ordered && limits.maximum <= MAX_TIMEOUT_SECONDS { Ok(limits) } else { Err(RuleError::Timeout) }
}

pub(super) fn output(rule: &WhitelistRule) -> Result<OutputBounds, RuleError> {
    let mut bounds = OutputBounds::default();
    if let Some(limits) = &rule.output {
        bounds.inline_bytes = limits.inline_bytes.unwrap_or(bounds.inline_bytes);
        bounds.maximum_bytes = limits.maximum_bytes.unwrap_or(bounds.maximum_bytes);
        bounds.drain_seconds = limits.drain_seconds.unwrap_or(bounds.drain_seconds);
    }
    let is_sound = bounds.inline_bytes <= MAX_INLINE_BYTES
        && OUTPUT_BYTES.contains(&bounds.maximum_bytes)
        && bounds.drain_seconds <= MAX_DRAIN_SECONDS;
    if is_sound { Ok(bounds) } else { Err(RuleError::Output) }
}

pub(super) fn minimum_retention(rule: &WhitelistRule) -> Result<Option<u32>, RuleError> {
    match rule.minimum_retention_seconds {
        Some(seconds) if seconds > MAX_RETENTION_SECONDS => Err(RuleError::MinimumRetention),
        seconds => Ok(seconds),
    }
}

pub(super) fn redact(rule: &WhitelistRule) -> Result<Vec<String>, RuleError> {
    Redaction::compile(&rule.redact)?;
    Ok(rule.redact.clone())
}
