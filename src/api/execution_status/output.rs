//! Record of the output of a command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Size and digest of both streams.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputRecord {
    /// Standard output.
    pub stdout: StreamRecord,
    /// Standard error.
    pub stderr: StreamRecord,
    /// True if the record may lack output of the command or of processes that it left behind. `incompleteReason` gives
    /// the cause. Size and digest cover the recorded bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// Cause of `incomplete`. Absent if `incomplete` is false, and in records of versions without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_reason: Option<IncompleteReason>,
    /// Processes that still held the output open when the wait (`decision.output.drainSeconds`) was over, at most 8.
    /// Only with `incompleteReason: StillOpen`, and only if the machine reported them (never in Direct mode).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub held_by: Vec<OutputHolder>,
}

/// Cause of an incomplete record of the output.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum IncompleteReason {
    /// Processes that the command left behind still held the output open when the wait after its exit
    /// (`decision.output.drainSeconds`) was over.
    StillOpen,
    /// The launcher's process that stores the output on the machine ended early, for example because it was killed.
    ReaderEnded,
    /// The disk with the launcher's directory was full.
    DiskFull,
    /// A file-size limit of the login (`ulimit -f`), which the launcher cannot raise, cut the output off.
    FileSizeLimit,
    /// The command wrote more than `decision.output.maximumBytes`. The record holds the bytes up to this limit.
    OverLimit,
    /// Other programs removed the output files on the machine or cut them off, or a result with this output had been
    /// acknowledged before.
    Removed,
    /// Writ could not read all of the output. Either the connection was lost, or the end of the command is unknown, or
    /// other text was mixed into the session (for example by a background job of a start-up file).
    NotReceived,
}

/// Process that held the output of a command open.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputHolder {
    /// Process ID on the machine, at least 1.
    #[schemars(range(min = 1))]
    pub process_id: i64,
    /// Name of the process as Linux reports it in `/proc/PID/comm`, at most 15 characters. A process can choose its own
    /// name. Characters other than letters, digits, `.`, `_`, `+` and `-` are replaced by `_`.
    #[schemars(length(max = 15))]
    pub name: String,
}

/// Size and digest of one stream.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRecord {
    /// Bytes that the command wrote and Writ recorded, before `stdout` or `stderr` of the status leave any out. If
    /// `redacted` is true, bytes after redaction: neither size nor digest reveal the redacted text.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// SHA-256 of those bytes, in lower case hexadecimal.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// True if the text in the status leaves bytes out.
    pub truncated: bool,
    /// True if Writ applied the rule's `redact` patterns, even if none of them matched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
    /// True if the output store of the `writ serve` that ran the command has the whole stream. `writ output NAME`
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
    /// The bytes themselves: the stream is UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// Base64 (RFC 4648, section 4, padded), because the stream is not UTF-8. Decode it to get the bytes.
    #[serde(rename = "base64")]
    Base64,
}
