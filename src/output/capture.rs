//! Captures one stream: redacts, counts and digests all bytes, and keeps the head and the tail for the status.

use std::borrow::Cow;
use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::api::execution_status::StreamRecord;
use crate::policy::Redaction;

use super::MAXIMUM_INLINE_BYTES;
use super::inline::Inline;
use super::redact::Redactor;

/// Capture of one stream. Its functions never wait. In memory, it holds at most twice the bytes that the status shows.
/// With `redact` patterns, it also holds the unfinished line.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Maximum number of bytes that the status shows.
    inline_bytes: usize,
    /// Redacts every byte before any other use.
    redactor: Redactor,
    /// First bytes, up to `inline_bytes`.
    head: Vec<u8>,
    /// Last bytes after the head, up to `inline_bytes`.
    tail: VecDeque<u8>,
    /// Length of the stream after redaction, in bytes.
    total: u64,
    /// SHA-256 of the redacted stream.
    digest: Sha256,
}

impl Capture {
    /// Creates a capture. `inline_bytes` is the maximum number of bytes that the status shows, up to
    /// [`MAXIMUM_INLINE_BYTES`]. With 0, the status shows nothing.
    pub fn new(inline_bytes: usize, redaction: &Redaction) -> Self {
        Self {
            inline_bytes: inline_bytes.min(MAXIMUM_INLINE_BYTES),
            redactor: Redactor::new(redaction),
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            digest: Sha256::new(),
        }
    }

    /// Captures the next bytes and returns the redacted bytes. Only the returned bytes may be used elsewhere.
    pub fn push<'bytes>(&mut self, bytes: &'bytes [u8]) -> Cow<'bytes, [u8]> {
        let redacted = self.redactor.push(bytes);
        self.keep(&redacted);
        redacted
    }

    /// Ends the stream and returns its unfinished last line, redacted. With patterns, a note replaces the last line of
    /// a `truncated` stream, because the missing text could complete a match.
    pub fn finish_stream(&mut self, truncated: bool) -> Vec<u8> {
        let last = self.redactor.finish_stream(truncated);
        self.keep(&last);
        last
    }

    /// Returns true if the stream certainly does not fit into the status. If the result is false, the JSON text of the
    /// stream can still be too long.
    pub fn exceeds_inline(&self) -> bool {
        self.total > self.inline_bytes as u64
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
        let (head, rest) = bytes.split_at(bytes.len().min(self.inline_bytes.saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        // The tail has at most `inline_bytes`, so earlier bytes of a large chunk never enter the queue.
        let (_, kept) = rest.split_at(rest.len().saturating_sub(self.inline_bytes));
        let over = (self.tail.len() + kept.len()).saturating_sub(self.inline_bytes);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(kept);
    }

    /// Returns the text for the status and the record of the whole stream.
    pub fn finish(self) -> (String, StreamRecord) {
        let redacted = self.redactor.redacts();
        let tail: Vec<u8> = self.tail.into_iter().collect();
        let Inline { text, encoding, truncated } = Inline::of(&self.head, &tail, self.total, self.inline_bytes);
        let digest = self.digest.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = i64::try_from(self.total).unwrap_or(i64::MAX);
        let (stored, not_stored) = (false, None);
        (text, StreamRecord { bytes, sha256, truncated, redacted, encoding, stored, not_stored })
    }
}

#[cfg(test)]
mod tests;
