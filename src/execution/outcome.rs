//! What was observed of a command, turned into the finished status. Every combination has its row; none makes up an
//! exit code.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::execution_status::{IncompleteReason, OutputRecord};
use crate::api::{CommandExecution, CommandExecutionStatus, Phase, Reason};

use super::LaunchProblem;
use super::last_line::last_line;
use super::status::{moved, not_before_what_is_recorded, storable};

/// Characters of a program's path in a message: no path that people write is longer.
const LONGEST_PROGRAM: usize = 128;

/// How a claimed command ended, as far as it was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The machine reported an exit code.
    Exited {
        /// The code.
        code: u32,
    },
    /// The machine reported a signal.
    Signalled {
        /// Its name without `SIG`.
        signal: String,
    },
    /// The machine refused to start it: it did not run.
    Refused(LaunchProblem),
    /// It was started, and then the connection was lost.
    ConnectionLost {
        /// What was seen.
        problem: String,
    },
    /// It was started, and the channel was closed with no exit code and no signal.
    NoExitStatus,
    /// It was started and told to stop, and no end of it was seen.
    NotSeenToStop,
    /// It was told to stop and seen to be gone; how it ended was not seen.
    Gone,
    /// This process was told to stop before the command ended.
    HolderStopped,
    /// It may have run, and how it ended cannot be learned any more.
    Unknown {
        /// The word.
        reason: Reason,
        /// What was seen.
        problem: String,
    },
}

/// Why a command was told to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopCause {
    /// It ran longer than it may.
    Timeout,
    /// Somebody set `spec.cancelRequested`.
    Cancel,
    /// It wrote more than it may.
    OutputLimit {
        /// How much that is, both streams together.
        maximum_bytes: u64,
    },
}

/// Everything that was observed of a claimed command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Whether it had been told to stop before that. One that wrote too much counts as told even where its end was
    /// quicker: which of the two is seen first must not decide between success and failure. So a message about the
    /// output limit never claims that the command received a stop request, unless its end was not seen.
    pub told_to_stop: Option<StopCause>,
    /// Whether the machine looked for processes of a command that was told to stop, and found none any more.
    pub nothing_left: bool,
    /// When the machine confirmed the start.
    pub started: Option<Timestamp>,
    /// From then to the end, in milliseconds; only where an end was observed.
    pub duration_ms: Option<i64>,
    /// What is kept of standard output.
    pub stdout: String,
    /// What is kept of standard error.
    pub stderr: String,
    /// Size and digest of both.
    pub output: OutputRecord,
}

