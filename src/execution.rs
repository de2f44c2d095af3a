//! The state machine of a CommandExecution: one total function of the observed facts. Pure: no I/O, time is an
//! argument.
//!
//! # Guarantees
//!
//! - The command of a claimed execution is started again only after its machine reported that it has not started
//!   (`reattach`).
//! - A finished execution does not change.
//! - An outcome that was not observed is OutcomeUnknown, without an exit code.
//! - An execution that was deleted when its TTL expired does not run again as long as its receipt exists.
//!
//! ```text
//! Observed {execution, machine, policy, runner, now} --plan-------> Plan {status, effects, requeue}
//! MachineMatch, Journal, may it start                --next_step--> follow, launch, close, retry, conclude
//! Limits and times of the command                    --Deadlines--> how long Writ follows it
//! CommandOutcome {ending, output}                    --conclude---> the finished status
//! ```
//!
//! Until the claim the controller writes the status, from the claim on only the holder.

mod audit;
mod creation;
mod deadlines;
mod last_line;
mod nearest;
mod observed;
mod outcome;
mod plan;
mod reattach;
mod receipt;
mod space;
mod status;
pub mod sudoers;

pub use audit::{AuditFields, argv_digest};
pub use creation::creation;
pub use deadlines::{Deadlines, END_GRACE, FINAL_POLL, Limits, MIN_RATE, Pace, TAKEOVER, TERM_GRACE};
pub use nearest::nearest;
pub use observed::{HolderFact, LaunchProblem, MachineFact, Observed, PriorExecutionFact, QueueFact, RunnerFact};
pub use outcome::{CommandOutcome, StopCause, Termination, conclude};
pub use plan::{EventNotice, Plan, SideEffect, plan};
pub use reattach::{Journal, MachineMatch, ObservedMachine, ReattachStep, compare, next_step};
pub use receipt::{ReceiptKey, digest, is_already_executed};
pub use space::{
    MAX_MESSAGE_CHARACTERS, ObjectSize, REDUCTIONS, is_filled_by_managers, no_space_message, reduce, reserve,
};
pub use status::{ClaimRecord, storable, with_claim, with_login_wait, with_new_holder, with_start, with_stop_request};

use std::time::Duration;

/// Wait for a missing Machine or rule, from the creation of the execution. One sync of a GitOps pipeline applies all
/// objects at once, in any order.
pub const DEFAULT_GRACE_FOR_MISSING: Duration = Duration::from_secs(10);

/// Maximum age of an execution with `startingDeadlineSeconds: 0` when Writ first reads it. It covers the delay of the
/// watch. After a restart of Writ, an older execution must not start.
pub const IMMEDIATE_START_TOLERANCE: Duration = Duration::from_secs(10);

/// Time after which a slow start is written to the status. A quicker start needs no write of its own.
pub const SHOW_PROGRESS_AFTER: Duration = Duration::from_secs(2);
