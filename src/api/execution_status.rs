//! The status of a CommandExecution: the record. Only Writ writes it. It is final once the phase is a finished one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FirstExecution;

mod claim;
mod creation;
mod decision;
mod output;
mod phase;
mod reason;

pub use claim::{Claim, MAX_DIRECTORY_LENGTH, MAX_ID_LENGTH, MachineRecord, RemoteRecord};
pub use creation::CreationRecord;
pub use decision::{DecisionRecord, ObjectRecord, OutputBounds};
pub use output::{Encoding, IncompleteReason, OutputHolder, OutputRecord, StreamRecord};
pub use phase::Phase;
pub use reason::Reason;

/// Progress of the execution, and finally its result. Only Writ writes it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandExecutionStatus {
    /// The `metadata.generation` for which this status was written; -1 until Writ has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Stage of the execution. Finished phases (Succeeded, Failed, TimedOut, Cancelled, Rejected, Expired,
    /// LaunchFailed, OutcomeUnknown) are final.
    #[serde(default)]
    pub phase: Phase,

    /// Cause of the phase, as one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,

    /// Cause of the phase, as a sentence for people. At most 2048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,

    /// Facts from the metadata of the execution, as they were when Writ first wrote this status. They do not change.
    /// Writ uses them instead of the metadata, which others may change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<CreationRecord>,

    /// The rule that allowed the execution, and the exact command. Before the claim this is the last decision, and Writ
    /// decides again before it sends anything. From the claim on it does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,

    /// The Machine as it was at the claim. Absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRecord>,

    /// The process that is responsible for starting the command. Once it is set, no other attempt starts the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,

    /// Place of the command's journal on the machine. With it Writ finds the command again after the connection or the
    /// `writ serve` process was lost. Set with the claim, does not change, absent in Direct mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteRecord>,

    /// The command as text for people: the words of `decision.argv`, quoted if they have blanks or special characters,
    /// cut after 256 characters. Writ does not execute this text. Absent until a rule allows the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_COMMAND_LINE))]
    pub command_line: Option<String>,

    /// Time at which the execution became Queued, by Writ's clock. Absent if it never had to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_time: Option<MicroTime>,

    /// Time at which the machine confirmed the start, by Writ's clock. Absent if Writ observed no start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// Time at which Writ noticed that the claimed execution was cancelled or deleted, by Writ's clock. From then on
    /// the execution finishes within `writ serve --stop-seconds`, whatever its machine does. Only in Durable mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested_time: Option<MicroTime>,

    /// Time at which the execution finished, by Writ's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,

    /// Exit code that the machine reported, 0 to 4294967295 (0 to 255 on POSIX systems). Absent if the machine reported
    /// none: Writ never invents one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,

    /// Signal that ended the command, without `SIG` (for example `TERM`). Absent if the machine reported none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub signal: Option<String>,

    /// Duration of the command from its start to its end, in milliseconds. In Durable mode it is measured by the
    /// machine's uptime, which Linux counts in steps of 10 ms: 0 means less than 10 ms, and the last digit is always 0.
    /// In Direct mode it is measured from the confirmed start to the observed end, by Writ's monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub duration_ms: Option<i64>,

    /// Standard output of the command. If `output.stdout.truncated` is true, only its head and tail, with a line
    /// between them that says how many bytes are left out. At most 8192 bytes as JSON, or the rule's
    /// `output.inlineBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stdout: Option<String>,

    /// Standard error of the command, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stderr: Option<String>,

    /// Size and digest of the whole output. Absent if Writ observed neither a start nor an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,

    /// Space in the object that is reserved for the result, from the claim to the end. The text is padding without a
    /// meaning. Because of it, labels and annotations of others cannot fill the object, and the result always fits. At
    /// most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub reserved: Option<String>,

    /// The earlier execution of the same name and spec because of which this one did not run. Only with reason
    /// AlreadyExecuted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_execution: Option<FirstExecution>,

    /// Conditions: Accepted (a rule allows the execution), Finished (the execution is in a finished phase, which is the
    /// reason of the condition), Ready (it succeeded), Reconciling (it has not finished), Stalled (it finished and did
    /// not succeed). `kubectl wait --for=condition=Finished` returns at every end, `--for=condition=Ready` only on
    /// success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Maximum length of `status.commandLine`, in characters.
pub const MAX_COMMAND_LINE: usize = 256;
