//! The status of a CommandExecution: the record. Written by Writ alone, final once the phase is a finished one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FirstExecution;
use super::machine::ExecutionMode;

mod creation;
mod output;

pub use creation::CreationRecord;
pub use output::{Encoding, IncompleteReason, OutputHolder, OutputRecord, StreamRecord};

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

/// Where an execution is in its life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Phase {
    /// Created; not decided yet.
    #[default]
    Pending,
    /// Allowed; waits for a slot or for the machine. Nothing was sent.
    Queued,
    /// Claimed: from here on the command may have started. It is never started again.
    Dispatched,
    /// The machine confirmed the start, and the command has run for more than about 2 seconds.
    Running,
    /// The command ended with exit code 0.
    Succeeded,
    /// The command ended with another exit code or by a signal.
    Failed,
    /// The command did not end within its time.
    TimedOut,
    /// Somebody set `spec.cancelRequested`.
    Cancelled,
    /// Not allowed. Nothing was sent.
    Rejected,
    /// Did not start before its starting deadline. Nothing was sent.
    Expired,
    /// Allowed, did not start, and will not.
    LaunchFailed,
    /// It may have started, and how it ended was not observed.
    OutcomeUnknown,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Phase; 12] = [
        Phase::Pending,
        Phase::Queued,
        Phase::Dispatched,
        Phase::Running,
        Phase::Succeeded,
        Phase::Failed,
        Phase::TimedOut,
        Phase::Cancelled,
        Phase::Rejected,
        Phase::Expired,
        Phase::LaunchFailed,
        Phase::OutcomeUnknown,
    ];

    /// Whether nothing changes any more.
    pub fn is_finished(self) -> bool {
        !matches!(self, Phase::Pending | Phase::Queued | Phase::Dispatched | Phase::Running)
    }

    /// Whether a holder has taken responsibility and the command may be running.
    pub fn is_claimed(self) -> bool {
        matches!(self, Phase::Dispatched | Phase::Running)
    }

    /// The word as it stands in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Queued => "Queued",
            Phase::Dispatched => "Dispatched",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::TimedOut => "TimedOut",
            Phase::Cancelled => "Cancelled",
            Phase::Rejected => "Rejected",
            Phase::Expired => "Expired",
            Phase::LaunchFailed => "LaunchFailed",
            Phase::OutcomeUnknown => "OutcomeUnknown",
        }
    }
}

/// The most characters of `status.commandLine`.
pub const MAX_COMMAND_LINE: usize = 256;

