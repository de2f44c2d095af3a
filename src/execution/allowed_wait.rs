//! The wait that an execution accepts before its start.

use crate::api::{CommandExecutionSpec, WhenOffline};

/// Longest wait that an execution accepts. The values are in ascending order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AllowedWait {
    /// No wait (`startingDeadlineSeconds: 0`). Writ makes one attempt at once.
    Nothing,
    /// Wait for a free slot (`whenOffline: Fail`). Writ then makes one attempt.
    Slot,
    /// Wait for a free slot, and until Writ can use the machine. Writ repeats the attempt.
    Machine,
}

impl AllowedWait {
    /// Returns the wait that a spec allows. The starting deadline limits each wait.
    pub fn from_spec(spec: &CommandExecutionSpec) -> Self {
        match (spec.starting_deadline_seconds, spec.when_offline) {
            (0, _) => Self::Nothing,
            (_, WhenOffline::Fail) => Self::Slot,
            (_, WhenOffline::Wait) => Self::Machine,
        }
    }

    /// Returns true if one failed attempt to use the machine ends the execution.
    pub fn is_ended_by_failure(self) -> bool {
        self < Self::Machine
    }

    /// Returns the field that forbids the wait for the machine, with its value. Returns `None` if no field does.
    pub(super) fn cause(self) -> Option<&'static str> {
        match self {
            Self::Nothing => Some("startingDeadlineSeconds is 0"),
            Self::Slot => Some("whenOffline is Fail"),
            Self::Machine => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_of_zero_allows_no_wait_and_fail_only_for_a_slot() {
        let allowed = |starting_deadline_seconds, when_offline| {
            let spec = CommandExecutionSpec::on_machine("web-1");
            AllowedWait::from_spec(&CommandExecutionSpec { starting_deadline_seconds, when_offline, ..spec })
        };
        for (seconds, when_offline, expected, ends) in [
            (300, WhenOffline::Wait, AllowedWait::Machine, false),
            (1, WhenOffline::Fail, AllowedWait::Slot, true),
            (604_800, WhenOffline::Fail, AllowedWait::Slot, true),
            (0, WhenOffline::Wait, AllowedWait::Nothing, true),
            (0, WhenOffline::Fail, AllowedWait::Nothing, true),
        ] {
            let wait = allowed(seconds, when_offline);
            assert_eq!((wait, wait.is_ended_by_failure(), wait.cause().is_some()), (expected, ends, ends), "{seconds}");
        }
    }
}
