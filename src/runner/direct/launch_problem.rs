//! Commands that were not started.

use crate::api::Reason;
use crate::execution::{Ending, LaunchProblem};
use crate::fleet::REFUSED;

/// The end of a command that was not started.
pub(super) fn not_started(reason: Reason, message: &str) -> Ending {
    Ending::Refused(LaunchProblem { reason, message: format!("{message}; the command was not started") })
}

/// The machine answered the request to execute with no.
pub(super) fn refused_to_execute() -> Ending {
    not_started(Reason::ExecutionRefused, REFUSED)
}
