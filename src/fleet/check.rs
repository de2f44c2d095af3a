//! Step-by-step check of a machine, for `writ machine check`. The check uses the same reads, checks and messages as
//! `writ serve`, and stores nothing.

use std::time::Duration;

use crate::api::ExecutionMode;
use crate::cluster::Cluster;
use crate::ssh::{self, AddressPolicy, ConnectError, Connection, Credentials, VerifiedBy};

use super::connect_failure::ConnectFailure;
use super::inspect::inspect;
use super::launcher_support::check_support;
use super::pooled_connection::open_with_retry;
use super::resolved_machine::{ResolvedMachine, resolve};
use super::system_info::request_system_info;
use super::trust_on_first_use;

/// One step of the check, and its result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Name of the jump host, if the step concerns a jump host.
    pub hop: Option<String>,
    /// Name of the step.
    pub what: &'static str,
    /// `Ok` contains the observation of the step. `Err` contains the problem and its remedy.
    pub seen: Result<String, String>,
}

/// Callback that receives each step of the check.
type Say<'a> = &'a mut (dyn FnMut(Step) + Send);

/// Logs in to a machine as executions do, and reports each step. Returns true if commands can be started on the
/// machine.
pub async fn check(cluster: &Cluster, network: &AddressPolicy, namespace: &str, name: &str, say: Say<'_>) -> bool {
    let machine = match cluster.machine(namespace, name).await {
        Ok(machine) => machine,
        Err(error) => {
            let problem = format!("{error}{}", error.listing_hint(namespace, "machines"));
            return failed(say, None, "Machine", problem);
        }
    };
    let spec = &machine.spec;
    let suspended = if spec.suspend { "; suspended: nothing starts" } else { "" };
    let is = format!("{}, port {}, as {}{suspended}", spec.address, spec.port, spec.user);
    say(Step { hop: None, what: "Machine", seen: Ok(is) });
    let resolved = match resolve(cluster, namespace, machine).await {
        Ok(resolved) => resolved,
        Err(end) => return failed(say, None, "declaration", end.into_problem()),
    };
    // Each connection goes through the previous connection, so all connections stay open.
    let mut open: Vec<Connection> = Vec::new();
    for (index, host) in resolved.hops.iter().chain([&resolved]).enumerate() {
        let hop = (index < resolved.hops.len()).then(|| host.name().to_owned());
        match log_in(network, host, open.last(), hop.as_deref(), say).await {
            Some(connection) => open.push(connection),
            None => return false,
        }
    }
    let Some(connection) = open.last() else { return false };
    let good = try_out(connection, &resolved, say).await;
    for connection in open.iter().rev() {
        connection.close().await;
    }
    good
}

fn failed(say: Say<'_>, hop: Option<&str>, what: &'static str, problem: String) -> bool {
    say(Step { hop: hop.map(str::to_owned), what, seen: Err(problem) });
    false
}

/// Logs in to a host, and reports each step from the Secret to the login. Returns the connection, or `None` if a step
/// failed.
async fn log_in(
    network: &AddressPolicy,
    host: &ResolvedMachine,
    outer: Option<&Connection>,
    hop: Option<&str>,
    say: Say<'_>,
) -> Option<Connection> {
    let mut tell = |what, seen| say(Step { hop: hop.map(str::to_owned), what, seen });
    let key = match host.credentials().await {
        Ok(key) => key,
        Err(end) => {
            tell("Secret", Err(end.into_problem()));
            return None;
        }
    };
    let credentials = &key.credentials;
    let fingerprints: Vec<String> = credentials.in_order().map(Credentials::fingerprint).collect();
    tell("Secret", Ok(format!("{}, key {}", host.secret.name, fingerprints.join(", then "))));
    let target = match host.target(trust_on_first_use::pinned_keys(&host.machine)) {
        Ok(target) => target,
        Err(end) => {
            tell("host keys", Err(end.into_problem()));
            return None;
        }
    };
    let deadline = Duration::from_secs(u64::from(host.machine.spec.probe.timeout_seconds));
    let connected = match outer {
        None => ssh::connect(&target, credentials, network, deadline).await,
        Some(outer) => ssh::connect_through(outer, &target, credentials, deadline).await,
    };
    match connected {
        Ok(connection) => {
            let proof = connection.host_key();
            let by = verified_by_text(proof.by);
            tell("connection", Ok(connection.peer().to_owned()));
            tell("host key", Ok(format!("{} ({}), {by}", proof.fingerprint, proof.algorithm)));
            let milliseconds = connection.login_time().as_millis();
            let login = connection.login();
            let by = if login.refused.is_empty() {
                String::new()
            } else {
                format!(" by {} ({}); refused: {}", login.entry, login.fingerprint, login.refused.join(", "))
            };
            tell("login", Ok(format!("as {} in {milliseconds} ms{by}", host.machine.spec.user)));
            Some(connection)
        }
        Err(error) => {
            for what in passed(&error) {
                tell(what, Ok("ok".to_owned()));
            }
            tell(failed_at(&error), Err(explain(&error)));
            None
        }
    }
}

