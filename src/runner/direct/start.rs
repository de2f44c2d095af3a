//! The start of a command in Direct mode: two marks that only the command's own text prints, in front of its output.
//!
//! sshd confirms that it executes the login shell, and reports the exit code of what that became: of sshd itself, of a
//! start-up file, or of the command. So the sh in front of the command says when it is reached, and waits:
//!
//! ```text
//! machine                                     writ
//! WRIT3:ready     the login shell came here
//!                                             NONCE    the permission: it may start
//! WRIT3:NONCE     it starts now
//! ```
//!
//! Without the permission nothing is executed. Behind the second mark, and only there, all is the command's. Other users of the
//! machine see what stands in arguments, and may have a start-up file print it: that is the first mark, and not the nonce.

use bytes::Bytes;

use crate::output::StreamKind;

/// What a mark begins with. Its first byte is nowhere else in the mark.
const PREFIX: &str = "WRIT3";
/// What the first mark ends with.
const READY: &str = "ready";
/// What a mark before that ends with if sudo wanted a password to say if it allows the command.
const ASKS: &str = "asks";
/// The parts of the first mark, which the machine joins with `:`.
pub(super) const READY_WORDS: (&str, &str) = (PREFIX, READY);
/// What a start-up file that asks questions reads until the permission comes: empty answers. A shell that a start-up file becomes
/// (`exec zsh`) reads its own script there, and ends. They are sent as soon as the login shell runs, and the sh passes over those
/// that are left.
pub(super) const EMPTY_ANSWERS: &[u8] = b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nexit 93\n";

/// Both marks of a session.
pub(super) struct Marks {
    nonce: String,
    asks: Mark,
    sudo_asks: bool,
    ready: Mark,
    start: Mark,
}

impl Marks {
    /// `nonce`: 32 hexadecimal digits, random, another for each session.
    pub fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            asks: Mark::new(ASKS),
            sudo_asks: false,
            ready: Mark::new(READY),
            start: Mark::new(nonce),
        }
    }

    /// What the machine must read before it starts the command.
    pub fn permission(&self) -> Bytes {
        format!("{}\n", self.nonce).into()
    }

    /// Whether the login shell came to the command, and waits for the permission.
    pub fn is_ready(&self) -> bool {
        self.ready.is_found
    }

    /// Whether the command starts.
    pub fn is_started(&self) -> bool {
        self.start.is_found
    }

    /// Whether sudo wanted a password to say if it allows the command.
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
        // Nobody looks for that one any more.
        self.asks.is_found |= self.ready.is_found;
        self.start.take_off(kind, bytes)
    }
}

/// Looks for a mark in both streams, since a start-up file may send one of them into the other, and takes it off.
struct Mark {
    text: String,
    is_found: bool,
    /// How much of it has gone by in standard output and in standard error.
    matched: [usize; 2],
    /// Whether the end of its line is still to come, and on which stream.
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

    /// What the machine prints when, and what is left of it.
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
            // sudo wanted a password; nothing is lost that only begins as a mark does.
            let mut marks = Marks::new(NONCE);
            assert_eq!(rest(&mut marks, StreamKind::Stderr, "WRIT"), b"");
            assert_eq!(rest(&mut marks, StreamKind::Stdout, "WRIT3:asks\nWRIT3:ready\n"), b"");
            assert!(marks.is_ready() && marks.sudo_asks());
            assert_eq!(rest(&mut marks, StreamKind::Stderr, "3:asks\n"), b"WRIT3:asks\n");
        }
    }

    /// The nonce in the permission is what the second mark must have, whole and on a line of its own.
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
