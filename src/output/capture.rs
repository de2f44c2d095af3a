//! One stream as it comes: head and tail kept, everything counted and digested.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::api::execution_status::StreamRecord;

use super::INLINE_BYTES;
use super::inline::Inline;

/// Takes the bytes of one stream. Never waits, never holds more than twice [`INLINE_BYTES`].
#[derive(Clone, Debug)]
pub struct Capture {
    /// The first bytes, up to [`INLINE_BYTES`]; does not change once full.
    head: Vec<u8>,
    /// The last bytes of what came after the head, up to [`INLINE_BYTES`].
    tail: VecDeque<u8>,
    /// How many bytes came in all.
    total: u64,
    /// Over every byte that came.
    digest: Sha256,
}

impl Default for Capture {
    fn default() -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), total: 0, digest: Sha256::new() }
    }
}

impl Capture {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
        let (head, rest) = bytes.split_at(bytes.len().min(INLINE_BYTES.saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        // Of a chunk larger than the tail only its end can stay: do not move the rest through the queue.
        let (_, kept) = rest.split_at(rest.len().saturating_sub(INLINE_BYTES));
        let over = (self.tail.len() + kept.len()).saturating_sub(INLINE_BYTES);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(kept);
    }

    /// The text for the status, and what is recorded of the whole stream.
    pub fn finish(self) -> (String, StreamRecord) {
        let tail: Vec<u8> = self.tail.into_iter().collect();
        let Inline { text, encoding, truncated } = Inline::of(&self.head, &tail, self.total);
        let digest = self.digest.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = i64::try_from(self.total).unwrap_or(i64::MAX);
        (text, StreamRecord { bytes, sha256, truncated, encoding })
    }
}

#[cfg(test)]
mod tests;
