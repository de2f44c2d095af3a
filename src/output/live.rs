//! Live output: the life of the executions that this process runs, and every byte that they write, for viewers.
//!
//! ```text
//! runner: claim stored ---> LiveClaim ------------------- result stored: ended(status) ---> Ended
//!                              |                          dropped before: Released
//!                              v
//! Recorder --redacted bytes--> Publisher --> memory, by stream and offset --> spill thread --> one file per stream
//!                                               ^                                                ^
//! viewers (by name before the execution exists, by UID afterwards), the upload ------ read ------+
//! ```
//!
//! # Guarantees
//!
//! 1. A viewer receives `Claimed`, `Started`, every byte of both streams by offset, and `Ended`, in this order. `Ended`
//!    is sent after the API server stored the result. Bytes that are gone are announced by a `Gap`.
//! 2. Offsets count bytes of the redacted stream, as size and digest in the record do.
//! 3. A viewer has no buffer here, only offsets. A viewer that stops reading delays no command and no other viewer. Up
//!    to 60 s after the end, the execution keeps its files for its viewers.
//! 4. Files contain redacted bytes only. They have mode 0600, and [`LiveOptions::spill_bytes`] limits their total size.
//!    Beyond it, Writ deletes the oldest bytes of the namespace that uses most. One namespace uses at most half.
//! 5. A full or slow disk delays a command by at most 1 s in its whole life. After that, its output stays in memory as
//!    far as the memory limit permits.
//!
//! # Caveats
//!
//! A rule with `redact` releases whole lines only. An unfinished line is held back until its end, at most 64 KiB: a
//! pattern may match text that begins before the held bytes and ends in bytes that the machine has not sent yet.

mod budget;
mod claim;
mod entry;
mod live_output;
mod publisher;
mod reader;
mod registry;
mod spill_file;
mod spill_queue;
mod spill_thread;
mod stream;
mod viewer;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::api::{CommandExecutionStatus, Phase, Reason};

use super::StreamKind;

pub use claim::LiveClaim;
pub use live_output::{LiveOutput, LiveRead, LiveUsage};
pub(super) use publisher::{Publisher, Room};
pub(super) use reader::{Piece, StreamReader};
pub use registry::SubscribeError;
pub(super) use stream::append_within;
pub use viewer::Viewer;

/// Directory and limit of the spill files, which hold large outputs while their commands run.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Directory of the spill files. It belongs to one process: files of an earlier process are deleted at start.
    pub directory: PathBuf,
    /// Maximum size of all files together, in bytes.
    pub spill_bytes: u64,
}

/// An event in the life of one execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveEvent {
    /// This process has stored a claim. From now on the execution is known by its UID.
    Claimed {
        /// UID of the execution.
        uid: String,
        /// True if another process, or an earlier task of this one, held the claim before. The streams begin again at
        /// offset 0, with the same bytes.
        is_adopted: bool,
    },
    /// The machine confirmed that the command started. With `runAs`, sudo may still refuse it: then the end is
    /// LaunchFailed.
    Started,
    /// The next bytes of a stream.
    Output {
        /// The stream.
        stream: StreamKind,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes, at most 64 KiB.
        bytes: Bytes,
    },
    /// Bytes of a stream that this process no longer has, or never kept.
    Gap {
        /// The stream.
        stream: StreamKind,
        /// Offset of the first missing byte.
        offset: u64,
        /// Count of missing bytes.
        length: u64,
        /// Cause.
        reason: GapReason,
    },
    /// Progress of the command. A newer report replaces one that the viewer has not read yet.
    Progress(Progress),
    /// Writ sent the command again, in another session, because the first one did not start it. Both streams begin
    /// again at offset 0.
    Restarted,
    /// The API server stored the result. Nothing follows.
    Ended(EndedStatus),
    /// This process no longer follows the execution: it is stopping, or another process holds the claim. Nothing
    /// follows here. The status in the API server is the authority.
    Released,
    /// No execution of this name was claimed in time. Nothing follows.
    Expired,
}

/// Cause of a gap.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum GapReason {
    /// The process keeps no files, and the bytes were no longer in memory.
    #[default]
    Memory,
    /// The files of all commands together reached their limit.
    SpillBudget,
    /// The disk refused a write or a read.
    DiskFailed,
    /// The disk was slower than the command.
    DiskSlow,
    /// The execution has ended, and its bytes were deleted. Its record and the output store have the output.
    Removed,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [GapReason; 5] =
        [GapReason::Memory, GapReason::SpillBudget, GapReason::DiskFailed, GapReason::DiskSlow, GapReason::Removed];

    /// Returns the word for metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Memory => "memory",
            GapReason::SpillBudget => "spill_budget",
            GapReason::DiskFailed => "disk_failed",
            GapReason::DiskSlow => "disk_slow",
            GapReason::Removed => "removed",
        }
    }
}

/// Progress of a command.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Completed part, 0 to 100; `None` if it is unknown.
    pub percent: Option<u8>,
    /// Current step of the command.
    pub label: String,
}

/// The end of an execution, as stored in its status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndedStatus {
    /// Final phase.
    pub phase: Phase,
    /// Reason of the phase.
    pub reason: Option<Reason>,
    /// Exit code, if the command exited.
    pub exit_code: Option<i64>,
    /// Duration of the command in milliseconds, if it is known.
    pub duration_ms: Option<i64>,
}

impl From<&CommandExecutionStatus> for EndedStatus {
    fn from(status: &CommandExecutionStatus) -> Self {
        let CommandExecutionStatus { phase, reason, exit_code, duration_ms, .. } = status;
        Self { phase: *phase, reason: *reason, exit_code: *exit_code, duration_ms: *duration_ms }
    }
}

/// Offsets of both streams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreamOffsets {
    /// Offset in standard output.
    pub stdout: u64,
    /// Offset in standard error.
    pub stderr: u64,
}

/// Locks a mutex. A panic of another holder leaves its value whole, because each change is made at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
