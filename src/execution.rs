//! The state machine of a CommandExecution: one function that returns a plan for every combination of observed facts.
//! Pure: no I/O, time is an argument.
//!
//! # Guarantees
//!
//! - For a claimed execution, Writ sends the command again only after the machine reported that the command has not
//!   started (`reattach`).
//! - A finished execution does not change.
//! - If Writ did not observe the outcome of a command, the execution is OutcomeUnknown, without an exit code.
//! - If Writ deleted an execution because its TTL expired, the command does not run again as long as the execution's
//!   receipt exists.
//!
//! ```text
//! Observed {execution, machine, policy, runner, now} --plan-------> Plan {status, effects, requeue}
//! MachineMatch, Journal, may it start                --next_step--> follow, launch, close, retry, conclude
//! Limits and times of the command                    --Deadlines--> how long Writ follows it
//! CommandOutcome {ending, output}                    --conclude---> the finished status
//! ```
//!
//! Before the claim, the controller writes the status. After the claim, only the holder of the claim writes the status.

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

/// Time to wait for a missing Machine or rule, from the creation of the execution. A GitOps pipeline applies all
/// objects in one sync, in any order, and can create the execution first.
pub const DEFAULT_GRACE_FOR_MISSING: Duration = Duration::from_secs(10);

/// Maximum age of an execution with `startingDeadlineSeconds: 0` at the time when Writ first reads it. The value covers
/// the delay of the watch. An older execution must not start, for example an hour late after a restart of Writ.
pub const IMMEDIATE_START_TOLERANCE: Duration = Duration::from_secs(10);

/// Time after which Writ reports a slow start in the status. A faster start needs no write for this report.
pub const SHOW_PROGRESS_AFTER: Duration = Duration::from_secs(2);
