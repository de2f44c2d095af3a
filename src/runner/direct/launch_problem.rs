//! Commands that were not started.

use crate::api::Reason;
use crate::execution::{LaunchProblem, Termination};
use crate::fleet::REFUSED;

/// Returns the `Refused` termination of a command that was not started.
pub(super) fn not_started(reason: Reason, message: &str) -> Termination {
    Termination::Refused(LaunchProblem { reason, message: format!("{message}; the command was not started") })
}

/// Returns the end of a command whose exec request the machine refused.
pub(super) fn refused_to_execute() -> Termination {
    not_started(Reason::ExecRequestRefused, REFUSED)
}
