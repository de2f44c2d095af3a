//! Head and tail of a stream, from the text in the status. Pure.

use bytes::Bytes;

use super::source_read::SourceRead;

/// Begin of the line between head and tail. The output can contain such a line, too.
const MARKER_BEGIN: &[u8] = b"\n[writ: ";
/// End of this line.
const MARKER_END: &[u8] = b" bytes left out here]\n";
/// Maximum number of digits of a number of bytes.
const MAX_DIGITS: usize = 20;

/// Head and tail of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShownEnds {
    head: Bytes,
    tail: Bytes,
    total: u64,
}

impl ShownEnds {
    /// Finds head and tail in the text of a stream with `total` bytes. If the text has no line, or several lines, whose
    /// number fits, the whole stream counts as missing.
    pub fn of(text: &[u8], total: u64) -> Self {
        let mut fitting = splits(text)
            .filter(|(head, left_out, tail)| left_out.checked_add((head.len() + tail.len()) as u64) == Some(total));
        match (fitting.next(), fitting.next()) {
            (Some((head, _, tail)), None) => {
                Self { head: Bytes::copy_from_slice(head), tail: Bytes::copy_from_slice(tail), total }
            }
            _ => Self { head: Bytes::new(), tail: Bytes::new(), total },
        }
    }

    /// Returns the length of the stream.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Reads at most `max_bytes` from an offset on. `reason` is the cause of the gap between head and tail.
    pub fn read(&self, offset: u64, max_bytes: usize, reason: &'static str) -> SourceRead {
        let tail_start = self.total - self.tail.len() as u64;
        let (part, start) = match offset {
            _ if offset >= self.total => return SourceRead::Nothing { is_complete: true },
            _ if offset < self.head.len() as u64 => (&self.head, offset),
            _ if offset < tail_start => return SourceRead::Gap { to: tail_start, reason },
            _ => (&self.tail, offset - tail_start),
        };
        // The offset is within the part, so it fits.
        let start = usize::try_from(start).unwrap_or(part.len());
        SourceRead::Bytes(part.slice(start..part.len().min(start.saturating_add(max_bytes))))
    }
}

/// Returns each way to split a text at a line between head and tail: head, number in the line, tail.
fn splits(text: &[u8]) -> impl Iterator<Item = (&[u8], u64, &[u8])> {
    let starts = text.windows(MARKER_BEGIN.len()).enumerate().filter(|(_, window)| *window == MARKER_BEGIN);
    starts.filter_map(|(start, _)| {
        let (head, rest) = text.split_at_checked(start)?;
        let rest = rest.strip_prefix(MARKER_BEGIN)?;
        let digits = rest.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        let left_out = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((head, left_out, rest.strip_prefix(MARKER_END)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> SourceRead {
        SourceRead::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn head_and_tail_are_read_at_their_offsets() {
        let ends = ShownEnds::of(b"head\n[writ: 90 bytes left out here]\ntail!", 99);
        assert_eq!(ends.read(0, 100, "x"), bytes("head"));
        assert_eq!(ends.read(2, 1, "x"), bytes("a"));
        assert_eq!(ends.read(4, 100, "x"), SourceRead::Gap { to: 94, reason: "x" });
        assert_eq!(ends.read(93, 100, "x"), SourceRead::Gap { to: 94, reason: "x" });
        assert_eq!(ends.read(94, 100, "x"), bytes("tail!"));
        assert_eq!(ends.read(98, 100, "x"), bytes("!"));
        for offset in [99, 100, u64::MAX] {
            assert_eq!(ends.read(offset, 1, "x"), SourceRead::Nothing { is_complete: true });
        }
    }

    #[test]
    fn a_line_of_the_output_that_looks_the_same_moves_no_bytes() {
        let text = b"a\n[writ: 5 bytes left out here]\nb\n[writ: 10 bytes left out here]\nc";
        // Only one of the two numbers fits to the length.
        let real = text.len() as u64 - 32 + 10;
        assert_eq!(ShownEnds::of(text, real).tail.as_ref(), b"c");
        let hostile = b"a\n[writ: 42 bytes left out here]\nb\n[writ: 10 bytes left out here]\nc";
        for total in [0, 12, 1000] {
            let ends = ShownEnds::of(hostile, total);
            assert!(ends.head.is_empty() && ends.tail.is_empty(), "{total}");
        }
        // Both numbers fit, so neither of them counts.
        let twice = b"\n[writ: 7 bytes left out here]\n\n[writ: 7 bytes left out here]\n";
        assert_eq!(ShownEnds::of(twice, 38).read(0, 9, "x"), SourceRead::Gap { to: 38, reason: "x" });
    }

    #[test]
    fn a_text_without_the_line_is_one_gap() {
        for text in [&b""[..], b"head", b"\n[writ: ", b"\n[writ: x bytes left out here]\n", b"\n[writ: 5 bytes"] {
            assert_eq!(ShownEnds::of(text, 5).read(0, 9, "x"), SourceRead::Gap { to: 5, reason: "x" });
        }
        let overflow = b"a\n[writ: 18446744073709551615 bytes left out here]\nb";
        assert_eq!(ShownEnds::of(overflow, 1).read(0, 9, "x"), SourceRead::Gap { to: 1, reason: "x" });
    }
}
