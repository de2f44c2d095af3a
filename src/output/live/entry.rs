//! One execution in the live registry: its events, its two streams, and the order in which their bytes arrived.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::super::progress::Progress;
use super::super::{PerStream, StreamKind};
use super::spill_file::SpillFile;
use super::spill_queue::{Job, SpillQueue};
use super::stream::{Batch, Found, StreamBuffer};
use super::{EndedStatus, GapReason, lock};

/// Maximum number of marks in [`EntryState::order`], with 64 KiB of memory. Output that is older than all marks has no
/// known order: viewers receive its standard output first, then its standard error.
const MAX_MARKS: usize = 4096;
/// Maximum number of concurrent reads of spill files. Reads of a disk that hangs must not use up the runtime's 512
/// blocking threads.
const MAX_CONCURRENT_READS: usize = 8;

/// State that all executions of a registry share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Number of bytes of all streams in memory.
    pub memory: AtomicUsize,
    /// Queue of the spill thread. `None` if the process keeps no spill files.
    pub spill: Option<Arc<SpillQueue<Entry>>>,
    /// Number of bytes that viewers can no longer read, for each reason in [`GapReason::ALL`].
    lost: [AtomicU64; GapReason::ALL.len()],
    reads: Arc<Semaphore>,
}

impl Shared {
    pub fn new(spill: Option<Arc<SpillQueue<Entry>>>) -> Self {
        let reads = Arc::new(Semaphore::new(MAX_CONCURRENT_READS));
        Self { memory: AtomicUsize::new(0), spill, lost: Default::default(), reads }
    }

    /// Counts bytes that viewers can no longer read.
    pub fn count_lost(&self, reason: GapReason, bytes: u64) {
        let position = GapReason::ALL.iter().position(|other| *other == reason);
        if let Some(count) = position.and_then(|position| self.lost.get(position)) {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Returns the number of bytes that were counted since the last call, by reason.
    pub fn take_lost(&self) -> Vec<(GapReason, u64)> {
        GapReason::ALL
            .into_iter()
            .zip(&self.lost)
            .map(|(reason, count)| (reason, count.swap(0, Ordering::Relaxed)))
            .collect()
    }

    fn release(&self, file: Option<Arc<SpillFile>>) {
        if let (Some(spill), Some(file)) = (&self.spill, file) {
            spill.enqueue(Job::Release(file));
        }
    }
}

/// One execution.
#[derive(Debug)]
pub(super) struct Entry {
    pub namespace: String,
    pub name: String,
    pub shared: Arc<Shared>,
    state: Mutex<EntryState>,
    /// Notifies the viewers and the upload of each change of the state.
    changed: watch::Sender<()>,
}

/// The state of an execution.
#[derive(Debug, Default)]
pub(super) struct EntryState {
    /// UID of the execution, and true if its claim was adopted. `None` if the execution is not claimed yet.
    pub claim: Option<(String, bool)>,
    pub is_started: bool,
    /// Number of the current recorder: 0 before the first recorder, then counted from 1. Each recorder starts both
    /// streams again at offset 0.
    pub generation: u32,
    pub streams: PerStream<StreamBuffer>,
    /// Order in which the output arrived. Each mark is a stream and the offset that this stream has reached.
    pub order: VecDeque<(StreamKind, u64)>,
    /// Number of marks of this generation that `order` no longer has.
    pub first_mark: u64,
    /// Number and content of the newest report of progress in this generation. The number never decreases.
    pub progress: (u64, Option<Progress>),
    /// True if the recorder has published all output.
    pub is_complete: bool,
    pub end: Option<EntryEnd>,
    pub viewers: usize,
}

/// The end of an execution in this registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum EntryEnd {
    Ended(EndedStatus),
    Released,
}

/// A read of a spill file.
pub(super) struct FileRead {
    pub file: Arc<SpillFile>,
    pub stream: StreamKind,
    pub generation: u32,
    pub offset: u64,
    pub length: usize,
}

impl EntryState {
    pub fn has_file(&self) -> bool {
        StreamKind::ALL.iter().any(|stream| self.streams.of(*stream).has_file())
    }