/// The finished status of a claimed execution.
pub fn conclude(execution: &CommandExecution, outcome: Outcome, now: Timestamp) -> CommandExecutionStatus {
    let (phase, reason, mut message) = verdict(&outcome, execution);
    if is_asked_for_a_password(&outcome)
        && let Some(line) = sudoers_line(execution)
    {
        message = format!(
            "{message}; standard error has the words of sudo if it wants a password: `{line}` in sudoers allows it"
        );
    }
    // An end that was read after a reboot has no known start.
    let ended = matches!(outcome.ending, Ending::Exited { .. } | Ending::Signalled { .. } | Ending::Gone);
    let has_output = outcome.started.is_some() || ended;
    if let Some(text) = incomplete_text(&outcome.output, drain_seconds(execution)).filter(|_| has_output) {
        message = format!("{message}; {text}");
    }
    let started = outcome.started.map(|started| not_before_what_is_recorded(execution, started));
    let mut status = moved(execution, phase, reason, &message, started.map_or(now, |started| started.max(now)));
    // Only here, not in the conditions: events and what is shown beside the object repeat those.
    if let Some(line) = last_line(&outcome.stderr, &outcome.output.stderr).filter(|_| has_failed_by_itself(&outcome)) {
        status.message = Some(storable(&format!("{message}; last line of stderr: {line}")));
    }
    match &outcome.ending {
        Ending::Exited { code } => status.exit_code = Some(i64::from(*code)),
        Ending::Signalled { signal } => status.signal = Some(signal.clone()),
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

/// Whether the command was seen to end, and not with success, without Writ's doing.
fn has_failed_by_itself(outcome: &Outcome) -> bool {
    let failed = matches!(outcome.ending, Ending::Exited { code: 1.. } | Ending::Signalled { .. });
    failed && outcome.told_to_stop.is_none()
}

fn verdict(outcome: &Outcome, execution: &CommandExecution) -> (Phase, Reason, String) {
    let took = match outcome.duration_ms {
        // The machine measures in steps of 10 ms.
        Some(0) => "in less than 10 ms".to_owned(),
        Some(duration) => format!("in {duration} ms"),
        None => "at an unknown time".to_owned(),
    };
    match (&outcome.ending, outcome.told_to_stop) {
        (Ending::Refused(problem), _) => {
            let was_cancelled = problem.reason == Reason::CancelledBeforeStart;
            let phase = if was_cancelled { Phase::Cancelled } else { Phase::LaunchFailed };
            (phase, problem.reason, problem.message.clone())
        }
        // Whoever cannot be reached may still run; what else is unknown stays unknown, told to stop or not.
        (Ending::Unknown { reason, problem }, told) if told.is_none() || *reason != Reason::ConnectionLost => {
            (Phase::OutcomeUnknown, *reason, problem.clone())
        }
        (ending, Some(cause)) => stopped(ending, &why_stopped(cause, execution), cause, outcome.nothing_left),
        (Ending::Exited { code: 0 }, None) => (Phase::Succeeded, Reason::Completed, format!("exit code 0 {took}")),
        (Ending::Exited { code }, None) => {
            let hint = exit_hint(*code, execution);
            (Phase::Failed, Reason::NonZeroExitCode, format!("exit code {code} {took}{hint}"))
        }
        (Ending::Signalled { signal }, None) => {
            (Phase::Failed, Reason::Signalled, format!("ended by {} {took}", signal_shown(signal)))
        }
        (Ending::ConnectionLost { problem }, None) => (
            Phase::OutcomeUnknown,
            Reason::ConnectionLost,
            format!("the connection was lost while the command was running ({problem}); it may still run"),
        ),
        (Ending::NoExitStatus, None) => (
            Phase::OutcomeUnknown,
            Reason::NoExitStatus,
            "the machine closed the session and reported no exit code and no signal".to_owned(),
        ),
        (Ending::Gone, None) => (
            Phase::OutcomeUnknown,
            Reason::RecordLost,
            "the command ended on the machine, and how it ended was not recorded there".to_owned(),
        ),
        (Ending::NotSeenToStop | Ending::HolderStopped | Ending::Unknown { .. }, None) => (
            Phase::OutcomeUnknown,
            Reason::HolderLost,
            "writ was stopped while the command was running; it may still run".to_owned(),
        ),
    }
}

/// What the exit codes of a shell for a program that does not start mean; the command may have used them itself.
fn exit_hint(code: u32, execution: &CommandExecution) -> String {
    let why = match code {
        126 => "cannot be executed (its rights, or its format)",
        127 => "does not exist",
        _ => return String::new(),
    };
    let decision = execution.status.as_ref().and_then(|status| status.decision.as_ref());
    let program = decision.and_then(|decision| decision.argv.first());
    program.map_or_else(String::new, |program| {
        let program: String = program.chars().take(LONGEST_PROGRAM).collect();
        format!(
            "; this code usually means that a program {why} on the machine: check decision.argv[0], {program:?}, and what it starts"
        )
    })
}

/// What the command did for which it was told to stop, with the limit and the field that sets it.
fn why_stopped(cause: StopCause, execution: &CommandExecution) -> String {
    let decision = execution.status.as_ref().and_then(|status| status.decision.as_ref());
    match cause {
        StopCause::Timeout => match (execution.spec.timeout_seconds, decision) {
            (Some(seconds), _) => format!(
                "ran longer than {seconds} s (spec.timeoutSeconds of the execution; the rule's timeoutSeconds.maximum bounds it)"
            ),
            (None, Some(decision)) => format!(
                "ran longer than {} s (timeoutSeconds.default of the rule {}/{}; the execution can set spec.timeoutSeconds up to \
                 the rule's maximum)",
                decision.timeout_seconds, decision.whitelist.name, decision.rule
            ),
            (None, None) => "ran longer than decision.timeoutSeconds".to_owned(),
        },
        StopCause::Cancel => "was cancelled".to_owned(),
        StopCause::OutputLimit { maximum_bytes } => {
            format!("wrote more than decision.output.maximumBytes ({maximum_bytes} bytes)")
        }
    }
}

/// A command that was told to stop: what the status may say of it hangs on whether its end was seen.
fn stopped(ending: &Ending, why: &str, cause: StopCause, nothing_left: bool) -> (Phase, Reason, String) {
    let rest = if nothing_left {
        "no process of it was found on the machine any more"
    } else {
        "processes that it left behind may still run"
    };
    let (phase, told) = match cause {
        StopCause::Timeout => (Phase::TimedOut, ", was told to stop"),
        StopCause::Cancel => (Phase::Cancelled, ", was told to stop"),
        // The command may have ended by itself before a stop request reached it.
        StopCause::OutputLimit { .. } => (Phase::Failed, ""),
    };
    let (reason, message) = match ending {
        Ending::Exited { code } => {
            (Reason::Stopped, format!("the command {why}{told} and ended with exit code {code}; {rest}"))
        }
        Ending::Signalled { signal } => {
            (Reason::Stopped, format!("the command {why} and ended by {}; {rest}", signal_shown(signal)))
        }
        Ending::Gone => {
            (Reason::Stopped, format!("the command {why} and was ended; its exit code was not seen; {rest}"))
        }
        Ending::Unknown { problem, .. } => {
            (Reason::RemoteMayStillRun, format!("the command {why}, and was not seen to end: {problem}"))
        }
        _ => (
            Reason::RemoteMayStillRun,
            format!("the command {why} and was told to stop, but was not seen to end: it may still run on the machine"),
        ),
    };
    match cause {
        StopCause::OutputLimit { .. } => (phase, Reason::OutputLimitExceeded, message),
        StopCause::Timeout | StopCause::Cancel => (phase, reason, message),
    }
}

/// OpenSSH gives every signal that RFC 4254 does not name the same name, with an `@` (section 6.10).
fn signal_shown(signal: &str) -> String {
    if signal.contains('@') {
        format!(
            "a signal that the SSH server of the machine does not name ({signal}: XFSZ, XCPU, BUS, SYS or a real-time signal, say)"
        )
    } else {
        format!("signal {signal}")
    }
}

/// A line for sudoers that allows what an execution runs as another user. `None` if it runs as the login user.
pub fn sudoers_line(execution: &CommandExecution) -> Option<String> {
    let status = execution.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let (user, program) = (decision.run_as.as_ref()?, decision.argv.first()?);
    let login = status.machine.as_ref().map_or("LOGIN-USER", |machine| &machine.user);
    Some(format!("{login} ALL=({user}) NOPASSWD: {program}"))
}

/// Whether a command did no more than sudo does if it wants a password. It may have been the command's own doing.
fn is_asked_for_a_password(outcome: &Outcome) -> bool {
    outcome.ending == (Ending::Exited { code: 1 })
        && outcome.stdout.is_empty()
        && outcome.stderr.trim_end() == "sudo: a password is required"
}

/// Seconds of waiting for output that the decision allows; `None` if the execution has no decision.
fn drain_seconds(execution: &CommandExecution) -> Option<u32> {
    let decision = execution.status.as_ref()?.decision.as_ref()?;
    Some(decision.output.drain_seconds)
}

/// Clause of the message that says why output is missing; `None` if none is, or if the cause was not recorded.
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
