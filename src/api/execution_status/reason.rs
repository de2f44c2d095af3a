//! Reasons for the phase of an execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[serde(alias = "ExecutionRefused")]
    ExecRequestRefused,
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
    #[serde(alias = "NotStarted")]
    LauncherFailed,
    /// LaunchFailed. Surfaces when the machine cannot run the launcher: no `/proc` or `setsid`, a login shell that is none,
    /// a folder that is not fit. The message says what to do; `execution.mode: Direct` of the Machine needs none of it.
    #[serde(alias = "MachineUnfit")]
    LauncherUnsupported,
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
