//! From an execution to a place on a connection to its machine, by what Machine and Secret say now.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::api::{CREDENTIALS_LABEL, CREDENTIALS_TYPE, Machine, Reason};
use crate::cluster::ClusterError;
use crate::execution::{LaunchProblem, MachineShown};
use crate::ssh::{self, ConnectError, Connection, Credentials, HostTrust, Network, Session, Target, TrustParts};

use super::asking::AskError;
use super::attempt::{AttemptEnd, obsolete_or_again};
use super::connections::{Known, Line};
use super::queue::random_fraction;
use super::{Inner, Work};

/// How long resolving, connecting, the handshake and logging in may take together. A healthy machine takes well under
/// a second; sshd's UseDNS may cost 5 s where its resolver is down.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Tries where the machine drops the connection at once: sshd does that to some of those that come together.
const DROPPED_TRIES: u32 = 4;
/// The pause after the first of them; it doubles, and half as much again is added at random.
const DROPPED_PAUSE: Duration = Duration::from_millis(150);

/// A place on a shared connection, and what the machine said of itself.
pub(super) struct Reached {
    pub line: Line,
    pub known: Known,
}

impl Reached {
    /// What the machine shows of itself, to be held against a claim.
    pub fn shown<'a>(&'a self, address: &'a str) -> MachineShown<'a> {
        let facts = &self.known.facts;
        MachineShown {
            address,
            boot_id: &facts.boot_id,
            directory: &facts.directory,
            directory_id: &facts.directory_id,
        }
    }

    /// Opens a session. A connection on which that fails is given up, unless it is only busy: others share it.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = self.line.open().await;
        if matches!(&opened, Err(error) if !matches!(error, ConnectError::Busy(_))) {
            self.line.give_up().await;
        }
        opened
    }

    /// The address and port that were reached.
    pub fn address(&self) -> String {
        self.line.connection().at().to_owned()
    }
}

/// A machine as it is declared: where it is, and with which key.
#[derive(Clone)]
pub(super) struct Declared {
    pub machine: Machine,
    pub secret: Secret,
}

/// Reads a Machine and its Secret.
pub(super) async fn read_declared(inner: &Inner, namespace: &str, machine: &str) -> Result<Declared, AttemptEnd> {
    let machine = inner.cluster.machine(namespace, machine).await.map_err(|error| obsolete_or_again(&error))?;
    let secret = read_secret(inner, namespace, &machine.spec.credentials_ref.name).await?;
    Ok(Declared { machine, secret })
}

/// Reads both again, at the same time: None where they are no longer what they were.
pub(super) async fn read_again(
    inner: &Inner,
    namespace: &str,
    before: &Declared,
) -> Result<Option<Declared>, AttemptEnd> {
    let name = before.machine.metadata.name.as_deref().unwrap_or_default();
    let secret = &before.machine.spec.credentials_ref.name;
    let (machine, secret) = tokio::join!(inner.cluster.machine(namespace, name), read_secret(inner, namespace, secret));
    let machine = machine.map_err(|error| obsolete_or_again(&error))?;
    let (was, is) = (&before.machine.metadata, &machine.metadata);
    if (&was.uid, was.generation) != (&is.uid, is.generation) {
        // What became of the Secret that it had before is of no account.
        return Ok(None);
    }
    let now = Declared { machine, secret: secret? };
    Ok((identity(before) == identity(&now)).then_some(now))
}

async fn read_secret(inner: &Inner, namespace: &str, name: &str) -> Result<Secret, AttemptEnd> {
    inner.cluster.secret(namespace, name).await.map_err(|error| match error {
        ClusterError::NotFound { .. } => refused(
            Reason::CredentialsNotFound,
            format!("there is no Secret {name} in this namespace (spec.credentialsRef of the Machine); create it"),
        ),
        ClusterError::Forbidden { message, .. } => {
            refused(Reason::CredentialsNotFound, format!("writ may not read the Secret {name}: {message}"))
        }
        error => obsolete_or_again(&error),
    })
}

