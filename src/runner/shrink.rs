//! Removal of text from a status that the API server refused.

use crate::api::CommandExecutionStatus;
use crate::execution::{REDUCTIONS, reduce};

/// Reasons why a stored status contains less than Writ observed. Writ stores the reason in the status.
pub(super) const REFUSED: &str = "the API server refused what the machine said of it";
pub(super) const TOO_LARGE: &str = "labels, annotations or other metadata fill the object";

/// Removes the next part of a refused status. The first step removes text that the machine chose. The last step keeps
/// only the outcome. Returns false if no part remains to remove.
pub(super) fn shrink_status(status: &mut CommandExecutionStatus, step: &mut u32, why: &str) -> bool {
    while *step < REDUCTIONS {
        *step += 1;
        if reduce(status, *step, why) {
            return true;
        }
    }
    false
}
