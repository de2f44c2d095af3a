//! Commands that were not started.

use crate::api::Reason;
use crate::execution::{LaunchProblem, Termination};
use crate::fleet::REFUSED;

/// The end of a command that was not started.
pub(super) fn not_started(reason: Reason, message: &str) -> Termination {
    Termination::Refused(LaunchProblem { reason, message: format!("{message}; the command was not started") })
}

/// The machine answered the request to execute with no.
pub(super) fn refused_to_execute() -> Termination {
    not_started(Reason::ExecRequestRefused, REFUSED)
}