fn verified_by_text(by: VerifiedBy) -> &'static str {
    match by {
        VerifiedBy::Pinned => "pinned in spec.hostKeys",
        VerifiedBy::Authority => "vouched for by spec.hostKeyAuthorities",
        VerifiedBy::FirstUse => "the one that was seen first",
    }
}

fn failed_at(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::AddressRefused { .. } => "address",
        ConnectError::Unreachable(_)
        | ConnectError::ConnectionDropped(_)
        | ConnectError::Busy(_)
        | ConnectError::ForwardingRefused(_) => "connection",
        ConnectError::Handshake(_) => "handshake",
        ConnectError::HostKeyMismatch { .. }
        | ConnectError::HostKeyRevoked { .. }
        | ConnectError::HostCertificateRefused { .. }
        | ConnectError::HostKeyUnknown { .. } => "host key",
        ConnectError::AuthenticationRefused { .. } | ConnectError::AccountRefused { .. } => "login",
        ConnectError::CredentialsUnusable(_) => "Secret",
    }
}

/// Returns the steps that succeeded before the failed step.
fn passed(error: &ConnectError) -> &'static [&'static str] {
    match failed_at(error) {
        "login" => &["connection", "host key"],
        "host key" | "handshake" => &["connection"],
        _ => &[],
    }
}

fn explain(error: &ConnectError) -> String {
    match error {
        ConnectError::HostKeyUnknown { algorithm, fingerprint } => format!(
            "{fingerprint} ({algorithm}) is seen for the first time, and nothing was said to it; `writ serve` freezes the key \
             when it looks at the machine or runs something there"
        ),
        error => error.to_string(),
    }
}

/// Checks if commands can be started, and reports the system information of the machine.
async fn try_out(connection: &Connection, resolved: &ResolvedMachine, say: Say<'_>) -> bool {
    let spec = &resolved.machine.spec;
    if spec.execution.mode == ExecutionMode::Durable {
        match fitness(connection, resolved).await {
            Ok(directory) => say(Step { hop: None, what: "launcher", seen: Ok(format!("works in {directory}")) }),
            Err(end) => return failed(say, None, "launcher", end.into_problem()),
        }
    }
    match request_system_info(connection).await {
        Ok(system) => {
            let words = [system.hostname, system.os, system.architecture, system.kernel, system.shell];
            let seen = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
            say(Step { hop: None, what: "system", seen: Ok(seen) });
            true
        }
        Err(_) => {
            failed(say, None, "system", "the machine executes nothing: see sshd's configuration and log".to_owned())
        }
    }
}

async fn fitness(connection: &Connection, resolved: &ResolvedMachine) -> Result<String, ConnectFailure> {
    let session = open_with_retry(connection).await.map_err(|error| ConnectFailure::from_ssh(&error))?;
    let known = inspect(connection, session, resolved.machine.spec.execution.directory.as_deref()).await;
    Ok(check_support(known, &resolved.machine)?.facts.directory)
}
