//! Connections on which a machine runs the launcher.

use std::sync::Arc;
use std::time::Duration;

use crate::execution::ObservedMachine;
use crate::ssh::{ConnectError, Session};

use super::connect::{connect, online};
use super::connect_failure::ConnectFailure;
use super::inspect::TimedFacts;
use super::launcher_request::LauncherError;
use super::launcher_support::{check_support, refused_for_now};
use super::machine_key::MachineKey;
use super::pooled_connection::SessionPermit;
use super::resolved_machine::{ResolvedMachine, read_and_resolve};
use super::shared::Fleet;

/// A permit on a shared connection, and the facts that the machine reported.
pub(crate) struct LauncherConnection {
    pub permit: SessionPermit,
    pub known: TimedFacts,
    /// [`ResolvedMachine::pool_key`] of the Machine to which this connection leads.
    pub pool_key: String,
}

impl LauncherConnection {
    /// Returns the observed identity of the machine, for the comparison with a claim.
    pub fn shown<'a>(&'a self, address: &'a str) -> ObservedMachine<'a> {
        let facts = &self.known.facts;
        ObservedMachine {
            address,
            host_key_fingerprint: self.permit.connection().fingerprint(),
            boot_id: &facts.boot_id,
            uptime: Duration::from_millis(self.known.uptime_ms()),
            directory: &facts.directory,
            directory_id: &facts.directory_id,
        }
    }

    /// Opens a session. After an error other than [`ConnectError::Busy`], closes the connection, so that no other task
    /// uses the connection.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = self.permit.open().await;
        if matches!(&opened, Err(error) if !matches!(error, ConnectError::Busy(_))) {
            self.permit.discard().await;
        }
        opened
    }

    /// Returns the address and port of the connection.
    pub fn address(&self) -> String {
        self.permit.connection().peer().to_owned()
    }
}

/// Opens a session on an open connection to the machine, if a session is free. Does not read the Machine from the API
/// server. The caller must check before the claim that the Machine is unchanged.
pub(crate) async fn try_open_existing(
    fleet: &Fleet,
    machine: &MachineKey,
) -> Option<(Arc<ResolvedMachine>, LauncherConnection, Session)> {
    let machine = fleet.machines.get(machine)?;
    let resolved = machine.connections.last_spec()?;
    let pool_key = resolved.pool_key();
    let permit = machine.connections.try_acquire(&pool_key)?;
    let known = permit.facts(resolved.machine.spec.execution.directory.as_deref()).await.ok()?.clone();
    let reached = LauncherConnection { permit, known, pool_key };
    let session = reached.open().await.ok()?;
    Some((resolved, reached, session))
}

/// Connects to a machine and opens a session. If the session fails, tries once more on another connection, because a
/// shared connection can be dead or full.
pub(crate) async fn connect_and_open(
    fleet: &Fleet,
    resolved: &ResolvedMachine,
) -> Result<(LauncherConnection, Session), ConnectFailure> {
    let reached = connect_launcher(fleet, resolved).await?;
    match reached.open().await {
        Ok(session) => Ok((reached, session)),
        Err(_) => {
            let reached = connect_launcher(fleet, resolved).await?;
            let session = reached.open().await.map_err(|error| ConnectFailure::from_ssh(&error))?;
            Ok((reached, session))
        }
    }
}

/// Connects to a machine by its current specification, for callers that only retry after a failure.
pub(crate) async fn connect_current(fleet: &Fleet, machine: &MachineKey) -> Result<LauncherConnection, String> {
    connect_preferring(fleet, machine, None).await
}

/// Connects like [`connect_current`]. If the name resolves to the address `prefer` (`IP:PORT`), tries that address
/// first.
async fn connect_preferring(
    fleet: &Fleet,
    machine: &MachineKey,
    prefer: Option<String>,
) -> Result<LauncherConnection, String> {
    let reached = async {
        let resolved = read_and_resolve(&fleet.cluster, &machine.0, &machine.1).await?;
        connect_launcher(fleet, &ResolvedMachine { prefer, ..resolved }).await
    };
    reached.await.map_err(ConnectFailure::into_problem)
}

/// Opens an additional session, for a request about a running command. If the connection has no free session, opens
/// another connection.
pub(crate) async fn open_control_session(
    fleet: &Fleet,
    machine: &MachineKey,
    reached: &LauncherConnection,
) -> Result<(Option<LauncherConnection>, Session), String> {
    match reached.open().await {
        Ok(session) => Ok((None, session)),
        Err(ConnectError::Busy(_)) => {
            let other = connect_preferring(fleet, machine, Some(reached.address())).await?;
            if other.address() != reached.address() {
                return Err(format!("{} answers, and not {}", other.address(), reached.address()));
            }
            let session = other.open().await.map_err(|error| error.to_string())?;
            Ok((Some(other), session))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Finds or opens a connection, and requests the facts of the machine.
///
/// # Errors
/// The machine was not reached, or cannot run the launcher.
pub(crate) async fn connect_launcher(
    fleet: &Fleet,
    resolved: &ResolvedMachine,
) -> Result<LauncherConnection, ConnectFailure> {
    let pool_key = resolved.pool_key();
    let managed = fleet.machine_of(resolved);
    let connections = &managed.connections;
    let connect = async || connect(fleet, resolved).await;
    let permit = connections.acquire(&pool_key, resolved.prefer.as_deref(), connect).await?;
    let directory = resolved.machine.spec.execution.directory.as_deref();
    let known = permit.facts(directory).await.cloned();
    let known = known.map_err(|error| refused_for_now(connections, &pool_key, error));
    match &known {
        Ok(_) => connections.record_executed(&pool_key),
        // Perhaps the connection is dead, but has reported no error.
        Err(LauncherError::NoReply(_)) => permit.discard().await,
        Err(LauncherError::SessionRefused(problem)) => {
            permit.discard().await;
            // The machine executes on other connections, but allows no further connection. Queued executions use the
            // open connections.
            let room = connections.room(&pool_key);
            if room > 0 {
                return Err(ConnectFailure::Full { room, problem: problem.clone() });
            }
        }
        Err(_) => {}
    }
    let known = check_support(known, &resolved.machine)?;
    if permit.take_unrecorded() {
        fleet.record(&resolved.machine, online(permit.connection(), None));
    }
    Ok(LauncherConnection { permit, known, pool_key })
}
