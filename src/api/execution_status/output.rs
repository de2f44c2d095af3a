//! Record of the output of a command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Record of both output streams.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputRecord {
    /// Standard output.
    pub stdout: StreamRecord,
    /// Standard error.
    pub stderr: StreamRecord,
    /// True if output of the command, or of processes that the command left behind, may be missing from the record.
    /// `incompleteReason` gives the cause. Size and digest cover the recorded bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// Cause of the missing output. Absent if `incomplete` is false, and in records of versions without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_reason: Option<IncompleteReason>,
    /// Processes that still held the output open when the wait (`decision.output.drainSeconds`) ended, at most 8. Only
    /// with `incompleteReason: StillOpen`, and only if the machine reported them (never in Direct mode).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub held_by: Vec<OutputHolder>,
    /// Recording of the session: its output with times. Absent if the execution was no interactive session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingRecord>,
}

/// Cause of an incomplete record of the output.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum IncompleteReason {
    /// Processes that the command left behind still held the output open when the wait after its exit
    /// (`decision.output.drainSeconds`) ended.
    StillOpen,
    /// The launcher's process that stores the output on the machine ended early. For example, the process was killed.
    ReaderEnded,
    /// The disk with the launcher's directory was full.
    DiskFull,
    /// The login's file-size limit (`ulimit -f`) cut the output off. The launcher cannot raise this limit.
    FileSizeLimit,
    /// The command wrote more than `decision.output.maximumBytes`. The record holds the bytes up to this limit.
    OverLimit,
    /// Other programs removed or cut off the output files on the machine. Or Writ had already acknowledged this output,
    /// so that the machine removed it.
    Removed,
    /// Writ could not read all of the output: the connection was lost, the end of the command is unknown, or other text
    /// was mixed into the session (for example by a background job of a start-up file).
    NotReceived,
}

/// Process that still held the output of a command open.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputHolder {
    /// Process ID on the machine, at least 1.
    #[schemars(range(min = 1))]
    pub process_id: i64,
    /// Name of the process from `/proc/PID/comm` of Linux, at most 15 characters. A process can choose its own name.
    /// Writ replaces characters other than letters, digits, `.`, `_`, `+` and `-` by `_`.
    #[schemars(length(max = 15))]
    pub name: String,
}

/// Size and digest of one stream.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRecord {
    /// Number of bytes that the command wrote and Writ recorded. The number includes bytes that `stdout` or `stderr` of
    /// the status leave out. If `redacted` is true, the number counts bytes after redaction, so size and digest do not
    /// reveal the redacted text.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// SHA-256 of the bytes that `bytes` counts, in lower case hexadecimal.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// True if the text in the status leaves out a part of the stream.
    pub truncated: bool,
    /// True if Writ applied the rule's `redact` patterns, even if none of them matched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
    /// True if the whole stream is in the output store of the `writ serve` that ran the command. `writ output NAME`
    /// prints it. Writ stores only streams that are truncated in the status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
    /// Reason why a truncated stream was not stored, as a sentence of at most 256 characters. Absent if the stream was
    /// stored, if there was nothing to store, or if `writ serve` has no output store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub not_stored: Option<String>,
    /// Encoding of the text in the status.
    pub encoding: Encoding,
}

/// Encoding of a stream in the status.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Encoding {
    /// The stream is UTF-8, and the text is the stream itself.
    #[serde(rename = "utf-8")]
    Utf8,
    /// The stream is not UTF-8, and the text is its Base64 (RFC 4648, section 4, padded). Decode the text to get the
    /// bytes.
    #[serde(rename = "base64")]
    Base64,
}

/// Size, digest and place of the recording of an interactive session. The recording is a file in the format asciicast
/// v3. The gateway returns it at `/api/v1/commands/ID/recording`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingRecord {
    /// Size of the recording in bytes, at most 16 MiB. Its output is the redacted output.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// SHA-256 of the recording, in lower case hexadecimal.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// True if the whole recording is in the output store of the `writ serve` that ran the command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
    /// Reason why the recording was not stored, as a sentence of at most 256 characters. Absent if `stored` is true, or
    /// if the status had no space for the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub not_stored: Option<String>,
    /// True if the recording ends before the session, because the recording reached its maximum size. The record of the
    /// streams (`output.stdout`, `output.stderr`) is not affected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// Number of bytes of output and recorded input that an incomplete recording leaves out. Absent if the number is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub left_out_bytes: i64,
    /// True if the recording has the bytes of the input (`decision.recordInput`), which can include passwords.
    /// Otherwise the recording has only the time and the size of each input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub records_input: bool,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
