//! What all watches have in common: how long they stay open, when they are tried again, and what is looked at.

use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};

/// How long the API server keeps one watch open, in seconds: a half-open connection is noticed after that.
const WATCH_SECONDS: u32 = 30;

pub(super) fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What to look at after an event of a watch. While a list is being read (Init, InitApply) the store still has
/// the old one, and what is looked at before it is there would be passed over for good: so all of them at its end.
pub(super) fn to_look_at<K>(event: watcher::Result<Event<K>>, known: &Store<K>) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => vec![ObjectRef::from(&object)],
        Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
        Ok(Event::InitDone) => known.state().iter().map(|object| ObjectRef::from(object.as_ref())).collect(),
        Err(error) => {
            tracing::warn!(%error, kind = %K::kind(&()), "a watch failed; trying again");
            Vec::new()
        }
    }
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
            for reference in to_look_at(Ok(event), &reader) {
                assert!(reader.get(&reference).is_some(), "{reference} is not in the store");
                looked_at.push(reference.name);
            }
        }
        looked_at.sort();
        assert_eq!(looked_at, ["a", "b"]);
    }
}
