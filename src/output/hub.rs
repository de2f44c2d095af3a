//! What running commands write, for those who watch: the last of it, by offsets.
//!
//! The promises kept here: a viewer never slows a command, and one that is too slow is told which bytes it missed; each
//! viewer gets every byte that it gets once, in order, and the streams in the order in which they came; 256 KiB are held
//! for a command and 64 MiB for all of them together, counted with what holding them takes, however many viewers there
//! are.
//!
//! An offset counts the bytes of its stream from its beginning, after redaction, as in the record. So a late viewer reads
//! what is stored, or nothing, and then what comes here from that offset on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Both, StreamKind};

/// What is held for one command: about what a terminal scrolls back, and a second of a fast one.
const COMMAND_BYTES: usize = 256 << 10;
/// What is held for all: 256 commands at once have all that they may have, and with more of them some have less.
const TOTAL_BYTES: usize = 64 << 20;
/// What holding a chunk takes beside its bytes, about.
const CHUNK_OVERHEAD: usize = 96;
/// The largest chunk, so that what is dropped and what is shown comes in small pieces.
const CHUNK_BYTES: usize = 32 << 10;
/// Viewers of one command: a team that looks on, not a crowd.
const VIEWERS: usize = 32;

/// Some bytes of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Which stream.
    pub stream: StreamKind,
    /// How many bytes of the stream there are up to the end of these.
    pub end_offset: u64,
    /// The bytes; at most 32 KiB.
    pub bytes: Bytes,
}

impl Chunk {
    fn start(&self) -> u64 {
        self.end_offset.saturating_sub(self.bytes.len() as u64)
    }

    fn cost(&self) -> usize {
        self.bytes.len() + CHUNK_OVERHEAD
    }
}

/// What a viewer sees next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// The next bytes of a stream.
    Chunk(Chunk),
    /// Bytes of a stream that are no longer here: the viewer was too slow, or came too late.
    Skipped {
        /// Which stream.
        stream: StreamKind,
        /// The offset of the first byte that is missing.
        from: u64,
        /// The offset of the next byte that is not.
        to: u64,
    },
}

/// A place in both streams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offsets {
    /// How many bytes of standard output were seen.
    pub stdout: u64,
    /// How many bytes of standard error were seen.
    pub stderr: u64,
}

/// All commands that are running here. Clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    inner: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By the UID of the execution.
    commands: Mutex<HashMap<String, Arc<Command>>>,
    /// What all rings together hold, with overhead.
    held: Arc<AtomicUsize>,
}

/// One command.
#[derive(Debug)]
struct Command {
    ring: Mutex<Ring>,
    /// Changes with every change of the ring.
    changed: watch::Sender<()>,
    /// What all rings together hold.
    total: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Ring {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk, counted from the first there ever was.
    first: u64,
    held: usize,
    /// How long the streams are.
    ends: Both<u64>,
    closed: bool,
    viewers: usize,
    /// Which publisher it is of: one that was replaced publishes nothing more.
    publisher: u64,
}

/// Publishes what one command writes; closes it when it is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    hub: Hub,
    uid: String,
    command: Arc<Command>,
    number: u64,
}

/// Watches one command.
#[derive(Debug)]
pub struct Viewer {
    command: Arc<Command>,
    changed: watch::Receiver<()>,
    /// The number of the next chunk to look at.
    next: u64,
    seen: Both<u64>,
}

impl Hub {
    /// Watches the command of an execution from these offsets on. None where it does not run here (any more), or has 32
    /// viewers already.
    pub fn view(&self, uid: &str, from: Offsets) -> Option<Viewer> {
        let command = Arc::clone(lock(&self.inner.commands).get(uid)?);
        let mut ring = lock(&command.ring);
        if ring.viewers >= VIEWERS {
            return None;
        }
        ring.viewers += 1;
        let (next, changed) = (ring.first, command.changed.subscribe());
        drop(ring);
        Some(Viewer { command, changed, next, seen: Both { stdout: from.stdout, stderr: from.stderr } })
    }

    /// Begins to publish, from the start of the streams. Where the execution is being published already it begins anew;
    /// its viewers stay, and see what is beyond their offsets. (Make the new one before the old one is dropped, which
    /// would close it.)
    pub(super) fn publish(&self, uid: &str) -> Publisher {
        let mut commands = lock(&self.inner.commands);
        let command = Arc::clone(commands.entry(uid.to_owned()).or_insert_with(|| {
            let total = Arc::clone(&self.inner.held);
            Arc::new(Command { ring: Mutex::default(), changed: watch::Sender::new(()), total })
        }));
        let mut ring = lock(&command.ring);
        ring.clear(&command.total);
        ring.ends = Both::default();
        ring.publisher += 1;
        let number = ring.publisher;
        drop(ring);
        drop(commands);
        Publisher { hub: self.clone(), uid: uid.to_owned(), command, number }
    }
}

