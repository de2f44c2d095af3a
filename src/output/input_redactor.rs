//! Redaction of recorded input.

use crate::policy::Redaction;

use super::redact::Redactor;

/// Redactor of the input of a session. A terminal ends a line of input with `\r`, so `\r` ends a line, as does `\n`.
///
/// With `redact` patterns, each line is recorded at its end. Text that a user corrects with Backspace has the corrected
/// characters between its own, so a pattern can fail to match it.
pub(super) struct InputRedactor {
    redactor: Redactor,
}

impl InputRedactor {
    pub fn new(redaction: &Redaction) -> Self {
        Self { redactor: Redactor::new(redaction) }
    }

    /// Takes the next bytes. Returns the lines that end in these bytes, redacted. Without patterns, returns the bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.redactor.redacts() {
            return bytes.to_vec();
        }
        let mut redacted = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\r') {
            let Some(line) = piece.strip_suffix(b"\r") else {
                redacted.extend_from_slice(&self.redactor.push(piece));
                continue;
            };
            redacted.extend_from_slice(&self.redactor.push(line));
            let end = self.redactor.push(b"\n");
            redacted.extend_from_slice(end.strip_suffix(b"\n").unwrap_or(&end));
            redacted.push(b'\r');
        }
        redacted
    }

    /// Returns a note instead of an unfinished last line, because the missing text could complete a match.
    pub fn finish(&mut self) -> Vec<u8> {
        self.redactor.finish_stream(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(patterns: &[&str]) -> InputRedactor {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        InputRedactor::new(&Redaction::compile(&patterns).unwrap())
    }

    #[test]
    fn keys_of_a_secret_are_redacted_at_the_end_of_their_line() {
        let mut redactor = redactor(&["hunter2"]);
        let mut redacted: Vec<u8> = b"echo hunter2".iter().flat_map(|key| redactor.push(&[*key])).collect();
        assert_eq!(redacted, b"");
        redacted = redactor.push(b"\rls\r\nhunter2\n");
        assert_eq!(redacted, b"echo ***\rls\r\n***\n");
        assert_eq!(redactor.push(b"hunt"), b"");
        let last = String::from_utf8(redactor.finish()).unwrap();
        assert!(last.starts_with("***") && !last.contains("hunt"), "{last}");
    }

    #[test]
    fn input_without_patterns_passes_at_once() {
        let mut redactor = redactor(&[]);
        assert_eq!(redactor.push(b"hunt\r"), b"hunt\r");
        assert_eq!(redactor.finish(), b"");
    }
}
