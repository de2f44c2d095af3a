//! State that the tasks of the runner share.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, EventPublisher, Membership, PolicyCache, RequesterTrustChecker};
use crate::fleet::{Fleet, lock};
use crate::output::{LiveOutput, Store};

use super::acknowledgements::Acknowledgements;
use super::gc_schedule::GcSchedule;
use super::queue::MachineQueues;
use super::spool::Spool;

/// Destinations of the output of commands, in addition to the status.
#[derive(Clone, Debug, Default)]
pub struct OutputSinks {
    /// Registry of live output, for viewers.
    pub live: LiveOutput,
    /// Store for whole outputs that the status cannot show; `None` if no store is configured.
    pub store: Option<Store>,
}

/// Limits of the time that Writ waits for the machine of a claimed command, see [`crate::execution::Deadlines`].
#[derive(Clone, Copy, Debug)]
pub struct FollowLimits {
    /// Maximum time beyond the timeout of a command during which its machine may be unreachable. After this time, the
    /// outcome is unknown.
    pub unreachable: Duration,
    /// Maximum time from a stop request to the end of the execution.
    pub stop: Duration,
}

/// Everything that the task of an execution needs.
pub(super) struct Context {
    pub cluster: Cluster,
    pub events: EventPublisher,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Checker of requesters: it decides if Writ trusts `spec.requestedBy`.
    pub stamping: RequesterTrustChecker,
    /// Lease of this process. Each claim contains the name of the Lease.
    pub holders: Arc<Membership>,
    pub outputs: OutputSinks,
    /// Results of Direct mode on local disk until the API server has them; `None` if Writ keeps none there.
    pub spool: Option<Spool>,
    pub fleet: Arc<Fleet>,
    pub limits: FollowLimits,
    pub queues: Mutex<MachineQueues>,
    pub acknowledgements: Acknowledgements,
    pub gc_schedule: GcSchedule,
    /// Cancelled when the shutdown begins. After that, nothing new starts.
    pub draining: CancellationToken,
    /// Cancelled when the time to drain has passed. After that, tasks no longer follow their commands.
    pub aborting: CancellationToken,
}

impl Context {
    /// Locks the queues. A task awaits nothing while it holds the lock.
    pub fn queues(&self) -> MutexGuard<'_, MachineQueues> {
        lock(&self.queues)
    }
}
