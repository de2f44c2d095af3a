//! Maps the status of an execution to the words and the answers of the API. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::api::{CommandExecutionStatus, Phase, Reason};

use super::error::ApiError;

/// Time after which a client should repeat a call that a full queue or a suspended Machine refused.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const INTERNAL: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
const TIMEOUT: &str = "Command execution timeout";
const UNAVAILABLE: &str = "Service unavailable";

/// Words of the field `status` in answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusWord {
    /// Nothing was sent yet.
    Pending,
    /// A process has claimed the execution.
    Sent,
    /// The command runs.
    Executing,
    /// The command ended by itself.
    Completed,
    /// The command did not end within its timeout.
    Timeout,
    /// Somebody cancelled the execution.
    Cancelled,
    /// The command did not run, or its end is not known.
    Failed,
}

impl StatusWord {
    /// All words.
    pub const ALL: [StatusWord; 7] = [
        StatusWord::Pending,
        StatusWord::Sent,
        StatusWord::Executing,
        StatusWord::Completed,
        StatusWord::Timeout,
        StatusWord::Cancelled,
        StatusWord::Failed,
    ];

    /// Returns the word of a phase and its reason.
    pub fn of(phase: Phase, reason: Option<Reason>) -> Self {
        match phase {
            Phase::Pending | Phase::Queued => Self::Pending,
            Phase::Dispatched => Self::Sent,
            Phase::Running => Self::Executing,
            Phase::Failed if reason == Some(Reason::OutputLimitExceeded) => Self::Failed,
            Phase::Succeeded | Phase::Failed => Self::Completed,
            Phase::TimedOut => Self::Timeout,
            Phase::Cancelled => Self::Cancelled,
            Phase::Rejected | Phase::Expired | Phase::LaunchFailed | Phase::OutcomeUnknown => Self::Failed,
        }
    }

    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Executing => "executing",
            Self::Completed => "completed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// Returns the error with which a call ends that waited for the result, or `None` if the command ended by itself.
/// `wait_seconds` is the time for which the call waited.
pub fn refusal(status: &CommandExecutionStatus, wait_seconds: u64) -> Option<ApiError> {
    if status.phase.is_finished() { finished_refusal(status) } else { Some(wait_is_over(status, wait_seconds)) }
}

fn finished_refusal(status: &CommandExecutionStatus) -> Option<ApiError> {
    let reason = status.reason;
    let (code, error) = match status.phase {
        Phase::Failed if reason == Some(Reason::OutputLimitExceeded) => (INTERNAL, "Output limit exceeded"),
        // With reason AlreadyExecuted, the phase is the phase of the first execution.
        Phase::Succeeded | Phase::Failed => return None,
        Phase::Rejected => rejection(reason),
        Phase::TimedOut => (StatusCode::REQUEST_TIMEOUT, TIMEOUT),
        Phase::Cancelled => (StatusCode::CONFLICT, "Command cancelled"),
        Phase::OutcomeUnknown => (INTERNAL, "Outcome unknown"),
        // The deadline is the end of the caller's wait. Nothing was run.
        Phase::Expired | Phase::LaunchFailed if reason == Some(Reason::StartingDeadlineExceeded) => {
            (StatusCode::REQUEST_TIMEOUT, TIMEOUT)
        }
        _ if reason.is_some_and(is_temporary) => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        _ => (INTERNAL, "SSH error"),
    };
    Some(answer(status, code, error, status.message.clone()))
}

fn rejection(reason: Option<Reason>) -> (StatusCode, &'static str) {
    match reason {
        Some(Reason::NoMatchingRule) | None => (StatusCode::BAD_REQUEST, "Command not in whitelist"),
        Some(Reason::NotPermitted | Reason::Denied | Reason::Ambiguous | Reason::PolicyBroken) => {
            (StatusCode::FORBIDDEN, "Command not permitted")
        }
        Some(Reason::MachineNotFound) => (StatusCode::NOT_FOUND, "Machine not found"),
        Some(Reason::Malformed | Reason::ObjectTooLarge) => (StatusCode::UNPROCESSABLE_ENTITY, "Malformed request"),
        Some(Reason::RestoredCopy) => (StatusCode::CONFLICT, "Command rejected"),
        Some(reason) if is_temporary(reason) => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        Some(_) => (INTERNAL, "SSH error"),
    }
}

/// Returns true if the same request can succeed later, and nothing of it was run.
fn is_temporary(reason: Reason) -> bool {
    matches!(reason, Reason::QueueFull | Reason::MachineSuspended | Reason::ReceiptUnreadable)
}

/// Returns the error of a call whose wait ended before the execution. The execution can still start, so the answer never
/// says that nothing was run.
fn wait_is_over(status: &CommandExecutionStatus, wait_seconds: u64) -> ApiError {
    let phase = status.phase.as_str();
    let message = format!(
        "the execution did not finish within {wait_seconds} s (phase {phase}); read GET /api/v1/commands/{{id}} for its \
         end, or DELETE it"
    );
    let mut error = answer(status, StatusCode::REQUEST_TIMEOUT, TIMEOUT, Some(message));
    error.body.may_have_run = Some(true);
    error
}

fn answer(status: &CommandExecutionStatus, code: StatusCode, error: &str, message: Option<String>) -> ApiError {
    let reason = status.reason.map_or_else(|| status.phase.as_str().to_owned(), |reason| format!("{reason:?}"));
    let message = message.unwrap_or_else(|| format!("the execution ended as {}", status.phase.as_str()));
    let mut answer = ApiError::new(code, error, &reason, message);
    answer.body.phase = Some(status.phase.as_str().to_owned());
    answer.body.may_have_run = (status.phase == Phase::OutcomeUnknown).then_some(true);
    if code == StatusCode::SERVICE_UNAVAILABLE {
        answer.retry_after = Some(RETRY_AFTER);
    }
    answer
}

#[cfg(test)]
mod tests;
