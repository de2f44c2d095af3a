//! Phases of an execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an execution is in its life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Phase {
    /// Created; not decided yet.
    #[default]
    Pending,
    /// Allowed; waits for a slot or for the machine. Nothing was sent.
    Queued,
    /// Claimed: from here on the command may have started. It is never started again.
    Dispatched,
    /// The machine confirmed the start, and the command has run for more than about 2 seconds.
    Running,
    /// The command ended with exit code 0.
    Succeeded,
    /// The command ended with another exit code or by a signal.
    Failed,
    /// The command did not end within its time.
    TimedOut,
    /// Somebody set `spec.cancelRequested`.
    Cancelled,
    /// Not allowed. Nothing was sent.
    Rejected,
    /// Did not start before its starting deadline. Nothing was sent.
    Expired,
    /// Allowed, did not start, and will not.
    LaunchFailed,
    /// It may have started, and how it ended was not observed.
    OutcomeUnknown,
}

impl Phase {
    /// Every phase, in the order of a life.
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

    /// Whether nothing changes any more.
    pub fn is_finished(self) -> bool {
        !matches!(self, Phase::Pending | Phase::Queued | Phase::Dispatched | Phase::Running)
    }

    /// Whether a holder has taken responsibility and the command may be running.
    pub fn is_claimed(self) -> bool {
        matches!(self, Phase::Dispatched | Phase::Running)
    }

    /// The word as it stands in the status.
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
