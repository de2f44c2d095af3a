//! A request as the policy sees it: parsed, so that what comes after need not check again.

use std::collections::BTreeMap;

use crate::api::CommandExecutionSpec;
use crate::api::command_execution::RuleRequest;

use super::{MAXIMUM_NAMES, MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, is_identifier, unprintable};

/// What somebody asks for: well-formed, printable ASCII, within bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    ask: Ask,
    action_type: Option<String>,
    environment: BTreeMap<String, String>,
    timeout_seconds: Option<u32>,
}

/// The way in which the command was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// `spec.command`: text, held against a rule's `match`.
    Command(String),
    /// `spec.argv`: an argument vector, held against a rule's `run`.
    Argv(Vec<String>),
    /// `spec.rule`: a rule by name, with values for its parameters.
    Rule(RuleRequest),
}

/// Why a spec is no request. The API server's schema refuses most of these already; they are checked again because
/// the policy does not rest on a CRD that somebody may have edited.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// None of the ways to say the command, or several.
    #[error("say what to run in exactly one way: spec.command, spec.argv or spec.rule")]
    NotExactlyOneWay,
    /// Nothing in it.
    #[error("{field} must not be empty")]
    Empty {
        /// The field's path.
        field: &'static str,
    },
    /// More than the bound.
    #[error("{field} must have at most {maximum} {unit}")]
    TooLong {
        /// The field's path.
        field: &'static str,
        /// The bound.
        maximum: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// A control byte, or a part of a character that is not ASCII.
    #[error("{field} must be printable ASCII (0x20 to 0x7e), but byte {position} is 0x{byte:02x}")]
    NotPrintable {
        /// The field's path.
        field: &'static str,
        /// Where, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// A name of a parameter or of a variable that is none.
    #[error("{field} has a name that is none: names are letters, digits and `_`, and do not begin with a digit")]
    Name {
        /// The field's path.
        field: &'static str,
    },
    /// A time that is none.
    #[error("spec.timeoutSeconds must be 1 to 86400")]
    Timeout,
}

impl Request {
    /// Parses the part of a spec that says what to run.
    ///
    /// # Errors
    /// The first thing in it that makes it no request.
    pub fn parse(spec: &CommandExecutionSpec) -> Result<Self, RequestError> {
        let ask = match (&spec.command, &spec.argv, &spec.rule) {
            (Some(command), None, None) => {
                check_filled("spec.command", command)?;
                Ask::Command(command.clone())
            }
            (None, Some(argv), None) => {
                if argv.is_empty() {
                    return Err(RequestError::Empty { field: "spec.argv" });
                }
                if argv.len() > MAXIMUM_WORDS {
                    return Err(RequestError::TooLong { field: "spec.argv", maximum: MAXIMUM_WORDS, unit: "words" });
                }
                argv.iter().try_for_each(|word| check_text("spec.argv", word))?;
                Ask::Argv(argv.clone())
            }
            (None, None, Some(rule)) => {
                check_filled("spec.rule.name", &rule.name)?;
                rule.whitelist.as_ref().map_or(Ok(()), |name| check_filled("spec.rule.whitelist", name))?;
                check_values("spec.rule.parameters", &rule.parameters)?;
                Ask::Rule(rule.clone())
            }
            _ => return Err(RequestError::NotExactlyOneWay),
        };
        spec.action_type.as_ref().map_or(Ok(()), |action_type| check_filled("spec.actionType", action_type))?;
        check_values("spec.environment", &spec.environment)?;
        if spec.timeout_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            return Err(RequestError::Timeout);
        }
        Ok(Self {
            ask,
            action_type: spec.action_type.clone(),
            environment: spec.environment.clone(),
            timeout_seconds: spec.timeout_seconds,
        })
    }

    /// What is asked for.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The action type that a rule must have; None: any.
    pub fn action_type(&self) -> Option<&str> {
        self.action_type.as_deref()
    }

    /// The environment variables to set.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// How long it may take, in seconds; None: as the rule says.
    pub fn timeout_seconds(&self) -> Option<u32> {
        self.timeout_seconds
    }
}

fn check_filled(field: &'static str, text: &str) -> Result<(), RequestError> {
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