/// Opens a session where a connection to the machine is open and has room. Reads nothing: whether it is still the right
/// machine has to be seen before the claim.
pub(super) async fn open_where_reached(inner: &Inner, work: &Work) -> Option<(Arc<Declared>, Reached, Session)> {
    let declared = inner.connections.noted(&work.machine_key())?;
    let line = inner.connections.free_line(&identity(&declared))?;
    let known = line.known(declared.machine.spec.execution.directory.as_deref()).await.ok()?.clone();
    let reached = Reached { line, known };
    let session = reached.open().await.ok()?;
    Some((declared, reached, session))
}

/// Reaches a machine and opens a session. A shared connection may have died unnoticed, or be full: then it is done once
/// more, on another.
pub(super) async fn reach_and_open(inner: &Inner, declared: &Declared) -> Result<(Reached, Session), AttemptEnd> {
    let reached = reach(inner, declared).await?;
    match reached.open().await {
        Ok(session) => Ok((reached, session)),
        Err(_) => {
            let reached = reach(inner, declared).await?;
            let session = reached.open().await.map_err(|error| end_of(&error))?;
            Ok((reached, session))
        }
    }
}

/// Reaches the machine of an execution by what is declared now, for those who only try again where that fails.
pub(super) async fn reach_declared(inner: &Inner, work: &Work) -> Result<Reached, String> {
    let reached = async {
        let declared = read_declared(inner, &work.key.namespace, &work.machine).await?;
        reach(inner, &declared).await
    };
    reached.await.map_err(AttemptEnd::into_problem)
}

/// Opens a session beside those that are open, for a word to a command that runs. A machine that has no session to spare
/// on the connection is reached by another one.
pub(super) async fn open_beside(
    inner: &Inner,
    work: &Work,
    reached: &Reached,
) -> Result<(Option<Reached>, Session), String> {
    match reached.open().await {
        Ok(session) => Ok((None, session)),
        Err(ConnectError::Busy(_)) => {
            let other = reach_declared(inner, work).await?;
            let session = other.open().await.map_err(|error| error.to_string())?;
            Ok((Some(other), session))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Finds or makes a connection, and asks the machine what it is.
pub(super) async fn reach(inner: &Inner, declared: &Declared) -> Result<Reached, AttemptEnd> {
    let line = inner.connections.line(&identity(declared), async || connect(declared).await).await?;
    let directory = declared.machine.spec.execution.directory.as_deref();
    let known = line.known(directory).await.cloned();
    match known {
        Ok(known) if known.facts.ends_with_session && declared.machine.spec.user != "root" => {
            let message = "systemd on the machine ends what a login leaves behind (KillUserProcesses=yes in logind.conf), so no \
                           command would outlive its connection; set it to no, or set execution.mode: Direct on the Machine";
            Err(refused(Reason::MachineUnfit, message.to_owned()))
        }
        Ok(known) => Ok(Reached { line, known }),
        Err(AskError::Connect(error)) => Err(end_of(&error)),
        Err(AskError::Silence(problem)) => {
            // It may be dead without anybody having said so.
            line.give_up().await;
            Err(AttemptEnd::Offline(problem))
        }
        Err(AskError::Unfit(message)) => {
            let problem = LaunchProblem { reason: Reason::MachineUnfit, message };
            Err(AttemptEnd::Refused { problem, machine_at_fault: true })
        }
    }
}

/// A connection for this execution alone.
pub(super) async fn connect(declared: &Declared) -> Result<Connection, AttemptEnd> {
    let (target, credentials) = target_of(declared)?;
    connect_patiently(&target, &credentials).await
}

/// What a connection is good for: this state of the Machine and of its Secret.
pub(super) fn identity(declared: &Declared) -> String {
    let (machine, secret) = (&declared.machine.metadata, &declared.secret.metadata);
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}/{}/{}/{}",
        word(&machine.uid),
        machine.generation.unwrap_or_default(),
        word(&secret.uid),
        word(&secret.resource_version)
    )
}

fn target_of(declared: &Declared) -> Result<(Target, Credentials), AttemptEnd> {
    let spec = &declared.machine.spec;
    let parts = TrustParts {
        host_keys: &spec.host_keys,
        authorities: &spec.host_key_authorities,
        revoked: &spec.revoked_host_keys,
        name: &spec.address,
        ..TrustParts::default()
    };
    let trust = HostTrust::parse(parts).map_err(|error| refused(Reason::MachineInvalid, error.to_string()))?;
    let target = Target { address: spec.address.clone(), port: spec.port, user: spec.user.clone(), trust };
    Ok((target, credentials_of(&declared.secret)?))
}

fn credentials_of(secret: &Secret) -> Result<Credentials, AttemptEnd> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let invalid = |what: String| refused(Reason::CredentialsInvalid, format!("the Secret {name} {what}"));
    if secret.type_.as_deref() != Some(CREDENTIALS_TYPE) {
        return Err(invalid(format!(
            "must have the type {CREDENTIALS_TYPE}; a Secret's type cannot change, create it anew"
        )));
    }
    let labelled = secret.metadata.labels.as_ref().and_then(|labels| labels.get(CREDENTIALS_LABEL));
    if labelled.map(String::as_str) != Some("true") {
        return Err(invalid(format!(
            "must have the label {CREDENTIALS_LABEL}: \"true\" to be used by writ (kubectl label secret {name} {CREDENTIALS_LABEL}=true)"
        )));
    }
    let Some(key) = secret.data.as_ref().and_then(|data| data.get("ssh-privatekey")) else {
        return Err(invalid("must have the private key in data.ssh-privatekey".to_owned()));
    };
    Credentials::parse(&key.0, None, None).map_err(|error| invalid(format!("(data.ssh-privatekey): {error}")))
}

