//! The facts on which the plan for an execution depends. The controller and the runner gather them.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::{CommandExecution, ExecutionReceipt, Machine, Reason};
use crate::policy::{Identity, RuleSet};

use super::ObjectSize;

/// Facts about one execution at one time.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The execution, read live.
    pub execution: &'a CommandExecution,
    /// Size of the execution as a Kubernetes object.
    pub size: ObjectSize,
    /// Receipt of an earlier execution of the same name and spec, read live. Writ does not read the receipt after the
    /// execution is queued or claimed.
    pub prior_execution: PriorExecutionFact<'a>,
    /// Machine of the execution, read live.
    pub machine: MachineFact<'a>,
    /// Rules of the execution's namespace, read live.
    pub rules: RuleSet,
    /// Requester, if verified. The identity is undecided until the check of the requester has a result.
    pub identity: Identity<'a>,
    /// State of the execution in the runner of this process.
    pub runner: RunnerFact,
    /// True if the client of an interactive execution is connected to this process. Ignored for other executions.
    pub has_client: bool,
    /// Load of the execution's machine.
    pub queue: QueueFact,
    /// Holder of the execution's claim. Ignored if there is no claim.
    pub holder: HolderFact,
    /// Maximum wait for a missing Machine or rule. The wait starts at the creation of the execution.
    pub grace_for_missing: Duration,
    /// Time at which these facts were gathered.
    pub now: Timestamp,
}

/// Earlier execution of the same name and spec. Writ deleted it when its TTL expired.
#[derive(Clone, Debug)]
pub enum PriorExecutionFact<'a> {
    /// No receipt exists, or Writ does not read it: the name is generated, or the execution is already queued or
    /// claimed.
    None,
    /// There was an earlier execution. Holds its receipt.
    Known(&'a ExecutionReceipt),
    /// Writ cannot read the receipt. Holds the cause.
    Unreadable(String),
}

/// The Machine of an execution.
#[derive(Clone, Debug)]
pub enum MachineFact<'a> {
    /// The Machine exists.
    Found(&'a Machine),
    /// No Machine has this name.
    Missing {
        /// Most similar name of a Machine in the namespace. `None` if no name is similar to the requested name.
        nearest: Option<String>,
    },
    /// Writ cannot decode the Machine. Holds the decoder's message.
    Unreadable(String),
}

/// State of an execution in the runner of this process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunnerFact {
    /// The runner does not have the execution.
    Idle,
    /// The execution is in the queue of its machine, because no slot is free.
    WaitingForSlot,
    /// The execution is in the queue of its machine, because Writ cannot reach or use the machine.
    WaitingForMachine {
        /// Last failure.
        problem: String,
        /// True if the machine needs manual repair.
        needs_person: bool,
    },
    /// The runner opens a connection for the execution. The execution is not claimed yet.
    Connecting {
        /// Time since the start of the attempt.
        since: Duration,
        /// Failure of the previous attempt to reach the machine. `None` if the previous attempt did not fail.
        problem: Option<String>,
    },
    /// The execution is claimed, or about to be claimed. Only the runner writes its status.
    Owned,
    /// The execution will not start.
    Refused(LaunchProblem),
}

/// Reason why an execution did not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaunchProblem {
    /// Reason for the status.
    pub reason: Reason,
    /// Message for the status. It includes the remedy.
    pub message: String,
}

/// Load of a machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueFact {
    /// Number of queued executions.
    pub waiting: usize,
    /// True if one more execution could start at once.
    pub has_free_slot: bool,
}

/// Holder of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HolderFact {
    /// This process holds the claim.
    Own,
    /// Another process holds the claim, and its Lease has not expired.
    MayBeAlive,
    /// Another process holds the claim, and its Lease expired.
    Expired,
}
