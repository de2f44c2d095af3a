//! Writes the claim: one PUT of the status with the resourceVersion of the execution that the decision depends on. After
//! this PUT, the command may start.
//!
//! If the API server's response is lost (crash point 1 of the design), Writ reads the execution again. The token in the
//! claim shows the result:
//! - own token: the claim is stored;
//! - no claim: the task tries again;
//! - another token, or a finished execution: the task stops.
//!
//! Until the result is known, Writ does not send the command. The command and its timeout come from the stored
//! decision.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::execution_status::{Claim, DecisionRecord, MachineRecord, RemoteRecord};
use crate::api::{CommandExecution, CommandExecutionStatus, ExecutionMode, Reason};
use crate::cluster::{ClusterError, ExecutionKey, LeaseEpoch};
use crate::execution::{self, ClaimRecord, LaunchProblem, ObjectSize};
use crate::output::{LiveClaim, OutputKey, Recorder};
use crate::policy::Redaction;
use crate::ssh::Connection;

use crate::fleet::{ConnectFailure, RETRY_AFTER_CHANGE, ResolvedMachine, TimedFacts, max_concurrent, read_again};

use super::context::Context;
use super::decision_input::{
    DecisionInput, check_startable, decide_with, is_before_deadline, is_claimed_with, read_execution, start_deadline,
};
use super::execution_connection::ExecutionConnection;
use super::queued_execution::{QueuedExecution, ReadExecution};

/// Maximum number of attempts if another client changes the object (its labels, for example) between read and claim.
/// After these attempts, the execution returns to its queue.
const CONFLICT_TRIES: u32 = 5;
/// Pause between reads of the execution while it is unknown if the claim is stored.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// Pause after reads that took longer than the Lease. The API server is overloaded.
const RETRY_AFTER_SLOW_READS: Duration = Duration::from_secs(5);

/// Text for a starting deadline that has passed while the machine's login did not start the command.
pub(super) const DEADLINE_BEFORE_LOGIN: &str = "the starting deadline was over before the login let it start";

/// A stored claim: the right to send the command and to write its result.
pub(super) struct HeldClaim {
    pub key: ExecutionKey,
    pub token: String,
    /// The execution as the API server stored it with the claim.
    pub execution: CommandExecution,
    /// The decision as the API server stored it with the claim. Writ runs the command that this decision contains.
    pub decision: DecisionRecord,
    /// True if the API server stored the decision without a change, and also stored `status.reserved`. CRDs of another
    /// version drop unknown fields, for example `runAs` or `redact`.
    pub is_stored_unchanged: bool,
    /// Lease epoch at the time of the claim, or of a later decision to start the command. The command may start only
    /// while this epoch lasts.
    pub standing: LeaseEpoch,
    /// Time at which Writ began to read the objects for the claim, or for a later decision to start the command.
    pub decided: Instant,
    /// Publisher of the claim and of the command's progress, for viewers of live output.
    pub live: LiveClaim,
}

impl HeldClaim {
    /// Returns the reason why Writ must no longer send the command, or `None`. For example, if this process was paused
    /// after the claim, another process has perhaps adopted the claim.
    pub fn check_still_valid(&self, context: &Context, cancel: &CancellationToken) -> Option<LaunchProblem> {
        let late = "the starting deadline was over before the claim was confirmed";
        let (reason, why) = self.obstacle(context, cancel, late)?;
        Some(LaunchProblem { reason, message: format!("{why}; nothing was sent") })
    }

    /// Returns the reason why Writ must not send the command in a further session, or `None`. Earlier sessions of this
    /// claim did not start the command.
    pub fn check_may_repeat(&self, context: &Context, cancel: &CancellationToken) -> Option<LaunchProblem> {
        let (reason, why) = self.obstacle(context, cancel, DEADLINE_BEFORE_LOGIN)?;
        Some(LaunchProblem { reason, message: format!("{why}; it was not started") })
    }

