//! One probe of a machine: a full login, and the facts that the machine reports.
//!
//! A TCP connection without a login proves little, and sshd 9.8 blocks addresses that connect without a login. If a
//! shared connection is open, the probe uses this connection.

use crate::api::ExecutionMode;
use crate::cluster::ClusterError;
use crate::machine::ProbeResult;
use crate::ssh::Connection;

use super::connect::{connect, online};
use super::connect_failure::ConnectFailure;
use super::inspect::inspect;
use super::launcher_request::LauncherError;
use super::launcher_support::{check_support, refused_for_now};
use super::machine_key::MachineKey;
use super::pooled_connection::open_with_retry;
use super::resolved_machine::{ResolvedMachine, resolve};
use super::shared::Fleet;
use super::system_info::{read_in, request_system_info};

/// Probes a machine, and records the observation. Records nothing if the API server does not answer, or if the Machine
/// is suspended or deleted.
pub(crate) async fn probe(fleet: &Fleet, key: &MachineKey) {
    let (namespace, name) = key;
    let machine = match fleet.cluster.machine(namespace, name).await {
        Ok(machine) => machine,
        Err(ClusterError::NotFound { .. }) => return,
        Err(error) => {
            tracing::debug!(%error, machine = %name, "probe skipped");
            return;
        }
    };
    if machine.spec.suspend {
        return;
    }
    let probed = match resolve(&fleet.cluster, namespace, machine.clone()).await {
        Ok(resolved) => {
            let may_share = fleet.machines.get(key).is_some_and(|known| !known.state().has_problem());
            probe_with(fleet, &resolved, may_share).await
        }
        Err(failure) => Err(failure),
    };
    if let Some(seen) = probed.map_or_else(|failure| failure.probe_result(), Some) {
        fleet.record(&machine, seen);
    }
}

async fn probe_with(fleet: &Fleet, resolved: &ResolvedMachine, may_share: bool) -> Result<ProbeResult, ConnectFailure> {
    // A working connection proves without a login that the machine is reachable. After a fault, only a new login proves
    // that the machine is repaired.
    let managed = fleet.machine_of(resolved);
    if let Some(permit) = managed.connections.try_acquire(&resolved.pool_key()).filter(|_| may_share) {
        let described = async { read_in(permit.open().await?).await };
        match described.await {
            Ok(system) => return Ok(online(permit.connection(), Some(system))),
            // Perhaps the connection is dead, but has reported no error.
            Err(LauncherError::NoReply(_)) => permit.discard().await,
            // The connection works, but no session was free, or the answer was invalid.
            Err(_) if !permit.connection().is_closed() => return Ok(online(permit.connection(), None)),
            Err(_) => {}
        }
    }
    let open = connect(fleet, resolved).await?;
    let seen = check_connection(fleet, &open.connection, resolved).await;
    open.connection.close().await;
    seen
}

/// Checks if commands can be started on a new connection. Returns the observation, with the system information.
async fn check_connection(
    fleet: &Fleet,
    connection: &Connection,
    resolved: &ResolvedMachine,
) -> Result<ProbeResult, ConnectFailure> {
    let (machine, pool_key) = (&resolved.machine, resolved.pool_key());
    if machine.spec.execution.mode == ExecutionMode::Durable {
        let managed = fleet.machine_of(resolved);
        let session = open_with_retry(connection).await.map_err(|error| ConnectFailure::from_ssh(&error))?;
        let facts = inspect(connection, session, machine.spec.execution.directory.as_deref()).await;
        match facts.map_err(|error| refused_for_now(&managed.connections, &pool_key, error)) {
            // The machine executes on other connections, so it supports the launcher.
            Err(LauncherError::SessionRefused(_)) if managed.connections.room(&pool_key) > 0 => {
                return Ok(online(connection, None));
            }
            facts => drop(check_support(facts, machine)?),
        }
    }
    match request_system_info(connection).await {
        Ok(system) => Ok(online(connection, Some(system))),
        Err(LauncherError::SessionRefused(problem)) => Err(ConnectFailure::Unreachable(problem)),
        Err(LauncherError::Account(problem)) => Err(ConnectFailure::unsupported(problem)),
        // A machine that executes only a fixed command (ForceCommand) gives no valid answer. Such a machine is online,
        // because the login succeeded.
        Err(_) => Ok(online(connection, None)),
    }
}
