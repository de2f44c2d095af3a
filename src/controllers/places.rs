//! The watches of several namespaces as one: what is known is complete when each of them has told all it has.

use std::collections::HashMap;
use std::fmt::Debug;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::watching::WatchBackoff;

/// Watches a kind in one or several places, tries again for ever, and tells of all of them as of one.
pub(super) fn watch_all<K>(
    places: Vec<Api<K>>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watch = |place: Api<K>| watcher(place, config.clone()).backoff(WatchBackoff).boxed();
    let mut watches: Vec<_> = places.into_iter().map(watch).collect();
    match (watches.pop(), watches.is_empty()) {
        (Some(only), true) => only,
        (last, _) => as_one(watches.into_iter().chain(last).collect()).boxed(),
    }
}

/// The events of several watches as those of one: a list that is complete ([`Event::InitDone`]) when each of them has
/// delivered its own or has failed, and changes from then on. One that fails (its namespace is gone, or the right to read it)
/// keeps nobody waiting; one that has to start anew is told as the changes that it amounts to.
fn as_one<K>(
    watches: Vec<BoxStream<'static, watcher::Result<Event<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + 'static,
{
    let mut all = AsOne::of(watches.len());
    let tagged = watches.into_iter().enumerate().map(|(index, watch)| watch.map(move |event| (index, event)).boxed());
    let events = stream::select_all(tagged.collect::<Vec<_>>());
    stream::iter([Ok(Event::Init)]).chain(events.flat_map(move |(index, event)| stream::iter(all.take(index, event))))
}

/// How far several watches are.
struct AsOne<K> {
    places: Vec<Place<K>>,
    /// Whether the list of all was delivered.
    is_told: bool,
    /// What was told as a part of that list, and was gone before it was complete.
    gone_early: HashMap<Name, K>,
}

/// Namespace and name.
type Name = (Option<String>, Option<String>);

fn name_of<K: Resource<DynamicType = ()>>(object: &K) -> Name {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

/// One of them.
struct Place<K> {
    /// The list that is being read.
    list: Vec<K>,
    /// What is known there, without what others have noted on it.
    known: HashMap<Name, K>,
    /// Whether its list was complete once, or could not be had.
    is_ready: bool,
}

impl<K> Default for Place<K> {
    fn default() -> Self {
        Self { list: Vec::new(), known: HashMap::new(), is_ready: false }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> AsOne<K> {
    fn of(places: usize) -> Self {
        Self { places: (0..places).map(|_| Place::default()).collect(), is_told: false, gone_early: HashMap::new() }
    }

    fn take(&mut self, index: usize, event: watcher::Result<Event<K>>) -> Vec<watcher::Result<Event<K>>> {
        let is_told = self.is_told;
        let Some(place) = self.places.get_mut(index) else { return Vec::new() };
        let mut told = match event {
            Ok(Event::Init) => {
                place.list.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                place.list.push(object);
                Vec::new()
            }
            Ok(Event::InitDone) => {
                place.is_ready = true;
                let told = place.renewed(is_told);
                self.gone_early.retain(|reference, _| !place.known.contains_key(reference));
                told
            }
            Ok(Event::Apply(object)) => {
                place.remember(&object);
                self.gone_early.remove(&name_of(&object));
                vec![Ok(changed(object, is_told))]
            }
            Ok(Event::Delete(object)) => {
                let reference = name_of(&object);
                place.known.remove(&reference);
                if is_told {
                    vec![Ok(Event::Delete(object))]
                } else {
                    self.gone_early.insert(reference, object);
                    Vec::new()
                }
            }
            Err(error) => {
                place.is_ready = true;
                vec![Err(error)]
            }
        };
        if !is_told && self.places.iter().all(|place| place.is_ready) {
            self.is_told = true;
            told.push(Ok(Event::InitDone));
            told.extend(self.gone_early.drain().map(|(_, gone)| Ok(Event::Delete(gone))));
        }
        told
    }
}

/// A change; a part of the list while that is not complete.
fn changed<K>(object: K, is_told: bool) -> Event<K> {
    if is_told { Event::Apply(object) } else { Event::InitApply(object) }
}

impl<K: Resource<DynamicType = ()> + Clone> Place<K> {
    fn remember(&mut self, object: &K) {
        let mut slim = object.clone();
        slim.meta_mut().managed_fields = None;
        self.known.insert(name_of(object), slim);
    }

    /// A list took the place of what was known.
    fn renewed(&mut self, is_told: bool) -> Vec<watcher::Result<Event<K>>> {
        let list = std::mem::take(&mut self.list);
        let mut before = std::mem::take(&mut self.known);
        let mut told = Vec::with_capacity(list.len());
        for object in list {
            before.remove(&name_of(&object));
            self.remember(&object);
            told.push(Ok(changed(object, is_told)));
        }
        if is_told {
            told.extend(before.into_values().map(|gone| Ok(Event::Delete(gone))));
        }
        told
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

    /// What is told where several watches say these things: the number of the watch, and what it says; None: it fails.
    fn told(watches: usize, events: Vec<(usize, Option<Event<Execution>>)>) -> Vec<String> {
        let mut all = AsOne::of(watches);
        let failure = || Err(watcher::Error::NoResourceVersion);
        let take = |(index, event): (usize, Option<Event<Execution>>)| all.take(index, event.map_or_else(failure, Ok));
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
    fn what_is_known_of_several_places_is_complete_when_all_have_told_theirs() {
        let delete = |name| Some(Event::Delete(execution(name)));
        let early = [(0, apply("a2")), (0, delete("a")), (0, delete("a2")), (0, apply("a2"))];
        let events =
            [vec![(0, INIT), (0, list("a")), (0, DONE)], early.to_vec(), vec![(1, INIT), (1, list("b"))]].concat();
        assert_eq!(told(2, events.clone()), ["list a", "list a2", "list a2"]);
        let more = vec![(1, DONE), (0, delete("a2")), (1, apply("c"))];
        let all = ["list a", "list a2", "list a2", "list b", "done", "delete a", "delete a2", "apply c"];
        assert_eq!(told(2, [events, more].concat()), all);
    }

    #[test]
    fn a_place_that_cannot_be_read_keeps_nobody_waiting_and_is_told_when_it_can() {
        let lost = vec![(1, INIT), (1, None), (1, INIT), (1, None)];
        let other = vec![(0, INIT), (0, list("a")), (0, DONE), (1, INIT), (1, None), (0, apply("b"))];
        let back = vec![(1, INIT), (1, list("c")), (1, DONE)];
        let all = ["error", "error", "list a", "done", "error", "apply b", "apply c"];
        assert_eq!(told(2, [lost, other, back].concat()), all);
    }

    #[test]
    fn what_has_to_be_read_anew_in_one_place_is_told_as_what_changed_there() {
        let first = vec![(0, INIT), (0, list("a")), (0, list("gone")), (0, DONE), (1, INIT), (1, list("b")), (1, DONE)];
        let anew = vec![(0, INIT), (0, list("lost half way")), (0, INIT), (0, list("a")), (0, list("new")), (0, DONE)];
        let all = ["list a", "list gone", "list b", "done", "apply a", "apply new", "delete gone"];
        assert_eq!(told(2, [first, anew].concat()), all);
    }
}