    /// Returns the reason why Writ must not send the command now, or `None`. `late` is the text for a starting deadline
    /// that has passed.
    fn obstacle(
        &self,
        context: &Context,
        cancel: &CancellationToken,
        late: &'static str,
    ) -> Option<(Reason, &'static str)> {
        let is_stale = self.decided.elapsed() > context.holders.duration();
        if let Some(lost) = self.lost(context, is_stale) {
            Some(lost)
        } else if !self.is_stored_unchanged {
            // CRDs of older versions also allow this reason, so the API server can store it.
            Some((
                Reason::PolicyBroken,
                "the API server did not store the decision as it was made: install the CRDs of this version of writ \
                 (kubectl apply --server-side -f crds/)",
            ))
        } else if !is_before_deadline(&self.execution, context.cluster.now()) {
            Some((Reason::StartingDeadlineExceeded, late))
        } else if self.execution.is_cancelled_or_deleted() || cancel.is_cancelled() {
            Some((Reason::CancelledBeforeStart, "cancelled before it started"))
        } else {
            None
        }
    }

    /// Returns the reason why a waiting login must not start the command, or `None`. Only Direct mode has such a login.
    /// Ignores the age of the decision, because the login can take long.
    pub fn check_may_permit(&self, context: &Context, cancel: &CancellationToken) -> Option<LaunchProblem> {
        let (reason, why) = if let Some(lost) = self.lost(context, false) {
            lost
        } else if cancel.is_cancelled() {
            (Reason::CancelledBeforeStart, "cancelled before it started")
        } else if !is_before_deadline(&self.execution, context.cluster.now()) {
            let why = "the starting deadline was over when the login's start-up files were done";
            (Reason::StartingDeadlineExceeded, why)
        } else {
            return None;
        };
        Some(LaunchProblem { reason, message: format!("{why}; Writ sent the machine no order to start it") })
    }

    /// Returns the reason why the claim is no longer valid, or `None`.
    fn lost(&self, context: &Context, is_stale: bool) -> Option<(Reason, &'static str)> {
        if context.aborting.is_cancelled() {
            return Some((Reason::HolderLost, "this writ serve shut down before it had started the command"));
        }
        let is_lost = is_stale || context.holders.current_epoch() != Some(self.standing);
        is_lost.then_some((Reason::HolderLost, "this writ was cut off for too long after the claim to start it"))
    }

    /// Returns the compiled redaction patterns of the stored decision.
    pub fn redaction(&self) -> Result<Redaction, LaunchProblem> {
        redaction(&self.decision)
    }

    /// Returns a recorder for the output of the command, with the limits of the decision.
    pub fn recorder(&self, context: &Context, redaction: &Redaction) -> Recorder {
        // The API server rejects a negative limit. If a negative limit is stored anyway, 0 bytes are kept inline.
        let inline_bytes = usize::try_from(self.decision.output.inline_bytes).unwrap_or(0);
        Recorder::new(&self.live, inline_bytes, redaction, context.outputs.store.clone())
    }
}

/// Publishes a stored claim to viewers.
pub(super) fn publish_claim(context: &Context, key: &ExecutionKey, is_adopted: bool) -> LiveClaim {
    let output_key = OutputKey { namespace: key.namespace.clone(), uid: key.uid.clone() };
    context.outputs.live.claimed(output_key, &key.name, is_adopted)
}

/// Compiles the redaction patterns of the decision. If a pattern does not compile, the command must not run, because
/// Writ could not redact its output.
fn redaction(decision: &DecisionRecord) -> Result<Redaction, LaunchProblem> {
    Redaction::compile(&decision.redact).map_err(|error| LaunchProblem {
        reason: Reason::PolicyBroken,
        message: format!(
            "the output could not be redacted as rule {}/{} demands (decision.{error}); nothing was sent",
            decision.whitelist.name, decision.rule
        ),
    })
}

/// Result of an attempt to store the claim with a given token.
pub(super) enum ClaimState {
    /// The claim is stored, and the execution is unfinished.
    Ours(Box<CommandExecution>),
    /// The claim is not stored. The task can try again.
    NotStored,
    /// This task cannot use the claim, for one of these reasons:
    /// - The execution is finished or deleted.
    /// - Another process holds the claim.
    /// - This process ends before the result is known.
    Lost,
}

