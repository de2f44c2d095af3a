//! Finds the executions that viewers can watch: running executions, executions that ended within the last minute, and
//! names for which viewers wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::super::OutputKey;
use super::entry::{Entry, EntryEnd, Shared};
use super::lock;
use super::spill_queue::SpillQueue;

/// Maximum number of viewers of one execution, enough for a team.
pub(super) const MAX_VIEWERS: usize = 32;
/// Maximum number of execution names that have waiting viewers but no claimed execution yet. Each takes 1 KiB.
pub(super) const MAX_EXPECTED: usize = 1024;
/// Maximum number of such execution names in one namespace. With this limit, no namespace alone reaches
/// [`MAX_EXPECTED`].
pub(super) const MAX_EXPECTED_PER_NAMESPACE: usize = 256;
/// Maximum time for which a viewer waits for the claim of an execution. Only the claim of a queued execution takes
/// longer.
const EXPECTED_FOR: Duration = Duration::from_secs(15 * 60);
/// Time after the end of an execution during which viewers can find the execution and read its output.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// Maximum number of ended executions that viewers can find, with 1 KiB of memory for each execution. An execution
/// stays for 60 s, so the limit allows 68 ends per second.
const MAX_ENDED: usize = 4096;
/// Maximum size of the output of ended executions in memory, in bytes. This is a quarter of the memory for live output.
const MAX_ENDED_BYTES: usize = 16 << 20;

/// Reason why a viewer is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubscribeError {
    /// The execution has too many viewers.
    #[error("the execution has {MAX_VIEWERS} viewers already; try again when one has left")]
    TooManyViewers,
    /// Viewers wait for too many names that no execution has.
    #[error("viewers wait for too many executions that do not exist; create the execution first")]
    TooManyNames,
    /// This process does not run the execution.
    #[error("this process does not run the execution; read its status from the API server")]
    NotHere,
}

#[derive(Debug)]
pub(super) struct Registry {
    shared: Arc<Shared>,
    entries: Mutex<Entries>,
    times: Times,
}

/// Durations of a registry. Tests use shorter durations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Maximum time for which a viewer waits for a claim. The default is [`EXPECTED_FOR`].
    pub expected_for: Duration,
    /// Time after the end of an execution during which viewers can find the execution. The default is
    /// [`KEPT_AFTER_END`].
    pub kept_after_end: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { expected_for: EXPECTED_FOR, kept_after_end: KEPT_AFTER_END }
    }
}

type Name = (String, String);

#[derive(Debug, Default)]
struct Entries {
    /// Newest execution of each namespace and name.
    by_name: HashMap<Name, Arc<Entry>>,
    by_uid: HashMap<String, Arc<Entry>>,
    /// Number of expected names, by namespace.
    expected: HashMap<String, usize>,
    /// Ended executions, oldest first: time of the end, UID, and number of bytes in memory.
    ended: VecDeque<(Instant, String, usize)>,
    ended_bytes: usize,
    viewers: u64,
}

impl Entries {
    /// Removes the executions that ended at least `kept_after_end` ago. While the number or the size of the other ended
    /// executions exceeds its limit, also removes the oldest of them.
    fn expire(&mut self, kept_after_end: Duration) {
        while let Some((ended, _, _)) = self.ended.front() {
            let is_due = ended.elapsed() >= kept_after_end;
            if !is_due && self.ended.len() <= MAX_ENDED && self.ended_bytes <= MAX_ENDED_BYTES {
                break;
            }
            let Some((_, uid, bytes)) = self.ended.pop_front() else { break };
            self.ended_bytes = self.ended_bytes.saturating_sub(bytes);
            let entry = self.by_uid.get(&uid).map(Arc::clone).filter(|entry| entry.state().end.is_some());
            if let Some(entry) = entry {
                self.remove(&uid, &entry);
            }
        }
    }

    /// Removes an entry. Its bytes stay only if the entry has viewers.
    fn remove(&mut self, uid: &str, entry: &Arc<Entry>) {
        self.by_uid.remove(uid);
        self.remove_name(entry);
        if entry.state().viewers == 0 {
            entry.remove_bytes();
        }
    }

    fn remove_name(&mut self, entry: &Arc<Entry>) {
        let name = (entry.namespace.clone(), entry.name.clone());
        if self.by_name.get(&name).is_some_and(|other| Arc::ptr_eq(other, entry)) {
            self.by_name.remove(&name);
        }
    }

    fn count_viewer(&mut self, entry: &Entry) -> Result<(), SubscribeError> {
        let mut state = entry.state();
        if state.viewers >= MAX_VIEWERS {
            return Err(SubscribeError::TooManyViewers);
        }
        state.viewers += 1;
        drop(state);
        self.viewers += 1;
        Ok(())
    }

    fn stop_expecting(&mut self, namespace: &str) {
        if let Some(count) = self.expected.get_mut(namespace) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.expected.remove(namespace);
            }
        }
    }
}

