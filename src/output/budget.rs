//! Limit on the recorded part of a command's output.

/// Number of bytes of a command's output that Writ still records, for both streams together.
///
/// Writ records the first bytes of the output, up to the limit. If a piece of output crosses the limit, Writ records
/// only the first part of this piece.
#[derive(Clone, Copy, Debug)]
pub struct ByteBudget {
    remaining: u64,
    is_exceeded: bool,
}

impl ByteBudget {
    /// Creates a budget of `maximum` bytes.
    pub fn new(maximum: u64) -> Self {
        Self { remaining: maximum, is_exceeded: false }
    }

    /// Counts the next bytes of a stream. Returns the bytes that are within the budget: all, a first part or none.
    /// After a call has cut off bytes, every later call returns no bytes.
    pub fn take<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        let length = bytes.len() as u64;
        self.is_exceeded |= length > self.remaining;
        // The conversion cannot fail, because the number is at most the length of a slice.
        let taken = usize::try_from(length.min(self.remaining)).unwrap_or(bytes.len());
        self.remaining = self.remaining.saturating_sub(length);
        bytes.get(..taken).unwrap_or(bytes)
    }

    /// Returns true if bytes were cut off. Output that exactly fills the budget does not exceed the budget.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_up_to_the_limit_are_taken_and_do_not_exceed_it() {
        let mut budget = ByteBudget::new(5);
        assert_eq!(budget.take(b"abc"), b"abc");
        assert_eq!(budget.take(b""), b"");
        assert_eq!(budget.take(b"de"), b"de");
        assert!(!budget.is_exceeded());
        assert_eq!(budget.take(b""), b"");
        assert!(!budget.is_exceeded(), "nothing was cut off");
        assert_eq!(budget.take(b"f"), b"");
        assert!(budget.is_exceeded());
    }

    #[test]
    fn the_piece_that_crosses_the_limit_is_cut_there_and_nothing_follows() {
        let mut budget = ByteBudget::new(5);
        assert_eq!(budget.take(b"abc"), b"abc");
        assert_eq!(budget.take(b"defgh"), b"de");
        assert!(budget.is_exceeded());
        assert_eq!(budget.take(b"i"), b"");
        assert!(budget.is_exceeded());
    }

    #[test]
    fn the_same_bytes_are_taken_however_they_come() {
        let output: Vec<u8> = (0..=255).collect();
        for maximum in [0, 1, 100, 255, 256, 257, u64::MAX] {
            let whole = ByteBudget::new(maximum).take(&output).to_vec();
            for size in [1, 3, 64, 255] {
                let mut budget = ByteBudget::new(maximum);
                let pieces: Vec<u8> = output.chunks(size).flat_map(|piece| budget.take(piece).to_vec()).collect();
                assert_eq!(pieces, whole, "{maximum} {size}");
                assert_eq!(budget.is_exceeded(), maximum < 256, "{maximum} {size}");
            }
        }
    }

    #[test]
    fn a_budget_of_nothing_takes_nothing() {
        let mut budget = ByteBudget::new(0);
        assert_eq!(budget.take(b""), b"");
        assert!(!budget.is_exceeded());
        assert_eq!(budget.take(b"a"), b"");
        assert!(budget.is_exceeded());
    }
}
