//! An execution that may start as soon as its machine has a free slot.

use jiff::Timestamp;

use crate::api::CommandExecution;
use crate::cluster::ExecutionKey;
use crate::execution::{AllowedWait, ObjectSize};
use crate::fleet::MachineKey;

/// Entry of an execution in the queue of its machine.
#[derive(Clone, Debug)]
pub struct QueuedExecution {
    /// Namespace, name and UID of the execution.
    pub key: ExecutionKey,
    /// Name of the execution's Machine, in the same namespace.
    pub machine: String,
    /// Creation time of the execution. The oldest execution of a requester starts first.
    pub created: Timestamp,
    /// Longest wait that the execution accepts.
    pub wait: AllowedWait,
    /// Requester, or empty if the requester is unknown. Requesters take turns.
    pub requester: String,
    /// True if a client of the gateway gives the input. Such an execution runs in Direct mode.
    pub is_interactive: bool,
}

/// An execution as the API server delivered it, and its size.
#[derive(Clone, Debug)]
pub struct ReadExecution {
    /// The execution. A write that depends on it must name its resourceVersion.
    pub execution: CommandExecution,
    /// Its size as a Kubernetes object.
    pub size: ObjectSize,
}

impl QueuedExecution {
    /// Returns the key of the execution's Machine.
    pub(crate) fn machine_key(&self) -> MachineKey {
        (self.key.namespace.clone(), self.machine.clone())
    }
}
