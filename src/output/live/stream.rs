//! The bytes of one stream, by offset. The newest bytes are in memory, and older bytes are in a file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::GapReason;
use super::spill_file::SpillFile;

/// Size of the chunks in memory. Only whole chunks are written to the file or deleted.
pub(in crate::output) const CHUNK_BYTES: usize = 32 << 10;
/// Maximum length of output that stays in memory only, in bytes. Most commands write less and need no file.
pub(super) const SPILL_THRESHOLD: u64 = 64 << 10;
/// Number of the newest bytes that memory keeps although the file has them. Viewers at the end of the stream then read
/// no file.
const CACHE_BYTES: u64 = 64 << 10;
/// Number of unread bytes that stay in memory for the upload although they are in the file. An upload that is at most
/// this far behind reads no file.
const UPLOAD_CACHE_BYTES: u64 = 1 << 20;
/// Number of bytes that stay in memory if there is no file. The value is similar to the scroll-back of a terminal.
const WINDOW_BYTES: u64 = 256 << 10;
/// Maximum number of bytes of one stream in memory that wait for the disk or for the output store.
const MAX_PENDING_BYTES: u64 = 4 << 20;
/// Value that replaces [`MAX_PENDING_BYTES`] while all commands together use more than [`MAX_MEMORY_BYTES`].
const MAX_PENDING_UNDER_PRESSURE: u64 = 256 << 10;
/// Limit of the memory for all commands together, in bytes: an eighth of the chart's memory limit. Above this limit,
/// each stream keeps only its last chunk, and the bytes that the file or the output store still needs.
pub(super) const MAX_MEMORY_BYTES: usize = 64 << 20;

/// State of the writes of a stream to its file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum SpillState {
    /// The stream is short, or the process keeps no files.
    #[default]
    InMemory,
    /// Every whole chunk is written to the file.
    Spilling,
    /// Writ no longer writes to the file, for example because the disk failed or was too slow. The file then keeps its
    /// bytes.
    Stopped,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct StreamBuffer {
    /// Whole chunks in memory, oldest first.
    chunks: VecDeque<Bytes>,
    /// Bytes after the last whole chunk.
    tail: Vec<u8>,
    /// Offset of the first byte in memory.
    memory_start: u64,
    /// Length of the stream, in bytes.
    end: u64,
    /// The file. `None` before the first write.
    file: Option<Arc<SpillFile>>,
    /// Offset of the first byte in the file.
    file_start: u64,
    /// Offset after the last byte in the file.
    file_end: u64,
    /// Offset of the first byte that the upload still needs. `None` if the upload needs no bytes.
    pinned: Option<u64>,
    spill: SpillState,
    /// True while the spill thread has a job to write this stream.
    is_queued: bool,
    /// Cause of a gap between the bytes in the file and the bytes in memory.
    lost_reason: GapReason,
}

/// Result of a search for bytes at an offset.
#[derive(Debug)]
pub(super) enum Found {
    Memory(Bytes),
    File {
        file: Arc<SpillFile>,
        length: usize,
    },
    /// The bytes from the requested offset up to `to` are missing.
    Gap {
        to: u64,
        reason: GapReason,
    },
    /// The stream has not reached the requested offset.
    Nothing,
}

/// Bytes to append to the file.
pub(super) struct Batch {
    /// The file. `None` if the file must be created.
    pub file: Option<Arc<SpillFile>>,
    /// Offset of the first byte.
    pub offset: u64,
    pub chunks: Vec<Bytes>,
}

impl StreamBuffer {
    /// Creates an empty stream. `is_pinned` is true if an upload can need the stream from offset 0.
    pub fn new(is_pinned: bool) -> Self {
        Self { pinned: is_pinned.then_some(0), ..Self::default() }
    }