    fn push_mark(&mut self, stream: StreamKind, end: u64) {
        match self.order.back_mut() {
            Some((last, last_end)) if *last == stream => *last_end = end,
            _ => self.order.push_back((stream, end)),
        }
        if self.order.len() > MAX_MARKS {
            self.order.pop_front();
            self.first_mark += 1;
        }
    }
}

impl Entry {
    pub fn new(namespace: &str, name: &str, shared: Arc<Shared>) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name, shared, state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub fn state(&self) -> MutexGuard<'_, EntryState> {
        lock(&self.state)
    }

    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Starts both streams again at offset 0, and returns their new generation. From now on, bytes of earlier
    /// generations are ignored.
    pub fn start_streams(&self, has_upload: bool) -> u32 {
        let mut state = self.state();
        self.clear(&mut state);
        for stream in StreamKind::ALL {
            *state.streams.of_mut(stream) = StreamBuffer::new(has_upload);
        }
        state.first_mark = 0;
        (state.is_started, state.is_complete) = (false, false);
        state.progress = (state.progress.0 + 1, None);
        state.generation += 1;
        let generation = state.generation;
        drop(state);
        self.notify();
        generation
    }

    /// Deletes all bytes in memory, and the spill files.
    pub fn clear(&self, state: &mut EntryState) {
        state.order.clear();
        for stream in StreamKind::ALL {
            self.shared.release(state.streams.of_mut(stream).clear(&self.shared.memory));
        }
    }

    /// Appends bytes to a stream, and records the report of progress in them. Ignores an earlier generation.
    pub fn push(self: &Arc<Self>, (stream, generation): (StreamKind, u32), bytes: &[u8], progress: Option<Progress>) {
        let mut state = self.state();
        if state.generation != generation || state.is_complete || bytes.is_empty() {
            return;
        }
        if progress.is_some() {
            state.progress = (state.progress.0 + 1, progress);
        }
        let buffer = state.streams.of_mut(stream);
        buffer.push(bytes, &self.shared.memory);
        let end = buffer.end();
        if self.shared.spill.is_some() {
            buffer.spill_if_long(&self.shared.memory);
        }
        self.evict(buffer);
        let is_due = buffer.needs_writing();
        state.push_mark(stream, end);
        drop(state);
        self.order_write(is_due, stream);
        self.notify();
    }

    fn evict(&self, buffer: &mut StreamBuffer) {
        let lost = buffer.evict(&self.shared.memory);
        if lost > 0 {
            self.shared.count_lost(buffer.lost_reason(), lost);
        }
    }

    fn order_write(self: &Arc<Self>, is_due: bool, stream: StreamKind) {
        if let (true, Some(spill)) = (is_due, &self.shared.spill) {
            spill.enqueue(Job::Write(Arc::clone(self), stream));
        }
    }

    /// Returns the next bytes of a stream for its spill file, and their generation.
    pub fn next_batch(&self, stream: StreamKind, max_bytes: usize) -> Option<(u32, Batch)> {
        let mut state = self.state();
        let batch = state.streams.of_mut(stream).batch(max_bytes)?;
        Some((state.generation, batch))
    }

    /// Records that a batch is in the file. Returns false if the streams were started again or deleted in the meantime.
    pub fn batch_written(
        self: &Arc<Self>,
        (stream, generation): (StreamKind, u32),
        file: &Arc<SpillFile>,
        bytes: u64,
    ) -> bool {
        let mut state = self.state();
        let buffer = state.streams.of_mut(stream);
        if !buffer.is_spilling() || state.generation != generation {
            return false;
        }
        let buffer = state.streams.of_mut(stream);
        buffer.written(Arc::clone(file), bytes);
        self.evict(buffer);
        let is_due = buffer.needs_writing();
        drop(state);
        self.order_write(is_due, stream);
        self.notify();
        true
    }

    /// Keeps the rest of a stream in memory only.
    pub fn stop_spilling(&self, (stream, generation): (StreamKind, u32), reason: GapReason) {
        let mut state = self.state();
        if state.generation == generation {
            let buffer = state.streams.of_mut(stream);
            buffer.stop_spilling(reason);
            self.evict(buffer);
        }
        drop(state);
        self.notify();
    }

    /// Records that the file no longer has its bytes before `offset`. If `offset` is `None`, the file has no bytes.
    pub fn delete_from_file(&self, stream: StreamKind, file: u64, offset: Option<u64>) {
        let mut state = self.state();
        let buffer = state.streams.of_mut(stream);
        let offset = offset.unwrap_or(buffer.file_end());
        let deleted = buffer.delete_from_file(file, offset);
        drop(state);
        if deleted > 0 {
            self.shared.count_lost(GapReason::SpillBudget, deleted);
            self.notify();
        }
    }

