//! What all controllers have in common: how long watches stay open, when they are tried again, what is looked at, and how
//! it is seen that they go on.

use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt as _};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use tokio::time::interval;

use crate::cluster::{ClusterError, PAGE};
use crate::telemetry::{BackgroundTask, HEARTBEAT_INTERVAL, Watch, health, metrics};

/// How long the API server keeps one watch open, in seconds: a half-open connection is noticed after that.
const WATCH_SECONDS: u32 = 30;

pub(super) fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// What to look at after an event of a watch. While a list is being read (Init, InitApply) the store still has
/// the old one, and what is looked at before it is there would be passed over for good: so all of them at its end.
pub(super) fn to_look_at<K>(watch: Watch, event: watcher::Result<Event<K>>, known: &Store<K>) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => vec![ObjectRef::from(&object)],
        Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
        Ok(Event::InitDone) => {
            health().listed(watch);
            known.state().iter().map(|object| ObjectRef::from(object.as_ref())).collect()
        }
        Err(error) => {
            failed(watch, &error);
            Vec::new()
        }
    }
}

/// Tells of a watch that failed.
pub(super) fn failed(watch: Watch, error: &watcher::Error) {
    metrics().watch_failed(watch.as_str());
    tracing::warn!(%error, watch = watch.as_str(), "a watch failed; trying again");
}

/// The same queue, which gives signs of life for the loop that takes from it, for as long as it does.
pub(super) fn with_beats<T>(which: BackgroundTask, queue: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let turns = stream::unfold(interval(HEARTBEAT_INTERVAL), |mut turns| async move {
        turns.tick().await;
        Some(((), turns))
    });
    let beats = turns.map(move |()| {
        health().heartbeat(which);
        None
    });
    stream::select(queue.map(Some), beats).filter_map(std::future::ready)
}

/// Looks at one object: timed, counted, and found out where it does not end.
pub(super) async fn measured<T>(
    which: BackgroundTask,
    look: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    let _guard = health().track(which);
    let began = Instant::now();
    let result = look.await;
    metrics().reconciled(which.as_str(), began);
    if let Err(error) = &result {
        metrics().reconcile_failed(which.as_str(), error.category());
    }
    result
}

/// The pause after a watch failed. Soon after an outage all is to be normal, so it is not kube's default, which grows to
/// 30 s; three watches that ask once a second are no burden to an API server that comes back. (It could not grow anyway:
/// each new attempt begins with an event that counts as success.)
pub(super) struct WatchBackoff;

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use kube::core::PartialObjectMeta;
    use kube::runtime::reflector::store;

    use super::*;
    use crate::api::CommandExecution;

    type Execution = PartialObjectMeta<CommandExecution>;

    fn execution(name: &str) -> Execution {
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), namespace: Some("team".to_owned()), ..ObjectMeta::default() };
        Execution { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    /// A list that comes in pages: looking at its first before its last has come would find nothing in the store.
    #[test]
    fn everything_in_a_list_is_looked_at_when_the_store_has_all_of_it() {
        let (reader, mut writer) = store::<Execution>();
        let mut looked_at = Vec::new();
        let pages = [Event::Init, Event::InitApply(execution("a")), Event::InitApply(execution("b")), Event::InitDone];
        for event in pages {
            writer.apply_watcher_event(&event);
            for reference in to_look_at(Watch::Executions, Ok(event), &reader) {
                assert!(reader.get(&reference).is_some(), "{reference} is not in the store");
                looked_at.push(reference.name);
            }
        }
        looked_at.sort();
        assert_eq!(looked_at, ["a", "b"]);
    }
}
