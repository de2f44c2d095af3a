//! The controller of CommandExecutions.
//!
//! The promises kept here: an execution that does not decode stops nobody (of what is watched only metadata is decoded; each
//! object is read by itself); nothing waits inside a reconcile; every write is of an object that was just read.
//!
//! ```text
//! unfinished executions (metadata) --+
//! Machines, Whitelists (metadata) ---+--> reconcile: gather (live reads) -> decide (pure) -> apply
//! runner: slot free, refused, ended -+
//! ```

mod gathering;
mod names;
mod watches;
mod weights;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::runtime::controller::{Action, Config, Error as AppliedError, ReconcileRequest, applier};
use kube::runtime::reflector::ObjectRef;
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
use crate::fairness::Size;
use crate::policy::{Identity, RuleSet};
use crate::runner::{QueuedExecution, Runner, Wakes, log_end};
use crate::telemetry::{BackgroundTask, SPANS, metrics};
use crate::traces;

use super::fair::{Fair, UNBOUNDED};
use super::watching::{measured, with_beats};

use gathering::Gathering;
use names::MachineNames;
use weights::Weights;

/// Reconciles under way at a time. Each is a few short calls, of which the list of Whitelists seems to wait for the API
/// server's cache (up to 100 ms). With 16 a burst of 300 takes 4 s, with 64 it takes 0.7 s; a namespace with a burst leaves
/// 16 to others.
const LOOKED_AT: Size = Size { places: 80, share: 64 };

type Execution = Slim<CommandExecution>;

/// What reconciling needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// What is allowed, compiled.
    pub policies: Arc<PolicyCache>,
    /// Tells whose names can be believed.
    pub stamping: RequesterTrustChecker,
    /// Runs what is allowed.
    pub runner: Runner,
    /// Tells whose claims are left behind.
    pub holders: Arc<Membership>,
    /// Tells people.
    pub events: EventPublisher,
    /// How long a missing Machine or rule is waited for.
    pub grace_for_missing: Duration,
}

/// Runs until `stop`; reconciles that are under way are finished.
pub async fn run(context: Context, wakes: Wakes, stop: CancellationToken) {
    let context = Arc::new(context);
    let cluster = context.cluster.clone();
    let gathering = Arc::new(Gathering::new(context.runner.clone()));
    let names = MachineNames::default();
    let (reader, queue) = watches::start(&cluster, context.runner.clone(), wakes, Arc::clone(&gathering), &names);
    let fair = Fair::new(LOOKED_AT);
    let again = fair.come_again().map(|reference| Ok(ReconcileRequest::from(reference)));
    let queue = stream::select(queue.boxed(), again.boxed());
    let queue = Box::pin(with_beats(BackgroundTask::Executions, queue).take_until(stop.cancelled_owned()));
    let config = Config::default().concurrency(UNBOUNDED);
    let weights = Arc::new(Weights::default());
    let look = |object: Arc<Execution>, context| {
        let (gathering, weights, names) = (Arc::clone(&gathering), Arc::clone(&weights), names.clone());
        let reference = ObjectRef::from(object.as_ref());
        fair.look(&reference.clone(), move || async move {
            // Held to the end of the look.
            let _room = weights.take(reference.namespace.as_deref().unwrap_or_default(), object.bytes).await;
            let span = span(&object);
            let result = measured(BackgroundTask::Executions, reconcile(object, context, names)).instrument(span).await;
            gathering.seen(&reference);
            result
        })
    };
    applier(look, retry_later, context, reader, queue, config)
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                // It has finished or was deleted in the meantime: it is no longer watched.
                Err(AppliedError::ObjectNotFound(gone)) => fair.gone(&gone),
                Err(AppliedError::ReconcilerFailed(error, object)) => {
                    tracing::warn!(%error, category = error.category(), %object, "an execution could not be looked at; trying again");
                }
                Err(error) => tracing::error!(%error, "the controller could not look at an execution"),
            }
        })
        .await;
}

