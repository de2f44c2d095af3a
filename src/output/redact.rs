//! One stream made fit to be kept, line by line, before anything else sees it.
//!
//! The promise kept here: what a pattern matches is taken out wherever the machine or the network cut the stream, and
//! what cannot be judged is taken out whole: a line of more than 64 KiB, and one whose end never came. Nothing is held
//! back but the beginning of the line at hand.

use std::borrow::Cow;

use crate::policy::{LineRedactor, REDACTED, Redaction};

/// The longest line that is held back until its end comes.
const LINE_BYTES: usize = 64 << 10;

/// Takes the bytes of one stream and gives them back without what the patterns match.
#[derive(Clone, Debug)]
pub struct Redactor {
    /// None where there are no patterns: bytes then pass as they come.
    lines: Option<LineRedactor>,
    /// The longest line that may be held.
    longest: usize,
    /// The line at hand; nothing of it where it is too long.
    held: Vec<u8>,
    /// How long the line at hand is so far.
    length: u64,
}

impl Redactor {
    /// For a stream of its own.
    pub fn new(redaction: &Redaction) -> Self {
        let lines = (!redaction.is_empty()).then(|| redaction.line_redactor());
        Self { lines, longest: LINE_BYTES, held: Vec::new(), length: 0 }
    }

    /// Whether there are patterns.
    pub fn redacts(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes the next bytes, and gives the lines that end in them.
    pub fn push<'bytes>(&mut self, bytes: &'bytes [u8]) -> Cow<'bytes, [u8]> {
        if self.lines.is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut output = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', end)) => {
                    self.hold(end);
                    self.end_line(&mut output);
                    output.push(b'\n');
                }
                _ => self.hold(piece),
            }
        }
        Cow::Owned(output)
    }

    /// Gives the last line, where it has no newline. One that was `cut_off` may have the beginning of something that
    /// a pattern would have matched.
    pub fn end(&mut self, cut_off: bool) -> Vec<u8> {
        let mut output = Vec::new();
        if self.length > 0 {
            if cut_off && !self.is_too_long() {
                replace(&mut output, self.length, "was cut off before it could be redacted");
            } else {
                self.end_line(&mut output);
            }
        }
        output
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.is_too_long() {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn is_too_long(&self) -> bool {
        self.length > self.longest as u64
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        if self.is_too_long() {
            replace(output, self.length, "was too long to be redacted");
        } else if let Some(lines) = &mut self.lines {
            lines.redact(&self.held, output);
        }
        self.held.clear();
        self.length = 0;
    }
}

fn replace(output: &mut Vec<u8>, length: u64, why: &str) {
    output.extend_from_slice(REDACTED);
    output.extend_from_slice(format!(" [writ: a line of {length} bytes {why}]").as_bytes());
}

#[cfg(test)]
mod tests;
