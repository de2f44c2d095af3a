//! Turns the observed outcome of a command into the finished status. Every combination of end and stop request has a
//! result. No result contains an exit code that the machine did not report.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::execution_status::{IncompleteReason, OutputRecord};
use crate::api::{CommandExecution, CommandExecutionStatus, Phase, Reason};

use super::LaunchProblem;
use super::last_line::last_line;
use super::status::{not_before_recorded_times, storable, with_phase};
use super::sudoers;

/// Maximum length of a program's path in a message, in characters. Real paths are shorter.
const MAX_PROGRAM_SHOWN: usize = 128;

/// Observed end of a claimed command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Termination {
    /// The machine reported an exit code.
    Exited {
        /// Exit code.
        code: u32,
    },
    /// The machine reported a signal.
    Signalled {
        /// Name of the signal, without `SIG`.
        signal: String,
    },
    /// The machine refused to start the command, so the command did not run.
    Refused(LaunchProblem),
    /// The command was started. Then the connection was lost.
    ConnectionLost {
        /// Last failure, for the message of the status.
        problem: String,
    },
    /// The command was started. Then the machine closed the channel without an exit code or a signal.
    NoExitStatus,
    /// The command was started and received a stop request. Writ did not observe its end.
    StopNotConfirmed,
    /// The command received a stop request and no longer runs. Writ did not observe its exit code or signal.
    StoppedExitUnknown,
    /// This `writ serve` process was stopped before the command ended.
    HolderStopped,
    /// Perhaps the command ran, and Writ can no longer learn its end.
    Unknown {
        /// Reason for the status.
        reason: Reason,
        /// Last failure, for the message of the status.
        problem: String,
    },
}

/// Cause of a stop request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopCause {
    /// The command exceeded its timeout.
    Timeout,
    /// Somebody set `spec.cancelRequested` or deleted the execution.
    Cancel,
    /// The client of an interactive execution left.
    ClientLeft,
    /// An interactive execution had neither input nor output for this time.
    Idle {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The command wrote more output than its limit allows.
    OutputLimit {
        /// The output limit, in bytes of both streams together.
        maximum_bytes: u64,
    },
}

/// Observed outcome of a claimed command.
#[derive(Clone, Debug)]
pub struct CommandOutcome {
    /// Observed end of the command.
    pub ending: Termination,
    /// Cause of the stop request. `None` without a stop request.
    ///
    /// If the output exceeds its limit, the cause is `OutputLimit` even if the command ended before the stop request.
    /// The result then does not depend on the order in which Writ observes the end and the excess output.
    pub stop_cause: Option<StopCause>,
    /// True if the machine searched for processes of the stopped command and found none.
    pub no_processes_left: bool,
    /// Time at which the machine confirmed the start.
    pub started: Option<Timestamp>,
    /// Duration from the start to the end, in milliseconds. Set only if Writ observed the end.
    pub duration_ms: Option<i64>,
    /// Recorded standard output.
    pub stdout: String,
    /// Recorded standard error.
    pub stderr: String,
    /// Size and digest of both streams.
    pub output: OutputRecord,
}

/// Returns the finished status of a claimed execution.
pub fn conclude(execution: &CommandExecution, outcome: CommandOutcome, now: Timestamp) -> CommandExecutionStatus {
    let (phase, reason, mut message) = phase_and_reason(&outcome, execution);
    if is_sudo_password_prompt(&outcome)
        && let Some(line) = sudoers::line(execution)
    {
        message = format!(
            "{message}; standard error is the message of sudo if it needs a password: `{line}` in sudoers allows the command"
        );
    }
    // After a reboot of the machine, Writ can know the end of the command without its start.
    let ended = matches!(
        outcome.ending,
        Termination::Exited { .. } | Termination::Signalled { .. } | Termination::StoppedExitUnknown
    );
    let has_output = outcome.started.is_some() || ended;
    if let Some(text) = incomplete_text(&outcome.output, drain_seconds(execution)).filter(|_| has_output) {
        message = format!("{message}; {text}");
    }
    let started = outcome.started.map(|started| not_before_recorded_times(execution, started));
    let mut status = with_phase(execution, phase, reason, &message, started.map_or(now, |started| started.max(now)));
    // Only `status.message` gets the last line of stderr. Events and other tools repeat the messages of conditions, so
    // these messages must contain no output.
    if let Some(line) = last_line(&outcome.stderr, &outcome.output.stderr).filter(|_| has_failed_by_itself(&outcome)) {
        status.message = Some(storable(&format!("{message}; last line of stderr: {line}")));
    }
    match &outcome.ending {
        Termination::Exited { code } => status.exit_code = Some(i64::from(*code)),
        Termination::Signalled { signal } => status.signal = Some(signal.clone()),
        _ => {}
    }
    status.start_time = started.map(MicroTime);
    if has_output {
        status.duration_ms = outcome.duration_ms;
        status.stdout = Some(outcome.stdout);
        status.stderr = Some(outcome.stderr);
        status.output = Some(outcome.output);
    }
    status
}

