//! Builds the spec of an execution from the fields of a request. Pure.
//!
//! The checks are those of the CRD, so that the error names the field of the request and not the field of the object.

use crate::api::CommandExecutionSpec;

use super::error::ApiError;

/// Maximum length of a command, in bytes, as `spec.command`.
const MAX_COMMAND: usize = 4096;
/// Maximum length of an action type, in bytes, as `spec.actionType`.
const MAX_ACTION_TYPE: usize = 63;
/// Maximum length of a reason, in characters, as `spec.reason`.
const MAX_REASON: usize = 1024;

/// Fields that all requests for a command have.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The command, as the `match` of a rule.
    pub command: &'a str,
    /// Action type. `None` lets any rule allow the command.
    pub action_type: Option<&'a str>,
    /// Timeout of the command in seconds, within the bounds of the call.
    pub timeout: Option<u32>,
    /// Reason for the request.
    pub reason: Option<&'a str>,
}

/// Returns the spec of an execution. The Machine is not set yet.
///
/// # Errors
/// A field is empty, too long, or has characters that it must not have.
pub fn spec_for(fields: &Fields<'_>) -> Result<CommandExecutionSpec, ApiError> {
    check_command(fields.command)?;
    fields.action_type.map_or(Ok(()), check_action_type)?;
    fields.reason.map_or(Ok(()), check_reason)?;
    Ok(CommandExecutionSpec {
        command: Some(fields.command.to_owned()),
        action_type: fields.action_type.map(str::to_owned),
        timeout_seconds: fields.timeout,
        reason: fields.reason.map(str::to_owned),
        ..CommandExecutionSpec::on_machine("")
    })
}

fn check_command(command: &str) -> Result<(), ApiError> {
    if command.trim().is_empty() {
        return Err(ApiError::malformed("command must not be empty"));
    }
    if command.len() > MAX_COMMAND {
        return Err(ApiError::malformed(format!("command must have at most {MAX_COMMAND} bytes")));
    }
    match command.bytes().position(|byte| !(0x20..=0x7e).contains(&byte)) {
        Some(position) => Err(ApiError::malformed(format!(
            "command must be printable ASCII (0x20 to 0x7e), but byte {position} is none: replace line breaks, tabs, \
             typographic quotes and accented letters"
        ))),
        None => Ok(()),
    }
}

fn check_action_type(action_type: &str) -> Result<(), ApiError> {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let are_allowed = action_type.bytes().all(|byte| is_edge(byte) || b"-_".contains(&byte));
    let has_edges = [action_type.bytes().next(), action_type.bytes().last()].into_iter().flatten().all(is_edge);
    if action_type.is_empty() || action_type.len() > MAX_ACTION_TYPE || !are_allowed || !has_edges {
        return Err(ApiError::malformed(format!(
            "action_type must be a word as rules have it: lower case letters, digits, - and _, with a letter or digit \
             first and last, 1 to {MAX_ACTION_TYPE} characters"
        )));
    }
    Ok(())
}

/// Checks a reason.
///
/// # Errors
/// The reason is too long.
pub fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.chars().count() > MAX_REASON {
        return Err(ApiError::malformed(format!("reason must have at most {MAX_REASON} characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &Fields<'_>) -> String {
        spec_for(fields).map_or_else(|error| error.body.message, |_| "accepted".to_owned())
    }

    #[test]
    fn each_bad_field_is_named() {
        let good = Fields { command: "say hello", action_type: Some("read"), timeout: None, reason: None };
        assert_eq!(message(&good), "accepted");
        let (long, long_reason) = ("x".repeat(4097), "é".repeat(1025));
        for command in ["", "   ", "a\nb", "a\tb", "a\0b", "caf\u{e9}", "\u{7f}", &long] {
            assert!(message(&Fields { command, ..good }).starts_with("command "), "{command:?}");
        }
        for action_type in ["", "Read", "a b", "-a", "a_", "\u{e9}", &long[..64]] {
            let text = message(&Fields { action_type: Some(action_type), ..good });
            assert!(text.starts_with("action_type "), "{action_type:?}");
        }
        assert!(message(&Fields { reason: Some(&long_reason), ..good }).starts_with("reason "));
        assert_eq!(message(&Fields { reason: Some(&long_reason[..2048]), ..good }), "accepted");
    }
}
