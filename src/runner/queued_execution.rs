//! An execution that may start as soon as its machine has a free slot.

use jiff::Timestamp;

use crate::cluster::ExecutionKey;
use crate::fleet::MachineKey;

/// An execution for the queue of its machine.
#[derive(Clone, Debug)]
pub struct QueuedExecution {
    /// The execution.
    pub key: ExecutionKey,
    /// The name of its Machine, in the same namespace.
    pub machine: String,
    /// Its creation time. The oldest goes first.
    pub created: Timestamp,
    /// True if it may not wait (`startingDeadlineSeconds: 0`).
    pub urgent: bool,
    /// The requester, if known. Requesters take turns.
    pub requester: String,
}

impl QueuedExecution {
    /// Returns the key of its Machine.
    pub(crate) fn machine_key(&self) -> MachineKey {
        (self.key.namespace.clone(), self.machine.clone())
    }
}
