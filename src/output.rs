//! Records the output of each command for the status, for live viewers and for the output store.
//!
//! ```text
//! bytes of the machine -> Recorder: redact -+-> Capture: count, digest, head and tail -> status
//!                                           +-> ProgressParser: percent, step ---> viewers
//!                                           +-> LiveOutput: memory, spill file -+-> viewers
//!                                                                               +-> Upload (if the status cannot
//!                                                                                   show all) -> Store
//!                                           +-> SessionRecorder (only of a session) -> RecordingUpload -> Store
//! ```
//!
//! # Guarantees
//!
//! 1. Writ redacts the output before any other use. No file and no digest contains text that a rule's `redact` patterns
//!    match.
//! 2. Sizes and digests cover the whole redacted stream, even if the status shows only a part of the stream.
//! 3. A slow or failing viewer, disk or store delays a command only briefly. The result of the command is never lost.
//! 4. The memory for output is bounded:
//!    - Status: at most 64 KiB for both streams together. This is twice the maximum that the status shows.
//!    - Redaction: for each stream, the unfinished line (at most 64 KiB) and the memory of
//!      [`LineRedactor`](crate::policy::LineRedactor).
//!    - [`Store`]: at most 18 MiB, and only for output that the status cannot show whole.
//!    - Recording of a session: about 1 MiB, or about 6 MiB if the store is a bucket.
//!    - Viewers: 64 MiB for all commands together (see [`LiveOutput`]).

mod budget;
mod capture;
mod inline;
mod input_redactor;
mod live;
mod object_upload;
mod progress;
mod recorder;
mod recording;
mod recording_upload;
mod redact;
mod session_recorder;
mod store;
mod upload;

pub use budget::ByteBudget;
pub use live::{
    EndedStatus, GapReason, LiveClaim, LiveEvent, LiveOptions, LiveOutput, LiveRead, LiveUsage, StreamOffsets,
    SubscribeError, Viewer,
};
pub use progress::Progress;
pub use recorder::{CapturedOutput, Recorder};
pub use recording::SessionHeader;
pub use store::{Store, StoreError, state_directory};

/// Maximum size of a stream's text in the status, in bytes of JSON. The default of a rule is half of this maximum. With
/// this default, a CommandExecution takes about 24 KiB. Then 10,000 CommandExecutions take about a tenth of etcd's
/// default limit of 2 GiB.
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
