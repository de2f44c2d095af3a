//! What a command writes: redacted, counted and digested whole, kept in bounded memory, shown in the status by head and
//! tail.
//!
//! The promises kept here: what a rule's `redact` patterns match is kept nowhere, and no digest is made of it; totals
//! and digests are of every byte that was seen but for that, whatever is left out of the text; and a command that writes
//! without end costs this process twice what the status shows of a stream, at most 32 KiB, no more. With patterns it
//! costs the line at hand too, 64 KiB of it at most, and what searching takes (see
//! [`LineRedactor`](crate::policy::LineRedactor)).

mod capture;
mod inline;
mod redact;

pub use capture::Capture;

/// How much of a stream the status can show, counted as it is encoded in JSON. Without a word in the rule it is half of
/// that: a CommandExecution should stay under about 24 KiB (10,000 of them are then a tenth of etcd's default store).
pub const MAXIMUM_INLINE_BYTES: usize = 16384;
