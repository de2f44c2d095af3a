//! The controller of Machines: has them looked at, and says in each one's status what was seen.
//!
//! The promises kept here: a status is written where a person would want to know, and at most every 10 s (`machine::report`), and how many run and wait as `fleet::counts` bounds it;
//! the only thing in it that anything rests on is a host key that was frozen on first use, and that is not written here.
//!
//! ```text
//! Machines (metadata) --------+
//! runner: something was seen -+--> reconcile: read, report (pure), store --> runner: look at it
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use kube::runtime::controller::{Action, Config, Error as AppliedError, ReconcileRequest, applier};
use kube::runtime::reflector;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Machine, MachinePhase};
use crate::cluster::{Cluster, ClusterError, EventPublisher, Slim};
use crate::fairness::Size;
use crate::fleet::{MachineWakes, RECOUNT_INTERVAL};
use crate::machine::{ProbeSchedule, ReportInput, next_probe, report};
use crate::runner::{MachineFacts, Runner};
use crate::telemetry::{BackgroundTask, Watch};

use super::fair::{Fair, UNBOUNDED};
use super::places::watch_all;
use super::watching::{measured, to_look_at, watch_config, with_beats};

/// Machines looked at at a time: each is a read and at times a write. The logins are the runner's matter.
const LOOKED_AT: Size = Size { places: 10, share: 8 };
/// How soon a look may follow another: one may have seen nothing, as the API server did not answer.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

type Watched = Slim<Machine>;

/// What reconciling needs.
pub struct Context {
    cluster: Cluster,
    runner: Runner,
    events: EventPublisher,
    /// When each status was written last. Who is gone is forgotten.
    written: Mutex<HashMap<ObjectRef<Watched>, Instant>>,
    /// What the API server has refused of each last. Who is gone is forgotten.
    refused: Mutex<HashMap<ObjectRef<Watched>, Refused>>,
}

/// Phase and message of a status that was refused, for one generation: it is not written again as it was.
type Refused = (Option<i64>, Option<MachinePhase>, Option<String>);

impl Context {
    /// What reconciling needs.
    pub fn new(cluster: Cluster, runner: Runner, events: EventPublisher) -> Self {
        Self { cluster, runner, events, written: Mutex::default(), refused: Mutex::default() }
    }

