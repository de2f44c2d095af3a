//! All executions that run in this process, ended within the last minute, or are expected by viewers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{OutputKey, StreamKind};
use super::entry::{Entry, EntryEnd, ReadStep, Shared};
use super::publisher::Publisher;
use super::spill_queue::SpillQueue;
use super::spill_thread::{self, WriteAt};
use super::{EndedStatus, GapReason, LiveOptions, Progress, StreamOffsets, Viewer, lock};

/// Maximum number of viewers of one execution, enough for a team.
pub(super) const MAX_VIEWERS: usize = 32;
/// Maximum number of names that viewers expect and that no execution has yet. Each takes 1 KiB.
pub(super) const MAX_EXPECTED: usize = 1024;
/// Maximum number of expected names in one namespace, so that no namespace uses up the limit for all.
pub(super) const MAX_EXPECTED_PER_NAMESPACE: usize = 256;
/// Time after which the registry ends a viewer whose name no execution has. Longer waits concern queued executions,
/// which clients watch in the API server.
const EXPECTED_FOR: Duration = Duration::from_secs(15 * 60);
/// Time after the end for which viewers can find an execution and continue to read it.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// Maximum number of ended executions that viewers can find: 68 per second for 60 s. Each takes 1 KiB.
const MAX_ENDED: usize = 4096;
/// Maximum bytes of output of ended executions in memory, a quarter of the memory for live output.
const MAX_ENDED_BYTES: usize = 16 << 20;

/// The live registry. Clones are the same registry.
#[derive(Clone, Debug)]
pub struct LiveOutput {
    registry: Arc<Registry>,
}

/// Amounts of live output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LiveUsage {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes in spill files.
    pub spill_bytes: u64,
    /// Viewers, also those of names that no execution has yet.
    pub viewers: u64,
}

/// Refusal of a viewer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubscribeError {
    /// The execution has too many viewers.
    #[error("the execution has {MAX_VIEWERS} viewers already; try again when one has left")]
    TooManyViewers,
    /// Too many names are expected.
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

/// Times of a registry. Tests choose shorter ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// See [`EXPECTED_FOR`].
    pub expected_for: Duration,
    /// See [`KEPT_AFTER_END`].
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
    /// By namespace and name: the newest execution of the name.
    by_name: HashMap<Name, Arc<Entry>>,
    by_uid: HashMap<String, Arc<Entry>>,
    /// Counts of entries that no execution has claimed, by namespace.
    expected: HashMap<String, usize>,
    /// Ended executions, oldest first, and their bytes in memory.
    ended: VecDeque<(Instant, String, usize)>,
    ended_bytes: usize,
    viewers: u64,
}

impl Default for LiveOutput {
    /// Creates a registry that keeps no files.
    fn default() -> Self {
        Self::with(None, Times::default())
    }
}