/// Reads policy, Machine and Secret again, decides again, and writes the claim. `known` is the execution, if it was just
/// read. If the execution has changed since, the API server refuses the claim, and the next try reads it again.
pub(super) async fn claim(
    context: &Context,
    work: &QueuedExecution,
    mut known: Option<ReadExecution>,
    connected_by: &ResolvedMachine,
    connection: &ExecutionConnection,
) -> Result<HeldClaim, ConnectFailure> {
    // All attempts use one token, so Writ also recognizes a claim that an earlier attempt stored.
    let token = Uuid::new_v4().to_string();
    let standing = context.holders.current_epoch().ok_or(ConnectFailure::RetryAfter(SETTLE_PAUSE))?;
    let decided = Instant::now();
    // Decisions of all attempts. After a lost response, the API server has perhaps stored an earlier decision.
    let mut made = Vec::new();
    for _ in 0..CONFLICT_TRIES {
        // The reads of the API server run concurrently, because the open SSH connection waits for them.
        let (execution, resolved, rules) = tokio::join!(
            known_or_read(context, work, &token, known.take()),
            read_again(&context.fleet.cluster, &work.key.namespace, connected_by),
            context.policies.confirmed(&work.key.namespace),
        );
        let ReadExecution { execution, size } = execution?;
        if is_claimed_with(&execution, &token) {
            return held_claim(context, work, token, execution, &made, (standing, decided));
        }
        let is_first_write = made.is_empty();
        let resolved = check_machine(context, work, connected_by, resolved?, is_first_write)?;
        let ground = DecisionInput { execution, resolved };
        // Without the finalizer, the execution could disappear while its command runs.
        if !is_before_deadline(&ground.execution, context.cluster.now()) || !ground.execution.has_audit_finalizer() {
            return Err(ConnectFailure::Obsolete);
        }
        let rules = rules.map_err(|error| ConnectFailure::from_read(&error))?;
        let decision = decide_with(context, &ground, &rules).await?;
        let now = context.cluster.now();
        let records = records(context, &ground, connection, &token, now);
        let mut status = execution::with_claim(&ground.execution, &decision, records, now);
        execution::reserve(&mut status, &size);
        made.extend(status.decision.clone());
        check_time(context, work, (standing, decided), is_first_write)?;
        let state = put(context, work, (&ground.execution, &size), status, &token).await?;
        match state {
            ClaimState::Ours(execution) => {
                return held_claim(context, work, token, *execution, &made, (standing, decided));
            }
            ClaimState::NotStored => {}
            ClaimState::Lost => return Err(ConnectFailure::Obsolete),
        }
    }
    Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE))
}

/// Checks just before the write that this process still has its Lease.
///
/// # Errors
/// The Lease was not renewed in time, so other processes perhaps adopt the claims of this process. Or, before the first
/// write, the reads took so long that the claim would be too old to start the command. An earlier write is perhaps
/// stored later, so the task then continues.
fn check_time(
    context: &Context,
    work: &QueuedExecution,
    (standing, decided): (LeaseEpoch, Instant),
    is_first_write: bool,
) -> Result<(), ConnectFailure> {
    if context.holders.current_epoch() != Some(standing) {
        return Err(ConnectFailure::RetryAfter(SETTLE_PAUSE));
    }
    if is_first_write && decided.elapsed() > context.holders.duration() {
        tracing::warn!(execution = %work.key, "the reads for a claim took longer than the Lease lasts; trying again");
        return Err(ConnectFailure::RetryAfter(RETRY_AFTER_SLOW_READS));
    }
    Ok(())
}