    fn written<T>(&self, use_it: impl FnOnce(&mut HashMap<ObjectRef<Watched>, Instant>) -> T) -> T {
        use_it(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refused<T>(&self, use_it: impl FnOnce(&mut HashMap<ObjectRef<Watched>, Refused>) -> T) -> T {
        use_it(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until `stop`.
pub async fn run(context: Context, wakes: MachineWakes, stop: CancellationToken) {
    let context = Arc::new(context);
    let (reader, changes) = changes(&context);
    let seen = stream::unfold(wakes, |mut wakes| async move { wakes.recv().await.map(|wake| (wake, wakes)) })
        .map(|reference| ObjectRef::<Watched>::new(&reference.name).within(&reference.namespace.unwrap_or_default()));
    let fair = Fair::new(LOOKED_AT);
    let counted = recounts(context.runner.clone());
    let queue = stream::select_all([changes.boxed(), seen.boxed(), counted.boxed(), fair.come_again().boxed()])
        .map(|reference| Ok::<_, Infallible>(ReconcileRequest::from(reference)));
    let queue = with_beats(BackgroundTask::Machines, queue).take_until(stop.cancelled_owned());
    let config = Config::default().concurrency(UNBOUNDED);
    let look = |object: Arc<Watched>, context| {
        fair.look(&ObjectRef::from(object.as_ref()), move || {
            measured(BackgroundTask::Machines, reconcile(object, context))
        })
    };
    applier(look, retry_later, context, reader, Box::pin(queue), config)
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                Err(AppliedError::ObjectNotFound(gone)) => fair.gone(&gone),
                Err(AppliedError::ReconcilerFailed(error, object)) => {
                    tracing::warn!(%error, category = error.category(), %object, "the status of a Machine could not be written; trying again");
                }
                Err(error) => tracing::error!(%error, "the controller could not look at a Machine"),
            }
        })
        .await;
}

/// The Machines whose status is to say anew how many run and wait.
fn recounts(runner: Runner) -> impl Stream<Item = ObjectRef<Watched>> + Send {
    let rounds = stream::unfold(runner, |runner| async move {
        tokio::time::sleep(RECOUNT_INTERVAL).await;
        Some((stream::iter(runner.recount()), runner))
    });
    rounds.flatten().map(|(namespace, name)| ObjectRef::<Watched>::new(&name).within(&namespace))
}

/// The Machines whose spec has changed. Our own writes of their status come by as well, and say nothing.
fn changes(context: &Arc<Context>) -> (Store<Watched>, impl Stream<Item = ObjectRef<Watched>> + Send + use<>) {
    let (reader, writer) = store::<Watched>();
    let watched = watch_all(context.cluster.watch_apis::<Watched>(), watch_config());
    let (known, before) = (reader.clone(), reader.clone());
    let watched = watched.filter_map(move |event| {
        // Looked at before the reflector stores it.
        let says_something = match &event {
            Ok(Event::Apply(machine)) => before.get(&ObjectRef::from(machine)).is_none_or(|before| {
                (before.uid(), before.meta().generation) != (machine.uid(), machine.meta().generation)
            }),
            _ => true,
        };
        std::future::ready(says_something.then_some(event))
    });
    let context = Arc::clone(context);
    let changes = reflector(writer, watched.boxed()).then(move |event| {
        let (context, known) = (Arc::clone(&context), known.clone());
        async move {
            let (changed, is_gone) = match &event {
                Ok(Event::Apply(machine)) => (Some(machine), false),
                Ok(Event::Delete(machine)) => (Some(machine), true),
                _ => (None, false),
            };
            if let Some(machine) = changed {
                let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
                let uid = machine.uid().unwrap_or_default();
                let generation = machine.meta().generation.filter(|_| !is_gone);
                context.runner.machine_changed(&namespace, &name, &uid, generation);
                if is_gone {
                    context.written(|written| written.remove(&ObjectRef::from(machine)));
                    context.refused(|refused| refused.remove(&ObjectRef::from(machine)));
                }
            }
            stream::iter(to_look_at(Watch::Machines, event, &known))
        }
    });
    (reader, changes.flatten())
}

/// Looks at one Machine: reads it, stores what there is to say, and has it looked at where it is time.
async fn reconcile(object: Arc<Watched>, context: Arc<Context>) -> Result<Action, ClusterError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let machine = match context.cluster.machine(&namespace, &name).await {
        Ok(machine) => machine,
        Err(ClusterError::NotFound { .. }) => return Ok(Action::await_change()),
        Err(error) => return Err(error),
    };
    context.runner.configure(&machine);
    let facts = context.runner.machine_facts(&namespace, &name);
    let written_again = store_report(&machine, &facts, &context).await?;
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
    // Those that see nothing grow rarer: they cost the machine a connection all the same.
    let pause = BETWEEN_LOOKS.saturating_mul(1 << facts.inconclusive_probes.saturating_sub(1).min(5));
    let too_soon = facts.since_probe.map_or(Duration::ZERO, |since| pause.saturating_sub(since));
    let next = match due.map(|due| due.max(too_soon)) {
        Some(due) if due.is_zero() => {
            context.runner.request_probe(&namespace, &name);
            Some(BETWEEN_LOOKS)
        }
        due => due,
    };
    let again = [next, written_again].into_iter().flatten().min();
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Stores what there is to say; when there will be more, where it is too early.
async fn store_report(
    machine: &Machine,
    facts: &MachineFacts,
    context: &Context,
) -> Result<Option<Duration>, ClusterError> {
    let reference = ObjectRef::<Watched>::new(&machine.name_any()).within(&machine.namespace().unwrap_or_default());
    let since_write = context.written(|written| written.get(&reference).map(Instant::elapsed));
    let said = report(&ReportInput {
        machine,
        observation: facts.observation.as_ref(),
        running: facts.running,
        queued: facts.queued,
        is_recount: facts.is_recount,
        since_write,
        now: context.cluster.now(),
    });
    let Some(status) = said.status else {
        note_counts(machine, facts, context);
        return Ok(said.retry_after);
    };
    let in_short = (status.observed_generation, status.phase, status.message.clone());
    if context.refused(|refused| refused.get(&reference) == Some(&in_short)) {
        return Ok(None);
    }
    match context.cluster.replace_machine_status(machine, status).await {
        Ok(stored) => {
            note_counts(&stored, facts, context);
            context.refused(|refused| refused.remove(&reference));
            if !said.is_count {
                context.written(|written| written.insert(reference, Instant::now()));
            }
            if let Some((reason, warning, message)) = said.event {
                context.events.publish_machine(machine.object_ref(&()), reason, warning, message);
            }
            Ok(None)
        }
        // It has changed meanwhile, or is gone.
        Err(ClusterError::Conflict { .. }) => Ok(Some(Duration::from_secs(1))),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        // It would be refused each time. What is seen next says something else, or a person changes what refuses it.
        Err(error @ ClusterError::Invalid { .. }) => {
            context.refused(|refused| refused.insert(reference, in_short));
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Notes where the status says how many run and wait: they are not due before they change.
fn note_counts(machine: &Machine, facts: &MachineFacts, context: &Context) {
    let told = machine.status.as_ref().and_then(|status| Some((status.running?, status.queued?)));
    let (running, queued) = (i64::try_from(facts.running).ok(), i64::try_from(facts.queued).ok());
    if told.is_some() && told == running.zip(queued) {
        let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
        context.runner.record_counts(&namespace, &name, facts.running, facts.queued);
    }
}

fn retry_later(_object: Arc<Watched>, error: &ClusterError, _context: Arc<Context>) -> Action {
    match error {
        ClusterError::Undecodable { .. } | ClusterError::Forbidden { .. } => Action::requeue(Duration::from_secs(60)),
        _ => Action::requeue(Duration::from_secs(5)),
    }
}