impl LiveOutput {
    /// Creates a registry that keeps large outputs in files.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn start(options: &LiveOptions) -> io::Result<Self> {
        Self::start_with(options, Box::new(std::os::unix::fs::FileExt::write_all_at))
    }

    pub(super) fn start_with(options: &LiveOptions, write: WriteAt) -> io::Result<Self> {
        Ok(Self::with(Some(spill_thread::start(options, write)?), Times::default()))
    }

    pub(super) fn with(spill: Option<Arc<SpillQueue<Entry>>>, times: Times) -> Self {
        let shared = Arc::new(Shared::new(spill));
        Self { registry: Arc::new(Registry { shared, entries: Mutex::default(), times }) }
    }

    /// Watches an execution by namespace and name. The execution need not exist yet: a viewer waits up to 15 minutes
    /// for its claim. If executions of this name existed within the last 60 s, the viewer gets the newest one. Compare
    /// the UID of [`super::LiveEvent::Claimed`].
    ///
    /// # Errors
    /// Too many viewers, or too many names that no execution has.
    pub fn subscribe(&self, namespace: &str, name: &str, from: StreamOffsets) -> Result<Viewer, SubscribeError> {
        let mut entries = lock(&self.registry.entries);
        entries.expire(self.registry.times.kept_after_end);
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
                let entry = Arc::new(Entry::new(namespace, name, Arc::clone(&self.registry.shared)));
                entries.by_name.insert(key, Arc::clone(&entry));
                entry
            }
        };
        self.view(&mut entries, entry, from)
    }

    /// Watches an execution that this process runs, or ran within the last 60 s.
    ///
    /// # Errors
    /// The execution does not run here, or has too many viewers.
    pub fn subscribe_uid(&self, uid: &str, from: StreamOffsets) -> Result<Viewer, SubscribeError> {
        let mut entries = lock(&self.registry.entries);
        entries.expire(self.registry.times.kept_after_end);
        let entry = entries.by_uid.get(uid).map(Arc::clone).ok_or(SubscribeError::NotHere)?;
        self.view(&mut entries, entry, from)
    }

    fn view(&self, entries: &mut Entries, entry: Arc<Entry>, from: StreamOffsets) -> Result<Viewer, SubscribeError> {
        let mut state = entry.state();
        if state.viewers >= MAX_VIEWERS {
            return Err(SubscribeError::TooManyViewers);
        }
        state.viewers += 1;
        drop(state);
        entries.viewers += 1;
        Ok(Viewer::new(Arc::clone(&self.registry), entry, from, Instant::now() + self.registry.times.expected_for))
    }

    /// Publishes a stored claim. The claim is followed until the returned value is dropped.
    pub fn claimed(&self, key: OutputKey, name: &str, is_adopted: bool) -> LiveClaim {
        let mut entries = lock(&self.registry.entries);
        entries.expire(self.registry.times.kept_after_end);
        let full_name = (key.namespace.clone(), name.to_owned());
        let expected = entries.by_name.get(&full_name).filter(|entry| entry.state().claim.is_none()).map(Arc::clone);
        let entry = match expected {
            Some(entry) => {
                entries.stop_expecting(&key.namespace);
                entry
            }
            None => Arc::new(Entry::new(&key.namespace, name, Arc::clone(&self.registry.shared))),
        };
        entry.state().claim = Some((key.uid.clone(), is_adopted));
        entries.by_name.insert(full_name, Arc::clone(&entry));
        let before = entries.by_uid.insert(key.uid.clone(), Arc::clone(&entry));
        drop(entries);
        if let Some(before) = before {
            // An earlier task of this process had the claim.
            before.finish(EntryEnd::Released, self.registry.times.kept_after_end);
        }
        entry.notify();
        LiveClaim { registry: Arc::clone(&self.registry), entry, key, is_ended: false }
    }

    /// Reads at most `max_bytes` of a stream from an offset on. The execution must run here or have ended here within
    /// the last 60 s.
    pub async fn read(&self, uid: &str, stream: StreamKind, offset: u64, max_bytes: usize) -> Option<LiveRead> {
        let entry = lock(&self.registry.entries).by_uid.get(uid).map(Arc::clone)?;
        loop {
            return Some(match entry.find(stream, None, offset, max_bytes) {
                ReadStep::Bytes(bytes) => LiveRead::Bytes(bytes),
                ReadStep::Gap { to, reason } => LiveRead::Gap { to, reason },
                ReadStep::Nothing { is_complete } => LiveRead::Nothing { is_complete },
                ReadStep::File(read) => match entry.read_file(&read).await {
                    (Some(bytes), _) => LiveRead::Bytes(bytes),
                    (None, true) => LiveRead::Gap { to: offset + read.length as u64, reason: GapReason::DiskFailed },
                    (None, false) => continue,
                },
            });
        }
    }

    /// Returns the amounts of live output.
    pub fn usage(&self) -> LiveUsage {
        let shared = &self.registry.shared;
        LiveUsage {
            memory_bytes: shared.memory.load(Ordering::Relaxed) as u64,
            spill_bytes: shared.spill.as_ref().map_or(0, |spill| spill.used()),
            viewers: lock(&self.registry.entries).viewers,
        }
    }

    /// Returns the number of bytes that viewers can no longer read, by reason, since the last call.
    pub fn take_lost(&self) -> Vec<(GapReason, u64)> {
        self.registry.shared.take_lost()
    }
}

/// Bytes at an offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveRead {
    /// Bytes from the offset on.
    Bytes(Bytes),
    /// The bytes up to this offset are no longer stored.
    Gap {
        /// Offset of the next stored byte.
        to: u64,
        /// Cause.
        reason: GapReason,
    },
    /// The stream has not reached this offset.
    Nothing {
        /// True if it never reaches this offset.
        is_complete: bool,
    },
}

impl Entries {
    /// Removes executions that ended before this time, and more if there are too many.
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

    /// Takes an entry out; its bytes stay only if it has viewers.
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
            // The entry has no viewers. A later viewer finds only the end.
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

/// The claim of one execution, as its viewers see it. If it is dropped without an end, viewers receive `Released`.
#[derive(Debug)]
pub struct LiveClaim {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    key: OutputKey,
    is_ended: bool,
}

impl LiveClaim {
    /// Returns the key of the execution's output.
    pub fn key(&self) -> &OutputKey {
        &self.key
    }

    /// Begins the streams, or begins them again.
    pub(in crate::output) fn publish(&self, has_upload: bool) -> Publisher {
        Publisher::new(&self.entry, has_upload)
    }

    /// Publishes the progress of the command.
    pub fn progress(&self, progress: Progress) {
        let mut state = self.entry.state();
        state.progress = (state.progress.0 + 1, progress);
        drop(state);
        self.entry.notify();
    }

    /// Publishes the end. Call it after the API server stored the result.
    pub fn ended(&mut self, status: EndedStatus) {
        self.finish(EntryEnd::Ended(status));
    }

    fn finish(&mut self, end: EntryEnd) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let is_released = end == EntryEnd::Released;
        let mut entries = lock(&self.registry.entries);
        let bytes = self.entry.finish(end, self.registry.times.kept_after_end);
        // Another claim of this process may have its place.
        if entries.by_uid.get(&self.key.uid).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            if is_released {
                entries.remove(&self.key.uid, &self.entry);
            } else {
                entries.ended.push_back((Instant::now(), self.key.uid.clone(), bytes));
                entries.ended_bytes += bytes;
                entries.expire(self.registry.times.kept_after_end);
            }
        }
    }
}

impl Drop for LiveClaim {
    fn drop(&mut self) {
        self.finish(EntryEnd::Released);
    }
}