    /// Reads bytes of a file on a blocking thread. The results are:
    ///
    /// - `(Some(bytes), false)`: the bytes
    /// - `(None, true)`: the disk failed
    /// - `(None, false)`: the bytes were deleted
    pub async fn read_file(&self, read: &FileRead) -> (Option<Bytes>, bool) {
        let Ok(permit) = Arc::clone(&self.shared.reads).acquire_owned().await else { return (None, true) };
        let (file, offset, length) = (Arc::clone(&read.file), read.offset, read.length);
        let reading = tokio::task::spawn_blocking(move || {
            // The read continues even if the caller drops the future, so the closure owns the permit.
            let _permit = permit;
            file.read(offset, length)
        });
        let bytes = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let state = self.state();
        // The spill thread can delete these bytes during the read, and the read then returns zeros. This check detects
        // the deletion, because it comes after the read.
        if state.generation != read.generation || !state.streams.of(read.stream).has_in_file(&read.file, read.offset) {
            return (None, false);
        }
        drop(state);
        match bytes {
            Ok(bytes) => (Some(Bytes::from(bytes)), false),
            Err(error) => {
                tracing::warn!(namespace = self.namespace, name = self.name, %error, "spill file unreadable");
                (None, true)
            }
        }
    }

    /// Records the end of the execution in this registry. Returns the number of bytes that stay in memory for now.
    ///
    /// - If the execution has viewers, its bytes are deleted after the duration `kept`.
    /// - If the execution has a file and no viewers, its bytes are deleted at once.
    /// - If the execution has neither viewers nor a file, its bytes stay until the registry removes the execution.
    pub fn finish(self: &Arc<Self>, end: EntryEnd, kept: Duration) -> usize {
        let mut state = self.state();
        if state.end.is_some() {
            return 0;
        }
        state.end = Some(end);
        state.is_complete = true;
        for stream in StreamKind::ALL {
            state.streams.of_mut(stream).pin(None);
        }
        if state.viewers == 0 && state.has_file() {
            self.clear(&mut state);
        }
        let has_viewers = state.viewers > 0;
        let bytes: u64 = StreamKind::ALL.iter().map(|stream| state.streams.of(*stream).memory_bytes()).sum();
        drop(state);
        self.notify();
        if has_viewers && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let entry = Arc::downgrade(self);
            // Each task ends after `kept`, so these tasks do not accumulate.
            runtime.spawn(async move {
                tokio::time::sleep(kept).await;
                if let Some(entry) = entry.upgrade() {
                    entry.remove_bytes();
                }
            });
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Deletes all bytes of an ended execution, even if viewers have not read them.
    pub fn remove_bytes(&self) {
        self.clear(&mut self.state());
        self.notify();
    }

    /// Sets the first offset that the upload still needs. `None` means that the upload needs no bytes.
    pub fn pin(&self, (stream, generation): (StreamKind, u32), offset: Option<u64>) {
        let mut state = self.state();
        if state.generation == generation && state.end.is_none() {
            let buffer = state.streams.of_mut(stream);
            buffer.pin(offset);
            self.evict(buffer);
        }
        drop(state);
        self.notify();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clear(&mut self.state());
    }
}

/// Result of a search for bytes at an offset, for the upload and for single reads.
pub(super) enum ReadStep {
    Bytes(Bytes),
    File(FileRead),
    Gap { to: u64, reason: GapReason },
    Nothing { is_complete: bool },
}

impl Entry {
    /// Finds bytes of a stream, in memory or in a file.
    pub fn find(&self, stream: StreamKind, generation: Option<u32>, offset: u64, max_bytes: usize) -> ReadStep {
        let state = self.state();
        if generation.is_some_and(|generation| generation != state.generation) {
            return ReadStep::Gap { to: offset, reason: GapReason::Removed };
        }
        let generation = state.generation;
        match state.streams.of(stream).find(offset, max_bytes) {
            Found::Memory(bytes) => ReadStep::Bytes(bytes),
            Found::File { file, length } => ReadStep::File(FileRead { file, stream, generation, offset, length }),
            Found::Gap { to, reason } => ReadStep::Gap { to, reason },
            Found::Nothing => ReadStep::Nothing { is_complete: state.is_complete },
        }
    }
}
