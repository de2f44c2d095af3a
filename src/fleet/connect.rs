//! Connecting to a machine, directly or through jump hosts.

use std::time::Duration;

use tracing::Instrument as _;

use crate::api::machine_status::{KeyTrust, LoginKey, SystemInfo};
use crate::backoff::Backoff;
use crate::machine::{ProbeResult, VerifiedKey};
use crate::ssh::{self, ConnectError, Connection, VerifiedBy};
use crate::telemetry::{SPANS, metrics};

use super::connect_failure::{ConnectFailure, RETRY_AFTER_CHANGE};
use super::jitter::jitter;
use super::pooled_connection::{Open, ProxyConnection};
use super::resolved_machine::ResolvedMachine;
use super::shared::Fleet;
use super::trust_on_first_use::{self, pin};

/// Maximum time for lookup, connect, handshake and login together. A healthy machine needs much less than a second. The
/// option UseDNS of sshd can add 5 s if the resolver of the machine is down.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Maximum time for a jump host to answer a keep-alive.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Maximum number of retries if the machine drops the connection. sshd drops some connections if many connections
/// arrive at once.
const DROPPED_TRIES: u32 = 4;
/// Pauses between retries after a dropped connection.
const DROPPED_BACKOFF: Backoff = Backoff::new(Duration::from_millis(150), Duration::from_secs(2)).with_jitter(0.5);

/// Connects to the machine, directly or through its jump hosts.
pub(crate) async fn connect(fleet: &Fleet, resolved: &ResolvedMachine) -> Result<Open, ConnectFailure> {
    // If the target's Secret forbids the login, Writ connects to no jump host.
    resolved.check_secret()?;
    let mut outer: Option<ProxyConnection> = None;
    for index in 0..resolved.hops.len() {
        let Some(hop) = resolved.truncate_at(index) else { break };
        let through = outer.take();
        let (machine, pool_key) = (fleet.machine_of(&hop), hop.pool_key());
        let connect_hop = async || connect_by(fleet, &hop, through).await;
        let connected = machine.connections.acquire_proxy(&pool_key, connect_hop);
        let proxy = match connected.await {
            Ok(proxy) => proxy,
            Err(failure) => {
                if let Some(problem) = failure.probe_result() {
                    fleet.record(&hop.machine, problem);
                }
                return Err(failure.at_hop(hop.name()));
            }
        };
        if proxy.take_unrecorded() {
            fleet.record(&hop.machine, online(proxy.connection(), None));
        }
        outer = Some(proxy);
    }
    connect_by(fleet, resolved, outer).await
}

/// Opens one connection, directly or through the open connection `outer`.
async fn connect_by(
    fleet: &Fleet,
    resolved: &ResolvedMachine,
    outer: Option<ProxyConnection>,
) -> Result<Open, ConnectFailure> {
    let key = resolved.credentials().await?;
    let credentials = &key.credentials;
    let target = resolved.target(trust_on_first_use::pinned_keys(&resolved.machine))?;
    let deadline = Duration::from_secs(u64::from(resolved.machine.spec.probe.timeout_seconds));
    let mut tries = 0;
    let _permit = fleet.logins.acquire(resolved).await;
    if resolved.is_stale() {
        return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
    }
    loop {
        let span = tracing::info_span!(target: SPANS, "connect", machine = resolved.name());
        let connected = match &outer {
            None => Box::pin(ssh::connect(&target, credentials, &fleet.network, deadline)).instrument(span).await,
            Some(outer) => {
                Box::pin(ssh::connect_through(outer.connection(), &target, credentials, deadline))
                    .instrument(span)
                    .await
            }
        };
        metrics().connected(
            connected.as_ref().map_or_else(ConnectError::category, |_| "connected"),
            connected.as_ref().ok().map(Connection::login_time),
        );
        match connected {
            Ok(connection) => return Ok(Open { connection, _outer: outer, _key: key.kept() }),
            Err(ConnectError::HostKeyUnknown { algorithm, fingerprint }) => {
                pin(&fleet.cluster, &resolved.machine, &algorithm, &fingerprint).await?;
                // The next attempt reads the Machine again, and accepts only the pinned key.
                return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
            }
            Err(ConnectError::ConnectionDropped(message)) if tries < DROPPED_TRIES => {
                tracing::debug!(error = message, "the machine dropped a connection; trying again");
                tokio::time::sleep(DROPPED_BACKOFF.delay(tries, jitter())).await;
                tries += 1;
            }
            Err(error) => {
                if let (Some(outer), ConnectError::Unreachable(_)) = (&outer, &error)
                    && !outer.connection().is_responsive(ANSWER_DEADLINE).await
                {
                    // The connection to the jump host is dead. The next attempt opens another connection to the jump
                    // host.
                    outer.connection().close().await;
                }
                return Err(ConnectFailure::from_ssh(&error));
            }
        }
    }
}

/// Returns the probe result for a machine with an open connection.
pub(crate) fn online(connection: &Connection, system: Option<SystemInfo>) -> ProbeResult {
    let proof = connection.host_key();
    let trust = match proof.by {
        VerifiedBy::Pinned => KeyTrust::Pinned,
        VerifiedBy::Authority => KeyTrust::Authority,
        VerifiedBy::FirstUse => KeyTrust::FirstUse,
    };
    let key = VerifiedKey { algorithm: proof.algorithm.clone(), fingerprint: proof.fingerprint.clone(), trust };
    let login = connection.login().clone();
    let login = LoginKey { entry: login.entry, fingerprint: login.fingerprint, refused: login.refused };
    ProbeResult::Online { latency: connection.login_time(), key, login: Box::new(login), system }
}
