//! What a command writes: counted and digested whole, kept in bounded memory, shown in the status by head and tail.
//!
//! The promise kept here: totals and digests are of every byte that was seen, whatever is left out of the text; and a
//! command that writes without end costs this process 16 KiB a stream, no more.

mod capture;
mod inline;

pub use capture::Capture;
pub use inline::Inline;

/// How much of a stream the status shows, counted as it is encoded in JSON: a CommandExecution should stay under
/// about 24 KiB (10,000 of them are then a tenth of etcd's default store).
pub const INLINE_BYTES: usize = 8192;
