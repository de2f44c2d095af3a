//! Making a status smaller that the API server refused.

use crate::api::CommandExecutionStatus;
use crate::execution::{REDUCTIONS, reduce};

/// Why there is less in a record than was seen.
pub(super) const REFUSED: &str = "the API server refused what the machine said of it";
pub(super) const TOO_LARGE: &str = "labels, annotations or other metadata fill the object";

/// Takes something out of a status that was refused, more than the last time: what the machine chose, at last everything but
/// how it ended. Better such a record than none. False where nothing is left to take out.
pub(super) fn shrink_status(status: &mut CommandExecutionStatus, step: &mut u32, why: &str) -> bool {
    while *step < REDUCTIONS {
        *step += 1;
        if reduce(status, *step, why) {
            return true;
        }
    }
    false
}
