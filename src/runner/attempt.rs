//! From a slot to a claim. Nothing of the command is sent here.
//!
//! 1. read the execution, the Machine and the Secret;
//! 2. connect, log in, open a session (which executes nothing);
//! 3. read everything again, live, and decide again: a change that was committed while the connection was being made
//!    counts;
//! 4. claim (see `claim`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use crate::api::{CREDENTIALS_LABEL, CREDENTIALS_TYPE, CommandExecution, Machine, Reason};
use crate::cluster::ClusterError;
use crate::execution::{LaunchProblem, NOW_MEANS_WITHIN};
use crate::policy::{self, Decision, Request, Verdict};
use crate::ssh::{self, ConnectError, Connection, Credentials, PinnedKeys, Session, Target};

use super::claim::{self, Holding};
use super::queue::random_fraction;
use super::{Inner, Work};

/// How long resolving, connecting, the handshake and logging in may take together. A healthy machine takes well under
/// a second; sshd's UseDNS may cost 5 s where its resolver is down.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long opening a session may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Tries where the machine drops the connection at once: sshd does that to some of those that come together.
const DROPPED_TRIES: u32 = 4;
/// The pause where something has changed under the attempt: long enough to be no loop, short enough not to be noticed.
pub(super) const AGAIN_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// The pause where the API server did not answer.
const AGAIN_AFTER_SILENCE: Duration = Duration::from_secs(1);
/// The pause where it answered that this process may not do that: a person has to grant it.
pub(super) const AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// The pause after the first of them; it doubles, and half as much again is added at random.
const DROPPED_PAUSE: Duration = Duration::from_millis(150);

/// How an attempt ended.
pub(super) enum AttemptEnd {
    /// The claim is stored. The command may be sent.
    Claimed(Box<Claimed>),
    /// A claimed command has ended and is recorded.
    Done,
    /// There is nothing to do any more, or something else to decide: the controller looks again.
    Obsolete,
    /// Nothing was sent to the machine, and it may be tried again after this pause.
    Again(Duration),
    /// The machine was not reached.
    Offline(String),
    /// It will not start.
    Refused {
        /// Why.
        problem: LaunchProblem,
        /// Whether others would meet the same on this machine, so that it is better left alone for a moment.
        machine_at_fault: bool,
    },
}

/// A stored claim, and the open session to execute in.
pub(super) struct Claimed {
    pub holding: Holding,
    pub connection: Connection,
    pub session: Session,
}

/// Everything that a decision rests on, read live.
pub(super) struct Ground {
    pub execution: CommandExecution,
    pub machine: Machine,
    pub secret: Secret,
}

pub(super) async fn attempt(inner: &Inner, work: &Work) -> AttemptEnd {
    match try_to_claim(inner, work).await {
        Ok(claimed) => AttemptEnd::Claimed(Box::new(claimed)),
        Err(end) => end,
    }
}

async fn try_to_claim(inner: &Inner, work: &Work) -> Result<Claimed, AttemptEnd> {
    // Up to the claim nothing is lost by leaving off at once.
    let (ground, connection, session) = tokio::select! {
        prepared = prepare(inner, work) => prepared?,
        () = inner.stopping.cancelled() => return Err(AttemptEnd::Obsolete),
    };
    match claim::claim(inner, work, &ground, &connection).await {
        Ok(holding) => Ok(Claimed { holding, connection, session }),
        Err(end) => {
            connection.close().await;
            Err(end)
        }
    }
}

/// Reads what is needed to connect, connects, and opens a session.
async fn prepare(inner: &Inner, work: &Work) -> Result<(Ground, Connection, Session), AttemptEnd> {
    if inner.holders.standing().is_none() {
        // It could claim nothing: do not log in for that.
        return Err(AttemptEnd::Again(AGAIN_AFTER_SILENCE));
    }
    let ground = read_ground(inner, work).await?;
    let (target, credentials) = target_of(&ground)?;
    let connection = connect_patiently(&target, &credentials).await?;
    let session = connection.open(OPEN_DEADLINE).await.map_err(|error| end_of(&error))?;
    Ok((ground, connection, session))
}

/// Whether an unfinished execution is claimed with this token.
pub(super) fn is_ours(execution: &CommandExecution, token: &str) -> bool {
    !execution.phase().is_finished() && execution.claim().is_some_and(|claim| claim.token == token)
}

/// Reads the execution, its Machine and its Secret.
async fn read_ground(inner: &Inner, work: &Work) -> Result<Ground, AttemptEnd> {
    let execution = read_execution(inner, work, None).await?;
    read_machine(inner, work, execution).await
}