/// Returns true if Writ observed that the command failed by itself, without a stop request.
fn has_failed_by_itself(outcome: &CommandOutcome) -> bool {
    let failed = matches!(outcome.ending, Termination::Exited { code: 1.. } | Termination::Signalled { .. });
    failed && outcome.stop_cause.is_none()
}

fn phase_and_reason(outcome: &CommandOutcome, execution: &CommandExecution) -> (Phase, Reason, String) {
    let took = match outcome.duration_ms {
        // The machine measures in steps of 10 ms, so 0 means less than 10 ms.
        Some(0) => "in less than 10 ms".to_owned(),
        Some(duration) => format!("in {duration} ms"),
        None => "at an unknown time".to_owned(),
    };
    match (&outcome.ending, outcome.stop_cause) {
        (Termination::Refused(problem), _) => {
            let was_cancelled = problem.reason == Reason::CancelledBeforeStart;
            let phase = if was_cancelled { Phase::Cancelled } else { Phase::LaunchFailed };
            (phase, problem.reason, problem.message.clone())
        }
        // If the connection was lost after a stop request, the next arm reports that the command may still run. Any
        // other unknown outcome stays unknown.
        (Termination::Unknown { reason, problem }, cause) if cause.is_none() || *reason != Reason::ConnectionLost => {
            (Phase::OutcomeUnknown, *reason, problem.clone())
        }
        (ending, Some(cause)) => {
            stopped_phase(ending, &stop_cause_text(cause, execution), cause, outcome.no_processes_left)
        }
        (Termination::Exited { code: 0 }, None) => (Phase::Succeeded, Reason::Completed, format!("exit code 0 {took}")),
        (Termination::Exited { code }, None) => {
            let hint = exit_hint(*code, execution);
            (Phase::Failed, Reason::NonZeroExitCode, format!("exit code {code} {took}{hint}"))
        }
        (Termination::Signalled { signal }, None) => {
            (Phase::Failed, Reason::Signalled, format!("ended by {} {took}", describe_signal(signal)))
        }
        (Termination::ConnectionLost { problem }, None) => (
            Phase::OutcomeUnknown,
            Reason::ConnectionLost,
            format!("the connection was lost while the command was running ({problem}); it may still run"),
        ),
        (Termination::NoExitStatus, None) => (
            Phase::OutcomeUnknown,
            Reason::NoExitStatus,
            "the machine closed the session and reported no exit code and no signal".to_owned(),
        ),
        (Termination::StoppedExitUnknown, None) => (
            Phase::OutcomeUnknown,
            Reason::RecordLost,
            "the command ended on the machine, and how it ended was not recorded there".to_owned(),
        ),
        (Termination::StopNotConfirmed | Termination::HolderStopped | Termination::Unknown { .. }, None) => (
            Phase::OutcomeUnknown,
            Reason::HolderLost,
            "writ was stopped while the command was running; it may still run".to_owned(),
        ),
    }
}

/// Returns a hint for exit codes 126 and 127, which a shell returns if it cannot start a program. The command itself
/// can return these codes too.
fn exit_hint(code: u32, execution: &CommandExecution) -> String {
    let why = match code {
        126 => "cannot be executed (its rights, or its format)",
        127 => "does not exist",
        _ => return String::new(),
    };
    let decision = execution.status.as_ref().and_then(|status| status.decision.as_ref());
    let program = decision.and_then(|decision| decision.argv.first());
    program.map_or_else(String::new, |program| {
        let program: String = program.chars().take(MAX_PROGRAM_SHOWN).collect();
        if let Some((first, _)) = program.split_once(' ').filter(|_| code == 127) {
            return format!(
                "; this code usually means that the program {program:?} does not exist on the machine: if {first:?} is the \
                 program, give each of its arguments an entry of its own in `run`"
            );
        }
        format!(
            "; this code usually means that a program {why} on the machine: check decision.argv[0], {program:?}, and the programs that it starts"
        )
    })
}

/// Returns the cause of a stop request as a clause for the status message. The clause names the limit and the field
/// that sets the limit.
fn stop_cause_text(cause: StopCause, execution: &CommandExecution) -> String {
    let decision = execution.status.as_ref().and_then(|status| status.decision.as_ref());
    match cause {
        StopCause::Timeout => match (execution.spec.timeout_seconds, decision) {
            (Some(seconds), _) => format!(
                "ran longer than {seconds} s (spec.timeoutSeconds of the execution; the maximum timeout of the rule bounds it)"
            ),
            (None, Some(decision)) => format!(
                "ran longer than {} s (the default timeout of the rule {}/{}; the execution can set spec.timeoutSeconds, up to \
                 the maximum timeout of the rule)",
                decision.timeout_seconds, decision.whitelist.name, decision.rule
            ),
            (None, None) => "ran longer than decision.timeoutSeconds".to_owned(),
        },
        StopCause::Cancel => "was cancelled".to_owned(),
        StopCause::ClientLeft => "lost the client of its interactive session".to_owned(),
        StopCause::Idle { seconds } => {
            format!("had no input and no output for {seconds} s (writ serve --interactive-idle-seconds)")
        }
        StopCause::OutputLimit { maximum_bytes } => {
            format!("wrote more than decision.output.maximumBytes ({maximum_bytes} bytes)")
        }
    }
}

