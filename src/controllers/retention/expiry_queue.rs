//! Finished executions, ordered by the time of their next action. The queue takes about 300 bytes for each execution.
//! Executions without a next action are not in the queue.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use crate::cluster::ExecutionKey;

use super::finished::{FinishedExecution, RetentionPolicy};

/// Queue of executions, ordered by time.
#[derive(Debug, Default)]
pub(super) struct ExpiryQueue {
    /// Executions by UID.
    entries: HashMap<Arc<str>, Entry>,
    order: BTreeSet<(Timestamp, Arc<str>)>,
    /// Number of lists that the watch has started.
    relist_generation: u64,
    policy: RetentionPolicy,
}

#[derive(Debug)]
struct Entry {
    namespace: String,
    name: String,
    at: Timestamp,
    /// Value of the queue's `relist_generation` when the execution was last scheduled. If this value is lower than the
    /// queue's value at the end of a list, the list does not contain the execution.
    relist_generation: u64,
}

impl ExpiryQueue {
    pub(super) fn new(policy: RetentionPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Applies an event of the watch.
    pub(super) fn handle_event(&mut self, event: Event<FinishedExecution>) {
        match event {
            Event::Init => self.relist_generation += 1,
            Event::InitApply(finished) | Event::Apply(finished) => self.schedule(&finished),
            Event::Delete(finished) => self.remove(&finished.uid().unwrap_or_default()),
            Event::InitDone => {
                // Executions that are not in the new list were deleted.
                let current = self.relist_generation;
                let gone = self.entries.iter().filter(|(_, entry)| entry.relist_generation != current);
                for uid in gone.map(|(uid, _)| Arc::clone(uid)).collect::<Vec<_>>() {
                    self.remove(&uid);
                }
            }
        }
    }

    fn schedule(&mut self, finished: &FinishedExecution) {
        let uid = finished.uid().unwrap_or_default();
        let Some(at) = finished.next_action_time(&self.policy) else { return self.remove(&uid) };
        let key = ExecutionKey { namespace: finished.namespace().unwrap_or_default(), name: finished.name_any(), uid };
        self.reschedule(key, at);
    }

    /// Adds an execution, or moves it to another time.
    pub(super) fn reschedule(&mut self, key: ExecutionKey, at: Timestamp) {
        self.remove(&key.uid);
        let uid: Arc<str> = Arc::from(key.uid);
        self.order.insert((at, Arc::clone(&uid)));
        let relist_generation = self.relist_generation;
        self.entries.insert(uid, Entry { namespace: key.namespace, name: key.name, at, relist_generation });
    }

    fn remove(&mut self, uid: &str) {
        if let Some((uid, entry)) = self.entries.remove_entry(uid) {
            self.order.remove(&(entry.at, uid));
        }
    }

    /// Returns the delay until the first execution is due, or `None` if the queue is empty.
    pub(super) fn next_delay(&self, now: Timestamp) -> Option<Duration> {
        let (at, _) = self.order.first()?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
    }

    /// Removes and returns the first execution if it is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<ExecutionKey> {
        let (at, uid) = self.order.first().filter(|(at, _)| *at <= now)?.clone();
        self.order.remove(&(at, Arc::clone(&uid)));
        let entry = self.entries.remove(&uid)?;
        Some(ExecutionKey { namespace: entry.namespace, name: entry.name, uid: uid.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finished(name: &str, ttl: Option<u32>) -> FinishedExecution {
        let metadata = json!({"name": name, "namespace": "team", "uid": format!("uid-{name}")});
        let status = json!({"phase": "Succeeded", "completionTime": "2026-11-21T12:00:00.000000Z"});
        let spec = json!({"ttlSecondsAfterFinished": ttl});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn executions_come_in_the_order_of_their_times_and_not_before() {
        let mut queue = ExpiryQueue::default();
        for (name, ttl) in [("b", Some(20)), ("kept", None), ("a", Some(10))] {
            queue.handle_event(Event::Apply(finished(name, ttl)));
        }
        assert_eq!(queue.next_delay(at(4)), Some(Duration::from_secs(6)));
        assert_eq!(queue.pop_due(at(9)), None);
        assert_eq!(queue.pop_due(at(30)).unwrap().name, "a");
        assert_eq!(queue.pop_due(at(30)).unwrap().name, "b");
        assert_eq!((queue.pop_due(at(99)), queue.next_delay(at(99))), (None, None));
    }

    #[test]
    fn deleted_executions_are_removed_even_if_the_event_was_missed() {
        let mut queue = ExpiryQueue::default();
        for name in ["a", "b", "c"] {
            queue.handle_event(Event::Apply(finished(name, Some(10))));
        }
        queue.handle_event(Event::Delete(finished("a", Some(10))));
        queue.handle_event(Event::Init);
        queue.handle_event(Event::InitApply(finished("c", Some(10))));
        queue.handle_event(Event::InitDone);
        assert_eq!(queue.pop_due(at(30)).unwrap().name, "c");
        assert!(queue.entries.is_empty() && queue.order.is_empty());
    }

    #[test]
    fn failed_execution_comes_again_once() {
        let mut queue = ExpiryQueue::default();
        queue.handle_event(Event::Apply(finished("a", Some(10))));
        let key = queue.pop_due(at(10)).unwrap();
        queue.reschedule(key.clone(), at(15));
        queue.reschedule(key.clone(), at(20));
        assert_eq!(queue.pop_due(at(19)), None);
        assert_eq!(queue.pop_due(at(20)), Some(key));
        assert!(queue.entries.is_empty() && queue.order.is_empty());
    }
}
