//! The controller of CommandExecutions: decides about each unfinished execution, and gives allowed executions to the
//! runner.
//!
//! # Guarantees
//! - An execution that cannot be decoded does not affect other executions. The watch decodes only metadata, and each
//!   object is read separately.
//! - No reconcile waits for a command or a machine.
//! - Each write of a status fails if the execution has changed since the watch delivered it, or since it was read live.
//! - An execution ends without a start only by facts that were read live.
//!
//! ```text
//! unfinished executions (metadata) --+
//! Machines, Whitelists (metadata) ---+--> reconcile: gather (reads) -> decide (pure) -> apply
//! runner: slot free, refused, ended -+
//! ```

mod context;
mod execution_meta;
mod gather;
mod startup_gate;
mod triggers;
mod weights;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field};

use crate::api::{CommandExecution, CommandExecutionStatus, Phase};
use crate::cluster::{ClusterError, DeliveredExecutions};
use crate::execution::{self, AllowedWait, ObjectSize, SideEffect};
use crate::fairness::{Place, Size};
use crate::policy::Identity;
use crate::runner::{QueuedExecution, ReadExecution, Wakes, log_end};
use crate::telemetry::{BackgroundTask, SPANS, metrics};
use crate::traces;

use super::Watches;
use super::reconcile::{self, Reconcile};

pub use context::Context;
use context::key_of;
use execution_meta::ExecutionMeta;
use gather::{MachineMeta, Planned, plan_early, plan_for_attempt, plan_live};
use startup_gate::StartupGate;
use weights::Weights;

/// Runs the controller until `stop` is cancelled. Each reconcile in progress then still runs to its end.
pub async fn run(context: Context, watches: Watches, wakes: Wakes, stop: CancellationToken) {
    let gate = Arc::new(StartupGate::new(context.runner.clone()));
    let queue = triggers::queue(&watches, &context.runner, wakes, Arc::clone(&gate));
    let controller = Controller {
        context,
        gate,
        weights: Weights::default(),
        delivered: watches.delivered,
        machines: watches.machines.store(),
    };
    reconcile::run(Arc::new(controller), watches.unfinished_executions.store(), queue, stop).await;
}

struct Controller {
    context: Context,
    gate: Arc<StartupGate>,
    weights: Weights,
    /// Executions that the watch has just delivered.
    delivered: Arc<DeliveredExecutions>,
    /// Used only to suggest a Machine name that is similar to a missing name. No decision depends on this store.
    machines: Store<MachineMeta>,
}

impl Reconcile for Controller {
    type Object = ExecutionMeta;

    const TASK: BackgroundTask = BackgroundTask::Executions;
    /// A burst of 300 executions takes 0.7 s with 64 concurrent reconciles, but 4 s with 16. One namespace can have 64
    /// of the 80 permits, so 16 permits remain for other namespaces.
    const MAX_CONCURRENT: Size = Size { places: 80, share: 64 };

    const MAX_CONCURRENT_DEFERRABLE: Size = Size { places: 16, share: 8 };

    /// Most executions that wait for their machine only need a status that reports the wait. If 300 executions for dead
    /// machines report this at once, they must not delay the start of others. A cancelled or deleted execution is not
    /// deferrable: only the cancellation changes the generation.
    fn is_deferrable(&self, object: &ExecutionMeta) -> bool {
        let metadata = object.meta();
        let is_unchanged = metadata.deletion_timestamp.is_none() && metadata.generation.unwrap_or(1) <= 1;
        is_unchanged && self.context.runner.is_waiting_or_connecting(&key_of(object))
    }

    async fn reconcile(self: Arc<Self>, object: Arc<ExecutionMeta>) -> Result<Action, ClusterError> {
        let span = span(&object);
        Box::pin(reconcile(&object, &self)).instrument(span).await
    }

    /// Transient failures are retried soon. Failures that need manual action are retried rarely. If a user changes the
    /// object, the controller reconciles the object immediately.
    fn retry_after(error: &ClusterError) -> Duration {
        match error {
            ClusterError::Unavailable { .. } | ClusterError::Conflict { .. } | ClusterError::NotFound { .. } => {
                Duration::from_secs(2)
            }
            ClusterError::Invalid { .. } | ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. } => {
                Duration::from_secs(30)
            }
            // A retry is expensive, because each reconcile reads the whole large object again.
            ClusterError::TooLarge { .. } => Duration::from_secs(300),
        }
    }

    async fn admit(&self, object: &ExecutionMeta) -> Option<Place> {
        self.weights.take(&object.namespace().unwrap_or_default(), object.bytes).await
    }

    fn reconciled(&self, reference: &ObjectRef<ExecutionMeta>) {
        self.gate.mark_reconciled(reference);
    }
}

