//! State that the tasks of the runner share.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, EventPublisher, Membership, PolicyCache, RequesterTrustChecker};
use crate::fleet::{Fleet, lock};
use crate::interactive::InteractiveClients;
use crate::output::{LiveOutput, Store};

use super::acknowledgements::Acknowledgements;
use super::gc_schedule::GcSchedule;
use super::queue::MachineQueues;
use super::recent_reads::RecentReads;
use super::spool::Spool;

/// Destinations of the output of commands, in addition to the status.
#[derive(Clone, Debug, Default)]
pub struct OutputSinks {
    /// Registry of live output, for viewers.
    pub live: LiveOutput,
    /// Store for whole outputs. `None` if no store is configured.
    pub store: Option<Store>,
}

/// Time limits for a claimed command, see [`crate::execution::Deadlines`].
#[derive(Clone, Copy, Debug)]
pub struct FollowLimits {
    /// Maximum time to wait for an unreachable machine, after the command should have ended. After this time, the
    /// outcome is unknown.
    pub unreachable: Duration,
    /// Maximum time from a stop request until Writ finishes the execution, whatever the machine reports.
    pub stop: Duration,
    /// Maximum time without input and output of an interactive execution.
    pub idle: Duration,
}

/// Everything that the task of an execution needs.
pub(super) struct Context {
    pub cluster: Cluster,
    pub events: EventPublisher,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Checker that decides if Writ trusts `spec.requestedBy`.
    pub stamping: RequesterTrustChecker,
    /// Lease of this process among the `writ serve` processes. Each claim of this process contains the name of this
    /// Lease.
    pub holders: Arc<Membership>,
    pub outputs: OutputSinks,
    /// Clients of interactive executions.
    pub interactive: InteractiveClients,
    /// Store on local disk for results of Direct mode that the API server does not have yet. `None` if Writ keeps no
    /// results on disk.
    pub spool: Option<Spool>,
    pub fleet: Arc<Fleet>,
    pub limits: FollowLimits,
    pub queues: Mutex<MachineQueues>,
    /// Executions that the controller has just read.
    pub recent_reads: RecentReads,
    pub acknowledgements: Acknowledgements,
    pub gc_schedule: GcSchedule,
    /// Cancelled when the shutdown begins. From then on, no queued execution starts.
    pub draining: CancellationToken,
    /// Cancelled when the drain time has passed. From then on, tasks no longer follow their commands.
    pub aborting: CancellationToken,
}

impl Context {
    /// Locks the queues. A task must not await anything while it holds the lock.
    pub fn queues(&self) -> MutexGuard<'_, MachineQueues> {
        lock(&self.queues)
    }
}
