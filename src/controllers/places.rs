//! The watches of several namespaces as one: what is known is complete when each of them has told all it has.

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
    let watch = move |place: &Api<K>| watcher(place.clone(), config.clone()).backoff(WatchBackoff).boxed();
    match places.as_slice() {
        [only] => watch(only),
        _ => as_one(move || places.iter().map(&watch).collect()).boxed(),
    }
}

/// The events of several watches as those of one: what is known is complete ([`Event::InitDone`]) when each of them has
/// delivered its list. When one has to start anew, all do: it comes seldom, and what is gone there meanwhile cannot be told
/// otherwise from what is elsewhere.
fn as_one<K: Send + 'static>(
    begin: impl Fn() -> Vec<BoxStream<'static, watcher::Result<Event<K>>>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let anew = move || {
        let watches = begin();
        AsOne {
            all: watches.len(),
            begun: 0,
            missing: watches.len(),
            early: Vec::new(),
            events: stream::select_all(watches),
        }
    };
    let first = anew();
    stream::unfold((first, anew), |(mut state, anew)| async move {
        let told = match state.events.next().await? {
            Ok(event) => match state.take(event) {
                Told::These(events) => events,
                Told::StartAnew => {
                    state = anew();
                    Vec::new()
                }
            },
            Err(error) => vec![Err(error)],
        };
        Some((stream::iter(told), (state, anew)))
    })
    .flatten()
}

/// How far several watches are.
struct AsOne<S, K> {
    events: S,
    all: usize,
    /// Those that have begun a list.
    begun: usize,
    /// Those that have not delivered theirs yet.
    missing: usize,
    /// What those that are ready say before all are. Held back, as it would be lost when the lists take effect.
    early: Vec<Event<K>>,
}

/// What comes of an event.
enum Told<K> {
    These(Vec<watcher::Result<Event<K>>>),
    StartAnew,
}

/// Changes that are held back until all lists are there; where they are more, all start anew.
const EARLY: usize = 10_000;

impl<S, K> AsOne<S, K> {
    fn take(&mut self, event: Event<K>) -> Told<K> {
        Told::These(match event {
            Event::Init => {
                self.begun += 1;
                match self.begun {
                    1 => vec![Ok(Event::Init)],
                    begun if begun <= self.all => Vec::new(),
                    // One of them for the second time.
                    _ => return Told::StartAnew,
                }
            }
            Event::InitDone => {
                self.missing = self.missing.saturating_sub(1);
                if self.missing > 0 {
                    return Told::These(Vec::new());
                }
                let early = std::mem::take(&mut self.early).into_iter();
                std::iter::once(Event::InitDone).chain(early).map(Ok).collect()
            }
            Event::Apply(_) | Event::Delete(_) if self.missing > 0 => {
                if self.early.len() >= EARLY {
                    return Told::StartAnew;
                }
                self.early.push(event);
                Vec::new()
            }
            event => vec![Ok(event)],
        })
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

    /// What is told where each round of watches says these things, one after the other.
    fn told(rounds: Vec<Vec<Event<Execution>>>, watches: usize) -> Vec<String> {
        let rounds = std::sync::Mutex::new(rounds.into_iter());
        let begin = move || {
            let events = rounds.lock().unwrap().next().unwrap_or_default();
            // The first of them says it all; the others are there to be waited for.
            let mut all = vec![stream::iter(events).map(Ok).boxed()];
            all.extend((1..watches).map(|_| stream::empty().boxed()));
            all
        };
        futures::executor::block_on_stream(Box::pin(as_one(begin))).map(|event| named(&event)).collect()
    }

    #[test]
    fn what_is_known_of_several_places_is_complete_when_all_have_told_theirs() {
        let events = vec![
            Event::Init,
            Event::InitApply(execution("a")),
            Event::InitDone,
            Event::Apply(execution("a2")),
            Event::Delete(execution("a")),
            Event::Init,
            Event::InitApply(execution("b")),
            Event::InitDone,
            Event::Apply(execution("c")),
        ];
        let expected = ["init", "list a", "list b", "done", "apply a2", "delete a", "apply c"];
        assert_eq!(told(vec![events], 2), expected);
    }

    #[test]
    fn when_one_place_has_to_be_read_anew_all_are() {
        let lists = |names: [&str; 2]| {
            names.iter().flat_map(|name| [Event::Init, Event::InitApply(execution(name)), Event::InitDone]).collect()
        };
        let mut first: Vec<_> = lists(["a", "b"]);
        first.push(Event::Init);
        first.push(Event::InitApply(execution("lost")));
        let expected = ["init", "list a", "list b", "done", "init", "list a", "list c", "done"];
        assert_eq!(told(vec![first, lists(["a", "c"])], 2), expected);
    }

    #[test]
    fn a_list_that_broke_off_half_way_is_not_mixed_with_the_next() {
        let broken = vec![Event::Init, Event::Init, Event::InitApply(execution("gone")), Event::Init];
        let whole = vec![Event::Init, Event::InitDone, Event::Init, Event::InitDone];
        assert_eq!(told(vec![broken, whole], 2), ["init", "list gone", "init", "done"]);
    }
}
