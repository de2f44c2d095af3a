//! Live output: shows viewers the events of the executions that this process runs, and every byte of their output.
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
//!    is sent after the API server stored the result. A `Gap` replaces bytes that are no longer available.
//! 2. Offsets count bytes of the redacted stream. Size and digest in the record also describe the redacted stream.
//! 3. A viewer that stops reading delays no command and no other viewer, because no viewer has its own buffer.
//!    After the end of an execution, its files stay for its viewers for up to 60 s.
//! 4. Files contain redacted bytes only. They have mode 0600, and [`LiveOptions::spill_bytes`] limits their total size.
//!    At the limit, Writ deletes the oldest bytes of the namespace that uses the most bytes. One namespace uses at most
//!    half of the limit.
//! 5. A full or slow disk delays a command by at most 1 s in its whole life. After that, the command's output stays in
//!    memory, as far as the memory limit permits.
//!
//! # Caveats
//!
//! With a rule's `redact` patterns, viewers receive each line only after its end, because a pattern can match text that
//! the machine has not sent completely. Writ holds back at most 64 KiB of a line.

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
use super::progress::Progress;

pub use claim::LiveClaim;
pub use live_output::{LiveOutput, LiveRead, LiveUsage};
pub(super) use publisher::{Publisher, Room};
pub(super) use reader::{Piece, StreamReader};
pub use registry::SubscribeError;
pub(super) use stream::CHUNK_BYTES;
pub use viewer::Viewer;

/// Directory and maximum size of the spill files, which hold large outputs while the commands run.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Directory of the spill files, for one process only. When the process starts, it deletes the files of an earlier
    /// process.
    pub directory: PathBuf,
    /// Maximum size of all files together, in bytes.
    pub spill_bytes: u64,
}

/// An event in the life of one execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveEvent {
    /// This process has stored a claim. From now on viewers can find the execution by its UID.
    Claimed {
        /// UID of the execution.
        uid: String,
        /// True if the claim was adopted from another process, or from an earlier task of this process. Both streams
        /// then start again at offset 0, with the same bytes.
        is_adopted: bool,
    },
    /// The machine confirmed that the command started. With `runAs`, sudo can still refuse the command. The execution
    /// then ends as LaunchFailed.
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
        /// Number of missing bytes.
        length: u64,
        /// Cause.
        reason: GapReason,
    },
    /// Progress of the command, from its output. Only the newest report of both streams is sent, before the output that
    /// has it. A newer report replaces a report that the viewer has not read yet.
    Progress(Progress),
    /// Writ sent the command again in another session, because the first session did not start the command. Both
    /// streams start again at offset 0, and the progress is unknown again.
    Restarted,
    /// The API server stored the result. Nothing follows.
    Ended(EndedStatus),
    /// The last event of this process, because the process is stopping or another process holds the claim. The status
    /// in the API server shows the progress.
    Released,
    /// No execution of this name was claimed within 15 minutes. Nothing follows.
    Expired,
}

/// Cause of a gap.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum GapReason {
    /// The process keeps no files, and the bytes were no longer in memory.
    #[default]
    Memory,
    /// The files of all commands together, or the files of one namespace, reached their limit.
    SpillBudget,
    /// The disk refused a write or a read.
    DiskFailed,
    /// The disk was slower than the command.
    DiskSlow,
    /// The execution has ended, and this process deleted its bytes. The status and the output store have the output.
    Removed,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [GapReason; 5] =
        [GapReason::Memory, GapReason::SpillBudget, GapReason::DiskFailed, GapReason::DiskSlow, GapReason::Removed];

    /// Returns the name of the reason for metrics and messages.
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

/// Locks a mutex, even if a thread panicked while it held the lock. Each change is made in one step, so the value is
/// still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
