//! What makes the controller look at an execution: its own changes, those of the Machines and Whitelists of its
//! namespace, and the runner.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::ReconcileRequest;
use kube::runtime::reflector;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

use crate::api::{Machine, Phase, Whitelist};
use crate::cluster::{Cluster, ExecutionKey, Slim};
use crate::controllers::places::watch_all;
use crate::controllers::watching::{failed, to_look_at, watch_config};
use crate::runner::{Runner, Wakes};
use crate::telemetry::{Watch, health};

use super::Execution;
use super::gathering::Gathering;
use super::names::MachineNames;

/// Starts the watches; the store has the metadata of what has not finished.
pub(super) fn start(
    cluster: &Cluster,
    runner: Runner,
    wakes: Wakes,
    gathering: Arc<Gathering>,
    names: &MachineNames,
) -> (Store<Execution>, impl Stream<Item = Result<ReconcileRequest<Execution>, Infallible>> + use<>) {
    let (reader, writer) = store::<Execution>();
    let unfinished = watch_all(cluster.watch_apis::<Execution>(), watch_config().fields(&unfinished_selector()));
    let known = reader.clone();
    let (asked, names) = (runner.clone(), names.clone());
    let executions = reflector(writer, unfinished).flat_map(move |event| {
        if let Ok(Event::Delete(gone)) = &event {
            let key = key_of(gone);
            // Finished or gone: in neither case it waits any more, nor is it wanted to run. (Somebody may have taken the
            // finalizer off that should hold what runs.)
            runner.withdraw(&key);
            runner.cancel(&key);
        }
        let is_list = matches!(event, Ok(Event::InitDone));
        let mut to_look_at = to_look_at(Watch::Executions, event, &known);
        if is_list {
            // The oldest first: see `gathering`.
            to_look_at.sort_by_cached_key(|reference| known.get(reference).and_then(|it| it.creation_timestamp()));
            gathering.begin(to_look_at.iter().cloned());
        }
        stream::iter(to_look_at)
    });
    let woken = stream::unfold(wakes, |mut wakes| async move { wakes.recv().await.map(|wake| (wake, wakes)) })
        .map(|reference| ObjectRef::<Execution>::new(&reference.name).within(&reference.namespace.unwrap_or_default()));
    let queue = stream::select_all([
        executions.boxed(),
        woken.boxed(),
        affected_by_changes::<Machine>(
            cluster,
            Watch::MachinesOfExecutions,
            reader.clone(),
            move |execution, machine| asked.is_affected_by(&key_of(execution), &machine.name_any()),
            move |event| names.note(event),
        ),
        affected_by_changes::<Whitelist>(cluster, Watch::WhitelistsOfExecutions, reader.clone(), |_, _| true, |_| {}),
    ]);
    (reader, queue.map(|reference| Ok(ReconcileRequest::from(reference))))
}

/// Finished executions are not watched: ten thousand of them cost nothing.
fn unfinished_selector() -> String {
    let finished = Phase::ALL.iter().filter(|phase| phase.is_finished());
    finished.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}

/// The unfinished executions that the change of an object of kind K may mean something to; all of them once the watch had
/// to start anew, as changes may have been missed.
fn affected_by_changes<K>(
    cluster: &Cluster,
    watch: Watch,
    executions: Store<Execution>,
    minds: impl Fn(&Execution, &Slim<K>) -> bool + Send + 'static,
    note: impl Fn(&Event<Slim<K>>) + Send + 'static,
) -> BoxStream<'static, ObjectRef<Execution>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static,
{
    let mut before = Before::default();
    watch_all(cluster.watch_apis::<Slim<K>>(), watch_config())
        .filter_map(move |event| {
            if let Ok(event) = &event {
                note(event);
            }
            let news = match event {
                Ok(Event::Apply(changed)) => before.is_news(&changed).then_some(Some(changed)),
                Ok(Event::Delete(gone)) => {
                    before.forget(&gone);
                    Some(Some(gone))
                }
                Ok(Event::InitApply(listed)) => {
                    before.is_news(&listed);
                    None
                }
                Ok(Event::InitDone) => {
                    health().listed(watch);
                    Some(None)
                }
                Ok(Event::Init) => {
                    before = Before::default();
                    None
                }
                Err(error) => {
                    failed(watch, &error);
                    None
                }
            };
            std::future::ready(news)
        })
        .flat_map(move |changed| {
            let is_affected = |execution: &Execution| {
                changed
                    .as_ref()
                    .is_none_or(|changed| execution.namespace() == changed.namespace() && minds(execution, changed))
            };
            let affected = executions.state_filter(is_affected);
            stream::iter(affected.into_iter().map(|execution| ObjectRef::from(execution.as_ref())).collect::<Vec<_>>())
        })
        .boxed()
}

/// What objects were when they were seen last, as far as it means something to executions: what is said in their status does
/// not, and is written often.
#[derive(Default)]
struct Before {
    seen: HashMap<(Option<String>, String), u64>,
}

impl Before {
    /// Whether it is another one than before, or says something else.
    fn is_news<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&mut self, object: &Slim<K>) -> bool {
        let metadata = object.meta();
        let mut hasher = DefaultHasher::new();
        (&metadata.uid, metadata.generation, object.labels, metadata.deletion_timestamp.is_some()).hash(&mut hasher);
        self.seen.insert(name_of(object), hasher.finish()) != Some(hasher.finish())
    }

    fn forget<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&mut self, object: &Slim<K>) {
        self.seen.remove(&name_of(object));
    }
}

fn name_of<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    object: &Slim<K>,
) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

/// Names an execution for the runner.
fn key_of(execution: &Execution) -> ExecutionKey {
    ExecutionKey {
        namespace: execution.namespace().unwrap_or_default(),
        name: execution.name_any(),
        uid: execution.uid().unwrap_or_default(),
    }
}
