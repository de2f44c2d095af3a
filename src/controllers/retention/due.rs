//! Which finished executions are to be looked at, and when. All that is kept of an execution: about 300 bytes, and nothing
//! of those that are to be kept for ever.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use crate::cluster::ExecutionKey;

use super::finished::{Finished, Keeping};

/// By time.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// By UID.
    known: HashMap<Arc<str>, Known>,
    order: BTreeSet<(Timestamp, Arc<str>)>,
    /// Counts the lists that were read from their beginning.
    list: u64,
    keeping: Keeping,
}

#[derive(Debug)]
struct Known {
    namespace: String,
    name: String,
    at: Timestamp,
    /// The list that it was last seen in, or after.
    list: u64,
}

impl Due {
    pub(super) fn new(keeping: Keeping) -> Self {
        Self { keeping, ..Self::default() }
    }

    /// Takes in what was seen.
    pub(super) fn take(&mut self, event: Event<Finished>) {
        match event {
            Event::Init => self.list += 1,
            Event::InitApply(seen) | Event::Apply(seen) => self.put(&seen),
            Event::Delete(gone) => self.forget(&gone.uid().unwrap_or_default()),
            Event::InitDone => {
                // What was not in it is gone.
                let gone = self.known.iter().filter(|(_, known)| known.list != self.list);
                for uid in gone.map(|(uid, _)| Arc::clone(uid)).collect::<Vec<_>>() {
                    self.forget(&uid);
                }
            }
        }
    }

    fn put(&mut self, seen: &Finished) {
        let uid = seen.uid().unwrap_or_default();
        let Some(at) = seen.due(&self.keeping) else { return self.forget(&uid) };
        let key = ExecutionKey { namespace: seen.namespace().unwrap_or_default(), name: seen.name_any(), uid };
        self.again(key, at);
    }

    /// Puts one in, or moves it.
    pub(super) fn again(&mut self, key: ExecutionKey, at: Timestamp) {
        self.forget(&key.uid);
        let uid: Arc<str> = Arc::from(key.uid);
        self.order.insert((at, Arc::clone(&uid)));
        self.known.insert(uid, Known { namespace: key.namespace, name: key.name, at, list: self.list });
    }

    fn forget(&mut self, uid: &str) {
        if let Some((uid, known)) = self.known.remove_entry(uid) {
            self.order.remove(&(known.at, uid));
        }
    }

    /// How long until the first of them is due; None where there is none.
    pub(super) fn wait(&self, now: Timestamp) -> Option<Duration> {
        let (at, _) = self.order.first()?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
    }

    /// Takes the first out, where it is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<ExecutionKey> {
        let (at, uid) = self.order.first().filter(|(at, _)| *at <= now)?.clone();
        self.order.remove(&(at, Arc::clone(&uid)));
        let known = self.known.remove(&uid)?;
        Some(ExecutionKey { namespace: known.namespace, name: known.name, uid: uid.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finished(name: &str, ttl: Option<u32>) -> Finished {
        let metadata = json!({"name": name, "namespace": "team", "uid": format!("uid-{name}")});
        let status = json!({"phase": "Succeeded", "completionTime": "2026-11-21T12:00:00.000000Z"});
        let spec = json!({"ttlSecondsAfterFinished": ttl});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn they_come_in_the_order_of_their_times_and_not_before() {
        let mut due = Due::default();
        for (name, ttl) in [("b", Some(20)), ("kept", None), ("a", Some(10))] {
            due.take(Event::Apply(finished(name, ttl)));
        }
        assert_eq!(due.wait(at(4)), Some(Duration::from_secs(6)));
        assert_eq!(due.pop(at(9)), None);
        assert_eq!(due.pop(at(30)).unwrap().name, "a");
        assert_eq!(due.pop(at(30)).unwrap().name, "b");
        assert_eq!((due.pop(at(99)), due.wait(at(99))), (None, None));
    }

    #[test]
    fn what_is_gone_is_forgotten_also_where_that_was_missed() {
        let mut due = Due::default();
        for name in ["a", "b", "c"] {
            due.take(Event::Apply(finished(name, Some(10))));
        }
        due.take(Event::Delete(finished("a", Some(10))));
        due.take(Event::Init);
        due.take(Event::InitApply(finished("c", Some(10))));
        due.take(Event::InitDone);
        assert_eq!(due.pop(at(30)).unwrap().name, "c");
        assert!(due.known.is_empty() && due.order.is_empty());
    }

    #[test]
    fn what_failed_comes_again_once() {
        let mut due = Due::default();
        due.take(Event::Apply(finished("a", Some(10))));
        let key = due.pop(at(10)).unwrap();
        due.again(key.clone(), at(15));
        due.again(key.clone(), at(20));
        assert_eq!(due.pop(at(19)), None);
        assert_eq!(due.pop(at(20)), Some(key));
        assert!(due.known.is_empty() && due.order.is_empty());
    }
}