impl Registry {
    pub fn new(spill: Option<Arc<SpillQueue<Entry>>>, times: Times) -> Self {
        Self { shared: Arc::new(Shared::new(spill)), entries: Mutex::default(), times }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn times(&self) -> Times {
        self.times
    }

    /// Returns the execution with this UID, if it runs here or ended here recently (usually within the last 60 s).
    pub fn find(&self, uid: &str) -> Option<Arc<Entry>> {
        lock(&self.entries).by_uid.get(uid).map(Arc::clone)
    }

    /// Returns the number of viewers.
    pub fn viewers(&self) -> u64 {
        lock(&self.entries).viewers
    }

    /// Adds a viewer to the newest execution of a name. If no execution has the name, the viewer waits for such an
    /// execution.
    pub fn enter(&self, namespace: &str, name: &str) -> Result<Arc<Entry>, SubscribeError> {
        let mut entries = lock(&self.entries);
        entries.expire(self.times.kept_after_end);
        let key = (namespace.to_owned(), name.to_owned());
        let entry = match entries.by_name.get(&key) {
            Some(entry) => Arc::clone(entry),
            None => {
                let all: usize = entries.expected.values().sum();
                let own = entries.expected.entry(namespace.to_owned()).or_default();
                if all >= MAX_EXPECTED || *own >= MAX_EXPECTED_PER_NAMESPACE {
                    entries.expected.retain(|_, count| *count > 0);
                    return Err(SubscribeError::TooManyNames);
                }
                *own += 1;
                let entry = Arc::new(Entry::new(namespace, name, Arc::clone(&self.shared)));
                entries.by_name.insert(key, Arc::clone(&entry));
                entry
            }
        };
        entries.count_viewer(&entry)?;
        Ok(entry)
    }

    /// Adds a viewer to the execution of a UID.
    pub fn enter_uid(&self, uid: &str) -> Result<Arc<Entry>, SubscribeError> {
        let mut entries = lock(&self.entries);
        entries.expire(self.times.kept_after_end);
        let entry = entries.by_uid.get(uid).map(Arc::clone).ok_or(SubscribeError::NotHere)?;
        entries.count_viewer(&entry)?;
        Ok(entry)
    }

    /// Adds the execution of a stored claim. Viewers that wait for its name receive its events.
    pub fn claim(&self, key: &OutputKey, name: &str, is_adopted: bool) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        entries.expire(self.times.kept_after_end);
        let full_name = (key.namespace.clone(), name.to_owned());
        let expected = entries.by_name.get(&full_name).filter(|entry| entry.state().claim.is_none()).map(Arc::clone);
        let entry = match expected {
            Some(entry) => {
                entries.stop_expecting(&key.namespace);
                entry
            }
            None => Arc::new(Entry::new(&key.namespace, name, Arc::clone(&self.shared))),
        };
        entry.state().claim = Some((key.uid.clone(), is_adopted));
        entries.by_name.insert(full_name, Arc::clone(&entry));
        let before = entries.by_uid.insert(key.uid.clone(), Arc::clone(&entry));
        drop(entries);
        if let Some(before) = before {
            // An earlier task of this process had the claim.
            before.finish(EntryEnd::Released, self.times.kept_after_end);
        }
        entry.notify();
        entry
    }

    /// Records `end` for the execution of a claim. After `Ended`, viewers can still find the execution for up to 60 s.
    /// After `Released`, viewers can no longer find the execution.
    pub fn finish(&self, key: &OutputKey, claimed: &Arc<Entry>, end: EntryEnd) {
        let is_released = end == EntryEnd::Released;
        let mut entries = lock(&self.entries);
        let bytes = claimed.finish(end, self.times.kept_after_end);
        // A newer claim of this process can have replaced `claimed`.
        if entries.by_uid.get(&key.uid).is_some_and(|entry| Arc::ptr_eq(entry, claimed)) {
            if is_released {
                entries.remove(&key.uid, claimed);
            } else {
                entries.ended.push_back((Instant::now(), key.uid.clone(), bytes));
                entries.ended_bytes += bytes;
                entries.expire(self.times.kept_after_end);
            }
        }
    }

    /// Removes a viewer from an entry.
    pub fn leave(&self, entry: &Arc<Entry>) {
        let mut entries = lock(&self.entries);
        entries.viewers = entries.viewers.saturating_sub(1);
        let mut state = entry.state();
        state.viewers = state.viewers.saturating_sub(1);
        if state.viewers > 0 {
            return;
        }
        let is_expected = state.claim.is_none();
        if state.end.is_some() && state.has_file() {
            // The last viewer has left, so the bytes are deleted. A later viewer receives a gap and the end.
            entry.clear(&mut state);
        }
        drop(state);
        if is_expected {
            entries.stop_expecting(&entry.namespace);
            entries.remove_name(entry);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(spill) = &self.shared.spill {
            spill.stop();
        }
    }
}