async fn connect_patiently(target: &Target, credentials: &Credentials) -> Result<Connection, AttemptEnd> {
    // Until the flags of `writ serve` say more: everywhere, loopback too.
    let everywhere = ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1"].iter().flat_map(|range| range.parse()).collect();
    let network = Network::new(everywhere, Vec::new(), Vec::new());
    let mut tries = 0;
    loop {
        match ssh::connect(target, credentials, &network, CONNECT_DEADLINE).await {
            Ok(connection) => return Ok(connection),
            Err(ConnectError::Dropped(message)) if tries < DROPPED_TRIES => {
                tracing::debug!(message, "the machine dropped a connection; trying again");
                let pause = DROPPED_PAUSE.saturating_mul(1 << tries);
                tokio::time::sleep(pause + pause.mul_f64(0.5 * random_fraction())).await;
                tries += 1;
            }
            Err(error) => return Err(end_of(&error)),
        }
    }
}

pub(super) fn end_of(error: &ConnectError) -> AttemptEnd {
    let reason = match error {
        ConnectError::Unreachable(message) | ConnectError::Dropped(message) | ConnectError::Busy(message) => {
            return AttemptEnd::Offline(message.clone());
        }
        ConnectError::HostKeyMismatch { .. }
        | ConnectError::HostKeyRevoked { .. }
        | ConnectError::HostCertificateRefused { .. }
        | ConnectError::HostKeyNew { .. } => Reason::HostKeyMismatch,
        ConnectError::AuthenticationRefused { .. } => Reason::AuthenticationRefused,
        ConnectError::CredentialsUnusable(_) => Reason::CredentialsInvalid,
        ConnectError::AddressRefused { .. } | ConnectError::ForwardingRefused(_) => Reason::MachineInvalid,
        ConnectError::Handshake(_) => Reason::HandshakeFailed,
    };
    AttemptEnd::Refused { problem: LaunchProblem { reason, message: error.to_string() }, machine_at_fault: true }
}

pub(super) fn refused(reason: Reason, message: String) -> AttemptEnd {
    AttemptEnd::Refused { problem: LaunchProblem { reason, message }, machine_at_fault: false }
}
