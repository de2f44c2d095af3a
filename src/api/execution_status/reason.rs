//! Reasons for the phase of an execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cause of the phase of an execution.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Reason {
    /// Pending. Surfaces when no `writ serve` has read the execution yet. If this reason stays, no `writ serve` serves
    /// the namespace.
    WaitingForController,
    /// Queued. Surfaces when opening a connection to the machine has taken more than 2 seconds.
    Connecting,
    /// Queued. Surfaces when `maxConcurrent` commands are already running on the machine.
    WaitingForSlot,
    /// Queued or Expired. Surfaces when Writ cannot reach the machine: the name does not resolve, the network or sshd
    /// refuses the connection, or no answer comes in time. With `whenOffline: Fail`, one failed attempt is enough.
    MachineOffline,
    /// Queued, Expired or LaunchFailed. Surfaces when the Machine's `spec.suspend` is true.
    MachineSuspended,
    /// Queued or Expired. Surfaces when Writ reaches the machine but cannot use it until somebody fixes the Machine,
    /// its Secret or the host. For example, the machine shows another host key, or refuses the login. The Machine's
    /// status has the cause.
    MachineMisconfigured,
    /// Dispatched. Surfaces when a `writ serve` has claimed the execution and is about to start its command.
    Claimed,
    /// Running. Surfaces when the machine confirmed the start.
    Started,
    /// Succeeded. Surfaces when the machine reported exit code 0.
    Completed,
    /// Failed. Surfaces when the machine reported another exit code than 0.
    NonZeroExitCode,
    /// Failed. Surfaces when the machine reported that a signal ended the command.
    Signalled,
    /// Failed. Surfaces when the command wrote more than the rule's `output.maximumBytes`. Writ stops such a command,
    /// unless the command has already ended by itself.
    OutputLimitExceeded,
    /// TimedOut or Cancelled. Surfaces when the command received a stop request and the machine confirmed the end of
    /// the command.
    Stopped,
    /// TimedOut or Cancelled. Surfaces when Writ asked the machine to stop the command, and the machine did not confirm
    /// the end of the command. The command may still run.
    RemoteMayStillRun,
    /// Cancelled. Surfaces when the execution was cancelled or deleted before Writ sent anything.
    CancelledBeforeStart,
    /// Rejected. Surfaces when no rule of the namespace describes the request.
    NoMatchingRule,
    /// Rejected. Surfaces when a rule describes the request, but does not allow this machine, an interactive session,
    /// this requester, this action type, these environment variables or this timeout.
    NotPermitted,
    /// Rejected. Surfaces when a rule with effect Deny forbids the request, even if other rules allow it.
    Denied,
    /// Rejected. Surfaces when the request matches several rules that would execute different commands.
    Ambiguous,
    /// Rejected. Surfaces when Writ cannot read a Whitelist of the namespace, or when a Deny rule in it is invalid.
    /// Writ then allows nothing in the namespace until somebody fixes the Whitelist. LaunchFailed or OutcomeUnknown:
    /// the stored decision differs from the decision of Writ (CRDs of another version), or Writ cannot use the
    /// redaction patterns of the decision.
    PolicyBroken,
    /// Rejected. Surfaces when the request is not well-formed.
    Malformed,
    /// Rejected. Surfaces when the Machine did not exist 10 seconds after the creation of the execution. If
    /// `startingDeadlineSeconds` is 0, Writ does not wait 10 seconds.
    MachineNotFound,
    /// Rejected or LaunchFailed. Surfaces when Writ cannot decode the Machine, when one of its host keys is invalid, or
    /// when its jump hosts do not lead to the machine.
    MachineInvalid,
    /// LaunchFailed. Surfaces when the flags of `writ serve` forbid connections to the Machine's address
    /// (`--allow-cidr`, `--deny-cidr`).
    AddressRefused,
    /// Rejected. Surfaces when the queue of the machine already had `queueLimit` executions.
    QueueFull,
    /// Expired or LaunchFailed. Surfaces when the starting deadline passed before the command started.
    StartingDeadlineExceeded,
    /// LaunchFailed. Surfaces when the machine showed a host key that is not pinned in its Machine.
    HostKeyMismatch,
    /// LaunchFailed. Surfaces when the machine refused the SSH key or the login user.
    AuthenticationRefused,
    /// LaunchFailed. Surfaces when the Secret does not exist, or when Writ has no permission to read it.
    CredentialsNotFound,
    /// LaunchFailed. Surfaces when the Secret lacks the required type or label, or has no usable key.
    CredentialsInvalid,
    /// LaunchFailed. Surfaces when Writ and the machine have no algorithm in common, or when the machine does not speak
    /// SSH.
    HandshakeFailed,
    /// LaunchFailed. Surfaces when the machine opened a session and then refused the exec request (RFC 4254), or when
    /// the connection was lost before the exec request.
    #[serde(alias = "ExecutionRefused")]
    ExecRequestRefused,
    /// LaunchFailed. Surfaces when no client was connected to an interactive execution within 30 s, or the client left
    /// before the command started.
    NoSession,
    /// OutcomeUnknown. Surfaces when the connection was lost while the command may have been running. In Direct mode
    /// the execution ends at once. In Durable mode Writ keeps trying to read the end of the command from the machine.
    /// The attempts and the execution end `timeoutSeconds` plus `writ serve --unreachable-seconds` (an hour) after the
    /// start.
    ConnectionLost,
    /// OutcomeUnknown. Surfaces when the `writ serve` that held the claim stopped or crashed while the command may have
    /// been running. LaunchFailed: the holder noticed that it had not renewed its Lease in time, and sent nothing.
    HolderLost,
    /// OutcomeUnknown. Surfaces when the machine closed the command's channel without an exit code or a signal.
    NoExitStatus,
    /// OutcomeUnknown. Surfaces when the machine never answered the start request. Also surfaces when the machine
    /// answers other requests, but does not report if it started the command.
    StartNotConfirmed,
    /// LaunchFailed. Surfaces when another `writ serve` adopted the claim before the command had started, and the
    /// current policy would not run the same command. The machine closed the command's journal, so the command never
    /// starts.
    PolicyChanged,
    /// LaunchFailed. Surfaces when the launcher reported that it could not start the command. For example, the disk is
    /// full, the launcher's directory is unsuitable, or sudo refuses. The message has the cause.
    #[serde(alias = "NotStarted")]
    LauncherFailed,
    /// LaunchFailed. Surfaces when the launcher cannot run on the machine. For example, the machine has no `/proc` or
    /// `setsid`, or its login shell executes nothing. The message has the remedy. `execution.mode: Direct` of the
    /// Machine needs no launcher.
    #[serde(alias = "MachineUnfit")]
    LauncherUnsupported,
    /// OutcomeUnknown. Surfaces when the machine rebooted before it recorded the end of the command.
    Rebooted,
    /// OutcomeUnknown. Surfaces when the Machine was deleted, or when the machine has another launcher directory than
    /// at the claim. Also surfaces when only another host, or a host at another address, answered until the deadline of
    /// the command.
    MachineChanged,
    /// OutcomeUnknown. Surfaces when the machine no longer has a journal of the command. Also surfaces when the journal
    /// has no recorded end and the processes of the command are gone (killed by others, or out of memory).
    RecordLost,
    /// Any finished phase: the phase of the first execution. Surfaces when an earlier execution of the same name and
    /// spec finished, and Writ deleted it when its TTL expired. Writ sent nothing. `status.firstExecution` and the
    /// message identify the first execution.
    AlreadyExecuted,
    /// Rejected. Surfaces when the execution is a copy from a backup or an export, and its creator did not set the
    /// annotation `writ.dev/run-again: "true"`. The command of a copy has perhaps run already.
    RestoredCopy,
    /// Pending or Expired. Surfaces when Writ cannot check if the command was executed before. The cause: Writ has no
    /// permission to read the ExecutionReceipt, or cannot decode it. Writ sends nothing until it can read the receipt.
    ReceiptUnreadable,
    /// Rejected. Surfaces when labels, annotations and other metadata fill the object, so that its result might not
    /// fit. The message lists the size of each of these parts in bytes.
    ObjectTooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_reasons_decode_and_are_written_by_their_present_names() {
        for (former, present) in [
            ("MachineUnfit", Reason::LauncherUnsupported),
            ("NotStarted", Reason::LauncherFailed),
            ("ExecutionRefused", Reason::ExecRequestRefused),
        ] {
            let reason: Reason = serde_json::from_value(former.into()).unwrap();
            assert_eq!(reason, present, "{former}");
            assert_eq!(serde_json::to_value(reason).unwrap(), format!("{present:?}"));
        }
    }
}
