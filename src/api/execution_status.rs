//! The status of a CommandExecution: the record of its progress and result. Only Writ writes it. Once the phase is a
//! finished phase, the status does not change.

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
pub use output::{Encoding, IncompleteReason, OutputHolder, OutputRecord, RecordingRecord, StreamRecord};
pub use phase::Phase;
pub use reason::Reason;

/// Progress of the execution and, after its end, the result. Only Writ writes the status.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandExecutionStatus {
    /// The `metadata.generation` for which Writ wrote this status; -1 until Writ has read the object.
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

    /// Facts from the metadata of the execution, from the time when Writ first wrote this status. These facts do not
    /// change. Writ uses them instead of the metadata, because others may change the metadata later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<CreationRecord>,

    /// The rule that allowed the execution, and the exact command. Before the claim this is the last decision, and Writ
    /// decides again before it sends anything. After the claim the decision does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,

    /// The Machine, as it was at the claim. Absent before the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRecord>,

    /// The process that is responsible for starting the command. After this field is set, no other attempt starts the
    /// command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,

    /// Place of the command's journal on the machine. If the connection or the `writ serve` process is lost, Writ uses
    /// this place to find the command again. Set at the claim, and does not change. Absent in Direct mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteRecord>,

    /// The command as text for people: the words of `decision.argv`, cut after 256 characters. Words with spaces or
    /// special characters are quoted. Writ does not execute this text. Absent until a rule allows the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_COMMAND_LINE))]
    pub command_line: Option<String>,

    /// Time at which the execution became Queued, by Writ's clock. Absent if the execution was never Queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_time: Option<MicroTime>,

    /// Time at which the machine confirmed the start of the command, by Writ's clock. Absent if Writ observed no start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// Time at which Writ noticed that the claimed execution was cancelled or deleted, by Writ's clock. From this time
    /// on, the execution finishes within `writ serve --stop-seconds`, whatever its machine does. Only in Durable mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested_time: Option<MicroTime>,

    /// Time at which the execution finished, by Writ's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,

    /// Exit code that the machine reported, 0 to 4294967295 (0 to 255 on POSIX systems). Absent if the machine reported
    /// no exit code. Writ never invents an exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,

    /// Signal that ended the command, without `SIG` (for example `TERM`). Absent if the machine reported no signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub signal: Option<String>,

    /// Duration of the command from its start to its end, in milliseconds.
    ///
    /// - In Durable mode, the machine measures the duration by its uptime, in steps of 10 ms. 0 means less than 10 ms.
    /// - In Direct mode, Writ measures the duration by its monotonic clock, from the confirmed start to the observed
    ///   end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub duration_ms: Option<i64>,

    /// Standard output of the command, at most 8192 bytes as JSON, or the rule's `output.inlineBytes`. If
    /// `output.stdout.truncated` is true, the text has only the head and the tail of the output. A line between head
    /// and tail reports the number of omitted bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stdout: Option<String>,

    /// Standard error of the command, in the same form and with the same limit as `stdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stderr: Option<String>,

    /// Size and digest of the whole output. Absent if Writ observed neither a start nor an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,

    /// Padding without a meaning, at most 65536 bytes. The padding reserves space in the object for the result, from
    /// the claim to the end. Labels and annotations of others cannot fill this space, so the result always fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub reserved: Option<String>,

    /// Earlier execution of the same name and spec, because of which this execution did not run. Only with reason
    /// AlreadyExecuted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_execution: Option<FirstExecution>,

    /// Conditions of the execution:
    ///
    /// - Accepted: a rule allows the execution.
    /// - Finished: the execution is in a finished phase. The reason of the condition is this phase.
    /// - Ready: the execution succeeded.
    /// - Reconciling: the execution has not finished.
    /// - Stalled: the execution finished and did not succeed.
    ///
    /// `kubectl wait --for=condition=Finished` returns at every end, `--for=condition=Ready` only on success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Maximum length of `status.commandLine`, in characters.
pub const MAX_COMMAND_LINE: usize = 256;
