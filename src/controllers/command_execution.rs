//! The controller of CommandExecutions: decides about each unfinished execution, and gives allowed executions to the
//! runner.
//!
//! # Guarantees
//! - An execution that cannot be decoded does not affect other executions. The watch decodes only metadata, and each
//!   object is read separately.
//! - No reconcile waits for a command or a machine.
//! - Before each write, the reconcile has read the object live.
//!
//! ```text
//! unfinished executions (metadata) --+
//! Machines, Whitelists (metadata) ---+--> reconcile: gather (live reads) -> decide (pure) -> apply
//! runner: slot free, refused, ended -+
//! ```

mod execution_meta;
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

use crate::api::{CommandExecution, CommandExecutionStatus, ExecutionReceipt, Machine, Phase};
use crate::cluster::{
    Cluster, ClusterError, EventPublisher, ExecutionKey, Membership, PolicyCache, RequesterTrustChecker, Slim,
};
use crate::execution::{
    self, HolderFact, MachineFact, ObjectSize, Observed, Plan, PriorExecutionFact, ReceiptKey, SideEffect,
};
use crate::fairness::{Place, Size};
use crate::policy::{Identity, RuleSet};
use crate::runner::{QueuedExecution, Runner, Wakes, log_end};
use crate::telemetry::{BackgroundTask, SPANS, metrics};
use crate::traces;

use super::Watches;
use super::reconcile::{self, Reconcile};

use execution_meta::ExecutionMeta;
use startup_gate::StartupGate;
use weights::Weights;

type MachineMeta = Slim<Machine>;

/// Dependencies of a reconcile.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Checks if `spec.requestedBy` can be trusted.
    pub stamping: RequesterTrustChecker,
    /// Runs the executions.
    pub runner: Runner,
    /// The living `writ serve` processes, by their Leases.
    pub holders: Arc<Membership>,
    /// Publishes events.
    pub events: EventPublisher,
    /// Time to wait for a missing Machine or rule before the execution is Rejected.
    pub grace_for_missing: Duration,
}

/// Runs the controller until `stop` is cancelled. Each reconcile in progress then still runs to its end.
pub async fn run(context: Context, watches: Watches, wakes: Wakes, stop: CancellationToken) {
    let gate = Arc::new(StartupGate::new(context.runner.clone()));
    let queue = triggers::queue(&watches, &context.runner, wakes, Arc::clone(&gate));
    let controller = Controller { context, gate, weights: Weights::default(), machines: watches.machines.store() };
    reconcile::run(Arc::new(controller), watches.unfinished_executions.store(), queue, stop).await;
}

struct Controller {
    context: Context,
    gate: Arc<StartupGate>,
    weights: Weights,
    /// Used only to suggest a Machine name that is similar to a missing name. No decision depends on this store.
    machines: Store<MachineMeta>,
}

impl Reconcile for Controller {
    type Object = ExecutionMeta;