fn span(object: &ExecutionMeta) -> tracing::Span {
    let metadata = object.meta();
    let (uid, namespace, name) = (metadata.uid.as_deref(), metadata.namespace.as_deref(), metadata.name.as_deref());
    let span = tracing::info_span!(target: SPANS, "reconcile", uid, namespace, name, phase = field::Empty);
    traces::set_execution_trace(&span, uid.unwrap_or_default());
    span
}

/// Returns the version of the execution that the watch has just delivered. Else returns the version with which the
/// execution entered the queue where it waits, if the watch has delivered no later version.
fn known_version(object: &ExecutionMeta, controller: &Controller) -> Option<(CommandExecution, ObjectSize)> {
    let delivered = controller.delivered.take(object.meta());
    delivered.or_else(|| {
        let ReadExecution { execution, size } = controller.context.runner.waiting_version(&key_of(object))?;
        (execution.resource_version() == object.resource_version()).then_some((execution, size))
    })
}

/// Reconciles one execution.
///
/// 1. Gather: take the execution that the watch has delivered, or read it live. Read its Machine and the Whitelists, if
///    the plan needs them. Get the runner's facts about the execution.
/// 2. Plan: [`execution::plan`].
/// 3. Apply: store the status, then carry out the effects. Every write fails if the execution has changed.
async fn reconcile(object: &ExecutionMeta, controller: &Controller) -> Result<Action, ClusterError> {
    let context = &controller.context;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let known = known_version(object, controller);
    let is_known = known.is_some();
    let read = match known {
        Some(known) => Ok(known),
        None => context.cluster.execution_and_size(&namespace, &name).await,
    };
    let (live, size) = match read {
        Ok(read) => read,
        Err(ClusterError::NotFound { .. }) => return Ok(Action::await_change()),
        Err(error) => return Err(error),
    };
    if execution::is_filled_by_managers(&live, &size) {
        context.cluster.clear_managed_fields(&key_of(&live)).await?;
        // The call above changes `managedFields`, and the change triggers another reconcile.
        return Ok(Action::await_change());
    }
    let mut planned = plan_for_attempt(&live, context);
    if planned.is_none() && is_known {
        // A version is planned early at most once before the runner has it. If the runner then refuses the early plan,
        // the next reconcile reads everything live.
        planned = Box::pin(plan_early(&live, size, context)).await?;
    }
    let planned = match planned {
        Some(planned) => planned,
        None => Box::pin(plan_live(&live, size, context, &controller.machines)).await?,
    };
    let regarding = live.object_ref(&());
    let applied = Box::pin(apply(ReadExecution { execution: live, size }, planned, context)).await;
    if let Err(ClusterError::TooLarge { .. }) = &applied {
        context.events.publish_removal_blocked(regarding, "ObjectTooLarge", &execution::no_space_message(&size));
    }
    applied
}

async fn apply(read: ReadExecution, planned: Planned, context: &Context) -> Result<Action, ClusterError> {
    let Planned { plan, machine, is_early } = planned;
    // An execution that is being deleted gets no finalizer, because the API server would refuse the new finalizer.
    let is_deleted = read.execution.metadata.deletion_timestamp.is_some();
    let ends = plan.status.as_ref().is_some_and(|status| status.phase.is_finished());
    let protects = (plan.needs_finalizer || ends) && !is_deleted;
    // The runner adds the finalizer concurrently with its reads for the claim, unless the execution waits longer.
    let waits = plan.enqueues() || plan.status.as_ref().is_some_and(|status| status.phase == Phase::Queued);
    let is_left_to_runner = is_early || ends || is_deleted;
    let key = key_of(&read.execution);
    let Some(mut read) = ensure_finalizer(read, protects, context).await? else {
        context.runner.forget_version(&key);
        return Ok(Action::requeue(Duration::from_millis(100)));
    };
    if let Some(status) = plan.status {
        match store_status(&read.execution, status, machine.as_ref(), context).await? {
            Some(stored) => read.execution = stored,
            // The execution changed after it was read, so the plan is outdated. The next reconcile reads it live.
            None => {
                context.runner.forget_version(&key);
                return Ok(Action::requeue(Duration::from_millis(100)));
            }
        }
    }
    let Some(read) = ensure_finalizer(read, waits && !is_left_to_runner, context).await? else {
        context.runner.forget_version(&key);
        return Ok(Action::requeue(Duration::from_secs(1)));
    };
    for effect in plan.effects {
        match effect {
            SideEffect::Enqueue { wait } => {
                let requester = requester(&read.execution, context).await;
                let queued = QueuedExecution { wait, requester, ..work(&read.execution) };
                context.runner.enqueue(queued, read.clone());
            }
            SideEffect::Adopt => context.runner.adopt(work(&read.execution)),
            SideEffect::Withdraw => context.runner.withdraw(&key),
            SideEffect::Cancel => context.runner.cancel(&key),
            SideEffect::Publish(notice) => context.events.publish(&read.execution, notice),
        }
    }
    Ok(plan.requeue.map_or_else(Action::await_change, Action::requeue))
}