fn span(object: &Execution) -> tracing::Span {
    let metadata = object.meta();
    let (uid, namespace, name) = (metadata.uid.as_deref(), metadata.namespace.as_deref(), metadata.name.as_deref());
    let span = tracing::info_span!(target: SPANS, "reconcile", uid, namespace, name, phase = field::Empty);
    traces::set_execution_trace(&span, uid.unwrap_or_default());
    span
}

/// Looks at one execution.
///
/// 1. gather: read it, its Machine and the Whitelists live, and ask the runner;
/// 2. decide: [`execution::decide`];
/// 3. apply: store the status, then carry out the effects.
async fn reconcile(object: Arc<Execution>, context: Arc<Context>, names: MachineNames) -> Result<Action, ClusterError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (live, size) = match context.cluster.execution_and_size(&namespace, &name).await {
        Ok(read) => read,
        Err(ClusterError::NotFound { .. }) => return Ok(Action::await_change()),
        Err(error) => return Err(error),
    };
    if execution::is_filled_by_managers(&live, &size) {
        context.cluster.clear_managed_fields(&key_of(&live)).await?;
        // That is a change, which comes by the watch.
        return Ok(Action::await_change());
    }
    let (plan, machine) = gather_and_decide(&live, size, &context, &names).await?;
    let about = live.object_ref(&());
    let applied = apply(live, plan, machine, &context).await;
    if let Err(ClusterError::TooLarge { .. }) = &applied {
        context.events.publish_removal_blocked(about, "ObjectTooLarge", &execution::no_space_message(&size));
    }
    applied
}

/// The plan, and the metadata of the Machine that it was made with.
async fn gather_and_decide(
    live: &CommandExecution,
    size: ObjectSize,
    context: &Context,
    names: &MachineNames,
) -> Result<(Plan, Option<ObjectMeta>), ClusterError> {
    let namespace = live.namespace().unwrap_or_default();
    let machine_name = &live.spec.machine_ref.name;
    // Machine and policy are of no account once it is claimed or finished.
    let (machine, rules, first) = if matches!(live.phase(), Phase::Pending | Phase::Queued) {
        let machine = read_machine(context, &namespace, machine_name);
        tokio::try_join!(machine, context.policies.rules(&namespace), read_first(context, live))?
    } else {
        (None, RuleSet::default(), Ok(None))
    };
    if let Some(Ok(machine)) = &machine {
        context.runner.configure(machine);
    }
    let holder = match live.claim() {
        Some(claim) => context.holders.holder_fact(&claim.holder).await?,
        None => HolderFact::Own,
    };
    let identity = context.stamping.identity(live).await;
    let (work, queue) = context.runner.facts(&key_of(live), machine_name);
    let plan = execution::decide(&Observed {
        execution: live,
        size,
        prior_execution: match &first {
            Ok(None) => PriorExecutionFact::None,
            Ok(Some(receipt)) => PriorExecutionFact::Known(receipt),
            Err(problem) => PriorExecutionFact::Unreadable(problem.clone()),
        },
        machine: match &machine {
            None => MachineFact::Missing { nearest: names.nearest(&namespace, machine_name) },
            Some(Ok(machine)) => MachineFact::Found(machine),
            Some(Err(problem)) => MachineFact::Unreadable(problem.clone()),
        },
        rules,
        identity,
        runner: work,
        queue,
        holder,
        grace_for_missing: context.grace_for_missing,
        now: context.cluster.now(),
    });
    Ok((plan, machine.and_then(Result::ok).map(|machine| machine.metadata)))
}

/// The receipt of one of this name and spec that was handled before; what hinders reading it where a person has to mend
/// that. Read live, once more each time while it is Pending: a receipt is there before its name is free again.
async fn read_first(
    context: &Context,
    live: &CommandExecution,
) -> Result<Result<Option<ExecutionReceipt>, String>, ClusterError> {
    if live.phase() != Phase::Pending || live.is_claimed() {
        return Ok(Ok(None));
    }
    let Some(key) = ReceiptKey::of(live) else { return Ok(Ok(None)) };
    match context.cluster.receipt(&key).await {
        Ok(receipt) => Ok(Ok(receipt)),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Conflict { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(execution = %key_of(live), %error, "it cannot be seen whether an execution was executed before");
            Ok(Err(error.to_string()))
        }
    }
}