/// Reads the execution. A claim with `token` is our own, made a moment ago.
pub(super) async fn read_execution(
    inner: &Inner,
    work: &Work,
    token: Option<&str>,
) -> Result<CommandExecution, AttemptEnd> {
    let namespace = &work.key.namespace;
    let execution =
        inner.cluster.execution(namespace, &work.key.name).await.map_err(|error| obsolete_or_again(&error))?;
    let is_ours = token.is_some_and(|token| is_ours(&execution, token));
    if execution.metadata.uid.as_deref() != Some(&work.key.uid)
        || execution.phase().is_finished()
        || (!is_ours && (execution.is_claimed() || execution.is_unwanted() || inner.stopping.is_cancelled()))
    {
        return Err(AttemptEnd::Obsolete);
    }
    Ok(execution)
}

/// Reads the Machine and the Secret beside an execution.
pub(super) async fn read_machine(
    inner: &Inner,
    work: &Work,
    execution: CommandExecution,
) -> Result<Ground, AttemptEnd> {
    let namespace = &work.key.namespace;
    let machine = inner.cluster.machine(namespace, &work.machine).await.map_err(|error| obsolete_or_again(&error))?;
    let name = &machine.spec.credentials_ref.name;
    let secret = inner.cluster.secret(namespace, name).await.map_err(|error| match error {
        ClusterError::NotFound { .. } => refused(
            Reason::CredentialsNotFound,
            format!("there is no Secret {name} in this namespace (spec.credentialsRef of the Machine); create it"),
        ),
        ClusterError::Forbidden { message, .. } => {
            refused(Reason::CredentialsNotFound, format!("writ may not read the Secret {name}: {message}"))
        }
        error => obsolete_or_again(&error),
    })?;
    Ok(Ground { execution, machine, secret })
}

/// Decides again, from what is live.
pub(super) async fn decide_again(inner: &Inner, ground: &Ground) -> Result<Decision, AttemptEnd> {
    let namespace = ground.execution.metadata.namespace.as_deref().unwrap_or_default();
    let rules = inner.policies.rules(namespace).await.map_err(|error| obsolete_or_again(&error))?;
    let request = Request::parse(&ground.execution.spec).map_err(|_| AttemptEnd::Obsolete)?;
    let identity = inner.stamping.identity(&ground.execution).await;
    match policy::decide(&rules, &request, ground.machine.labels(), identity) {
        Verdict::Allow(decision) => Ok(*decision),
        // The controller sees the same, and says why.
        Verdict::Deny(_) => Err(AttemptEnd::Obsolete),
    }
}

/// Whether the execution may still start: its deadline is not over.
pub(super) fn in_time(execution: &CommandExecution) -> bool {
    let Some(age) = execution.age(Timestamp::now()) else { return false };
    match execution.spec.starting_deadline_seconds {
        // One attempt, now; the attempt itself may take as long as its own deadlines let it.
        0 => age < NOW_MEANS_WITHIN + CONNECT_DEADLINE + OPEN_DEADLINE,
        seconds => age < Duration::from_secs(u64::from(seconds)),
    }
}

fn target_of(ground: &Ground) -> Result<(Target, Credentials), AttemptEnd> {
    let spec = &ground.machine.spec;
    let host_keys =
        PinnedKeys::parse(&spec.host_keys).map_err(|error| refused(Reason::MachineInvalid, error.to_string()))?;
    let target = Target { address: spec.address.clone(), port: spec.port, user: spec.user.clone(), host_keys };
    Ok((target, credentials_of(&ground.secret)?))
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
    Credentials::parse(&key.0).map_err(|error| invalid(format!("(data.ssh-privatekey): {error}")))
}

async fn connect_patiently(target: &Target, credentials: &Credentials) -> Result<Connection, AttemptEnd> {
    let mut tries = 0;
    loop {
        match ssh::connect(target, credentials, CONNECT_DEADLINE).await {
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

fn end_of(error: &ConnectError) -> AttemptEnd {
    let reason = match error {
        ConnectError::Unreachable(message) | ConnectError::Dropped(message) => {
            return AttemptEnd::Offline(message.clone());
        }
        ConnectError::HostKeyMismatch { .. } => Reason::HostKeyMismatch,
        ConnectError::AuthenticationRefused { .. } => Reason::AuthenticationRefused,
        ConnectError::Handshake(_) => Reason::HandshakeFailed,
    };
    AttemptEnd::Refused { problem: LaunchProblem { reason, message: error.to_string() }, machine_at_fault: true }
}

fn refused(reason: Reason, message: String) -> AttemptEnd {
    AttemptEnd::Refused { problem: LaunchProblem { reason, message }, machine_at_fault: false }
}

/// What a failed read means before the claim: gone or changed is for the controller to judge, no answer is asked again.
pub(super) fn obsolete_or_again(error: &ClusterError) -> AttemptEnd {
    match error {
        ClusterError::Unavailable { .. } => {
            tracing::warn!(%error, category = error.category(), "an execution waits for the API server");
            AttemptEnd::Again(AGAIN_AFTER_SILENCE)
        }
        ClusterError::Forbidden { .. } => {
            tracing::warn!(%error, category = error.category(), "an execution waits for a permission");
            AttemptEnd::Again(AGAIN_AFTER_REFUSAL)
        }
        _ => AttemptEnd::Obsolete,
    }
}
