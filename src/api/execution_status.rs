//! The status of a CommandExecution: the record. Written by Writ alone, final once the phase is a finished one.

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

/// What happened so far, and in the end what happened.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandExecutionStatus {
    /// The `metadata.generation` that this status speaks of; -1 until Writ has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the execution is in its life. Finished phases (Succeeded, Failed, TimedOut, Cancelled, Rejected,
    /// Expired, LaunchFailed, OutcomeUnknown) are final.
    #[serde(default)]
    pub phase: Phase,

    /// Why it is in this phase, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,

    /// Why it is in this phase, in a sentence for people. At most 2048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,

    /// What was so at its creation, as read from its metadata when Writ first wrote this status. It cannot be changed: Writ
    /// goes by it, and not by what somebody makes of the metadata later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<CreationRecord>,

    /// Which rule allowed it and what exactly was to be executed. Fixed from the claim on; before that it is what was
    /// decided last, and is decided again before anything is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,

    /// The Machine as it was when the execution was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRecord>,

    /// Who took responsibility for starting it. Once it is there, no one starts the command again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,

    /// Where on the machine the command is looked for again after a loss of connection or of `writ`: what its start
    /// hangs on. Fixed with the claim; absent in Direct mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteRecord>,

    /// What is executed, as text for people: the words of `decision.argv`, those with blanks or special characters in
    /// quotes, cut after 256 characters. Nothing is executed by it. Absent until a rule allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_COMMAND_LINE))]
    pub command_line: Option<String>,

    /// When it was first said to wait, by Writ's clock. Absent where it could go at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_time: Option<MicroTime>,

    /// When the machine confirmed the start, by Writ's clock. Absent where no start was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// When Writ noticed that the claimed command was to be stopped (cancelled or deleted), by Writ's clock. From then on the
    /// execution ends within `writ serve --stop-seconds`, whatever its machine does. In Durable mode only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested_time: Option<MicroTime>,

    /// When the execution finished, by Writ's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,

    /// The exit code that the machine reported, 0 to 4294967295 (0 to 255 on POSIX systems). Absent unless it was
    /// observed; never made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,

    /// The signal that ended the command, without `SIG` (for example `TERM`). Absent unless it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub signal: Option<String>,

    /// From the start to the end, in milliseconds. In Durable mode by the machine's uptime, which Linux gives in steps of
    /// 10 ms: 0 means less than 10 ms, and the last digit is always 0. In Direct mode from the confirmed start to the observed
    /// end, by Writ's monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub duration_ms: Option<i64>,

    /// What the command wrote to standard output: all of it where `output.stdout.truncated` is false, else its
    /// head and tail with a line in between that says how many bytes are left out. At most 8192 bytes as JSON, or what the rule's `output.inlineBytes` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stdout: Option<String>,

    /// What the command wrote to standard error, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub stderr: Option<String>,

    /// Size and digest of the whole output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,

    /// Room in the object that is kept free for the result, from the claim to the end: points without a meaning. Labels and
    /// annotations of others cannot take this room, so the result always fits. At most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub reserved: Option<String>,

    /// The execution of the same name and spec that was handled before, where this one was not run for its sake (reason
    /// AlreadyExecuted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_execution: Option<FirstExecution>,

    /// Accepted (a rule allows it), Finished (it has ended, however; the reason is the phase), Ready (it succeeded), Reconciling (it
    /// has not finished), Stalled (it finished and did not succeed). `kubectl wait --for=condition=Finished` returns at
    /// every end, `--for=condition=Ready` only when it succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The most characters of `status.commandLine`.
pub const MAX_COMMAND_LINE: usize = 256;
