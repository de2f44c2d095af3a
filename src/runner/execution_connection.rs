//! Connection that carries a claimed command.

use std::sync::Arc;

use crate::fleet::{LauncherConnection, Open};
use crate::ssh::Connection;

/// Connection to the machine, by its execution mode.
pub(super) enum ExecutionConnection {
    /// Connection for this execution alone. A shared connection can be dead, and Writ could notice this only after the
    /// claim. In Direct mode, Writ could then not retry, and the outcome would be unknown.
    Direct(Open),
    /// Permit on a shared connection. If the connection is dead, Writ retries even after the claim, because the
    /// launcher prevents a second start.
    Durable(Arc<LauncherConnection>),
}

impl ExecutionConnection {
    pub fn connection(&self) -> &Connection {
        match self {
            ExecutionConnection::Direct(open) => &open.connection,
            ExecutionConnection::Durable(reached) => reached.permit.connection(),
        }
    }
}
