//! What makes the controller look at an execution: its own changes, those of the Machines and Whitelists of its
//! namespace, and the runner.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::ReconcileRequest;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::api::{Machine, Phase, Whitelist};
use crate::cluster::{Cluster, ExecutionKey};
use crate::controllers::watching::{WatchBackoff, to_look_at, watch_config};
use crate::runner::{Runner, Wakes};

use super::Execution;
use super::gathering::Gathering;

/// Starts the watches; the store has the metadata of what has not finished.
pub(super) fn start(
    cluster: &Cluster,
    runner: Runner,
    wakes: Wakes,
    gathering: Arc<Gathering>,
) -> (Store<Execution>, impl Stream<Item = Result<ReconcileRequest<Execution>, Infallible>> + use<>) {
    let (reader, writer) = store::<Execution>();
    let unfinished = watcher(cluster.watched::<Execution>(), watch_config().fields(&unfinished_selector()))
        .backoff(WatchBackoff)
        .modify(|execution| execution.managed_fields_mut().clear());
    let known = reader.clone();
    let executions = reflector(writer, unfinished).flat_map(move |event| {
        if let Ok(Event::Delete(gone)) = &event {
            let key = ExecutionKey {
                namespace: gone.namespace().unwrap_or_default(),
                name: gone.name_any(),
                uid: gone.uid().unwrap_or_default(),
            };
            // Finished or gone: in neither case it waits any more, nor is it wanted to run. (Somebody may have taken the
            // finalizer off that should hold what runs.)
            runner.withdraw(&key);
            runner.cancel(&key);
        }
        let is_list = matches!(event, Ok(Event::InitDone));
        let mut to_look_at = to_look_at(event, &known);
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
        affected_by_changes::<Machine>(cluster, reader.clone()),
        affected_by_changes::<Whitelist>(cluster, reader.clone()),
    ]);
    (reader, queue.map(|reference| Ok(ReconcileRequest::from(reference))))
}

/// Finished executions are not watched: ten thousand of them cost nothing.
fn unfinished_selector() -> String {
    let finished = Phase::ALL.iter().filter(|phase| phase.is_finished());
    finished.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}

/// The unfinished executions of a namespace in which an object of kind K changed; all of them once the watch had to
/// start anew, as changes may have been missed.
fn affected_by_changes<K>(cluster: &Cluster, executions: Store<Execution>) -> BoxStream<'static, ObjectRef<Execution>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    watcher(cluster.watched::<PartialObjectMeta<K>>(), watch_config())
        .backoff(WatchBackoff)
        .filter_map(|event| async move {
            match event {
                Ok(Event::Apply(changed) | Event::Delete(changed)) => Some(changed.namespace()),
                Ok(Event::InitDone) => Some(None),
                Ok(Event::Init | Event::InitApply(_)) => None,
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), "a watch failed; trying again");
                    None
                }
            }
        })
        .flat_map(move |namespace| {
            let is_affected = |execution: &Execution| namespace.is_none() || execution.namespace() == namespace;
            let affected = executions.state_filter(is_affected);
            stream::iter(affected.into_iter().map(|execution| ObjectRef::from(execution.as_ref())).collect::<Vec<_>>())
        })
        .boxed()
}
