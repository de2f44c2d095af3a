//! The start of a command in Direct mode: a mark that only the command's own text prints, in front of its output.
//!
//! sshd confirms that it executes the login shell, and reports the exit code of what that became: of sshd itself, of a
//! start-up file, or of the command. Behind the mark, and only there, all is the command's.

use bytes::Bytes;

use crate::output::StreamKind;

/// What a mark begins with. Its first byte is nowhere else in the mark.
const PREFIX: &str = "WRIT3";

/// Looks for the mark in both streams, since a start-up file may send one of them into the other, and takes it off.
pub(super) struct Mark {
    text: String,
    is_found: bool,
    /// How much of it has gone by in standard output and in standard error.
    matched: [usize; 2],
    /// Whether the end of its line is still to come, and on which stream.
    line_end: Option<StreamKind>,
}

impl Mark {
    /// `nonce`: 32 hexadecimal digits, another for each session.
    pub fn new(nonce: &str) -> Self {
        Self { text: format!("{PREFIX}:{nonce}"), is_found: false, matched: [0; 2], line_end: None }
    }

    /// The two words that the machine joins with `:` to the line that is to be printed.
    pub fn words(&self) -> (&str, &str) {
        self.text.split_once(':').unwrap_or((PREFIX, ""))
    }

    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Takes the next bytes of a stream, and returns them without the mark.
    pub fn take_off(&mut self, kind: StreamKind, bytes: Bytes) -> Bytes {
        let index = usize::from(matches!(kind, StreamKind::Stderr));
        let is_clear = self.matched.get(index).is_none_or(|matched| *matched == 0) && self.line_end != Some(kind);
        if self.is_found && is_clear {
            return bytes;
        }
        let mut rest = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.push(kind, index, byte, &mut rest);
        }
        rest.into()
    }

    fn push(&mut self, kind: StreamKind, index: usize, byte: u8, rest: &mut Vec<u8>) {
        if self.line_end == Some(kind) {
            // A terminal in between writes two characters for a line end.
            match byte {
                b'\r' => return,
                b'\n' => {
                    self.line_end = None;
                    return;
                }
                _ => self.line_end = None,
            }
        }
        let Some(matched) = self.matched.get_mut(index) else { return };
        let mark = self.text.as_bytes();
        if !self.is_found && mark.get(*matched) == Some(&byte) {
            *matched += 1;
            if *matched == mark.len() {
                *matched = 0;
                self.is_found = true;
                self.line_end = Some(kind);
            }
            return;
        }
        // It was none after all.
        rest.extend_from_slice(mark.get(..*matched).unwrap_or_default());
        *matched = 0;
        if !self.is_found && mark.first() == Some(&byte) {
            *matched = 1;
        } else {
            rest.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    /// What is left of a stream that comes in pieces of this size.
    fn rest(mark: &mut Mark, kind: StreamKind, bytes: &[u8], size: usize) -> Vec<u8> {
        bytes.chunks(size).flat_map(|piece| mark.take_off(kind, Bytes::copy_from_slice(piece))).collect()
    }

    #[test]
    fn the_first_mark_is_taken_off_and_nothing_else() {
        let line = format!("WRIT3:{NONCE}");
        for size in [1, 2, 7, 4096] {
            for end in ["\n", "\r\n"] {
                let mut mark = Mark::new(NONCE);
                let sent = format!("hello\nWRIT3:01 WWRIT{line}{end}{line}\n\nout");
                let left = rest(&mut mark, StreamKind::Stdout, sent.as_bytes(), size);
                assert_eq!(String::from_utf8(left).unwrap(), format!("hello\nWRIT3:01 WWRIT{line}\n\nout"));
                assert!(mark.is_found());
            }
        }
    }

    #[test]
    fn it_counts_on_either_stream_and_leaves_the_other_alone() {
        let mut mark = Mark::new(NONCE);
        assert_eq!(rest(&mut mark, StreamKind::Stdout, b"WRIT3:0123", 3), b"");
        assert_eq!(rest(&mut mark, StreamKind::Stderr, format!("WRIT3:{NONCE}\n!").as_bytes(), 5), b"!");
        assert_eq!(rest(&mut mark, StreamKind::Stdout, b"456", 3), b"WRIT3:0123456");
        assert!(mark.is_found());
    }

    #[test]
    fn another_nonce_is_no_mark() {
        let mut mark = Mark::new(NONCE);
        let other = format!("WRIT3:{}0\n", &NONCE[..31]);
        assert_eq!(rest(&mut mark, StreamKind::Stdout, other.as_bytes(), 4096), other.as_bytes());
        assert!(!mark.is_found());
    }

    proptest! {
        #[test]
        fn any_output_is_kept_as_it_is(
            before in proptest::collection::vec(any::<u8>(), 0..300),
            after in proptest::collection::vec(any::<u8>(), 0..300),
            size in 1usize..50,
        ) {
            let mut mark = Mark::new(NONCE);
            let sent = [before.as_slice(), format!("WRIT3:{NONCE}\n").as_bytes(), &after].concat();
            prop_assert_eq!(rest(&mut mark, StreamKind::Stdout, &sent, size), [before, after].concat());
            prop_assert!(mark.is_found());
        }
    }
}
