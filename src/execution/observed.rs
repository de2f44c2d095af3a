//! The facts that a decision rests on, gathered by the controller and the runner.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::{CommandExecution, ExecutionReceipt, Machine, Reason};
use crate::policy::{Identity, RuleSet};

use super::ObjectSize;

/// Everything that is known about one execution at one moment.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The execution, read live.
    pub execution: &'a CommandExecution,
    /// How large it is.
    pub size: ObjectSize,
    /// Whether one of its name and spec was handled before, read live; means nothing once it is queued or claimed.
    pub first: FirstFact<'a>,
    /// Its Machine, read live.
    pub machine: MachineFact<'a>,
    /// The Whitelists of its namespace, looked at live.
    pub rules: RuleSet,
    /// Who asks, as far as it can be believed.
    pub identity: Identity<'a>,
    /// What the runner does with it.
    pub work: WorkFact,
    /// How busy its machine is.
    pub queue: QueueFact,
    /// Whether the holder of its claim is there; means nothing where there is no claim.
    pub holder: HolderFact,
    /// How long a missing Machine or rule is waited for.
    pub grace_for_missing: Duration,
    /// When all this was observed.
    pub now: Timestamp,
}

/// Whether an execution of the same name and spec has been handled, and was deleted by its time to live.
#[derive(Clone, Debug)]
pub enum FirstFact<'a> {
    /// None was; or it is of no account, as nobody can ask for this one again.
    None,
    /// One was: its receipt.
    Known(&'a ExecutionReceipt),
    /// That cannot be seen.
    Unreadable(String),
}

/// The Machine.
#[derive(Clone, Debug)]
pub enum MachineFact<'a> {
    /// It is there.
    Found(&'a Machine),
    /// There is none of this name.
    Missing {
        /// The Machine of the namespace whose name is nearest, if one is near.
        nearest: Option<String>,
    },
    /// There is one, and it does not decode.
    Unreadable(String),
}

/// What the runner of this process does with an execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WorkFact {
    /// Nothing.
    Absent,
    /// It is in the queue of its machine, as there is no free slot.
    WaitingForSlot,
    /// It is in the queue of its machine, as the machine was not reached or cannot be used.
    WaitingForMachine {
        /// What was seen.
        problem: String,
        /// Whether a person has to mend it.
        misconfigured: bool,
    },
    /// A connection is being opened for it. Nothing is claimed yet.
    Connecting {
        /// For how long.
        since: Duration,
        /// What was seen of the machine the last time, where it was not reached then.
        problem: Option<String>,
    },
    /// It is claimed, or about to be: only the runner writes its status.
    Holding,
    /// It will not start.
    Refused(LaunchProblem),
}

/// Why an execution did not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaunchProblem {
    /// The word.
    pub reason: Reason,
    /// The sentence, with what to do.
    pub message: String,
}

/// How busy a machine is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueFact {
    /// Executions that wait for it.
    pub waiting: usize,
    /// Whether one more could go at once.
    pub has_free_slot: bool,
}

/// The holder of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HolderFact {
    /// This process.
    Myself,
    /// Another process, which has shown that it lives; or not long enough ago to be sure that it does not.
    MayBeAlive,
    /// Another process, which is gone.
    Gone,
}
