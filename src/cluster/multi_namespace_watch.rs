//! Watches of a kind in one or several namespaces, merged into one stream of events.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{Cluster, PAGE};
use crate::telemetry::{Watch, metrics};

/// Time after which the API server ends a watch, in seconds. If no data comes for a longer time, the connection is half
/// open.
const WATCH_SECONDS: u32 = 30;

impl Cluster {
    /// Watches a kind in every served namespace, until the stream is dropped. `field_selector` selects the objects. The
    /// stream starts with one list of all selected objects. A failed watch starts again after a second.
    pub fn watch<K>(&self, field_selector: Option<&str>) -> BoxStream<'static, watcher::Result<Event<K>>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        config.field_selector = field_selector.map(str::to_owned);
        merge_all(self.watch_apis::<K>(), &config)
    }
}

fn merge_all<K>(apis: Vec<Api<K>>, config: &watcher::Config) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watch = |api: Api<K>| watcher(api, config.clone()).backoff(WatchBackoff).boxed();
    let mut watches: Vec<_> = apis.into_iter().map(watch).collect();
    match (watches.pop(), watches.is_empty()) {
        (Some(only), true) => only,
        (last, _) => merge(watches.into_iter().chain(last).collect()).boxed(),
    }
}

/// Counts and logs a failure of a watch. The watch starts again by itself.
pub fn log_watch_failure(watch: Watch, error: &watcher::Error) {
    metrics().watch_failed(watch.as_str());
    tracing::warn!(%error, watch = watch.as_str(), "a watch failed; trying again");
}

/// Delay before a failed watch starts again. kube's default delay grows to 30 s, which is too long after an outage. One
/// retry per second does not overload an API server that restarts.
struct WatchBackoff;

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