/// Why an execution is in its phase.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Reason {
    /// Pending. Surfaces when no `writ serve` has noticed the execution yet. If this stays, none serves its namespace.
    WaitingForController,
    /// Queued. Surfaces when a connection to the machine is being opened and takes longer than a moment.
    Connecting,
    /// Queued. Surfaces when `maxConcurrent` commands are running on the machine already.
    WaitingForSlot,
    /// Queued or Expired. Surfaces when the machine cannot be reached: name, network, sshd, or no answer in time.
    MachineOffline,
    /// Queued, Expired or LaunchFailed. Surfaces when the Machine's `spec.suspend` is true.
    MachineSuspended,
    /// Queued. Surfaces when the machine can be reached, but something is wrong with it that a person has to mend (another
    /// host key, a login that is refused); the Machine's status says what.
    MachineMisconfigured,
    /// Dispatched. Surfaces when a holder has claimed the execution and is about to start it.
    Claimed,
    /// Running. Surfaces when the machine confirmed the start.
    Started,
    /// Succeeded. Surfaces when exit code 0 was observed.
    Completed,
    /// Failed. Surfaces when another exit code was observed.
    NonZeroExitCode,
    /// Failed. Surfaces when a signal ended the command.
    Signalled,
    /// Failed. Surfaces when the command wrote more than the rule's `output.maximumBytes`. Writ stops such a command,
    /// unless it ended by itself before.
    OutputLimitExceeded,
    /// TimedOut or Cancelled. Surfaces when the command was seen to end after it was told to.
    Stopped,
    /// TimedOut or Cancelled. Surfaces when the command was told to end but was not seen to: it may still run.
    RemoteMayStillRun,
    /// Cancelled. Surfaces when it was cancelled or deleted before anything was sent.
    CancelledBeforeStart,
    /// Rejected. Surfaces when no rule of the namespace describes what was asked for.
    NoMatchingRule,
    /// Rejected. Surfaces when a rule describes what was asked for, but not for this machine, this requester, this
    /// action type, these environment variables or this timeout.
    NotPermitted,
    /// Rejected. Surfaces when a rule with effect Deny forbids the request, whatever allows it.
    Denied,
    /// Rejected. Surfaces when rules that would execute different things match the request.
    Ambiguous,
    /// Rejected. Surfaces when a Whitelist of the namespace cannot be read or has a Deny rule that is broken; until it is
    /// mended nothing is allowed. Or LaunchFailed, when the API server did not store the decision as it was made (CRDs of
    /// another version), or its patterns cannot be used.
    PolicyBroken,
    /// Rejected. Surfaces when the request is not well-formed.
    Malformed,
    /// Rejected. Surfaces when the Machine did not exist 10 seconds after the execution was created (at once with a starting deadline of 0).
    MachineNotFound,
    /// Rejected or LaunchFailed. Surfaces when the Machine cannot be read, one of its host keys is none, or its jump hosts
    /// lead nowhere.
    MachineInvalid,
    /// LaunchFailed. Surfaces when the Machine's address is one that `writ serve` may not connect to (`--allow-cidr`,
    /// `--deny-cidr`).
    AddressRefused,
    /// Rejected. Surfaces when `queueLimit` executions were waiting for the machine already.
    QueueFull,
    /// Expired, or LaunchFailed. Surfaces when the starting deadline was over before it was started.
    StartingDeadlineExceeded,
    /// LaunchFailed. Surfaces when the machine showed a host key that its Machine does not pin.
    HostKeyMismatch,
    /// LaunchFailed. Surfaces when the machine refused the key or the user.
    AuthenticationRefused,
    /// LaunchFailed. Surfaces when the Secret does not exist or may not be read.
    CredentialsNotFound,
    /// LaunchFailed. Surfaces when the Secret has not the type, the label or a key that can be used.
    CredentialsInvalid,
    /// LaunchFailed. Surfaces when the two ends agree on no algorithm, or the other end does not speak SSH.
    HandshakeFailed,
    /// LaunchFailed. Surfaces when the machine refused to execute in the session that it had opened, or the connection was lost before it was asked to.
    ExecutionRefused,
    /// OutcomeUnknown. Surfaces when the connection was lost while the command may have been running: in Direct mode at
    /// once, in Durable mode when the machine could not be reached, or did not report the end, until `timeoutSeconds` and an
    /// hour after the start.
    ConnectionLost,
    /// OutcomeUnknown. Surfaces when the holder of the claim stopped or died while the command may have run. Or
    /// LaunchFailed, when the holder itself found in time that it had been away for too long, and sent nothing.
    HolderLost,
    /// OutcomeUnknown. Surfaces when the command's channel was closed and no exit code or signal had come.
    NoExitStatus,
    /// OutcomeUnknown. Surfaces when the machine never answered the request to start, or answers other requests and never says
    /// whether it has started the command.
    StartNotConfirmed,
    /// LaunchFailed. Surfaces when the claim was taken over before the command had started, and the policy that is in
    /// force by then would not run the same; the machine was told never to start it.
    PolicyChanged,
    /// LaunchFailed. Surfaces when the launcher could not start the command: no space, a folder that is not fit, sudo that
    /// refuses. The message says which.
    NotStarted,
    /// LaunchFailed. Surfaces when the machine cannot run the launcher: no `/proc` or `setsid`, a login shell that is none,
    /// a folder that is not fit. The message says what to do; `execution.mode: Direct` of the Machine needs none of it.
    MachineUnfit,
    /// OutcomeUnknown. Surfaces when the machine was booted anew before the end of the command was recorded on it.
    Rebooted,
    /// OutcomeUnknown. Surfaces when the machine is no longer declared or has another folder, or when another host answered
    /// under its name, or at another address, until nobody waits for the host of the claim any more.
    MachineChanged,
    /// OutcomeUnknown. Surfaces when the machine has no record of the command any more, or an unfinished one whose
    /// processes are gone (killed from outside, out of memory).
    RecordLost,
    /// Any finished phase: that of the first. Surfaces when an execution of the same name and spec has finished before, and
    /// was deleted by its time to live. Nothing was sent; `status.firstExecution` and the message say what is known of it.
    AlreadyExecuted,
    /// It is a copy of one that may have run already, from a backup or an export, and nobody has said that it is to run again.
    RestoredCopy,
    /// Pending or Expired. Surfaces when it cannot be seen whether it was executed before: its ExecutionReceipt may not be
    /// read or does not decode. Nothing is sent before that is known.
    ReceiptUnreadable,
    /// Rejected. Surfaces when labels, annotations and other metadata fill the object, so that its result might not fit into
    /// it. The message says how many bytes each of them takes.
    ObjectTooLarge,
}