/// Adds Writ's finalizer if it is needed and missing. Usually the admission policies have already added the finalizer.
/// Returns `None` if the execution changed after it was read.
///
/// The finalizer is needed in two cases:
///
/// - The execution will be enqueued. The object must not disappear while the command runs, and a deletion of the waiting
///   execution must be recorded.
/// - The execution has finished. Writ must not miss its deletion, and detects a copy from a backup by the finalizer.
async fn ensure_finalizer(
    read: ReadExecution,
    is_needed: bool,
    context: &Context,
) -> Result<Option<ReadExecution>, ClusterError> {
    if !is_needed || read.execution.has_audit_finalizer() {
        return Ok(Some(read));
    }
    match context.cluster.add_finalizer(&read.execution).await {
        Ok((execution, size)) => Ok(Some(ReadExecution { execution, size })),
        // The execution has changed, is being deleted, or is deleted. Perhaps another execution has its name now.
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. } | ClusterError::Invalid { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn store_status(
    live: &CommandExecution,
    status: CommandExecutionStatus,
    machine: Option<&ObjectMeta>,
    context: &Context,
) -> Result<Option<CommandExecution>, ClusterError> {
    tracing::Span::current().record("phase", status.phase.as_str());
    match replace_status(live, status, context).await {
        Ok(stored) => {
            log_transition(&stored, machine);
            Ok(Some(stored))
        }
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores a status. If a final status does not fit into the object, stores the status with less text.
async fn replace_status(
    live: &CommandExecution,
    mut status: CommandExecutionStatus,
    context: &Context,
) -> Result<CommandExecution, ClusterError> {
    let mut step = 0;
    loop {
        let result = context.cluster.replace_status(live, status.clone()).await;
        let is_full = matches!(result, Err(ClusterError::TooLarge { .. })) && status.phase.is_finished();
        if !is_full || step == execution::REDUCTIONS {
            return result;
        }
        step += 1;
        execution::reduce(&mut status, step, "other metadata fills the object");
    }
}

/// Logs and counts a stored status. `machine` is the metadata of the Machine that was used for the decision.
fn log_transition(stored: &CommandExecution, machine: Option<&ObjectMeta>) {
    let Some(status) = &stored.status else { return };
    if status.phase.is_finished() {
        metrics().finished(status);
        log_end(stored, status, machine);
    } else {
        let (key, name, phase) = (key_of(stored), &stored.spec.machine_ref.name, status.phase.as_str());
        let reason = status.reason.map(field::debug);
        tracing::info!(execution = %key, uid = key.uid, machine = name, phase, reason, "phase changed");
    }
}

/// Returns the requester's user name, or an empty text if the requester is not verified. Requesters take turns in the
/// machine's queue.
async fn requester(live: &CommandExecution, context: &Context) -> String {
    match context.stamping.identity(live).await {
        Identity::Known(requester) => requester.username.clone(),
        Identity::Unknown | Identity::Undecided => String::new(),
    }
}

/// Returns the execution as an entry for its machine's queue. The entry waits for the machine and has no requester.
fn work(live: &CommandExecution) -> QueuedExecution {
    QueuedExecution {
        key: key_of(live),
        machine: live.spec.machine_ref.name.clone(),
        created: live.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
        wait: AllowedWait::Machine,
        requester: String::new(),
        is_interactive: live.spec.session.is_some(),
    }
}
