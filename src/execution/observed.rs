//! The facts on which a decision depends, gathered by the controller and the runner.

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
    /// Size of the object.
    pub size: ObjectSize,
    /// Prior execution of its name and spec, read live. Ignored once the execution is queued or claimed.
    pub prior_execution: PriorExecutionFact<'a>,
    /// Its Machine, read live.
    pub machine: MachineFact<'a>,
    /// Rules of its namespace, read live.
    pub rules: RuleSet,
    /// Requester, as far as it is verified.
    pub identity: Identity<'a>,
    /// State of the execution in the runner of this process.
    pub runner: RunnerFact,
    /// Load of its machine.
    pub queue: QueueFact,
    /// Holder of its claim. Ignored if there is no claim.
    pub holder: HolderFact,
    /// Wait for a missing Machine or rule, from the creation of the execution.
    pub grace_for_missing: Duration,
    /// Time at which these facts were gathered.
    pub now: Timestamp,
}

/// An earlier execution of the same name and spec that was deleted when its TTL expired.
#[derive(Clone, Debug)]
pub enum PriorExecutionFact<'a> {
    /// There was none, or it is irrelevant, because the name of this execution is not used again.
    None,
    /// There was one. This is its receipt.
    Known(&'a ExecutionReceipt),
    /// Writ cannot read the receipt.
    Unreadable(String),
}

/// The Machine of an execution.
#[derive(Clone, Debug)]
pub enum MachineFact<'a> {
    /// The Machine exists.
    Found(&'a Machine),
    /// No Machine has this name.
    Missing {
        /// The Machine of the namespace with the most similar name, if one is similar.
        nearest: Option<String>,
    },
    /// The Machine exists, but cannot be decoded.
    Unreadable(String),
}

/// State of an execution in the runner of this process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunnerFact {
    /// The runner does not have the execution.
    Idle,
    /// In the queue of its machine, because no slot is free.
    WaitingForSlot,
    /// In the queue of its machine, because the machine cannot be reached or used.
    WaitingForMachine {
        /// Last failure.
        problem: String,
        /// True if the machine needs manual repair.
        needs_person: bool,
    },
    /// The runner opens a connection for the execution. Nothing is claimed yet.
    Connecting {
        /// Time since the start of the attempt.
        since: Duration,
        /// Last failure to reach the machine, if the last attempt failed.
        problem: Option<String>,
    },
    /// Claimed, or about to be claimed. Only the runner writes the status.
    Owned,
    /// The execution will not start.
    Refused(LaunchProblem),
}

/// Reason why an execution did not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaunchProblem {
    /// Reason for the status.
    pub reason: Reason,
    /// Message for the status, with the remedy.
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
    /// This process.
    Own,
    /// Another process that renewed its Lease, or whose Lease has not been unchanged for long enough.
    MayBeAlive,
    /// Another process, whose Lease expired.
    Expired,
}