    /// Returns the length of the stream.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the number of bytes in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.end - self.memory_start
    }

    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Appends bytes.
    pub fn push(&mut self, mut bytes: &[u8], memory: &AtomicUsize) {
        memory.fetch_add(bytes.len(), Ordering::Relaxed);
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.tail.len()));
            if !self.chunks.is_empty() {
                // A long stream fills the next chunk, too. One allocation then replaces several that double.
                self.tail.reserve_exact(CHUNK_BYTES - self.tail.len());
            }
            append_within_chunk(&mut self.tail, now);
            bytes = later;
            if self.tail.len() == CHUNK_BYTES {
                self.chunks.push_back(Bytes::from(std::mem::take(&mut self.tail)));
            }
        }
    }

    /// Starts to use a file if the stream is long, or if all commands together use too much memory.
    pub fn spill_if_long(&mut self, memory: &AtomicUsize) {
        let is_long = self.memory_bytes() > SPILL_THRESHOLD || is_over(memory);
        if self.spill == SpillState::InMemory && is_long && !self.chunks.is_empty() {
            self.spill = SpillState::Spilling;
            (self.file_start, self.file_end) = (self.memory_start, self.memory_start);
        }
    }

    /// Returns true if the caller must queue a write job for the spill thread. Returns true only once for each job.
    pub fn needs_writing(&mut self) -> bool {
        let is_due = self.spill == SpillState::Spilling && !self.is_queued && self.has_unwritten_chunk();
        self.is_queued |= is_due;
        is_due
    }

    fn has_unwritten_chunk(&self) -> bool {
        self.end - self.file_end >= CHUNK_BYTES as u64
    }

    /// Starts the queued write job. Returns whole chunks that are not in the file yet, at most `max_bytes`.
    pub fn batch(&mut self, max_bytes: usize) -> Option<Batch> {
        self.is_queued = false;
        if self.spill != SpillState::Spilling {
            return None;
        }
        // Number of chunks in memory that the file already has. The division is exact, because all chunks have the same
        // size.
        let skipped = usize::try_from(self.file_end.checked_sub(self.memory_start)?).ok()? / CHUNK_BYTES;
        let chunks: Vec<Bytes> = self.chunks.iter().skip(skipped).take(max_bytes / CHUNK_BYTES).cloned().collect();
        (!chunks.is_empty()).then(|| Batch { file: self.file.clone(), offset: self.file_end, chunks })
    }

    /// Records that the file has `bytes` more bytes.
    pub fn written(&mut self, file: Arc<SpillFile>, bytes: u64) {
        self.file = Some(file);
        self.file_end += bytes;
    }

    /// Stops writing to the file.
    pub fn stop_spilling(&mut self, reason: GapReason) {
        if self.spill == SpillState::Spilling {
            self.spill = SpillState::Stopped;
            self.lost_reason = reason;
        }
    }

    /// Records that the file no longer has bytes before `offset`. Returns the number of deleted bytes.
    pub fn delete_from_file(&mut self, file: u64, offset: u64) -> u64 {
        if self.file.as_ref().is_none_or(|own| own.id() != file) {
            return 0;
        }
        let start = offset.clamp(self.file_start, self.file_end);
        let deleted = start - self.file_start;
        self.file_start = start;
        deleted
    }

    /// Returns the offset after the last byte in the file.
    pub fn file_end(&self) -> u64 {
        self.file_end
    }

    /// Sets the first offset that the upload still needs. `None` means that the upload needs no bytes.
    pub fn pin(&mut self, offset: Option<u64>) {
        self.pinned = offset;
    }

    /// Returns the cause of gaps between the bytes in the file and the bytes in memory.
    pub fn lost_reason(&self) -> GapReason {
        self.lost_reason
    }

    pub fn is_spilling(&self) -> bool {
        self.spill == SpillState::Spilling
    }

    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// Deletes from memory the chunks that the file has and the chunks that are no longer needed. Returns the number of
    /// deleted bytes that the file does not have.
    pub fn evict(&mut self, memory: &AtomicUsize) -> u64 {
        let mut lost = 0;
        while !self.chunks.is_empty() {
            let chunk_end = self.memory_start + CHUNK_BYTES as u64;
            let is_written = chunk_end <= self.file_end;
            let is_pinned = self.pinned.is_some_and(|pinned| pinned < chunk_end);
            let kept = match (is_written, is_over(memory)) {
                (_, true) => 0,
                (true, false) if is_pinned => UPLOAD_CACHE_BYTES,
                (true, false) => CACHE_BYTES,
                (false, false) => WINDOW_BYTES,
            };
            let is_needed = self.spill == SpillState::Spilling || is_pinned;
            if self.memory_bytes() <= kept.max(CHUNK_BYTES as u64) || (!is_written && is_needed) {
                break;
            }
            self.drop_chunk(memory);
            lost += if is_written { 0 } else { CHUNK_BYTES as u64 };
        }
        lost
    }

    fn drop_chunk(&mut self, memory: &AtomicUsize) {
        if let Some(chunk) = self.chunks.pop_front() {
            memory.fetch_sub(chunk.len(), Ordering::Relaxed);
            self.memory_start += chunk.len() as u64;
        }
    }

    /// Returns true if too many bytes in memory wait for the disk or the output store.
    pub fn is_behind(&self, memory: &AtomicUsize) -> bool {
        let max = if is_over(memory) { MAX_PENDING_UNDER_PRESSURE } else { MAX_PENDING_BYTES };
        self.memory_bytes() > max
    }

    /// Returns at most `max_bytes`, starting at an offset.
    pub fn find(&self, offset: u64, max_bytes: usize) -> Found {
        if offset >= self.end {
            return Found::Nothing;
        }
        if offset >= self.memory_start {
            return Found::Memory(self.read_memory(offset - self.memory_start, max_bytes));
        }
        match &self.file {
            Some(file) if offset >= self.file_start && offset < self.file_end => {
                let length = usize::try_from(self.file_end - offset).unwrap_or(usize::MAX).min(max_bytes);
                Found::File { file: Arc::clone(file), length }
            }
            Some(_) if offset < self.file_start && self.file_start < self.file_end => {
                Found::Gap { to: self.file_start, reason: GapReason::SpillBudget }
            }
            Some(_) if offset < self.file_start => Found::Gap { to: self.memory_start, reason: GapReason::SpillBudget },
            _ => Found::Gap { to: self.memory_start, reason: self.lost_reason },
        }
    }

    /// Returns true if the file still has the byte at an offset.
    pub fn has_in_file(&self, file: &SpillFile, offset: u64) -> bool {
        self.file.as_ref().is_some_and(|own| own.id() == file.id()) && offset >= self.file_start
    }

    fn read_memory(&self, position: u64, max_bytes: usize) -> Bytes {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let (index, within) = (position / CHUNK_BYTES, position % CHUNK_BYTES);
        match self.chunks.get(index) {
            Some(chunk) => chunk.slice(within..chunk.len().min(within.saturating_add(max_bytes))),
            None => {
                let rest = self.tail.get(within..).unwrap_or_default();
                Bytes::copy_from_slice(rest.get(..max_bytes).unwrap_or(rest))
            }
        }
    }

    /// Deletes all bytes. Returns the file, which the caller must release.
    pub fn clear(&mut self, memory: &AtomicUsize) -> Option<Arc<SpillFile>> {
        memory.fetch_sub(usize::try_from(self.memory_bytes()).unwrap_or(usize::MAX), Ordering::Relaxed);
        (self.chunks, self.tail) = (VecDeque::new(), Vec::new());
        self.memory_start = self.end;
        (self.file_start, self.file_end) = (self.end, self.end);
        self.pinned = None;
        self.spill = SpillState::Stopped;
        self.lost_reason = GapReason::Removed;
        self.file.take()
    }
}

