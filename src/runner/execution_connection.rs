//! Connection that carries a claimed command.

use std::sync::Arc;

use crate::fleet::{LauncherConnection, Open};
use crate::ssh::Connection;

/// Connection to the machine, by its execution mode.
pub(super) enum ExecutionConnection {
    /// Connection for this execution alone. After a lost connection, Direct mode cannot follow a running command.
    Direct(Open),
    /// Permit on a shared connection. If the connection is lost, Writ can repeat the launch, because the launcher
    /// prevents a second start.
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
