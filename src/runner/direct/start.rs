//! Detects the start of a command in Direct mode, by two marks before the output of the command.
//!
//! sshd confirms only the start of the login shell. A later exit code can still come from sshd or from a start-up file.
//! Writ therefore runs an sh script before the command. The script reports that it runs, and waits:
//!
//! ```text
//! machine                                     writ
//! WRIT3:ready     the login shell has started the script
//!                                             NONCE    the permission to start the command
//! WRIT3:NONCE     the script starts the command now
//! ```
//!
//! Without the permission, the script executes nothing. Only output after the second mark comes from the command.
//!
//! No other user can forge the second mark, because no argument of the script contains the nonce. Another user can
//! perhaps forge the first mark, because the arguments of the script contain the parts of this mark.

use bytes::Bytes;

use crate::output::StreamKind;

/// First word of every mark. `Mark` requires that the first byte of a mark occurs only once in the mark.
const PREFIX: &str = "WRIT3";
/// Second word of the first mark.
const READY: &str = "ready";
/// Second word of an optional mark before the first mark. The script prints the optional mark if sudo requires a
/// password to check the command.
const ASKS: &str = "asks";
/// Parts of the first mark. The machine joins them with `:`.
pub(super) const READY_WORDS: (&str, &str) = (PREFIX, READY);
/// Input that Writ sends when the machine confirms the login shell, before the permission:
/// - A start-up file that asks questions reads empty answers.
/// - A shell that replaces the login shell (`exec zsh` in a start-up file) ends at `exit 93`.
/// - Writ's script skips the lines that no start-up file has read.
pub(super) const EMPTY_ANSWERS: &[u8] = b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nexit 93\n";

/// Marks of one session.
pub(super) struct Marks {
    nonce: String,
    asks: Mark,
    sudo_asks: bool,
    ready: Mark,
    start: Mark,
}

impl Marks {
    /// Returns the marks of a session. `nonce` has 32 random hexadecimal digits and differs for each session.
    pub fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            asks: Mark::new(ASKS),
            sudo_asks: false,
            ready: Mark::new(READY),
            start: Mark::new(nonce),
        }
    }

    /// Returns the line that the machine must read before it starts the command.
    pub fn permission(&self) -> Bytes {
        format!("{}\n", self.nonce).into()
    }

    /// Returns true if the login shell has started the script. The script then waits for the permission.
    pub fn is_ready(&self) -> bool {
        self.ready.is_found
    }

    /// Returns true if the start mark has arrived.
    pub fn is_started(&self) -> bool {
        self.start.is_found
    }

    /// Returns true if sudo required a password to check the command.
    pub fn sudo_asks(&self) -> bool {
        self.sudo_asks
    }

    /// Takes the next bytes of a stream, and returns them without the marks.
    pub fn take_off(&mut self, kind: StreamKind, bytes: Bytes) -> Bytes {
        let bytes = self.asks.take_off(kind, bytes);
        if !self.ready.is_found {
            self.sudo_asks = self.asks.is_found;
        }
        let bytes = self.ready.take_off(kind, bytes);
        // The script prints the mark `asks` only before the first mark, so the search for `asks` ends here.
        self.asks.is_found |= self.ready.is_found;
        self.start.take_off(kind, bytes)
    }
}

/// Filter that finds one mark and removes it from the output. The filter reads both streams, because a start-up file
/// can redirect one stream into the other stream.
struct Mark {
    text: String,
    is_found: bool,
    /// Number of bytes of the mark that are matched so far, in standard output and in standard error.
    matched: [usize; 2],
    /// Stream on which the line end of the mark is expected next. `None` if no line end is expected.
    line_end: Option<StreamKind>,
}

impl Mark {
    fn new(word: &str) -> Self {
        Self { text: format!("{PREFIX}:{word}"), is_found: false, matched: [0; 2], line_end: None }
    }

    /// Takes the next bytes of a stream, and returns them without the mark.
    fn take_off(&mut self, kind: StreamKind, bytes: Bytes) -> Bytes {
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
            // If the output passes through a terminal, a line end has two characters.
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
        // The matched bytes are not the mark, so they are output.
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

    /// Returns a stream without its mark. The stream arrives in pieces of `size` bytes.
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
                assert!(mark.is_found);
            }
        }
    }

    #[test]
    fn it_counts_on_either_stream_and_leaves_the_other_alone() {
        let mut mark = Mark::new(NONCE);
        assert_eq!(rest(&mut mark, StreamKind::Stdout, b"WRIT3:0123", 3), b"");
        assert_eq!(rest(&mut mark, StreamKind::Stderr, format!("WRIT3:{NONCE}\n!").as_bytes(), 5), b"!");
        assert_eq!(rest(&mut mark, StreamKind::Stdout, b"456", 3), b"WRIT3:0123456");
        assert!(mark.is_found);
    }

    #[test]
    fn another_nonce_is_no_mark() {
        let mut mark = Mark::new(NONCE);
        let other = format!("WRIT3:{}0\n", &NONCE[..31]);
        assert_eq!(rest(&mut mark, StreamKind::Stdout, other.as_bytes(), 4096), other.as_bytes());
        assert!(!mark.is_found);
    }

    /// The reader removes both marks, and keeps all other text.
    #[test]
    fn both_marks_are_taken_off_in_their_order() {
        for size in [1, 3, 4096] {
            let mut marks = Marks::new(NONCE);
            let rest = |marks: &mut Marks, kind, text: &str| -> Vec<u8> {
                text.as_bytes()
                    .chunks(size)
                    .flat_map(|piece| marks.take_off(kind, Bytes::copy_from_slice(piece)))
                    .collect()
            };
            assert_eq!(rest(&mut marks, StreamKind::Stdout, "motd WRIT3:re\nWRIT3:ready\n"), b"motd WRIT3:re\n");
            assert_eq!((marks.is_ready(), marks.is_started()), (true, false));
            assert_eq!(rest(&mut marks, StreamKind::Stderr, "WRIT3:ready\n"), b"WRIT3:ready\n", "only the first one");
            assert_eq!(
                rest(&mut marks, StreamKind::Stdout, &format!("WRIT3:{NONCE}\nWRIT3:ready\n")),
                b"WRIT3:ready\n"
            );
            assert!(marks.is_started() && !marks.sudo_asks());
            assert_eq!(rest(&mut marks, StreamKind::Stdout, "WRIT3:asks\nWRIT3:"), b"WRIT3:asks\nWRIT3:");
            // sudo required a password. Text that only begins like a mark is not lost.
            let mut marks = Marks::new(NONCE);
            assert_eq!(rest(&mut marks, StreamKind::Stderr, "WRIT"), b"");
            assert_eq!(rest(&mut marks, StreamKind::Stdout, "WRIT3:asks\nWRIT3:ready\n"), b"");
            assert!(marks.is_ready() && marks.sudo_asks());
            assert_eq!(rest(&mut marks, StreamKind::Stderr, "3:asks\n"), b"WRIT3:asks\n");
        }
    }

    /// The permission is one line with the whole nonce of the second mark.
    #[test]
    fn the_permission_is_a_line_with_the_nonce() {
        assert_eq!(Marks::new(NONCE).permission(), format!("{NONCE}\n"));
        assert_eq!(READY_WORDS, ("WRIT3", "ready"));
        assert_ne!(READY.len(), NONCE.len());
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
            prop_assert!(mark.is_found);
        }
    }
}