    const TASK: BackgroundTask = BackgroundTask::Executions;
    /// A burst of 300 executions takes 0.7 s with 64 concurrent reconciles, but 4 s with 16. One namespace can have 64
    /// of the 80 permits, so 16 permits remain for other namespaces.
    const MAX_CONCURRENT: Size = Size { places: 80, share: 64 };

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

/// Reconciles one execution.
///
/// 1. Gather: read the execution, its Machine and the Whitelists live, and get the runner's facts about the execution.
/// 2. Plan: [`execution::plan`].
/// 3. Apply: store the status, then carry out the effects.
async fn reconcile(object: &ExecutionMeta, controller: &Controller) -> Result<Action, ClusterError> {
    let context = &controller.context;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (live, size) = match context.cluster.execution_and_size(&namespace, &name).await {
        Ok(read) => read,
        Err(ClusterError::NotFound { .. }) => return Ok(Action::await_change()),
        Err(error) => return Err(error),
    };
    if execution::is_filled_by_managers(&live, &size) {
        context.cluster.clear_managed_fields(&key_of(&live)).await?;
        // The call above changes `managedFields`, and the change triggers another reconcile.
        return Ok(Action::await_change());
    }
    let (plan, machine) = Box::pin(gather_and_plan(&live, size, controller)).await?;
    let regarding = live.object_ref(&());
    let applied = Box::pin(apply(live, plan, machine, context)).await;
    if let Err(ClusterError::TooLarge { .. }) = &applied {
        context.events.publish_removal_blocked(regarding, "ObjectTooLarge", &execution::no_space_message(&size));
    }
    applied
}

/// Returns the plan, and the metadata of the Machine that was used for the plan.
async fn gather_and_plan(
    live: &CommandExecution,
    size: ObjectSize,
    controller: &Controller,
) -> Result<(Plan, Option<ObjectMeta>), ClusterError> {
    let context = &controller.context;
    let namespace = live.namespace().unwrap_or_default();
    let machine_name = &live.spec.machine_ref.name;
    // After the claim, the plan no longer depends on the Machine and the Whitelists.
    let (machine, rules, prior) = if matches!(live.phase(), Phase::Pending | Phase::Queued) {
        let machine = read_machine(context, &namespace, machine_name);
        tokio::try_join!(machine, context.policies.rules(&namespace), read_prior_execution(context, live))?
    } else {
        (MachineRead::Missing, RuleSet::default(), PriorExecution::None)
    };
    if let MachineRead::Found(machine) = &machine {
        context.runner.configure(machine);
    }
    let holder = match live.claim() {
        Some(claim) => context.holders.holder_fact(&claim.holder).await?,
        None => HolderFact::Own,
    };
    let identity = context.stamping.identity(live).await;
    let (runner, queue) = context.runner.facts(&key_of(live), machine_name);
    let plan = execution::plan(&Observed {
        execution: live,
        size,
        prior_execution: match &prior {
            PriorExecution::None => PriorExecutionFact::None,
            PriorExecution::Known(receipt) => PriorExecutionFact::Known(receipt),
            PriorExecution::Unreadable(error) => PriorExecutionFact::Unreadable(error.clone()),
        },
        machine: match &machine {
            MachineRead::Missing => {
                MachineFact::Missing { nearest: nearest(&controller.machines, &namespace, machine_name) }
            }
            MachineRead::Found(machine) => MachineFact::Found(machine),
            MachineRead::Unreadable(error) => MachineFact::Unreadable(error.clone()),
        },
        rules,
        identity,
        runner,
        queue,
        holder,
        grace_for_missing: context.grace_for_missing,
        now: context.cluster.now(),
    });
    let metadata = if let MachineRead::Found(machine) = machine { Some(machine.metadata) } else { None };
    Ok((plan, metadata))
}

/// Returns the Machine name in `namespace` that is most similar to `name`, or `None` if no name is similar.
fn nearest(machines: &Store<MachineMeta>, namespace: &str, name: &str) -> Option<String> {
    let there = machines.state_filter(|machine| machine.meta().namespace.as_deref() == Some(namespace));
    let mut names: Vec<&str> = there.iter().filter_map(|machine| machine.meta().name.as_deref()).collect();
    // Sorting makes the result deterministic if two names are equally similar.
    names.sort_unstable();
    execution::nearest(name, names).map(str::to_owned)
}

/// Receipt of a prior execution with the same name and spec.
enum PriorExecution {
    None,
    Known(Box<ExecutionReceipt>),
    /// The receipt cannot be read without manual action. Holds the error.
    Unreadable(String),
}

/// Reads the receipt of a prior execution live. Writ stores the receipt before it deletes the prior execution, so a new
/// execution with the same name always finds the receipt.
async fn read_prior_execution(context: &Context, live: &CommandExecution) -> Result<PriorExecution, ClusterError> {
    if live.phase() != Phase::Pending || live.is_claimed() {
        return Ok(PriorExecution::None);
    }
    let Some(key) = ReceiptKey::of(live) else { return Ok(PriorExecution::None) };
    match context.cluster.receipt(&key).await {
        Ok(receipt) => Ok(receipt.map_or(PriorExecution::None, |receipt| PriorExecution::Known(Box::new(receipt)))),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Conflict { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(execution = %key_of(live), %error, "receipt cannot be read");
            Ok(PriorExecution::Unreadable(error.to_string()))
        }
    }
}

/// Result of reading the Machine of an execution.
enum MachineRead {
    Missing,
    Found(Box<Machine>),
    /// Writ cannot decode the Machine. Holds the decoder's message.
    Unreadable(String),
}

async fn read_machine(context: &Context, namespace: &str, name: &str) -> Result<MachineRead, ClusterError> {
    match context.cluster.machine(namespace, name).await {
        Ok(machine) => Ok(MachineRead::Found(Box::new(machine))),
        Err(ClusterError::NotFound { .. }) => Ok(MachineRead::Missing),
        Err(ClusterError::Undecodable { message, .. }) => Ok(MachineRead::Unreadable(message)),
        Err(error) => Err(error),
    }
}

async fn apply(
    live: CommandExecution,
    plan: Plan,
    machine: Option<ObjectMeta>,
    context: &Context,
) -> Result<Action, ClusterError> {
    // An execution that is being deleted gets no finalizer, because the API server would refuse the new finalizer.
    let is_deleted = live.metadata.deletion_timestamp.is_some();
    let ends = plan.status.as_ref().is_some_and(|status| status.phase.is_finished());
    let protects = (plan.needs_finalizer || ends) && !is_deleted;
    let Some(live) = ensure_finalizer(live, protects, context).await? else {
        return Ok(Action::requeue(Duration::from_millis(100)));
    };
    let live = match plan.status {
        Some(status) => match store_status(&live, status, machine.as_ref(), context).await? {
            Some(stored) => stored,
            // The execution changed after it was read, so the plan is outdated. The next reconcile plans again.
            None => return Ok(Action::requeue(Duration::from_millis(100))),
        },
        None => live,
    };
    let enqueues = plan.effects.iter().any(|effect| matches!(effect, SideEffect::Enqueue { .. }));
    let Some(live) = ensure_finalizer(live, enqueues, context).await? else {
        return Ok(Action::requeue(Duration::from_secs(1)));
    };
    let key = key_of(&live);
    for effect in plan.effects {
        match effect {
            SideEffect::Enqueue { urgent } => {
                let requester = requester(&live, context).await;
                context.runner.enqueue(QueuedExecution { urgent, requester, ..work(&live) });
            }
            SideEffect::Adopt => context.runner.adopt(work(&live)),
            SideEffect::Withdraw => context.runner.withdraw(&key),
            SideEffect::Cancel => context.runner.cancel(&key),
            SideEffect::Publish(notice) => context.events.publish(&live, notice),
        }
    }
    Ok(plan.requeue.map_or_else(Action::await_change, Action::requeue))
}

/// Adds Writ's finalizer if it is needed and missing. Usually the admission policies have already added the finalizer.
/// Returns `None` if the execution changed after it was read.
///
/// The finalizer is needed in two cases:
///
/// - The execution will be enqueued. The object must not disappear while the command runs.
/// - The execution has finished. Writ must not miss its deletion, and detects a copy from a backup by the finalizer.
async fn ensure_finalizer(
    live: CommandExecution,
    is_needed: bool,
    context: &Context,
) -> Result<Option<CommandExecution>, ClusterError> {
    if !is_needed || live.has_audit_finalizer() {
        return Ok(Some(live));
    }
    match context.cluster.add_finalizer(&live).await {
        Ok(protected) => Ok(Some(protected)),
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

/// Returns the execution as an entry for its machine's queue. The entry is not urgent and has no requester.
fn work(live: &CommandExecution) -> QueuedExecution {
    QueuedExecution {
        key: key_of(live),
        machine: live.spec.machine_ref.name.clone(),
        created: live.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
        urgent: false,
        requester: String::new(),
    }
}

fn key_of(live: &CommandExecution) -> ExecutionKey {
    ExecutionKey {
        namespace: live.namespace().unwrap_or_default(),
        name: live.name_any(),
        uid: live.uid().unwrap_or_default(),
    }
}
