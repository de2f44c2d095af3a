//! The connection that a command goes by.

use std::sync::Arc;

use crate::fleet::{LauncherConnection, Open};
use crate::ssh::Connection;

/// How the machine was reached.
pub(super) enum Transport {
    /// By a connection for this execution alone. A shared one that has died unnoticed would be found out only after the
    /// claim, and in Direct mode make an unknown outcome of what could have been tried again.
    Direct(Open),
    /// By a place on a shared one: the launcher's fence lets it be tried again after the claim too.
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
