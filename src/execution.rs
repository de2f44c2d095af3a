//! The life of a CommandExecution as one total function of what was observed. Pure: no I/O, time is an argument.
//!
//! The promises kept here: a claimed execution is never started again but by who has asked its machine (`reattach`); a finished one never
//! changes; an outcome that was not observed is OutcomeUnknown, and no exit code is made up; what its time to live deleted
//! is known again by its receipt, and not run again.
//!
//! ```text
//! Observed {execution, machine, policy, work, now} --decide--> Plan {status, effects, requeue}
//! Place, Journal, may it start                   --next------> follow, launch, close, look on, conclude
//! Limits, what was noted when                    --Deadlines-> until when it is followed
//! Outcome {ending, output}                       --conclude--> the finished status
//! ```
//!
//! Until the claim the controller writes the status, from the claim on its holder alone.

mod audit;
mod creation;
mod deadlines;
mod decide;
mod last_line;
mod nearest;
mod observed;
mod outcome;
mod reattach;
mod receipt;
mod room;
mod status;

pub use audit::{AuditFields, argv_digest};
pub use creation::creation;
pub use deadlines::{Deadlines, END_GRACE, LAST_LOOK, LOWEST_RATE, Limits, Pace, TAKEOVER, TERM_GRACE};
pub use decide::{Effect, Notice, Plan, decide};
pub use nearest::nearest;
pub use observed::{FirstFact, HolderFact, LaunchProblem, MachineFact, Observed, QueueFact, WorkFact};
pub use outcome::{Ending, Outcome, StopCause, conclude, sudoers_line};
pub use reattach::{Journal, MachineShown, Next, Place, compare, next};
pub use receipt::{ReceiptKey, digest, is_repetition};
pub use room::{ObjectSize, REDUCTIONS, is_filled_by_managers, no_room, reduce, reserve};
pub use status::{
    ClaimRecords, MAXIMUM_MESSAGE_CHARACTERS, claimed, running, stopping, storable, taken_over, waits_for_login,
};

use std::time::Duration;

/// How long a Machine or a rule that is not there is waited for, from the creation of the execution: one sync of a
/// GitOps pipeline applies them all at once, in any order.
pub const DEFAULT_GRACE_FOR_MISSING: Duration = Duration::from_secs(10);

/// How old an execution with `startingDeadlineSeconds: 0` may be when it is first seen. "Now" has to survive the way
/// through the watch, and a restart of Writ must not run what was meant for an hour ago.
pub const NOW_MEANS_WITHIN: Duration = Duration::from_secs(10);

/// How long a start may take before the status says that it is under way: what is quicker needs no write of its own.
pub const SHOW_PROGRESS_AFTER: Duration = Duration::from_secs(2);
