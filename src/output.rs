//! Output of a command. Writ redacts and counts the output, computes its digest, and shows its head and tail in the
//! status. Viewers can read the output live. If the status cannot show the whole output, the store keeps the whole
//! output.
//!
//! ```text
//! bytes of the machine -> Recorder: redact -+-> Capture: count, digest, head and tail -> status
//!                                           +-> LiveOutput: memory, spill file -+-> viewers
//!                                                                               +-> Upload (if the status cannot
//!                                                                                   show all) -> Store
//! ```
//!
//! # Guarantees
//!
//! 1. Writ does not keep text that a rule's `redact` patterns match. None of Writ's files and digests contains this
//!    text.
//! 2. Totals and digests cover every byte that Writ received, except the text that the patterns match.
//! 3. A viewer, disk or store delays a command only briefly, and never loses the command's result.
//! 4. Memory is bounded, whatever a command writes:
//!    - For the status: for each stream, twice the size that the status shows. Both streams together need at most 64
//!      KiB.
//!    - With patterns: for each stream, the unfinished line of at most 64 KiB, and the memory of the search (see
//!      [`LineRedactor`](crate::policy::LineRedactor)).
//!    - For the [`Store`]: at most 18 MiB, and only for output that the status cannot show whole.
//!    - For viewers: 64 MiB for all commands together (see [`LiveOutput`]).

mod budget;
mod capture;
mod inline;
mod live;
mod recorder;
mod redact;
mod store;
mod upload;

pub use budget::ByteBudget;
pub use live::{
    EndedStatus, GapReason, LiveClaim, LiveEvent, LiveOptions, LiveOutput, LiveRead, LiveUsage, Progress,
    StreamOffsets, SubscribeError, Viewer,
};
pub use recorder::{CapturedOutput, Recorder};
pub use store::{Store, StoreError, state_directory};

/// Maximum size of a stream's text in the status, in bytes as encoded in JSON. The default of a rule is half of this
/// size, so that a CommandExecution stays under about 24 KiB. 10,000 such CommandExecutions use a tenth of etcd's
/// default store.
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
    /// Both streams, in their usual order.
    pub const ALL: [StreamKind; 2] = [StreamKind::Stdout, StreamKind::Stderr];

    /// Returns the name of the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamKind::Stdout => "stdout",
            StreamKind::Stderr => "stderr",
        }
    }
}

/// A value for each stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct PerStream<T> {
    stdout: T,
    stderr: T,
}

impl<T> PerStream<T> {
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

/// Key of an output: namespace and UID of the execution that wrote the output. No other execution ever has this key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct OutputKey {
    /// Namespace of the execution.
    pub namespace: String,
    /// UID of the execution.
    pub uid: String,
}