/// Returns the Machine that was read again.
///
/// # Errors
/// The Machine or its Secret has changed, so the next attempt opens a new connection. Or, before the first write, more
/// executions have a slot than `maxConcurrent` allows now, so this execution returns to its queue. In both cases, the
/// controller of Machines reads the new `maxConcurrent`, even if the watch has not delivered the change.
fn check_machine(
    context: &Context,
    work: &QueuedExecution,
    connected_by: &ResolvedMachine,
    again: Option<ResolvedMachine>,
    is_first_write: bool,
) -> Result<ResolvedMachine, ConnectFailure> {
    let key = work.machine_key();
    let (in_use, _) = context.queues().counts(&key);
    match again {
        Some(resolved) if !is_first_write || in_use <= max_concurrent(&resolved.machine) => return Ok(resolved),
        // The queue gets the new limit at once. If the Machine is suspended too, its controller must report this.
        Some(resolved) if !resolved.machine.spec.suspend => {
            context.fleet.machines.entry(&key).state().configure(&resolved.machine);
        }
        Some(_) => {}
        None => context.fleet.invalidate(connected_by.machine.metadata.uid.as_deref().unwrap_or_default(), None),
    }
    context.fleet.machines.wake(&key);
    Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE))
}

/// Returns the execution that is already known, or else reads it. Checks that this task may start it. Adds the finalizer
/// if it is missing, because the execution must not disappear while its command runs.
async fn known_or_read(
    context: &Context,
    work: &QueuedExecution,
    token: &str,
    known: Option<ReadExecution>,
) -> Result<ReadExecution, ConnectFailure> {
    if let Some(known) = known {
        let known = check_startable(context, work, Some(token), known)?;
        if let Some(protected) = with_finalizer(context, work, token, known).await? {
            return Ok(protected);
        }
    }
    let read = read_execution(context, work, Some(token)).await?;
    // The execution has changed again, is being deleted, or is deleted. The controller reads it again.
    with_finalizer(context, work, token, read).await?.ok_or(ConnectFailure::Obsolete)
}

/// Adds the finalizer if it is missing. Returns `None` if the execution has changed since it was read.
async fn with_finalizer(
    context: &Context,
    work: &QueuedExecution,
    token: &str,
    read: ReadExecution,
) -> Result<Option<ReadExecution>, ConnectFailure> {
    if read.execution.has_audit_finalizer() || read.execution.is_claimed() {
        return Ok(Some(read));
    }
    match context.cluster.add_finalizer(&read.execution).await {
        Ok((execution, size)) => {
            check_startable(context, work, Some(token), ReadExecution { execution, size }).map(Some)
        }
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. } | ClusterError::Invalid { .. }) => Ok(None),
        Err(error) => Err(ConnectFailure::from_read(&error)),
    }
}

/// Writes the claim with the resourceVersion that was read.
async fn put(
    context: &Context,
    work: &QueuedExecution,
    (read, size): (&CommandExecution, &ObjectSize),
    status: CommandExecutionStatus,
    token: &str,
) -> Result<ClaimState, ConnectFailure> {
    // From here on, the controller does not write the status, even if the API server's response is lost.
    context.queues().mark_claiming(&work.key);
    match context.cluster.replace_status(read, status).await {
        Ok(execution) => Ok(ClaimState::Ours(Box::new(execution))),
        // Perhaps this write or an earlier write of this task has stored the claim. The next read shows the result.
        Err(error) if error.is_ambiguous() || matches!(error, ClusterError::Conflict { .. }) => {
            Ok(resolve_claim(context, &work.key, token).await)
        }
        // The claim reserves space for the result, and etcd refuses the object with this space. Either the object grew
        // after the controller checked its size, or this etcd has a lower size limit than the default.
        Err(ClusterError::TooLarge { message, .. }) => {
            let message = format!("{} ({message}; nothing was sent)", execution::no_space_message(size));
            Err(ConnectFailure::from_configuration(Reason::ObjectTooLarge, message))
        }
        Err(error @ ClusterError::Invalid { .. }) => {
            tracing::warn!(%error, execution = %work.key, "a claim was refused: are the CRDs of this version installed?");
            // The API server would refuse the same claim again. Writ has sent nothing.
            let message = format!(
                "the API server refused to record the claim, so nothing was sent: {error}; install the CRDs of this version of \
                 writ (kubectl apply --server-side -f crds/), and look at the admission policies"
            );
            Err(ConnectFailure::from_configuration(Reason::PolicyBroken, message))
        }
        Err(error) => Err(ConnectFailure::from_read(&error)),
    }
}