fn is_over(memory: &AtomicUsize) -> bool {
    memory.load(Ordering::Relaxed) > MAX_MEMORY_BYTES
}

/// Appends bytes that fit into an unfinished chunk. The capacity doubles if necessary, up to [`CHUNK_BYTES`].
fn append_within_chunk(chunk: &mut Vec<u8>, bytes: &[u8]) {
    let needed = chunk.len() + bytes.len();
    if needed > chunk.capacity() {
        let capacity = needed.max(chunk.capacity().saturating_mul(2)).min(CHUNK_BYTES);
        chunk.reserve_exact(capacity - chunk.len());
    }
    chunk.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_next_bytes_of_the_upload_and_no_more() {
        let (memory, mut stream) = (AtomicUsize::new(0), StreamBuffer::new(true));
        let chunk = vec![7; CHUNK_BYTES];
        let file = Arc::new(SpillFile::new(1, "unused".into(), tempfile::tempfile().unwrap()));
        let written = |stream: &mut StreamBuffer, chunks: usize| {
            for _ in 0..chunks {
                stream.push(&chunk, &memory);
                stream.spill_if_long(&memory);
                if let Some(batch) = stream.batch(1 << 20) {
                    let bytes: usize = batch.chunks.iter().map(Bytes::len).sum();
                    stream.written(Arc::clone(&file), bytes as u64);
                }
                stream.evict(&memory);
            }
        };
        // The upload has read nothing, so it finds its first bytes in the file.
        written(&mut stream, 128);
        assert_eq!(stream.memory_bytes(), UPLOAD_CACHE_BYTES);
        assert!(matches!(stream.find(0, CHUNK_BYTES), Found::File { .. }));
        // An upload that is at most 1 MiB behind finds its next bytes in memory.
        let next = stream.end() - UPLOAD_CACHE_BYTES / 2;
        stream.pin(Some(next));
        stream.evict(&memory);
        assert_eq!(stream.memory_bytes(), UPLOAD_CACHE_BYTES / 2);
        assert!(matches!(stream.find(next, CHUNK_BYTES), Found::Memory(bytes) if bytes.len() == CHUNK_BYTES));
        // Without an upload, memory keeps only the newest bytes for viewers.
        stream.pin(None);
        stream.evict(&memory);
        assert_eq!(stream.memory_bytes(), CACHE_BYTES);
        assert_eq!(memory.load(Ordering::Relaxed) as u64, CACHE_BYTES);
    }
}
