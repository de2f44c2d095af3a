//! Publisher of the output of one command. Also reports if memory has space for more output.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::progress::ProgressParser;
use super::super::{PerStream, StreamKind};
use super::GapReason;
use super::entry::Entry;
use super::reader::StreamReader;

/// Publisher of the output of one command. Dropping it marks the output as complete, as [`Self::close`] does.
#[derive(Debug)]
pub(in crate::output) struct Publisher {
    entry: Arc<Entry>,
    generation: u32,
    changed: watch::Receiver<()>,
    /// Each publisher has its own parsers, so no report continues from an earlier generation.
    progress: PerStream<ProgressParser>,
    is_closed: bool,
}

/// State of the memory for output: enough space for more bytes, or the reason why the recorder must wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::output) enum Room {
    Enough,
    /// Memory is full, because the spill thread has not written enough bytes yet.
    Disk,
    /// Memory is full, because there is no file and the upload has not sent enough bytes yet.
    Upload,
}

impl Publisher {
    /// Starts the streams of an execution at offset 0. Output of earlier publishers is ignored from now on.
    pub(super) fn new(entry: &Arc<Entry>, has_upload: bool) -> Self {
        let generation = entry.start_streams(has_upload);
        let (entry, changed) = (Arc::clone(entry), entry.subscribe());
        Self { entry, generation, changed, progress: PerStream::default(), is_closed: false }
    }

    /// Publishes the next bytes of a stream, and the progress that they report. Never waits.
    pub fn push(&mut self, stream: StreamKind, bytes: &[u8]) {
        let progress = self.progress.of_mut(stream).push(bytes);
        self.entry.push((stream, self.generation), bytes, progress);
    }

    /// Publishes that the machine confirmed the start.
    pub fn started(&self) {
        let mut state = self.entry.state();
        if state.generation != self.generation || state.is_started {
            return;
        }
        state.is_started = true;
        drop(state);
        self.entry.notify();
    }

    /// Returns a reader of a stream for the upload, from offset 0.
    pub fn reader(&self, stream: StreamKind) -> StreamReader {
        StreamReader::new(Arc::clone(&self.entry), stream, self.generation)
    }

    /// Returns `Enough` if memory has space for more bytes of a stream. Otherwise returns the reason to wait.
    pub fn room(&self, stream: StreamKind) -> Room {
        let state = self.entry.state();
        let buffer = state.streams.of(stream);
        match buffer.is_behind(&self.entry.shared.memory) {
            true if buffer.is_spilling() => Room::Disk,
            true if buffer.is_pinned() => Room::Upload,
            _ => Room::Enough,
        }
    }

    /// Waits until something changes, for example the state of the memory.
    pub async fn changed(&mut self) {
        // This call cannot fail, because the sender lives as long as the entry.
        let _ = self.changed.changed().await;
    }

    /// Marks all changes so far as seen. [`Self::changed`] then waits for the next change.
    pub fn mark_unchanged(&mut self) {
        self.changed.borrow_and_update();
    }

    /// Stops writing a stream to its file, because the disk is too slow. The rest of the stream stays in memory only.
    pub fn stop_spilling(&self, stream: StreamKind) {
        tracing::warn!(
            namespace = self.entry.namespace,
            name = self.entry.name,
            stream = stream.as_str(),
            "disk too slow for live output; the rest of the stream stays in memory"
        );
        self.entry.stop_spilling((stream, self.generation), GapReason::DiskSlow);
    }

    /// Releases the bytes that memory keeps for the upload.
    pub fn unpin(&self) {
        for stream in StreamKind::ALL {
            self.entry.pin((stream, self.generation), None);
        }
    }

    /// Publishes that no more output follows.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let mut state = self.entry.state();
        if state.generation == self.generation {
            state.is_complete = true;
        }
        drop(state);
        self.entry.notify();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
    }
}
