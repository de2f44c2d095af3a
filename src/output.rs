//! What a command writes: redacted, counted and digested whole, kept in bounded memory, shown in the status by head and
//! tail, shown live, and stored whole where the status cannot show all of it.
//!
//! The promises kept here: what a rule's `redact` patterns match is kept nowhere, and no digest is made of it; totals
//! and digests are of every byte that was seen but for that, whatever is left out of the text; no store and no viewer
//! holds up a command for long, and none can take its result away; and memory stays bounded, whatever a command writes:
//!
//! - for the status twice what it shows of each stream, at most 64 KiB together;
//! - with patterns the line at hand, 64 KiB of each stream at most, and what searching takes (see
//!   [`LineRedactor`](crate::policy::LineRedactor));
//! - for the [`Store`] at most 16 MiB, and only for what has written more than the status shows;
//! - for viewers 256 KiB, and 64 MiB for all commands together (see [`Hub`]).
//!
//! ```text
//! bytes of the machine -> Recorder: redact -+-> Capture: count, digest, head and tail -> status
//!                                           +-> Hub: the last of it, for viewers
//!                                           +-> Upload (from the first byte that the status cannot show) -> Store
//! ```

mod budget;
mod capture;
mod hub;
mod inline;
mod recorder;
mod redact;
mod store;
mod upload;

pub use budget::ByteBudget;
pub use hub::{Chunk, Hub, Offsets, Seen, Viewer};
pub use recorder::{Recorded, Recorder};
pub use store::{Store, StoreError, state_folder};

/// How much of a stream the status can show, counted as it is encoded in JSON. Without a word in the rule it is half of
/// that: a CommandExecution should stay under about 24 KiB (10,000 of them are then a tenth of etcd's default store).
pub const MAXIMUM_INLINE_BYTES: usize = 16384;

/// One of the two streams of a command.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum StreamKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamKind {
    /// Both, in the order in which they are always named.
    pub const BOTH: [StreamKind; 2] = [StreamKind::Stdout, StreamKind::Stderr];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamKind::Stdout => "stdout",
            StreamKind::Stderr => "stderr",
        }
    }
}

/// Something of each stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Both<T> {
    stdout: T,
    stderr: T,
}

impl<T> Both<T> {
    fn of(&self, kind: StreamKind) -> &T {
        match kind {
            StreamKind::Stdout => &self.stdout,
            StreamKind::Stderr => &self.stderr,
        }
    }

    fn of_mut(&mut self, kind: StreamKind) -> &mut T {
        match kind {
            StreamKind::Stdout => &mut self.stdout,
            StreamKind::Stderr => &mut self.stderr,
        }
    }
}

/// Whose output it is: one execution, for good.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// Namespace of the execution.
    pub namespace: String,
    /// UID of the execution.
    pub uid: String,
}
