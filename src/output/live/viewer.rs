//! Reads the events of one execution for a viewer. The viewer stores its offset in each stream, but no output.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{PerStream, StreamKind};
use super::entry::{Entry, EntryEnd, EntryState, FileRead};
use super::registry::Registry;
use super::stream::Found;
use super::{GapReason, LiveEvent, StreamOffsets};

/// Maximum number of output bytes in one event. A WebSocket message of the API has the same limit of 64 KiB.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Reader of the events of one execution. The reader buffers no output.
#[derive(Debug)]
pub struct Viewer {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    changed: watch::Receiver<()>,
    /// Time at which the viewer stops waiting for an execution that is not claimed yet.
    expires: Instant,
    has_claim: bool,
    has_start: bool,
    generation: u32,
    /// Number of the newest report of progress that the viewer has read.
    progress: u64,
    /// Number of the mark in [`EntryState::order`] up to which the viewer reads next.
    next_mark: u64,
    /// Offset of the next byte in each stream.
    offsets: PerStream<u64>,
    is_over: bool,
}

enum Step {
    Event(LiveEvent),
    Read(FileRead),
    Wait { is_claimed: bool },
}

impl Viewer {
    /// Returns a viewer. The caller must have added the viewer to the registry's count already.
    pub(super) fn new(registry: Arc<Registry>, entry: Arc<Entry>, from: StreamOffsets, expires: Instant) -> Self {
        let changed = entry.subscribe();
        let offsets = PerStream { stdout: from.stdout, stderr: from.stderr };
        Self {
            registry,
            entry,
            changed,
            expires,
            has_claim: false,
            has_start: false,
            generation: 0,
            progress: 0,
            next_mark: 0,
            offsets,
            is_over: false,
        }
    }

    /// Waits for the next event. Returns `None` after the last event. If the caller drops the future, no event is lost.
    pub async fn next(&mut self) -> Option<LiveEvent> {
        loop {
            if self.is_over {
                return None;
            }
            self.changed.borrow_and_update();
            match self.step() {
                Step::Event(event) => return Some(event),
                Step::Read(read) => {
                    if let Some(event) = self.read(&read).await {
                        return Some(event);
                    }
                }
                // The call cannot fail, because the sender lives as long as the entry.
                Step::Wait { is_claimed: true } => drop(self.changed.changed().await),
                Step::Wait { is_claimed: false } => {
                    if tokio::time::timeout_at(self.expires, self.changed.changed()).await.is_err() {
                        self.is_over = true;
                        return Some(LiveEvent::Expired);
                    }
                }
            }
        }
    }

    async fn read(&mut self, read: &FileRead) -> Option<LiveEvent> {
        let FileRead { stream, offset, length, .. } = *read;
        match self.entry.read_file(read).await {
            (Some(bytes), _) => {
                *self.offsets.of_mut(stream) = offset + bytes.len() as u64;
                Some(LiveEvent::Output { stream, offset, bytes })
            }
            (None, true) => {
                let length = length as u64;
                *self.offsets.of_mut(stream) = offset + length;
                Some(LiveEvent::Gap { stream, offset, length, reason: GapReason::DiskFailed })
            }
            (None, false) => None,
        }
    }

    fn step(&mut self) -> Step {
        let entry = Arc::clone(&self.entry);
        let state = entry.state();
        let Some((uid, is_adopted)) = &state.claim else { return Step::Wait { is_claimed: false } };
        if !self.has_claim {
            self.has_claim = true;
            return Step::Event(LiveEvent::Claimed { uid: uid.clone(), is_adopted: *is_adopted });
        }
        if state.generation != self.generation {
            let is_first = self.generation == 0;
            self.generation = state.generation;
            if !is_first {
                (self.offsets, self.next_mark, self.has_start) = (PerStream::default(), 0, false);
                return Step::Event(LiveEvent::Restarted);
            }
        }
        if state.is_started && !self.has_start {
            self.has_start = true;
            return Step::Event(LiveEvent::Started);
        }
        if state.progress.0 != self.progress {
            self.progress = state.progress.0;
            if let Some(progress) = &state.progress.1 {
                return Step::Event(LiveEvent::Progress(progress.clone()));
            }
        }
        if let Some(step) = self.next_output(&state) {
            return step;
        }
        let Some(end) = &state.end else { return Step::Wait { is_claimed: true } };
        self.is_over = true;
        Step::Event(match end {
            EntryEnd::Ended(status) => LiveEvent::Ended(status.clone()),
            EntryEnd::Released => LiveEvent::Released,
        })
    }

    fn next_output(&mut self, state: &EntryState) -> Option<Step> {
        self.next_mark = self.next_mark.max(state.first_mark);
        while let Some((stream, end)) = self.mark(state, self.next_mark) {
            if *self.offsets.of(stream) < end {
                return self.fetch(state, stream, end);
            }
            if self.mark(state, self.next_mark + 1).is_none() {
                // The offset of the last mark can still grow, so the viewer stays at this mark.
                break;
            }
            self.next_mark += 1;
        }
        // Unread bytes can be older than all marks. The viewer receives these bytes one stream after the other.
        StreamKind::ALL.into_iter().find_map(|stream| self.fetch(state, stream, state.streams.of(stream).end()))
    }

    fn mark(&self, state: &EntryState, number: u64) -> Option<(StreamKind, u64)> {
        let index = usize::try_from(number.checked_sub(state.first_mark)?).ok()?;
        state.order.get(index).copied()
    }

    /// Finds the next bytes of a stream, up to an offset.
    fn fetch(&mut self, state: &EntryState, stream: StreamKind, end: u64) -> Option<Step> {
        let offset = *self.offsets.of(stream);
        let length = usize::try_from(end.checked_sub(offset)?).unwrap_or(usize::MAX).min(MAX_OUTPUT_BYTES);
        match state.streams.of(stream).find(offset, length) {
            Found::Memory(bytes) => {
                *self.offsets.of_mut(stream) = offset + bytes.len() as u64;
                Some(Step::Event(LiveEvent::Output { stream, offset, bytes }))
            }
            Found::File { file, length } => {
                let generation = state.generation;
                Some(Step::Read(FileRead { file, stream, generation, offset, length }))
            }
            Found::Gap { to, reason } => {
                *self.offsets.of_mut(stream) = to;
                Some(Step::Event(LiveEvent::Gap { stream, offset, length: to - offset, reason }))
            }
            Found::Nothing => None,
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.registry.leave(&self.entry);
    }
}
