//! Parses and checks requests. Later code relies on these checks and does not repeat them.

use std::collections::BTreeMap;

use crate::api::CommandExecutionSpec;
use crate::api::command_execution::RuleRequest;

use super::{MAXIMUM_NAMES, MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, is_identifier, unprintable};

/// Well-formed request. Its texts are printable ASCII and not too long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    form: CommandForm,
    action_type: Option<String>,
    environment: BTreeMap<String, String>,
    timeout_seconds: Option<u32>,
    is_interactive: bool,
}

/// Form in which a request names its command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandForm {
    /// `spec.command`: text that is compared with the `match` of rules.
    Text(String),
    /// `spec.argv`: argument vector that is compared with the `run` of rules.
    Argv(Vec<String>),
    /// `spec.rule`: name of a rule, with values for its parameters.
    Rule(RuleRequest),
}

/// Reason why a spec is not a valid request. The schema of the CRD refuses most of these specs, but somebody can edit
/// the CRD.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The spec has no form of command, or several forms.
    #[error("say what to run in exactly one way: spec.command, spec.argv or spec.rule")]
    NotExactlyOneForm,
    /// The field is empty.
    #[error("{field} must not be empty")]
    Empty {
        /// The field's path.
        field: &'static str,
    },
    /// The field is too long.
    #[error("{field} must have at most {maximum} {unit}")]
    TooLong {
        /// The field's path.
        field: &'static str,
        /// Maximum length, in `unit`.
        maximum: usize,
        /// Unit of `maximum`.
        unit: &'static str,
    },
    /// The field contains a control character, or a character that is not ASCII.
    #[error("{field} must be printable ASCII (0x20 to 0x7e), but byte {position} is 0x{byte:02x}")]
    NotPrintable {
        /// The field's path.
        field: &'static str,
        /// Position of the byte, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// A parameter or a variable has an invalid name.
    #[error(
        "{field} has an invalid name: names must consist of letters, digits and `_`, and must not begin with a digit"
    )]
    Name {
        /// The field's path.
        field: &'static str,
    },
    /// The timeout is out of range.
    #[error("spec.timeoutSeconds must be 1 to 86400")]
    Timeout,
}

impl Request {
    /// Parses the fields of a spec that define the command to run.
    ///
    /// # Errors
    /// The first problem of the spec.
    pub fn parse(spec: &CommandExecutionSpec) -> Result<Self, RequestError> {
        let form = match (&spec.command, &spec.argv, &spec.rule) {
            (Some(command), None, None) => {
                check_not_empty("spec.command", command)?;
                CommandForm::Text(command.clone())
            }
            (None, Some(argv), None) => {
                if argv.is_empty() {
                    return Err(RequestError::Empty { field: "spec.argv" });
                }
                if argv.len() > MAXIMUM_WORDS {
                    return Err(RequestError::TooLong { field: "spec.argv", maximum: MAXIMUM_WORDS, unit: "words" });
                }
                argv.iter().try_for_each(|word| check_text("spec.argv", word))?;
                CommandForm::Argv(argv.clone())
            }
            (None, None, Some(rule)) => {
                check_not_empty("spec.rule.name", &rule.name)?;
                rule.whitelist.as_ref().map_or(Ok(()), |name| check_not_empty("spec.rule.whitelist", name))?;
                check_values("spec.rule.parameters", &rule.parameters)?;
                CommandForm::Rule(rule.clone())
            }
            _ => return Err(RequestError::NotExactlyOneForm),
        };
        spec.action_type.as_ref().map_or(Ok(()), |action_type| check_not_empty("spec.actionType", action_type))?;
        check_values("spec.environment", &spec.environment)?;
        if spec.timeout_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            return Err(RequestError::Timeout);
        }
        Ok(Self {
            form,
            action_type: spec.action_type.clone(),
            environment: spec.environment.clone(),
            timeout_seconds: spec.timeout_seconds,
            is_interactive: spec.session.is_some(),
        })
    }

    /// Returns the command, in the form of the request.
    pub fn form(&self) -> &CommandForm {
        &self.form
    }

    /// Returns the action type that a rule must have. `None` permits any action type.
    pub fn action_type(&self) -> Option<&str> {
        self.action_type.as_deref()
    }

    /// Returns the environment variables to set.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Returns the timeout, in seconds. `None` means the default of the rule.
    pub fn timeout_seconds(&self) -> Option<u32> {
        self.timeout_seconds
    }

    /// Returns true if the request is for an interactive session.
    pub fn is_interactive(&self) -> bool {
        self.is_interactive
    }
}

fn check_not_empty(field: &'static str, text: &str) -> Result<(), RequestError> {
    if text.is_empty() {
        return Err(RequestError::Empty { field });
    }
    check_text(field, text)
}

fn check_text(field: &'static str, text: &str) -> Result<(), RequestError> {
    if text.len() > MAXIMUM_TEXT_BYTES {
        return Err(RequestError::TooLong { field, maximum: MAXIMUM_TEXT_BYTES, unit: "bytes" });
    }
    match unprintable(text) {
        Some((position, byte)) => Err(RequestError::NotPrintable { field, position, byte }),
        None => Ok(()),
    }
}

fn check_values(field: &'static str, values: &BTreeMap<String, String>) -> Result<(), RequestError> {
    if values.len() > MAXIMUM_NAMES {
        return Err(RequestError::TooLong { field, maximum: MAXIMUM_NAMES, unit: "entries" });
    }
    for (name, value) in values {
        check_text(field, name)?;
        if !is_identifier(name) {
            return Err(RequestError::Name { field });
        }
        check_text(field, value)?;
    }
    Ok(())
}
