//! Result of a read of a stream.

use bytes::Bytes;

/// Result of a read at an offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceRead {
    /// Bytes from the offset on.
    Bytes(Bytes),
    /// The bytes from the offset up to `to` are not available.
    Gap {
        /// Offset of the next available byte, or the end of the stream.
        to: u64,
        /// Cause, as one word.
        reason: &'static str,
    },
    /// The stream has no byte at the offset.
    Nothing {
        /// True if the stream never has one.
        is_complete: bool,
    },
}
