//! The controller of Machines: requests probes of each Machine, and writes the runner's observations of the Machine
//! (for example the result of a probe) into its status.
//!
//! # Guarantees
//! - The controller writes a status only if its content changes, and at most every 10 s (`machine::report`).
//!   `fleet::counts` limits the writes of new counts of running and queued executions.
//! - No decision depends on a field that this controller writes. The only status field that decisions use is the host
//!   key, which another module writes.
//!
//! ```text
//! Machines (metadata) -----+
//! runner: an observation --+--> reconcile: read, report (pure), store --> runner: probe it
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Machine, MachinePhase};
use crate::cluster::{Change, Cluster, ClusterError, EventPublisher, Slim};
use crate::fairness::Size;
use crate::fleet::{MachineWakes, RECOUNT_INTERVAL};
use crate::machine::{ProbeSchedule, ReportInput, next_probe, report};
use crate::runner::{MachineFacts, Runner};
use crate::telemetry::BackgroundTask;

use super::Watches;
use super::reconcile::{self, Reconcile, received};

/// Minimum interval between two probes of a Machine. If the API server does not answer, a probe has no result. Without
/// this interval, the next probe would then start immediately.
const MIN_PROBE_GAP: Duration = Duration::from_secs(2);

type MachineMeta = Slim<Machine>;

/// Dependencies of a reconcile.
pub struct Context {
    cluster: Cluster,
    runner: Runner,
    events: EventPublisher,
    /// Time of the last status write for each Machine. The entry of a deleted Machine is removed.
    last_writes: Mutex<HashMap<ObjectRef<MachineMeta>, Instant>>,
    /// For each Machine, the last status that the API server refused. The entry of a deleted Machine is removed.
    refused: Mutex<HashMap<ObjectRef<MachineMeta>, Refused>>,
}

/// Generation, phase and message of a refused status. Writ does not write the same status again.
type Refused = (Option<i64>, Option<MachinePhase>, Option<String>);

impl Context {
    /// Returns the context of a new controller, which has written nothing yet.
    pub fn new(cluster: Cluster, runner: Runner, events: EventPublisher) -> Self {
        Self { cluster, runner, events, last_writes: Mutex::default(), refused: Mutex::default() }
    }

