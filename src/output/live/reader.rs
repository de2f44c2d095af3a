//! Reader of one stream for the upload, in order and without gaps.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::super::StreamKind;
use super::GapReason;
use super::entry::{Entry, ReadStep};

/// Maximum size of one [`Piece`], in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Reader of one stream, from offset 0. Until the reader is dropped, memory keeps the unread bytes that the file does
/// not have.
#[derive(Debug)]
pub(in crate::output) struct StreamReader {
    entry: Arc<Entry>,
    stream: StreamKind,
    generation: u32,
    offset: u64,
    changed: watch::Receiver<()>,
}

/// The next bytes for the upload.
#[derive(Debug)]
pub(in crate::output) enum Piece {
    Bytes(Bytes),
    /// Bytes are missing, so the stream cannot be stored whole.
    Missing(GapReason),
    /// There are no more bytes for now.
    Later,
    /// The stream has ended.
    End,
}

impl StreamReader {
    pub(super) fn new(entry: Arc<Entry>, stream: StreamKind, generation: u32) -> Self {
        let changed = entry.subscribe();
        Self { entry, stream, generation, offset: 0, changed }
    }

    /// Returns the next piece. Waits only for the read of a file.
    pub async fn next_piece(&mut self) -> Piece {
        loop {
            self.changed.borrow_and_update();
            let bytes = match self.entry.find(self.stream, Some(self.generation), self.offset, PIECE_BYTES) {
                ReadStep::Bytes(bytes) => bytes,
                ReadStep::File(read) => match self.entry.read_file(&read).await {
                    (Some(bytes), _) => bytes,
                    (None, true) => return Piece::Missing(GapReason::DiskFailed),
                    (None, false) => continue,
                },
                ReadStep::Gap { reason, .. } => return Piece::Missing(reason),
                ReadStep::Nothing { is_complete: true } => return Piece::End,
                ReadStep::Nothing { is_complete: false } => return Piece::Later,
            };
            self.offset += bytes.len() as u64;
            self.entry.pin((self.stream, self.generation), Some(self.offset));
            return Piece::Bytes(bytes);
        }
    }

    /// Waits until more bytes can be available.
    pub async fn changed(&mut self) {
        // This call cannot fail, because the sender lives as long as the entry.
        let _ = self.changed.changed().await;
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.entry.pin((self.stream, self.generation), None);
    }
}
