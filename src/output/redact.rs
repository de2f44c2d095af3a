//! Redaction of one stream, line by line, before any other use of its bytes.
//!
//! # Guarantees
//!
//! 1. Text that a pattern matches is replaced, even if the text arrives in several pieces.
//! 2. A line that cannot be matched as a whole is replaced as a whole. Examples are a line of more than 64 KiB, and a
//!    line whose end never arrived.
//! 3. Only the unfinished line is held back, because a pattern can match text that has not arrived completely.

use std::borrow::Cow;

use crate::policy::{LineRedactor, REDACTED, Redaction};

/// Maximum length of a line that is held back until its end arrives, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Redactor of one stream. Replaces the text that the patterns match.
#[derive(Clone, Debug)]
pub struct Redactor {
    /// `None` if there are no patterns. All bytes then pass unchanged.
    lines: Option<LineRedactor>,
    /// Maximum length of a line that is held back, in bytes.
    max_line_bytes: usize,
    /// The unfinished line. Empty if the line is too long.
    pending_line: Vec<u8>,
    /// Length of the unfinished line so far, in bytes.
    length: u64,
}

impl Redactor {
    /// Creates the redactor of one stream.
    pub fn new(redaction: &Redaction) -> Self {
        let lines = (!redaction.is_empty()).then(|| redaction.line_redactor());
        Self { lines, max_line_bytes: MAX_LINE_BYTES, pending_line: Vec::new(), length: 0 }
    }

    /// Returns true if there are patterns.
    pub fn redacts(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes the next bytes. Returns the lines that end in these bytes, redacted. Without patterns, returns the bytes
    /// unchanged.
    pub fn push<'bytes>(&mut self, bytes: &'bytes [u8]) -> Cow<'bytes, [u8]> {
        if self.lines.is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut output = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', end)) => {
                    self.buffer(end);
                    self.end_line(&mut output);
                    output.push(b'\n');
                }
                _ => self.buffer(piece),
            }
        }
        Cow::Owned(output)
    }

    /// Returns the unfinished last line, redacted. A note replaces the last line of a `truncated` stream, because the
    /// missing text could complete a match.
    pub fn finish_stream(&mut self, truncated: bool) -> Vec<u8> {
        let mut output = Vec::new();
        if self.length > 0 {
            if truncated && !self.is_too_long() {
                replace(&mut output, self.length, "was cut off before it could be redacted");
            } else {
                self.end_line(&mut output);
            }
        }
        output
    }

    fn buffer(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.is_too_long() {
            self.pending_line = Vec::new();
        } else {
            self.pending_line.extend_from_slice(bytes);
        }
    }

    fn is_too_long(&self) -> bool {
        self.length > self.max_line_bytes as u64
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        if self.is_too_long() {
            replace(output, self.length, "was too long to be redacted");
        } else if let Some(lines) = &mut self.lines {
            lines.redact(&self.pending_line, output);
        }
        self.pending_line.clear();
        self.length = 0;
    }
}

fn replace(output: &mut Vec<u8>, length: u64, why: &str) {
    output.extend_from_slice(REDACTED);
    output.extend_from_slice(format!(" [writ: a line of {length} bytes {why}]").as_bytes());
}

#[cfg(test)]
mod tests;
