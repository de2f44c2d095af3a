//! One stream as it comes: redacted, then head and tail kept, everything counted and digested.

use std::borrow::Cow;
use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::api::execution_status::StreamRecord;
use crate::policy::Redaction;

use super::MAXIMUM_INLINE_BYTES;
use super::inline::Inline;
use super::redact::Redactor;

/// Takes the bytes of one stream. Never waits, never holds more than twice what the status shows, and with patterns the
/// line at hand.
#[derive(Clone, Debug)]
pub struct Capture {
    /// How much the status shows.
    inline_bytes: usize,
    /// What comes before everything else.
    redactor: Redactor,
    /// The first bytes, up to `inline_bytes`; does not change once full.
    head: Vec<u8>,
    /// The last bytes of what came after the head, up to `inline_bytes`.
    tail: VecDeque<u8>,
    /// How many bytes came in all, after redaction.
    total: u64,
    /// Over every one of them.
    digest: Sha256,
}

impl Capture {
    /// For a stream of which the status shows `inline_bytes` (at most [`MAXIMUM_INLINE_BYTES`]; 0 for none).
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

    /// Takes the next bytes, and gives what of them may be kept: that, and no other, may go anywhere else.
    pub fn push<'bytes>(&mut self, bytes: &'bytes [u8]) -> Cow<'bytes, [u8]> {
        let redacted = self.redactor.push(bytes);
        self.keep(&redacted);
        redacted
    }

    /// Takes the end of the stream, and gives what of the last line may be kept. Whether it was `cut_off`, so that its
    /// last line may not be one, matters only where there are patterns.
    pub fn end(&mut self, cut_off: bool) -> Vec<u8> {
        let last = self.redactor.end(cut_off);
        self.keep(&last);
        last
    }

    /// Whether there is more than the status shows, however it is encoded. While it is false, [`Self::kept`] is all.
    pub fn is_over(&self) -> bool {
        self.total > self.inline_bytes as u64
    }

    /// The first bytes, as many as the status may show.
    pub fn kept(&self) -> &[u8] {
        &self.head
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
        let (head, rest) = bytes.split_at(bytes.len().min(self.inline_bytes.saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        // Of a chunk larger than the tail only its end can stay: do not move the rest through the queue.
        let (_, kept) = rest.split_at(rest.len().saturating_sub(self.inline_bytes));
        let over = (self.tail.len() + kept.len()).saturating_sub(self.inline_bytes);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(kept);
    }

    /// The text for the status, and what is recorded of the whole stream.
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
