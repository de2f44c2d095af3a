//! The header `Range` of a request (RFC 9110, section 14). Pure.

use std::ops::Range;

/// Part of a stream that a request is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// The whole stream: there is no usable `Range`.
    Whole,
    /// One part.
    Part(Range<u64>),
    /// No byte of the stream is in the range.
    Nothing,
}

/// Returns the part of a stream of `length` bytes that a `Range` header selects. The standard lets a server ignore
/// headers with several ranges, with another unit, or without a meaning.
pub fn select(header: Option<&str>, length: u64) -> Selection {
    let Some((unit, range)) = header.and_then(|header| header.split_once('=')) else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Selection::Whole };
    let range = match (position(first), position(last)) {
        (Position::None, Position::At(count)) => length.saturating_sub(count)..length,
        (Position::At(first), Position::None) => first..length,
        (Position::At(first), Position::At(last)) if first <= last => first..last.saturating_add(1).min(length),
        _ => return Selection::Whole,
    };
    if range.start < range.end { Selection::Part(range) } else { Selection::Nothing }
}

enum Position {
    None,
    At(u64),
    Invalid,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        return Position::None;
    }
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is beyond the end of each stream.
        true => Position::At(text.parse().unwrap_or(u64::MAX)),
        false => Position::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_selects_a_part() {
        for (header, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..10),
            ("bytes=3-5", 3..6),
            ("bytes=3-99", 3..10),
            ("Bytes= 9- ", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes=5-18446744073709551615", 5..10),
            ("bytes=5-99999999999999999999999", 5..10),
        ] {
            assert_eq!(select(Some(header), 10), Selection::Part(expected), "{header}");
        }
    }

    #[test]
    fn a_range_without_a_byte_of_the_stream_selects_nothing() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(select(Some(header), 10), Selection::Nothing, "{header}");
        }
        assert_eq!(select(Some("bytes=0-"), 0), Selection::Nothing);
        assert_eq!(select(Some("bytes=-5"), 0), Selection::Nothing);
    }

    #[test]
    fn a_range_that_this_server_does_not_know_is_ignored() {
        assert_eq!(select(None, 10), Selection::Whole);
        for header in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "bytes=a-b", "bytes=+1-2", "bytes=1--2"]
        {
            assert_eq!(select(Some(header), 10), Selection::Whole, "{header}");
        }
        assert_eq!(select(Some("lines=0-1"), 10), Selection::Whole);
        assert_eq!(select(Some("bytes=0 - 1"), 10), Selection::Whole);
    }
}
