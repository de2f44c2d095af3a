//! Decides the next step of a CommandExecution from observed facts. Pure: no I/O, and the time is an argument.
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
//! MachineMatch, Journal, permission to start         --next_step--> follow, launch, close, retry, conclude
//! Limits and times of the command                    --Deadlines--> time for which Writ follows it
//! CommandOutcome {ending, output}                    --conclude---> the finished status
//! ```
//!
//! Before the claim, the controller writes the status. After the claim, only the holder of the claim writes the status.

mod allowed_wait;
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

pub use allowed_wait::AllowedWait;
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

/// Maximum wait for a missing Machine or rule, from the creation of the execution. A GitOps sync can create the
/// execution before the Machine and the rule.
pub const DEFAULT_GRACE_FOR_MISSING: Duration = Duration::from_secs(10);

/// Maximum age of an execution with `startingDeadlineSeconds: 0` when Writ first reads it. Writ does not start an older
/// execution. The value covers the delay of the watch.
pub const IMMEDIATE_START_TOLERANCE: Duration = Duration::from_secs(10);

/// Minimum duration of a connection attempt before Writ reports the attempt in the status. Also the minimum duration of
/// a command before Writ reports its start in the status.
pub const SHOW_PROGRESS_AFTER: Duration = Duration::from_secs(2);
