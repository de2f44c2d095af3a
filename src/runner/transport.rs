//! Connection that carries a claimed command.

use std::sync::Arc;

use crate::fleet::{LauncherConnection, Open};
use crate::ssh::Connection;

/// Connection to the machine, by its execution mode.
pub(super) enum Transport {
    /// Connection for this execution alone. On a shared connection, Writ might notice only after the claim that the
    /// connection is dead. In Direct mode it could not retry then, and the outcome would be unknown.
    Direct(Open),
    /// Permit on a shared connection. If the connection is dead, Writ retries even after the claim, because the
    /// launcher's fence prevents a second start.
    Durable(Arc<LauncherConnection>),
}

impl Transport {
    pub fn connection(&self) -> &Connection {
        match self {
            Transport::Direct(open) => &open.connection,
            Transport::Durable(reached) => reached.permit.connection(),
        }
    }
}