    fn with_last_writes<T>(&self, use_it: impl FnOnce(&mut HashMap<ObjectRef<MachineMeta>, Instant>) -> T) -> T {
        use_it(&mut self.last_writes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_refused<T>(&self, use_it: impl FnOnce(&mut HashMap<ObjectRef<MachineMeta>, Refused>) -> T) -> T {
        use_it(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs the controller until `stop` is cancelled. Each reconcile in progress then still runs to its end.
pub async fn run(context: Context, watches: Watches, wakes: MachineWakes, stop: CancellationToken) {
    let context = Arc::new(context);
    let queue = stream::select_all([
        changes(&watches, &context).boxed(),
        received(wakes).boxed(),
        recounts(context.runner.clone()).boxed(),
    ]);
    reconcile::run(context, watches.machines.store(), queue, stop).await;
}

impl Reconcile for Context {
    type Object = MachineMeta;

    const TASK: BackgroundTask = BackgroundTask::Machines;
    /// Few concurrent reconciles are enough, because a reconcile makes only a read and sometimes a write.
    const MAX_CONCURRENT: Size = Size { places: 10, share: 8 };

    async fn reconcile(self: Arc<Self>, object: Arc<MachineMeta>) -> Result<Action, ClusterError> {
        reconcile(&object, &self).await
    }

    fn retry_after(error: &ClusterError) -> Duration {
        match error {
            ClusterError::Undecodable { .. } | ClusterError::Forbidden { .. } => Duration::from_secs(60),
            _ => Duration::from_secs(5),
        }
    }
}

/// Returns the Machines whose status must show new counts of running and queued executions.
fn recounts(runner: Runner) -> impl Stream<Item = ObjectRef<MachineMeta>> + Send {
    let rounds = stream::unfold(runner, |runner| async move {
        tokio::time::sleep(RECOUNT_INTERVAL).await;
        Some((stream::iter(runner.recount()), runner))
    });
    rounds.flatten().map(|(namespace, name)| ObjectRef::<MachineMeta>::new(&name).within(&namespace))
}

/// Returns the Machines whose generation has changed, and reports them to the runner. Writ's own status writes do not
/// change the generation.
fn changes(watches: &Watches, context: &Arc<Context>) -> impl Stream<Item = ObjectRef<MachineMeta>> + Send + use<> {
    let context = Arc::clone(context);
    let changes = watches.machines.subscribe(|before, after| before.meta().generation != after.meta().generation);
    changes.flat_map(move |change| {
        let changed = match change {
            Change::Applied(machine) => {
                machine_changed(&context.runner, &machine, machine.meta().generation);
                vec![ObjectRef::from(machine.as_ref())]
            }
            Change::Deleted(machine) => {
                machine_changed(&context.runner, &machine, None);
                let reference = ObjectRef::from(machine.as_ref());
                context.with_last_writes(|last_writes| last_writes.remove(&reference));
                context.with_refused(|refused| refused.remove(&reference));
                vec![reference]
            }
            Change::Listed(all) => all.iter().map(|machine| ObjectRef::from(machine.as_ref())).collect(),
        };
        stream::iter(changed)
    })
}

/// Reports the new generation of a Machine to the runner. `None` means that the Machine was deleted.
fn machine_changed(runner: &Runner, machine: &MachineMeta, generation: Option<i64>) {
    let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
    runner.machine_changed(&namespace, &name, &machine.uid().unwrap_or_default(), generation);
}

/// Reconciles one Machine.
///
/// 1. Read the Machine live, and get the runner's facts about the Machine.
/// 2. Write the status, if its content has changed.
/// 3. Request a probe, if one is due.
async fn reconcile(object: &MachineMeta, context: &Context) -> Result<Action, ClusterError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let machine = match context.cluster.machine(&namespace, &name).await {
        Ok(machine) => machine,
        Err(ClusterError::NotFound { .. }) => return Ok(Action::await_change()),
        Err(error) => return Err(error),
    };
    context.runner.configure(&machine);
    let facts = context.runner.machine_facts(&namespace, &name);
    let next_write = store_report(&machine, &facts, context).await?;
    context.runner.resume(&namespace, &name);
    let due = next_probe(&ProbeSchedule {
        machine: &machine,
        observation: facts.observation.as_ref(),
        failures: facts.failures,
        is_waited_for: facts.queued > 0,
        needs_person: facts.needs_person,
        jitter: facts.jitter,
        now: context.cluster.now(),
    });
    // After several probes without a result, the interval grows, because each probe opens a connection to the machine.
    let pause = MIN_PROBE_GAP.saturating_mul(1 << facts.inconclusive_probes.saturating_sub(1).min(5));
    let too_soon = facts.since_probe.map_or(Duration::ZERO, |since| pause.saturating_sub(since));
    let probe_in = match due.map(|due| due.max(too_soon)) {
        Some(due) if due.is_zero() => {
            context.runner.request_probe(&namespace, &name);
            Some(MIN_PROBE_GAP)
        }
        due => due,
    };
    let requeue = [probe_in, next_write].into_iter().flatten().min();
    Ok(requeue.map_or_else(Action::await_change, Action::requeue))
}

/// Writes the status that the report contains. Returns the delay until the next write, if the minimum interval has not
/// passed.
async fn store_report(
    machine: &Machine,
    facts: &MachineFacts,
    context: &Context,
) -> Result<Option<Duration>, ClusterError> {
    let reference = ObjectRef::<MachineMeta>::new(&machine.name_any()).within(&machine.namespace().unwrap_or_default());
    let since_write = context.with_last_writes(|last_writes| last_writes.get(&reference).map(Instant::elapsed));
    let report = report(&ReportInput {
        machine,
        observation: facts.observation.as_ref(),
        running: facts.running,
        queued: facts.queued,
        is_recount: facts.is_recount,
        since_write,
        now: context.cluster.now(),
    });
    let Some(status) = report.status else {
        note_counts(machine, facts, context);
        return Ok(report.retry_after);
    };
    let summary = (status.observed_generation, status.phase, status.message.clone());
    if context.with_refused(|refused| refused.get(&reference) == Some(&summary)) {
        return Ok(None);
    }
    match context.cluster.replace_machine_status(machine, status).await {
        Ok(stored) => {
            note_counts(&stored, facts, context);
            context.with_refused(|refused| refused.remove(&reference));
            if !report.is_count {
                context.with_last_writes(|last_writes| last_writes.insert(reference, Instant::now()));
            }
            if let Some((reason, warning, message)) = report.event {
                context.events.publish_machine(machine.object_ref(&()), reason, warning, message);
            }
            Ok(None)
        }
        // The Machine was changed or deleted after it was read.
        Err(ClusterError::Conflict { .. }) => Ok(Some(Duration::from_secs(1))),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        // The API server would refuse this status again. The controller skips it until the generation, phase or message
        // changes.
        Err(error @ ClusterError::Invalid { .. }) => {
            context.with_refused(|refused| refused.insert(reference, summary));
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Reports the counts of running and queued executions to the runner, if the status contains these counts. The runner
/// then requests no status write until a count changes.
fn note_counts(machine: &Machine, facts: &MachineFacts, context: &Context) {
    let shown = machine.status.as_ref().and_then(|status| Some((status.running?, status.queued?)));
    let (running, queued) = (i64::try_from(facts.running).ok(), i64::try_from(facts.queued).ok());
    if shown.is_some() && shown == running.zip(queued) {
        let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
        context.runner.record_counts(&namespace, &name, facts.running, facts.queued);
    }
}