/// Returns phase, reason and message of a command with a stop request, from the cause of the request and the observed
/// end.
fn stopped_phase(
    ending: &Termination,
    why: &str,
    cause: StopCause,
    no_processes_left: bool,
) -> (Phase, Reason, String) {
    let rest = if no_processes_left {
        "no process of the command was found on the machine any more"
    } else {
        "processes that it left behind may still run"
    };
    let (phase, request) = match cause {
        StopCause::Timeout | StopCause::Idle { .. } => (Phase::TimedOut, ", received a stop request"),
        StopCause::Cancel | StopCause::ClientLeft => (Phase::Cancelled, ", received a stop request"),
        // The message mentions no stop request, because the command perhaps ended before the request reached it.
        StopCause::OutputLimit { .. } => (Phase::Failed, ""),
    };
    let (reason, message) = match ending {
        Termination::Exited { code } => {
            (Reason::Stopped, format!("the command {why}{request} and ended with exit code {code}; {rest}"))
        }
        Termination::Signalled { signal } => {
            (Reason::Stopped, format!("the command {why} and ended by {}; {rest}", describe_signal(signal)))
        }
        Termination::StoppedExitUnknown => {
            (Reason::Stopped, format!("the command {why} and ended; its exit code is unknown; {rest}"))
        }
        Termination::Unknown { problem, .. } => {
            (Reason::RemoteMayStillRun, format!("the command {why}, and its end was not confirmed: {problem}"))
        }
        _ => (
            Reason::RemoteMayStillRun,
            format!(
                "the command {why} and was sent a stop request, but its end was not confirmed: it may still run on the machine"
            ),
        ),
    };
    match cause {
        StopCause::OutputLimit { .. } => (phase, Reason::OutputLimitExceeded, message),
        StopCause::Timeout | StopCause::Cancel | StopCause::ClientLeft | StopCause::Idle { .. } => {
            (phase, reason, message)
        }
    }
}

/// Returns the name of a signal for a message. OpenSSH reports one name, with an `@`, for all signals that RFC 4254
/// (section 6.10) does not name.
fn describe_signal(signal: &str) -> String {
    if signal.contains('@') {
        format!(
            "a signal that the SSH server of the machine does not name ({signal}: for example XFSZ, XCPU, BUS, SYS or a real-time signal)"
        )
    } else {
        format!("signal {signal}")
    }
}

/// Returns true if the outcome looks like a sudo that needs a password. The command itself can cause the same outcome.
fn is_sudo_password_prompt(outcome: &CommandOutcome) -> bool {
    outcome.ending == (Termination::Exited { code: 1 })
        && outcome.stdout.is_empty()
        && outcome.stderr.trim_end() == "sudo: a password is required"
}

/// Returns `drainSeconds` of the decision, or `None` if the execution has no decision.
fn drain_seconds(execution: &CommandExecution) -> Option<u32> {
    let decision = execution.status.as_ref()?.decision.as_ref()?;
    Some(decision.output.drain_seconds)
}

/// Returns a clause about missing output for the status message. Returns `None` if no output is missing, or if the
/// cause was not recorded.
fn incomplete_text(output: &OutputRecord, drain_seconds: Option<u32>) -> Option<String> {
    let why = match output.incomplete_reason.filter(|_| output.incomplete)? {
        IncompleteReason::StillOpen => {
            let wait = match drain_seconds {
                Some(0) => "after the exit of the command".to_owned(),
                Some(seconds) => format!("after the wait of {seconds} s"),
                None => "after the wait".to_owned(),
            };
            let holders = output.held_by.iter().map(|holder| format!("{} ({})", holder.name, holder.process_id));
            let holders = holders.collect::<Vec<_>>().join(", ");
            let separator = if holders.is_empty() { "" } else { ": " };
            format!("processes still held it open {wait}{separator}{holders}")
        }
        IncompleteReason::ReaderEnded => {
            "the launcher's process that stores it ended early; check the machine for killed processes and free memory"
                .to_owned()
        }
        IncompleteReason::DiskFull => {
            "the disk with the launcher's directory was full; free space on the machine".to_owned()
        }
        IncompleteReason::FileSizeLimit => {
            "the file-size limit of the login (ulimit -f) cut it off; raise the limit on the machine".to_owned()
        }
        IncompleteReason::OverLimit => "the record ends at decision.output.maximumBytes".to_owned(),
        IncompleteReason::Removed => {
            "its files on the machine were removed or cut off by other programs, or had been acknowledged before"
                .to_owned()
        }
        IncompleteReason::NotReceived => {
            "writ could not read all of it (connection lost, end unknown, other text in the session, or a start-up file that sends \
             standard error elsewhere)"
                .to_owned()
        }
    };
    Some(format!("the output is incomplete: {why}"))
}

#[cfg(test)]
mod tests;
