//! Part of a stream that the status shows: the whole stream, or its head and tail with a line that counts the missing
//! bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::execution_status::Encoding;

/// Space for the line that counts the missing bytes, in bytes. The longest line has 50 bytes, or 68 bytes in base64.
/// `cut` reserves twice this space.
const MARKER_BYTES: usize = 64;

/// A stream as the status shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inline {
    /// The text. As JSON, the text has at most `bound` bytes (see [`Self::of`]).
    pub text: String,
    /// Encoding of the text.
    pub encoding: Encoding,
    /// True if bytes are left out.
    pub truncated: bool,
}

impl Inline {
    /// Creates the text of a stream, with at most `bound` bytes as JSON. If `bound` is too small for the line that
    /// counts the missing bytes, the text is empty.
    ///
    /// - `head`: first bytes of the stream
    /// - `tail`: last bytes after `head`
    /// - `total`: length of the whole stream
    pub fn of(head: &[u8], tail: &[u8], total: u64, bound: usize) -> Self {
        let whole = (head.len() + tail.len()) as u64 == total;
        if whole {
            let bytes = [head, tail].concat();
            if let Ok(text) = std::str::from_utf8(&bytes) {
                if json_length(text) <= bound {
                    return Self { text: text.to_owned(), encoding: Encoding::Utf8, truncated: false };
                }
            } else if bytes.len() <= bound / 4 * 3 {
                return Self { text: STANDARD.encode(&bytes), encoding: Encoding::Base64, truncated: false };
            }
            // Both arguments are the whole stream, so that the shown tail can also start within `head`.
            return Self::cut(&bytes, &bytes, total, bound);
        }
        Self::cut(head, tail, total, bound)
    }

    fn cut(head: &[u8], tail: &[u8], total: u64, bound: usize) -> Self {
        let budget = bound.saturating_sub(2 * MARKER_BYTES) / 2;
        let shown = Self::head_and_tail(head, tail, total, budget);
        if json_length(&shown.text) <= bound {
            return shown;
        }
        Self { text: String::new(), encoding: Encoding::Utf8, truncated: true }
    }

    /// Returns the start of the head, the line that counts the missing bytes, and the end of the tail. Head and tail
    /// have at most `budget` bytes each, as JSON.
    fn head_and_tail(head: &[u8], tail: &[u8], total: u64, budget: usize) -> Self {
        if let (Some(first), Some(last)) = (valid_prefix(head), valid_suffix(tail)) {
            let first = prefix_within(first, budget);
            let last = suffix_within(last, budget);
            let left_out = total.saturating_sub((first.len() + last.len()) as u64);
            let text = format!("{first}{}{last}", marker(left_out));
            return Self { text, encoding: Encoding::Utf8, truncated: true };
        }
        let raw = budget / 4 * 3;
        let first = head.get(..raw.min(head.len())).unwrap_or_default();
        let last = tail.get(tail.len().saturating_sub(raw)..).unwrap_or_default();
        let left_out = total.saturating_sub((first.len() + last.len()) as u64);
        let bytes = [first, marker(left_out).as_bytes(), last].concat();
        Self { text: STANDARD.encode(bytes), encoding: Encoding::Base64, truncated: true }
    }
}

fn marker(left_out: u64) -> String {
    format!("\n[writ: {left_out} bytes left out here]\n")
}

/// Returns the bytes as text. If the bytes end within a character, omits this character. Returns `None` if the bytes
/// are not UTF-8.
fn valid_prefix(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok())
        }
        Err(_) => None,
    }
}

/// Returns the bytes as text. If the bytes start within a character, omits the rest of this character, at most 3 bytes.
/// Returns `None` if the bytes are not UTF-8.
fn valid_suffix(bytes: &[u8]) -> Option<&str> {
    let split = bytes.iter().take(3).take_while(|byte| (**byte & 0b1100_0000) == 0b1000_0000).count();
    bytes.get(split..).and_then(|rest| std::str::from_utf8(rest).ok())
}

/// Returns the longest start of `text` that takes at most `budget` bytes as JSON.
fn prefix_within(text: &str, budget: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, character)| {
        used += json_length_of(*character);
        used > budget
    });
    end.and_then(|(index, _)| text.get(..index)).unwrap_or(text)
}

/// Returns the longest end of `text` that takes at most `budget` bytes as JSON.
fn suffix_within(text: &str, budget: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().rev().find(|(_, character)| {
        used += json_length_of(*character);
        used > budget
    });
    end.and_then(|(index, character)| text.get(index + character.len_utf8()..)).unwrap_or(text)
}

fn json_length(text: &str) -> usize {
    text.chars().map(json_length_of).sum()
}

/// Returns the number of bytes that a character takes in a JSON string (RFC 8259, section 7). The API server uses Go's
/// encoder. This encoder also escapes `<`, `>`, `&`, U+2028 and U+2029, with six bytes each.
fn json_length_of(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\u{0}'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests;