/// Merges several watches into one watch. The merged list is complete ([`Event::InitDone`]) when each watch has
/// delivered its list or has failed. A watch without the right to read its namespace therefore delays no other watch.
///
/// If a watch lists its objects again after that, the merged watch delivers changes: an `Apply` for each object, and a
/// `Delete` for each missing object.
fn merge<K>(
    watches: Vec<BoxStream<'static, watcher::Result<Event<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + 'static,
{
    let mut merged = MergedWatch::new(watches.len());
    let tagged = watches.into_iter().enumerate().map(|(index, watch)| watch.map(move |event| (index, event)).boxed());
    let events = stream::select_all(tagged.collect::<Vec<_>>());
    let changes = events.flat_map(move |(index, event)| stream::iter(merged.handle_event(index, event)));
    stream::iter([Ok(Event::Init)]).chain(changes)
}

/// State of the merged watch.
struct MergedWatch<K> {
    watches: Vec<NamespaceWatch<K>>,
    /// True once the merged list is complete.
    is_list_delivered: bool,
    /// Objects that the merged list already contains, but that were deleted before the list was complete.
    deleted_during_list: HashMap<Name, K>,
}

/// Namespace and name.
type Name = (Option<String>, Option<String>);

fn name_of<K: Resource<DynamicType = ()>>(object: &K) -> Name {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

/// State of the watch of one namespace.
struct NamespaceWatch<K> {
    /// Objects of the list that this watch is receiving.
    list: Vec<K>,
    /// Existing objects, according to the events of this watch.
    known: HashMap<Name, K>,
    /// True once the first list was complete or has failed.
    is_ready: bool,
}

impl<K> Default for NamespaceWatch<K> {
    fn default() -> Self {
        Self { list: Vec::new(), known: HashMap::new(), is_ready: false }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> MergedWatch<K> {
    fn new(watches: usize) -> Self {
        Self {
            watches: (0..watches).map(|_| NamespaceWatch::default()).collect(),
            is_list_delivered: false,
            deleted_during_list: HashMap::new(),
        }
    }

    /// Handles an event of the watch with this index. Returns the resulting events of the merged watch.
    fn handle_event(&mut self, index: usize, event: watcher::Result<Event<K>>) -> Vec<watcher::Result<Event<K>>> {
        let is_list_delivered = self.is_list_delivered;
        let Some(watch) = self.watches.get_mut(index) else { return Vec::new() };
        let mut merged = match event {
            Ok(Event::Init) => {
                watch.list.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                // A clone can be smaller than the object (see `delivered`), and all objects of the list stay in memory.
                watch.list.push(object.clone());
                Vec::new()
            }
            Ok(Event::InitDone) => {
                watch.is_ready = true;
                let changes = watch.relist(is_list_delivered);
                self.deleted_during_list.retain(|name, _| !watch.known.contains_key(name));
                changes
            }
            Ok(Event::Apply(object)) => {
                watch.remember(&object);
                self.deleted_during_list.remove(&name_of(&object));
                vec![Ok(applied(object, is_list_delivered))]
            }
            Ok(Event::Delete(object)) => {
                let name = name_of(&object);
                watch.known.remove(&name);
                if is_list_delivered {
                    vec![Ok(Event::Delete(object))]
                } else {
                    self.deleted_during_list.insert(name, object.clone());
                    Vec::new()
                }
            }
            Err(error) => {
                watch.is_ready = true;
                vec![Err(error)]
            }
        };
        if !is_list_delivered && self.watches.iter().all(|watch| watch.is_ready) {
            self.is_list_delivered = true;
            merged.push(Ok(Event::InitDone));
            merged.extend(self.deleted_during_list.drain().map(|(_, deleted)| Ok(Event::Delete(deleted))));
        }
        merged
    }
}

/// Returns the event for an existing object: `InitApply` until the merged list is complete, and `Apply` after that.
fn applied<K>(object: K, is_list_delivered: bool) -> Event<K> {
    if is_list_delivered { Event::Apply(object) } else { Event::InitApply(object) }
}

impl<K: Resource<DynamicType = ()> + Clone> NamespaceWatch<K> {
    fn remember(&mut self, object: &K) {
        let mut slim = object.clone();
        slim.meta_mut().managed_fields = None;
        self.known.insert(name_of(object), slim);
    }

    /// Replaces the known objects with the complete list. Returns the resulting events.
    fn relist(&mut self, is_list_delivered: bool) -> Vec<watcher::Result<Event<K>>> {
        let list = std::mem::take(&mut self.list);
        let mut before = std::mem::take(&mut self.known);
        let mut changes = Vec::with_capacity(list.len());
        for object in list {
            before.remove(&name_of(&object));
            self.remember(&object);
            changes.push(Ok(applied(object, is_list_delivered)));
        }
        if is_list_delivered {
            changes.extend(before.into_values().map(|deleted| Ok(Event::Delete(deleted))));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use kube::core::PartialObjectMeta;

    use super::*;
    use crate::api::CommandExecution;

    type Execution = PartialObjectMeta<CommandExecution>;

    fn execution(name: &str) -> Execution {
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), namespace: Some("team".to_owned()), ..ObjectMeta::default() };
        Execution { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    fn named(event: &watcher::Result<Event<Execution>>) -> String {
        match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(it)) => format!("list {}", it.metadata.name.as_deref().unwrap_or_default()),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(it)) => format!("apply {}", it.metadata.name.as_deref().unwrap_or_default()),
            Ok(Event::Delete(it)) => format!("delete {}", it.metadata.name.as_deref().unwrap_or_default()),
            Err(_) => "error".to_owned(),
        }
    }

    /// Passes events to a merged watch, and returns the resulting events as texts. Each input is the index of a watch
    /// and an event of this watch, or `None` for a failure.
    fn merged(watches: usize, events: Vec<(usize, Option<Event<Execution>>)>) -> Vec<String> {
        let mut all = MergedWatch::new(watches);
        let failure = || Err(watcher::Error::NoResourceVersion);
        let take =
            |(index, event): (usize, Option<Event<Execution>>)| all.handle_event(index, event.map_or_else(failure, Ok));
        events.into_iter().flat_map(take).map(|event| named(&event)).collect()
    }

    fn apply(name: &str) -> Option<Event<Execution>> {
        Some(Event::Apply(execution(name)))
    }

    fn list(name: &str) -> Option<Event<Execution>> {
        Some(Event::InitApply(execution(name)))
    }

    const INIT: Option<Event<Execution>> = Some(Event::Init);
    const DONE: Option<Event<Execution>> = Some(Event::InitDone);

    #[test]
    fn merged_list_is_complete_when_all_watches_delivered_theirs() {
        let delete = |name| Some(Event::Delete(execution(name)));
        let early = [(0, apply("a2")), (0, delete("a")), (0, delete("a2")), (0, apply("a2"))];
        let events =
            [vec![(0, INIT), (0, list("a")), (0, DONE)], early.to_vec(), vec![(1, INIT), (1, list("b"))]].concat();
        assert_eq!(merged(2, events.clone()), ["list a", "list a2", "list a2"]);
        let more = vec![(1, DONE), (0, delete("a2")), (1, apply("c"))];
        let all = ["list a", "list a2", "list a2", "list b", "done", "delete a", "delete a2", "apply c"];
        assert_eq!(merged(2, [events, more].concat()), all);
    }

    #[test]
    fn unreadable_namespace_delays_no_other_and_appears_once_readable() {
        let lost = vec![(1, INIT), (1, None), (1, INIT), (1, None)];
        let other = vec![(0, INIT), (0, list("a")), (0, DONE), (1, INIT), (1, None), (0, apply("b"))];
        let back = vec![(1, INIT), (1, list("c")), (1, DONE)];
        let all = ["error", "error", "list a", "done", "error", "apply b", "apply c"];
        assert_eq!(merged(2, [lost, other, back].concat()), all);
    }

    #[test]
    fn new_list_of_one_namespace_becomes_its_changes() {
        let first = vec![(0, INIT), (0, list("a")), (0, list("gone")), (0, DONE), (1, INIT), (1, list("b")), (1, DONE)];
        let anew = vec![(0, INIT), (0, list("lost half way")), (0, INIT), (0, list("a")), (0, list("new")), (0, DONE)];
        let all = ["list a", "list gone", "list b", "done", "apply a", "apply new", "delete gone"];
        assert_eq!(merged(2, [first, anew].concat()), all);
    }
}