fn held_claim(
    context: &Context,
    work: &QueuedExecution,
    token: String,
    execution: CommandExecution,
    made: &[DecisionRecord],
    (standing, decided): (LeaseEpoch, Instant),
) -> Result<HeldClaim, ConnectFailure> {
    // Every claim of Writ has a decision. Without a decision, there is no command to send.
    let decision =
        execution.status.as_ref().and_then(|status| status.decision.clone()).ok_or(ConnectFailure::Obsolete)?;
    // The API server rounds the time of the decision to microseconds, so the comparison ignores this time.
    let time = &decision.decided_time;
    let is_made = made.iter().any(|made| DecisionRecord { decided_time: time.clone(), ..made.clone() } == decision);
    let is_stored_unchanged = is_made && execution.status.as_ref().is_some_and(|status| status.reserved.is_some());
    let live = publish_claim(context, &work.key, false);
    Ok(HeldClaim { key: work.key.clone(), token, execution, decision, is_stored_unchanged, standing, decided, live })
}

/// Reads the execution until it is known if the claim with this token is stored.
pub(super) async fn resolve_claim(context: &Context, key: &ExecutionKey, token: &str) -> ClaimState {
    loop {
        match context.cluster.execution(&key.namespace, &key.name).await {
            Ok(live) if live.metadata.uid.as_deref() != Some(&key.uid) || live.phase().is_finished() => {
                return ClaimState::Lost;
            }
            Ok(live) if is_claimed_with(&live, token) => return ClaimState::Ours(Box::new(live)),
            Ok(live) if live.is_claimed() => return ClaimState::Lost,
            Ok(_) => return ClaimState::NotStored,
            Err(ClusterError::NotFound { .. }) => return ClaimState::Lost,
            // Other errors, such as a missing permission, do not show if the claim is stored.
            Err(error) if !context.aborting.is_cancelled() => {
                tracing::warn!(%error, execution = %key, "it is not known yet whether a claim is stored");
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(_) => return ClaimState::Lost,
        }
    }
}

/// Returns the records for the claim: its holder, its machine, and in Durable mode the launcher's directory and the
/// start deadline.
fn records(
    context: &Context,
    ground: &DecisionInput,
    connection: &ExecutionConnection,
    token: &str,
    now: Timestamp,
) -> ClaimRecord {
    let not_after = start_deadline(&ground.execution, now);
    let (mode, remote) = match connection {
        ExecutionConnection::Direct(_) => (ExecutionMode::Direct, None),
        ExecutionConnection::Durable(reached) => {
            (ExecutionMode::Durable, Some(remote_record(&reached.known, not_after, now)))
        }
    };
    let claim = Claim {
        token: token.to_owned(),
        holder: context.holders.own_identity().to_owned(),
        mode,
        dispatched_time: MicroTime(now),
        not_after_time: remote.is_some().then_some(MicroTime(not_after)),
    };
    ClaimRecord { claim, machine: machine_record(ground, connection.connection()), remote }
}

/// Converts the start deadline to an uptime of the machine, because the machine's clock can be wrong. `now` is the
/// current time by the API server's clock.
fn remote_record(known: &TimedFacts, not_after: Timestamp, now: Timestamp) -> RemoteRecord {
    let left = u64::try_from(not_after.duration_since(now).as_millis()).unwrap_or(0);
    let facts = &known.facts;
    RemoteRecord {
        directory: facts.directory.clone(),
        directory_id: facts.directory_id.clone(),
        boot_id: facts.boot_id.clone(),
        not_after_uptime_ms: i64::try_from(known.uptime_ms().saturating_add(left)).unwrap_or(i64::MAX),
    }
}

fn machine_record(ground: &DecisionInput, connection: &Connection) -> MachineRecord {
    let metadata = &ground.resolved.machine.metadata;
    MachineRecord {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        address: connection.peer().to_owned(),
        user: ground.resolved.machine.spec.user.clone(),
        host_key_fingerprint: connection.fingerprint().to_owned(),
    }
}

#[cfg(test)]
mod tests;
