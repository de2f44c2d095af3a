//! The wait for output after the exit status, and the reason why a record lacks output. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::execution_status::IncompleteReason;

/// Minimum time without output before Writ ends a run that has an exit status, even if `drainSeconds` is shorter. The
/// reason is that the command's own output can arrive after its exit status.
const MIN_SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Maximum wait after the exit status while output still arrives, or `drainSeconds` if it is longer. The limit is
/// necessary, because a remaining process can write without a pause.
const MAX_DELAY_BY_OUTPUT: Duration = Duration::from_secs(10);

/// Returns the end of the wait for output: `drain` after the exit status, or later while output still arrives.
pub(super) fn drain_deadline(ended: Instant, last_output: Instant, drain: Duration) -> Instant {
    let silence = last_output.max(ended) + MIN_SILENCE_AFTER_EXIT;
    silence.min(ended + MAX_DELAY_BY_OUTPUT).max(ended + drain)
}

/// Returns the reason why the record lacks output, or `None` if the record is complete. The output limit takes
/// precedence over all other reasons.
pub(super) fn incomplete_reason(is_over_limit: bool, is_closed: bool, is_drain_over: bool) -> Option<IncompleteReason> {
    match (is_over_limit, is_closed, is_drain_over) {
        (true, _, _) => Some(IncompleteReason::OverLimit),
        (false, true, _) => None,
        (false, false, true) => Some(IncompleteReason::StillOpen),
        (false, false, false) => Some(IncompleteReason::NotReceived),
    }
}

#[cfg(test)]
mod tests;
