//! Phases of an execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stage of an execution.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Phase {
    /// Created, not decided yet.
    #[default]
    Pending,
    /// Allowed by a rule. The execution waits for a slot of its machine or for the machine itself. Nothing was sent.
    Queued,
    /// Claimed. From here on the command may have started. It is never started again.
    Dispatched,
    /// The machine confirmed the start, and the command has run for more than about 2 seconds.
    Running,
    /// The command ended with exit code 0.
    Succeeded,
    /// The command ended with another exit code or by a signal.
    Failed,
    /// The command did not end within its timeout.
    TimedOut,
    /// Somebody set `spec.cancelRequested` or deleted the execution before it had finished.
    Cancelled,
    /// Not allowed, or not well-formed. Nothing was sent.
    Rejected,
    /// The execution did not start before its starting deadline. Nothing was sent.
    Expired,
    /// Allowed, but the command did not start and will not start.
    LaunchFailed,
    /// The command may have started, and Writ did not observe how it ended.
    OutcomeUnknown,
}

impl Phase {
    /// Every phase, in the order of its stage.
    pub const ALL: [Phase; 12] = [
        Phase::Pending,
        Phase::Queued,
        Phase::Dispatched,
        Phase::Running,
        Phase::Succeeded,
        Phase::Failed,
        Phase::TimedOut,
        Phase::Cancelled,
        Phase::Rejected,
        Phase::Expired,
        Phase::LaunchFailed,
        Phase::OutcomeUnknown,
    ];

    /// Returns true if the phase is final.
    pub fn is_finished(self) -> bool {
        !matches!(self, Phase::Pending | Phase::Queued | Phase::Dispatched | Phase::Running)
    }

    /// Returns true if a holder is responsible for the execution and its command may be running.
    pub fn is_claimed(self) -> bool {
        matches!(self, Phase::Dispatched | Phase::Running)
    }

    /// Returns the word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Queued => "Queued",
            Phase::Dispatched => "Dispatched",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::TimedOut => "TimedOut",
            Phase::Cancelled => "Cancelled",
            Phase::Rejected => "Rejected",
            Phase::Expired => "Expired",
            Phase::LaunchFailed => "LaunchFailed",
            Phase::OutcomeUnknown => "OutcomeUnknown",
        }
    }
}
