//! A request as the policy sees it: parsed, so that what comes after need not check again.

use crate::api::CommandExecutionSpec;
use crate::api::command_execution::DEFAULT_TIMEOUT_SECONDS;

use super::{MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, unprintable};

/// What somebody asks for: well-formed, printable ASCII, within bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    ask: Ask,
    timeout_seconds: u32,
}

/// The way in which the command was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// `spec.command`: text, held against a rule's `match`.
    Command(String),
    /// `spec.argv`: an argument vector, held against a rule's `run`.
    Argv(Vec<String>),
}

/// Why a spec is no request. The API server's schema refuses all of these already; they are checked again because
/// the policy does not rest on a CRD that somebody may have edited.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// None of the ways to say the command, or both.
    #[error("say what to run in exactly one way: spec.command or spec.argv")]
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
}

impl Request {
    /// Parses the part of a spec that says what to run.
    ///
    /// # Errors
    /// The first thing in it that makes it no request.
    pub fn parse(spec: &CommandExecutionSpec) -> Result<Self, RequestError> {
        let ask = match (&spec.command, &spec.argv) {
            (Some(command), None) => {
                if command.is_empty() {
                    return Err(RequestError::Empty { field: "spec.command" });
                }
                check_text("spec.command", command)?;
                Ask::Command(command.clone())
            }
            (None, Some(argv)) => {
                if argv.is_empty() {
                    return Err(RequestError::Empty { field: "spec.argv" });
                }
                if argv.len() > MAXIMUM_WORDS {
                    return Err(RequestError::TooLong { field: "spec.argv", maximum: MAXIMUM_WORDS, unit: "words" });
                }
                argv.iter().try_for_each(|word| check_text("spec.argv", word))?;
                Ask::Argv(argv.clone())
            }
            (None, None) | (Some(_), Some(_)) => return Err(RequestError::NotExactlyOneWay),
        };
        Ok(Self { ask, timeout_seconds: spec.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS) })
    }

    /// What is asked for.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How long it may take, in seconds.
    pub fn timeout_seconds(&self) -> u32 {
        self.timeout_seconds
    }
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
