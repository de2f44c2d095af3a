//! Repeats the decision about an execution before its command starts, with objects that were just read from the API
//! server.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::CommandExecution;
use crate::api::execution_status::{DecisionRecord, ObjectRecord};
use crate::execution::IMMEDIATE_START_TOLERANCE;
use crate::fleet::{CONNECT_DEADLINE, ConnectFailure, OPEN_DEADLINE, ResolvedMachine, read_and_resolve};
use crate::policy::{self, Decision, Request, RuleSet, Verdict};

use super::context::Context;
use super::queued_execution::{QueuedExecution, ReadExecution};

/// Objects that a decision depends on, as just read from the API server.
pub(super) struct DecisionInput {
    pub execution: CommandExecution,
    pub resolved: ResolvedMachine,
}

/// Returns true if the execution is unfinished and its claim has this token.
pub(super) fn is_claimed_with(execution: &CommandExecution, token: &str) -> bool {
    !execution.phase().is_finished() && execution.claim().is_some_and(|claim| claim.token == token)
}

/// Reads the execution and its size. `token` is the token of the claim that this task has perhaps written.
///
/// # Errors
/// As for [`check_startable`].
pub(super) async fn read_execution(
    context: &Context,
    work: &QueuedExecution,
    token: Option<&str>,
) -> Result<ReadExecution, ConnectFailure> {
    let namespace = &work.key.namespace;
    let read = context.cluster.execution_and_size(namespace, &work.key.name).await;
    let (execution, size) = read.map_err(|error| ConnectFailure::from_read(&error))?;
    check_startable(context, work, token, ReadExecution { execution, size })
}

/// Returns the execution if this task may start it, or has perhaps claimed it with `token`.
///
/// # Errors
/// `Obsolete` in these cases:
/// - The execution is gone, finished or claimed by another task.
/// - The execution has no claim yet, and is cancelled or deleted.
/// - The execution has no claim yet, and the runner shuts down.
pub(super) fn check_startable(
    context: &Context,
    work: &QueuedExecution,
    token: Option<&str>,
    read: ReadExecution,
) -> Result<ReadExecution, ConnectFailure> {
    let execution = &read.execution;
    let is_own = token.is_some_and(|token| is_claimed_with(execution, token));
    let may_start = !execution.is_claimed() && !execution.is_cancelled_or_deleted() && !context.draining.is_cancelled();
    let is_same = execution.metadata.uid.as_deref() == Some(&work.key.uid);
    if is_same && !execution.phase().is_finished() && (is_own || may_start) {
        Ok(read)
    } else {
        Err(ConnectFailure::Obsolete)
    }
}

/// Reads the Machine of an execution, and the Secret of the Machine.
pub(super) async fn with_machine(
    context: &Context,
    work: &QueuedExecution,
    execution: CommandExecution,
) -> Result<DecisionInput, ConnectFailure> {
    let resolved = read_and_resolve(&context.cluster, &work.key.namespace, &work.machine).await?;
    Ok(DecisionInput { execution, resolved })
}

/// Decides again, with rules that this call reads from the API server.
pub(super) async fn decide_again(context: &Context, ground: &DecisionInput) -> Result<Decision, ConnectFailure> {
    let namespace = ground.execution.metadata.namespace.as_deref().unwrap_or_default();
    let rules = context.policies.listed(namespace).await.map_err(|error| ConnectFailure::from_read(&error))?;
    decide_with(context, ground, &rules).await
}

/// Decides again, with rules that were just read.
pub(super) async fn decide_with(
    context: &Context,
    ground: &DecisionInput,
    rules: &RuleSet,
) -> Result<Decision, ConnectFailure> {
    let request = Request::parse(&ground.execution.spec).map_err(|_| ConnectFailure::Obsolete)?;
    let identity = context.stamping.identity(&ground.execution).await;
    match policy::decide(rules, &request, ground.resolved.machine.labels(), identity) {
        Verdict::Allow(decision) => Ok(*decision),
        // The controller reaches the same decision, and reports the reason.
        Verdict::Deny(_) => Err(ConnectFailure::Obsolete),
    }
}

/// Returns true if the execution may still start, because its deadline has not passed.
pub(super) fn is_before_deadline(execution: &CommandExecution, now: Timestamp) -> bool {
    execution.metadata.creation_timestamp.is_some() && now < start_deadline(execution, now)
}

/// Returns the deadline of the start: the creation time plus `startingDeadlineSeconds`, by the API server's clock.
pub(super) fn start_deadline(execution: &CommandExecution, now: Timestamp) -> Timestamp {
    let may_wait = match execution.spec.starting_deadline_seconds {
        // 0 means one attempt without a wait. The deadline includes the maximum duration of this attempt.
        0 => IMMEDIATE_START_TOLERANCE + CONNECT_DEADLINE + OPEN_DEADLINE,
        seconds => Duration::from_secs(u64::from(seconds)),
    };
    let left = may_wait.saturating_sub(execution.age(now).unwrap_or(may_wait));
    now.checked_add(left).unwrap_or(now)
}

/// Returns true if two decisions are equal. Ignores the digest of each decision, and the generation of its Whitelist.
pub(super) fn is_same_command(now: &DecisionRecord, then: &DecisionRecord) -> bool {
    let stripped = |record: &DecisionRecord| DecisionRecord {
        whitelist: ObjectRecord { generation: 0, ..record.whitelist.clone() },
        digest: String::new(),
        ..record.clone()
    };
    stripped(now) == stripped(then)
}
