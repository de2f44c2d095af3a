//! Whole characters of a stream of bytes.

/// Decoder of a stream of UTF-8 that arrives in pieces. Bytes that are not UTF-8 become U+FFFD, as in
/// [`String::from_utf8_lossy`] of the whole stream. Holds back at most 3 bytes: the beginning of a character.
#[derive(Clone, Debug, Default)]
pub(super) struct Characters {
    pending: Vec<u8>,
}

impl Characters {
    /// Returns the characters that end in these bytes, and the number of bytes that they come from.
    pub fn push(&mut self, bytes: &[u8]) -> (String, usize) {
        let joined;
        let mut rest = bytes;
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.pending);
            rest = &joined;
        }
        let mut text = String::with_capacity(rest.len());
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        let length = rest.len() - self.pending.len();
        (text, length)
    }

    /// Returns the replacement of an unfinished last character, or the empty text, and its number of bytes.
    pub fn finish(&mut self) -> (String, usize) {
        let last = std::mem::take(&mut self.pending);
        (String::from_utf8_lossy(&last).into_owned(), last.len())
    }
}

/// Returns true if further bytes can complete these bytes to a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_in_three_pieces_arrives_whole() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(b"a\xe2"), ("a".to_owned(), 1));
        assert_eq!(characters.push(b"\x82"), (String::new(), 0));
        assert_eq!(characters.push(b"\xacb"), ("€b".to_owned(), 4));
        assert_eq!(characters.finish(), (String::new(), 0));
    }

    #[test]
    fn bytes_that_no_byte_completes_are_replaced_at_once() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(b"\xff"), ("\u{fffd}".to_owned(), 1));
        assert_eq!(characters.push(b"\xf0\x9f"), (String::new(), 0));
        assert_eq!(characters.push(b"x"), ("\u{fffd}x".to_owned(), 3));
        assert_eq!(characters.push(b"\xf0\x9f\x98"), (String::new(), 0));
        assert_eq!(characters.finish(), ("\u{fffd}".to_owned(), 3));
        assert_eq!(characters.finish(), (String::new(), 0));
    }
}
