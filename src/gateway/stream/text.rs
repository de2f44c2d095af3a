//! Splits the bytes of a stream into texts and other bytes for messages. Pure.
//!
//! A chunk of a stream can end within a character. [`Holdback`] keeps the first bytes of such a character until the
//! rest of it comes, so that a text does not become Base64 because of a border between two chunks.

use bytes::Bytes;

/// Maximum number of bytes in one piece that is not text. Such a piece takes at most 60 KiB in a message: 4/3 bytes as
/// Base64, and at most 6 bytes as text with replaced bytes.
const MAX_OTHER_BYTES: usize = 8 << 10;
/// Number of bytes of text in a row after which a piece of other bytes ends. With fewer bytes, a mixture of both would
/// take too many messages.
const MIN_TEXT_BYTES: usize = 64;

/// Bytes of a stream, from an offset on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// First bytes of a character whose rest has not arrived yet, at most 3.
#[derive(Debug, Default)]
pub struct Holdback {
    held: Vec<u8>,
    /// Offset after the last byte that was pushed.
    end: u64,
}

impl Holdback {
    /// Adds the next bytes of the stream. Returns the held bytes and the new bytes, without an unfinished character at
    /// their end.
    pub fn push(&mut self, offset: u64, bytes: Bytes) -> Chunk {
        self.end = offset + bytes.len() as u64;
        let start = offset - self.held.len() as u64;
        let mut ready = match self.held.is_empty() {
            true => bytes,
            false => Bytes::from([self.held.as_slice(), bytes.as_ref()].concat()),
        };
        let held = ready.split_off(ready.len() - unfinished_length(&ready));
        self.held = held.to_vec();
        Chunk { offset: start, bytes: ready }
    }

    /// Returns the held bytes, because nothing follows them.
    pub fn flush(&mut self) -> Chunk {
        let held = std::mem::take(&mut self.held);
        Chunk { offset: self.end - held.len() as u64, bytes: Bytes::from(held) }
    }
}

/// Returns the number of bytes at the end that begin a character of UTF-8 and do not finish it, 0 to 3.
pub fn unfinished_length(bytes: &[u8]) -> usize {
    let is_unfinished = |length: usize| {
        let end = bytes.len().checked_sub(length).and_then(|start| bytes.get(start..));
        let error = end.and_then(|end| std::str::from_utf8(end).err());
        error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(|length| is_unfinished(*length)).unwrap_or_default()
}

/// Part of a chunk for one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// Bytes that are not UTF-8, perhaps with some text between them.
    Other(Bytes),
}

/// Removes the first piece from `bytes`, which must not be empty. A text takes at most `max_json` bytes in a JSON
/// string.
pub fn take_piece(bytes: &mut Bytes, max_json: usize) -> Piece {
    let text = prefix_within(valid_prefix(bytes), max_json);
    if !text.is_empty() {
        let text = text.to_owned();
        drop(bytes.split_to(text.len()));
        return Piece::Text(text);
    }
    let mut length = 0;
    for part in bytes.utf8_chunks() {
        if (length > 0 && part.valid().len() >= MIN_TEXT_BYTES) || length >= MAX_OTHER_BYTES {
            break;
        }
        length += part.valid().len() + part.invalid().len();
    }
    Piece::Other(bytes.split_to(length.clamp(1, MAX_OTHER_BYTES).min(bytes.len())))
}

fn valid_prefix(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
        }
    }
}

/// Returns the longest start of `text` that takes at most `max_json` bytes in a JSON string.
fn prefix_within(text: &str, max_json: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, character)| {
        used += json_length(*character);
        used > max_json
    });
    end.and_then(|(index, _)| text.get(..index)).unwrap_or(text)
}

/// Returns the number of bytes that a character takes in a JSON string of serde_json.
fn json_length(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\u{0}'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes chunks and flushes, and returns the offset and the piece of each message.
    fn pieces(chunks: &[&[u8]], max_json: usize) -> Vec<(u64, Piece)> {
        let (mut holdback, mut found, mut offset) = (Holdback::default(), Vec::new(), 0);
        let mut add = |Chunk { mut offset, mut bytes }: Chunk| {
            while !bytes.is_empty() {
                let before = bytes.len();
                found.push((offset, take_piece(&mut bytes, max_json)));
                offset += (before - bytes.len()) as u64;
            }
        };
        for chunk in chunks {
            add(holdback.push(offset, Bytes::copy_from_slice(chunk)));
            offset += chunk.len() as u64;
        }
        add(holdback.flush());
        found
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn other(bytes: &[u8]) -> Piece {
        Piece::Other(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_character_cut_at_any_border_stays_text() {
        let whole = "a\u{e9}\u{20ac}\u{1f600}z".as_bytes();
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let parts = [&whole[..first], &whole[first..second], &whole[second..]];
                let mut together = String::new();
                for (offset, piece) in pieces(&parts, 1000) {
                    let Piece::Text(text) = piece else { panic!("{first} {second}: {piece:?}") };
                    assert_eq!(offset as usize, together.len());
                    together.push_str(&text);
                }
                assert_eq!(together.as_bytes(), whole);
            }
        }
    }

    #[test]
    fn an_unfinished_character_at_the_end_is_sent_as_bytes() {
        assert_eq!(pieces(&[b"ab\xe2", b"\x82"], 1000), [(0, text("ab")), (2, other(b"\xe2\x82"))]);
        assert_eq!(pieces(&[b"\xf0\x9f\x98"], 1000), [(0, other(b"\xf0\x9f\x98"))]);
        assert_eq!(pieces(&[], 1000), []);
    }

    #[test]
    fn bytes_that_are_never_text_are_not_held() {
        for bytes in [&b"a\x80"[..], b"a\xff", b"a\xc0", b"a\xf5", b"\x80\x80\x80", b"", b"abc"] {
            assert_eq!(unfinished_length(bytes), 0, "{bytes:?}");
        }
        for (bytes, length) in [(&b"a\xc3"[..], 1), (b"\xe2\x82", 2), (b"a\xf0\x9f\x98", 3), (b"\xf0", 1)] {
            assert_eq!(unfinished_length(bytes), length, "{bytes:?}");
        }
    }

    #[test]
    fn other_bytes_end_where_a_longer_text_begins() {
        let long = "x".repeat(MIN_TEXT_BYTES);
        let mixed = [b"ok\xffno\xfe", long.as_bytes()].concat();
        assert_eq!(pieces(&[&mixed], 1000), [(0, text("ok")), (2, other(b"\xffno\xfe")), (6, text(&long))]);
        let random = vec![0xff; MAX_OTHER_BYTES + 1];
        let lengths: Vec<u64> = pieces(&[&random], 1000).iter().map(|(offset, _)| *offset).collect();
        assert_eq!(lengths, [0, MAX_OTHER_BYTES as u64]);
    }

    #[test]
    fn a_text_takes_at_most_its_bytes_of_json() {
        for (given, first) in [("aaaa", "aaa"), ("\n\n", "\n"), ("\u{e9}\u{e9}", "\u{e9}"), ("a\u{1}", "a")] {
            let mut bytes = Bytes::copy_from_slice(given.as_bytes());
            assert_eq!(take_piece(&mut bytes, 3), text(first));
        }
        let hostile: String = (0..=0x7f_u8).map(char::from).cycle().take(5000).collect();
        for (_, piece) in pieces(&[hostile.as_bytes()], 512) {
            let Piece::Text(text) = piece else { panic!("{piece:?}") };
            assert!(serde_json::to_string(&text).unwrap().len() <= 512 + 2);
        }
    }
}