/// Which rule allowed an execution, and what exactly was to be executed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// The Whitelist of the rule, as it was at the decision.
    pub whitelist: ObjectRecord,
    /// Name of the rule.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// The argument vector, word for word.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub argv: Vec<String>,
    /// The rule's `actionType`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub action_type: String,
    /// The user to run as, by sudo. Absent: the login user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub run_as: Option<String>,
    /// The folder to run in. Absent: the login directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub working_directory: Option<String>,
    /// Environment variables, beside those that are always set (PATH and LC_ALL).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub environment: BTreeMap<String, String>,
    /// How long the command may take, in seconds.
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    /// Whether it may be given a terminal and standard input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// How much output is kept and allowed.
    #[serde(default)]
    pub output: OutputBounds,
    /// The patterns by which output is redacted before it is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)))]
    pub redact: Vec<String>,
    /// Seconds after its end for which the record is kept at least, as the rule says. Absent: as the installation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,
    /// SHA-256 of all of the above, as `sha256:` and lower case hexadecimal: of the JSON of this object without
    /// `digest` and `decidedTime`, keys sorted, no blanks. To check it:
    /// `kubectl get cmdexec NAME -o json | jq -cSj '.status.decision | del(.digest, .decidedTime)' | sha256sum`.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub digest: String,
    /// When it was decided, by Writ's clock.
    pub decided_time: MicroTime,
}

/// Limits on the output of one command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputBounds {
    /// How much of each stream the status shows, as encoded in JSON.
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: u32,
    /// How much the command may write to both streams together.
    #[schemars(range(min = 0))]
    pub maximum_bytes: i64,
    /// Seconds that Writ waits after the command's exit while other processes still hold its output open, 0 to 60.
    /// Default 2, also for decisions of versions without this field.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: u32,
}

impl Default for OutputBounds {
    /// The limits of a rule without `output`: 8 KiB shown of each stream, 64 MiB in all, 2 s of waiting.
    fn default() -> Self {
        Self { inline_bytes: 8192, maximum_bytes: 67_108_864, drain_seconds: default_drain_seconds() }
    }
}

/// Default of `drainSeconds`, in seconds: short for a requester, long for the last output of an ending service.
fn default_drain_seconds() -> u32 {
    2
}

/// One object at one moment.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRecord {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID: another object of the same name has another one.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its generation: every change of its spec counts one up.
    pub generation: i64,
}

/// The Machine that an execution was sent to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The address and port that were connected to, as `IP:port`; behind jump hosts `NAME:port via ...`, the way back to the
    /// first one.
    #[schemars(length(max = 2700))]
    pub address: String,
    /// The login user.
    #[schemars(length(max = 64))]
    pub user: String,
    /// SHA-256 fingerprint of the host key that the machine proved itself with, as `SHA256:...`.
    #[schemars(length(max = 128))]
    pub host_key_fingerprint: String,
}

/// Who is responsible for an execution from its claim on.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// A random token; the result is accepted only from who knows it.
    #[schemars(length(min = 1, max = 64))]
    pub token: String,
    /// The process that holds the claim: namespace and name of its Lease, by which it is known to be alive.
    #[schemars(length(min = 1, max = 256))]
    pub holder: String,
    /// How the command is started (`spec.execution.mode` of the Machine at the claim).
    #[serde(default)]
    pub mode: ExecutionMode,
    /// When the claim was made, by the clock of who made it first.
    pub dispatched_time: MicroTime,
    /// After which the command is not started any more, by the same clock. The machine itself refuses it then (see
    /// `remote.notAfterUptimeMs`). Absent in Direct mode, where it is started at once or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_time: Option<MicroTime>,
}

/// The longest folder that is recorded, in characters.
pub const LONGEST_DIRECTORY: usize = 1024;
/// The longest id of a folder or of a boot that is recorded, in characters.
pub const LONGEST_ID: usize = 64;

/// What the start of a command hangs on, as the machine showed it before the claim. The command is started only where all
/// of it is still so: a name may lead to another host tomorrow, and a folder may be another one.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteRecord {
    /// The folder with the journal of the command.
    #[schemars(length(max = LONGEST_DIRECTORY))]
    pub directory: String,
    /// A random word that Writ keeps in that folder: another folder has another one.
    #[schemars(length(max = LONGEST_ID))]
    pub directory_id: String,
    /// The machine's boot id (`/proc/sys/kernel/random/boot_id`): another one after each boot.
    #[schemars(length(max = LONGEST_ID))]
    pub boot_id: String,
    /// The machine's uptime, in milliseconds, after which its launcher does not start the command any more. Uptime, as
    /// the machine's clock may be wrong.
    #[schemars(range(min = 0))]
    pub not_after_uptime_ms: i64,
}