impl Publisher {
    #[cfg(test)]
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Publishes the next bytes of a stream.
    pub(super) fn push(&self, stream: StreamKind, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut ring = lock(&self.command.ring);
        if ring.publisher != self.number || ring.closed {
            return;
        }
        for bytes in bytes.chunks(CHUNK_BYTES) {
            let end = ring.ends.of_mut(stream);
            *end = end.saturating_add(bytes.len() as u64);
            let chunk = Chunk { stream, end_offset: *end, bytes: Bytes::copy_from_slice(bytes) };
            ring.keep(chunk, &self.command.total);
        }
        drop(ring);
        self.command.changed.send_replace(());
    }

    /// Nothing more comes: viewers see what is left, and then the end.
    pub(super) fn close(&mut self) {
        let mut commands = lock(&self.hub.inner.commands);
        let mut ring = lock(&self.command.ring);
        if ring.publisher != self.number || ring.closed {
            return;
        }
        ring.closed = true;
        // What viewers have not seen yet stays until the last of them is gone.
        if ring.viewers == 0 {
            ring.clear(&self.command.total);
        }
        commands.remove(&self.uid);
        drop(ring);
        drop(commands);
        self.command.changed.send_replace(());
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
    }
}

impl Ring {
    /// Takes a chunk in, and lets the oldest go; the chunk itself where there is no room for any.
    fn keep(&mut self, chunk: Chunk, total: &AtomicUsize) {
        let cost = chunk.cost();
        // Others add at the same time: what is over is taken back at once.
        let mut over = total.fetch_add(cost, Ordering::Relaxed) + cost > TOTAL_BYTES;
        self.held += cost;
        self.chunks.push_back(chunk);
        while self.held > COMMAND_BYTES || over {
            if !self.drop_oldest(total) {
                return;
            }
            over = total.load(Ordering::Relaxed) > TOTAL_BYTES;
        }
    }

    fn drop_oldest(&mut self, total: &AtomicUsize) -> bool {
        let Some(oldest) = self.chunks.pop_front() else { return false };
        self.first += 1;
        self.held -= oldest.cost();
        total.fetch_sub(oldest.cost(), Ordering::Relaxed);
        true
    }

    fn clear(&mut self, total: &AtomicUsize) {
        while self.drop_oldest(total) {}
    }
}

impl Viewer {
    /// Waits for what comes next; None at the end.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            self.changed.borrow_and_update();
            match self.look() {
                Look::At(seen) => return Some(seen),
                Look::Closed => return None,
                Look::Later => {}
            }
            // It fails when nobody publishes any more; then the ring is closed.
            if self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn look(&mut self) -> Look {
        let command = Arc::clone(&self.command);
        let ring = lock(&command.ring);
        self.next = self.next.max(ring.first);
        while let Some(chunk) = usize::try_from(self.next - ring.first).ok().and_then(|index| ring.chunks.get(index)) {
            let (start, seen) = (chunk.start(), self.seen.of_mut(chunk.stream));
            if start > *seen {
                let from = std::mem::replace(seen, start);
                return Look::At(Seen::Skipped { stream: chunk.stream, from, to: start });
            }
            self.next += 1;
            if chunk.end_offset > *seen {
                let known = usize::try_from(*seen - start).unwrap_or(usize::MAX).min(chunk.bytes.len());
                *seen = chunk.end_offset;
                return Look::At(Seen::Chunk(Chunk { bytes: chunk.bytes.slice(known..), ..chunk.clone() }));
            }
        }
        if !ring.closed {
            return Look::Later;
        }
        for stream in StreamKind::BOTH {
            let (end, seen) = (*ring.ends.of(stream), self.seen.of_mut(stream));
            if end > *seen {
                let from = std::mem::replace(seen, end);
                return Look::At(Seen::Skipped { stream, from, to: end });
            }
        }
        Look::Closed
    }
}

/// What there is for a viewer.
enum Look {
    At(Seen),
    Later,
    Closed,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut ring = lock(&self.command.ring);
        ring.viewers = ring.viewers.saturating_sub(1);
        if ring.closed && ring.viewers == 0 {
            ring.clear(&self.command.total);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
