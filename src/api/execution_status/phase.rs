//! Phases of an execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stage of an execution.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Phase {
    /// The execution was created. Writ has not decided about it yet.
    #[default]
    Pending,
    /// A rule allows the execution. The execution waits for a slot of its machine or for the machine itself. Writ has
    /// sent nothing.
    Queued,
    /// A `writ serve` has claimed the execution. From the claim on the command may have started. No other attempt
    /// starts it.
    Dispatched,
    /// The machine confirmed the start, and the command has run for more than about 2 seconds.
    Running,
    /// The command ended with exit code 0.
    Succeeded,
    /// The command ended with another exit code than 0, or a signal ended it.
    Failed,
    /// The command did not end within its timeout.
    TimedOut,
    /// Somebody set `spec.cancelRequested` or deleted the execution before the execution had finished.
    Cancelled,
    /// The request is not allowed or not well-formed. Writ sent nothing.
    Rejected,
    /// The command did not start before the starting deadline, or the request forbids the wait for its machine
    /// (`whenOffline: Fail`). Writ sent nothing.
    Expired,
    /// A rule allowed the execution, but the command did not start and will not start.
    LaunchFailed,
    /// The command may have started, and Writ did not observe its end.
    OutcomeUnknown,
}

impl Phase {
    /// All phases, in the order in which an execution passes through them. The finished phases come last.
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

    /// Returns the phase as the status spells it.
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
