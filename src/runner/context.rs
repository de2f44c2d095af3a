//! What the tasks of the runner share.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, EventPublisher, Membership, PolicyCache, RequesterTrustChecker};
use crate::fleet::{Dialer, lock};
use crate::output::{LiveOutput, Store};

use super::acknowledgements::Acknowledgements;
use super::gc_schedule::GcSchedule;
use super::queue::MachineQueues;
use super::spool::Spool;

/// Destinations of the output of commands, in addition to the status.
#[derive(Clone, Debug, Default)]
pub struct OutputSinks {
    /// The live registry, for viewers.
    pub live: LiveOutput,
    /// For whole outputs that the status cannot show; `None` if there is none.
    pub store: Option<Store>,
}

/// How long Writ waits for the machine of a claimed command, see [`crate::execution::Deadlines`].
#[derive(Clone, Copy, Debug)]
pub struct FollowLimits {
    /// Time beyond the timeout of a command that its machine may be out of reach. After it, the outcome is unknown.
    pub unreachable: Duration,
    /// Time after a stop request at which the execution ends at the latest.
    pub stop: Duration,
}

/// Everything that the task of an execution needs.
pub(super) struct Context {
    pub cluster: Cluster,
    pub events: EventPublisher,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Tells if `spec.requestedBy` can be trusted.
    pub stamping: RequesterTrustChecker,
    /// The Lease of this process. Claims carry its name.
    pub holders: Arc<Membership>,
    pub outputs: OutputSinks,
    /// Keeps Direct-mode results until they are stored.
    pub spool: Option<Spool>,
    /// Reaches machines.
    pub dialer: Arc<Dialer>,
    pub limits: FollowLimits,
    pub queues: Mutex<MachineQueues>,
    pub acknowledgements: Acknowledgements,
    pub gc_schedule: GcSchedule,
    /// Cancelled when nothing new may start.
    pub draining: CancellationToken,
    /// Cancelled when running commands are left to others.
    pub aborting: CancellationToken,
}

impl Context {
    /// Locks the queues. Nothing is awaited while they are held.
    pub fn queues(&self) -> MutexGuard<'_, MachineQueues> {
        lock(&self.queues)
    }
}