/// The Machine; None where there is none, the decoder's words where it cannot be read.
async fn read_machine(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Result<Machine, String>>, ClusterError> {
    match context.cluster.machine(namespace, name).await {
        Ok(machine) => Ok(Some(Ok(machine))),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        Err(ClusterError::Undecodable { message, .. }) => Ok(Some(Err(message))),
        Err(error) => Err(error),
    }
}

async fn apply(
    live: CommandExecution,
    plan: Plan,
    machine: Option<ObjectMeta>,
    context: &Context,
) -> Result<Action, ClusterError> {
    // Nothing can be put on one that is being deleted.
    let is_deleted = live.metadata.deletion_timestamp.is_some();
    let ends = plan.status.as_ref().is_some_and(|status| status.phase.is_finished());
    let protects = (plan.needs_finalizer || ends) && !is_deleted;
    let Some(live) = protected(live, protects, context).await? else {
        return Ok(Action::requeue(Duration::from_millis(100)));
    };
    let live = match plan.status {
        Some(status) => match store_status(&live, status, machine.as_ref(), context).await? {
            Some(stored) => stored,
            // It has changed since it was read, and the change is on its way here: decide again then.
            None => return Ok(Action::requeue(Duration::from_millis(100))),
        },
        None => live,
    };
    let enqueues = plan.effects.iter().any(|effect| matches!(effect, SideEffect::Enqueue { .. }));
    let Some(live) = protected(live, enqueues, context).await? else {
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

/// The execution, with the finalizer on it where that is needed: what is about to be enqueued may be claimed, and must not
/// vanish while it runs; of what has ended, its deletion must not be missed, and a copy of it (from a backup) must be known by
/// it. The API server puts it on at creation where its admission policies can. None where it has changed meanwhile: that is
/// on its way here.
async fn protected(
    live: CommandExecution,
    is_needed: bool,
    context: &Context,
) -> Result<Option<CommandExecution>, ClusterError> {
    if !is_needed || live.has_audit_finalizer() {
        return Ok(Some(live));
    }
    match context.cluster.add_finalizer(&live).await {
        Ok(protected) => Ok(Some(protected)),
        // Refused: it is another one than was read, or it is being deleted by now.
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
            tell(&stored, machine);
            Ok(Some(stored))
        }
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores a status; where it does not fit, with less text in it, if it is final.
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

/// Tells of a status that was stored. `machine` is the Machine as it was seen.
fn tell(stored: &CommandExecution, machine: Option<&ObjectMeta>) {
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

/// Who takes turns with others on the machine: the one who asked, where the API server says who that is.
async fn requester(live: &CommandExecution, context: &Context) -> String {
    match context.stamping.identity(live).await {
        Identity::Known(requester) => requester.username.clone(),
        Identity::Unknown | Identity::Undecided => String::new(),
    }
}

/// The execution for the queue of its machine.
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

/// Transient faults are retried soon; what needs a person (an object that does not decode, a missing permission)
/// slowly, as only a change helps, and that is watched.
fn retry_later(_object: Arc<Execution>, error: &ClusterError, _context: Arc<Context>) -> Action {
    match error {
        ClusterError::Unavailable { .. } | ClusterError::Conflict { .. } | ClusterError::NotFound { .. } => {
            Action::requeue(Duration::from_secs(2))
        }
        ClusterError::Invalid { .. } | ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. } => {
            Action::requeue(Duration::from_secs(30))
        }
        // Each look reads all of it again.
        ClusterError::TooLarge { .. } => Action::requeue(Duration::from_secs(300)),
    }
}
