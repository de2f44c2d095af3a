//! Names of executions that a feed must read: each name once, at a limited rate. Pure: time is an argument.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of waiting names, about 100 bytes each. Reading all of them takes 80 s.
const MAX_PENDING: usize = 4096;
/// Time between two reads: at most 50 reads per second.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Names that wait for a read, in the order of their first change.
#[derive(Debug)]
pub(super) struct Pending {
    queue: VecDeque<String>,
    queued: HashSet<String>,
    next_read: Instant,
}

impl Pending {
    /// Returns an empty queue, whose first read is due now.
    pub fn new(now: Instant) -> Self {
        Self { queue: VecDeque::new(), queued: HashSet::new(), next_read: now }
    }

    /// Adds a name. A name that waits already stays where it is. Returns false if there is no place.
    pub fn push(&mut self, name: &str) -> bool {
        if self.queued.contains(name) {
            return true;
        }
        if self.queue.len() >= MAX_PENDING {
            return false;
        }
        self.queued.insert(name.to_owned());
        self.queue.push_back(name.to_owned());
        true
    }

    /// Returns true if no name waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the time of the next read.
    pub fn next_read(&self) -> Instant {
        self.next_read
    }

    /// Removes the next name, and counts its read.
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        let name = self.queue.pop_front()?;
        self.queued.remove(&name);
        self.next_read = now + READ_INTERVAL;
        Some(name)
    }

    /// Adds a name again whose read failed, and delays the next read.
    pub fn retry(&mut self, name: &str, at: Instant) {
        self.push(name);
        self.next_read = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_changes_is_one_read_for_each_name() {
        let now = Instant::now();
        let mut pending = Pending::new(now);
        for name in ["a", "b", "a", "a", "b"] {
            assert!(pending.push(name));
        }
        assert_eq!(pending.next_read(), now);
        assert_eq!(pending.pop(now).as_deref(), Some("a"));
        assert_eq!(pending.next_read(), now + READ_INTERVAL);
        // A change during the read needs another read.
        assert!(pending.push("a"));
        assert_eq!(pending.pop(now).as_deref(), Some("b"));
        assert_eq!(pending.pop(now).as_deref(), Some("a"));
        assert_eq!(pending.pop(now), None);
    }

    #[test]
    fn a_flood_of_names_is_refused_at_the_bound() {
        let mut pending = Pending::new(Instant::now());
        assert!((0..MAX_PENDING).all(|index| pending.push(&index.to_string())));
        assert!(!pending.push("one more") && pending.push("0"));
    }

    #[test]
    fn a_failed_read_is_repeated_later() {
        let now = Instant::now();
        let mut pending = Pending::new(now);
        pending.push("a");
        let name = pending.pop(now).unwrap();
        pending.retry(&name, now + Duration::from_secs(1));
        assert_eq!((pending.next_read(), pending.is_empty()), (now + Duration::from_secs(1), false));
    }
}
