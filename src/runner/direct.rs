//! Runs a claimed command in Direct mode, from the exec request to the observed end.
//!
//! The login shell starts a script, and the script waits for a permission (see `start`). When the script is ready, Writ
//! sends the permission. The script then prints a mark and starts the command. The duration of the command starts at
//! the mark. Only an exit code after the mark is the exit code of the command. Without the permission, the command
//! never starts, even if the connection is lost (see `not_started`).
//!
//! The loop always reads the channel, because an unread channel blocks its whole connection. Only a slow output store
//! delays the loop, for a short time (see [`Recorder::push`]).
//!
//! Writ redacts and limits the output from the first byte, as the stored decision requires. If a command writes more
//! than `decision.output.maximumBytes`, Writ sends a stop request and discards the output above the limit.
//!
//! The run ends when the machine closes the channel. If another process keeps the output open, the run ends after the
//! wait that follows the exit status (`decision.output.drainSeconds`).

mod again;
mod first_words;
mod launch_problem;
mod not_started;
mod start;

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::Reason;
use crate::api::execution_status::{DecisionRecord, IncompleteReason, OutputRecord};
use crate::cluster::{Cluster, WriteOutcome};
use crate::execution::{self, CommandOutcome, LaunchProblem, SHOW_PROGRESS_AFTER, StopCause, Termination};
use crate::output::{ByteBudget, CapturedOutput, Recorder, StreamKind};
use crate::policy::{Redaction, marked_command_line};
use crate::ssh::{Session, SessionEvent, Signal};

use crate::fleet::{Open, RefusalCause, UnexpectedOutput};

use super::claim::HeldClaim;
use super::context::Context;
use super::queued_execution::QueuedExecution;
use first_words::FirstWords;
use launch_problem::refused_to_execute;
use start::{EMPTY_ANSWERS, Marks, READY_WORDS};

/// Maximum time until the machine answers the exec request.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// Maximum time until the login is ready for the command. The time starts when the machine accepts the exec request.
/// During this time, the start-up files of the login run.
const LOGIN_DEADLINE: Duration = Duration::from_secs(90);
/// Maximum time until the command starts. The time starts when Writ sends the permission. The start needs one round
/// trip to the machine.
const PERMISSION_DEADLINE: Duration = Duration::from_secs(15);
/// Minimum time without output before Writ ends a run that has an exit status, even if `drainSeconds` is shorter. The
/// reason is that the command's own output can arrive after its exit status.
const MIN_SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Maximum wait after the exit status while output still arrives, or `drainSeconds` if it is longer. The limit is
/// necessary, because a remaining process can write without a pause.
const MAX_DELAY_BY_OUTPUT: Duration = Duration::from_secs(10);
/// Time between TERM and KILL for a command that receives a stop request.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// Maximum time from KILL until the end of the command is observed.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// State of one session that starts and runs the command.
struct Run {
    session: Session,
    recorder: Recorder,
    /// Source of the API server's time.
    cluster: Cluster,
    /// Remaining number of bytes to record, for both streams together, before redaction.
    budget: ByteBudget,
    maximum_bytes: u64,
    /// Time to wait for output after the exit status (`decision.output.drainSeconds`).
    drain: Duration,
    requested: Instant,
    /// Time at which the machine confirmed that it executes the login shell.
    accepted: Option<Instant>,
    marks: Marks,
    /// Time at which Writ sent the permission to start, or tried to send it.
    permitted: Option<Instant>,
    /// Output that arrived before the start mark, and the exit status or signal of the session. If the login did not
    /// execute the command, they show the cause.
    unexpected: UnexpectedOutput,
    /// Time at which the start mark arrived, by the API server's clock and by the clock of this process.
    started: Option<(Timestamp, Instant)>,
    /// True if the connection was lost.
    is_lost: bool,
    /// Exit code or signal, and the time at which it arrived.
    exit: Option<(Termination, Instant)>,
    /// Time at which output was last recorded or discarded.
    last_output: Instant,
    /// True if the channel was still open at the end of the wait after the exit status.
    is_drain_over: bool,
    /// Stop request: its cause, the time of its last signal, and true if KILL was sent after TERM.
    told: Option<(StopCause, Instant, bool)>,
    timeout: Duration,
    /// True if sudo runs the command as another user.
    by_sudo: bool,
    /// First output after the start mark. Writ stores this output only if sudo required a password to check the
    /// command, because the output can then come from sudo.
    first_words: FirstWords,
}

type Progress<'a> = Pin<Box<dyn Future<Output = WriteOutcome> + Send + 'a>>;

/// Sends a claimed command and follows it to its end. Also returns a problem if the login user's account needs a repair
/// before any command can start.
pub(super) async fn run(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    opened: (Open, Session),
    cancel: CancellationToken,
) -> (CommandOutcome, Option<LaunchProblem>) {
    let (mut open, mut session) = opened;
    let (mut tries, mut refused) = (0, None);
    loop {
        let (outcome, cause) = run_once(context, held, session, cancel.clone(), refused.as_ref()).await;
        open.connection.close().await;
        let Termination::Refused(problem) = &outcome.ending else { return (outcome, None) };
        let problem = problem.clone();
        match cause {
            Some(RefusalCause::Transient) => {}
            Some(RefusalCause::Account) => return (outcome, Some(problem)),
            Some(RefusalCause::Unsupported) | None => return (outcome, None),
        }
        tries += 1;
        match again::open_again(context, work, held, &cancel, &problem, tries).await {
            Ok(opened) => (open, session) = opened,
            Err(problem) => return (CommandOutcome { ending: Termination::Refused(problem), ..outcome }, None),
        }
        refused = Some(problem);
    }
}

/// Runs one session. Also returns the cause if the login did not execute the command. `refused` is what the login said
/// in the previous session.
async fn run_once(
    context: &Context,
    held: &HeldClaim,
    session: Session,
    cancel: CancellationToken,
    refused: Option<&LaunchProblem>,
) -> (CommandOutcome, Option<RefusalCause>) {
    let usable = held.redaction();
    let recorder = held.recorder(context, usable.as_ref().unwrap_or(&Redaction::default()));
    let mut run = Run::new(session, &held.decision, recorder, context.cluster.clone());
    if let Some(problem) = usable.err().or_else(|| must_not_send(context, held, &cancel, refused)) {
        return (run.outcome(Termination::Refused(problem), context.aborting.cancelled()).await, None);
    }
    let requested = run.request(held).await;
    let ending = match requested {
        Ok(()) => {
            let ending = run.watch(context, held, &cancel).await;
            run.unless_sudo_asked(ending, &held.execution)
        }
        Err(problem) => Termination::Refused(problem),
    };
    let cause = run.cause(&ending);
    (run.outcome(ending, context.aborting.cancelled()).await, cause)
}

/// Returns the reason why Writ must not send the command any more, or `None`.
fn must_not_send(
    context: &Context,
    held: &HeldClaim,
    cancel: &CancellationToken,
    refused: Option<&LaunchProblem>,
) -> Option<LaunchProblem> {
    match refused {
        None => held.check_still_valid(context, cancel),
        Some(refused) => held.check_may_repeat(context, cancel).map(|problem| again::after_refusal(problem, refused)),
    }
}

impl Run {
    fn new(session: Session, decision: &DecisionRecord, recorder: Recorder, cluster: Cluster) -> Self {
        let now = Instant::now();
        let maximum_bytes = u64::try_from(decision.output.maximum_bytes).unwrap_or(0);
        Self {
            session,
            recorder,
            cluster,
            budget: ByteBudget::new(maximum_bytes),
            maximum_bytes,
            drain: Duration::from_secs(u64::from(decision.output.drain_seconds)),
            requested: now,
            accepted: None,
            marks: Marks::new(&Uuid::new_v4().simple().to_string()),
            permitted: None,
            unexpected: UnexpectedOutput::default(),
            started: None,
            is_lost: false,
            exit: None,
            last_output: now,
            is_drain_over: false,
            told: None,
            timeout: Duration::from_secs(u64::from(decision.timeout_seconds)),
            by_sudo: decision.run_as.is_some(),
            first_words: FirstWords::default(),
        }
    }

    /// Sends the exec request.
    async fn request(&self, held: &HeldClaim) -> Result<(), LaunchProblem> {
        let line = marked_command_line(&held.decision, READY_WORDS);
        self.session.exec(&line).await.map_err(|error| LaunchProblem {
            reason: Reason::ExecRequestRefused,
            message: format!("the connection was lost before the command was sent ({error}); nothing was sent"),
        })
    }

    /// Sends the permission to start. If the command must not start any more, returns the end of the run instead.
    async fn permit(&mut self, context: &Context, held: &HeldClaim, cancel: &CancellationToken) -> Option<Termination> {
        if let Some(problem) = held.check_may_permit(context, cancel) {
            return Some(Termination::Refused(problem));
        }
        // From here on, the command has perhaps started, even if the write fails.
        self.permitted = Some(Instant::now());
        // The permission is the last input. If the write fails, the next event reports the lost connection.
        if self.session.write_stdin(self.marks.permission()).await.is_ok() {
            let _ = self.session.end_input().await;
        }
        None
    }

    async fn watch(&mut self, context: &Context, held: &HeldClaim, cancel: &CancellationToken) -> Termination {
        let mut progress: Option<Progress<'_>> = None;
        let mut shown = false;
        loop {
            let (deadline, may_be_told) = (self.next_deadline(shown), self.may_be_told());
            tokio::select! {
                event = self.session.next() => {
                    if let Some(ending) = self.take(event).await {
                        return ending;
                    }
                    if self.budget.is_exceeded() && self.permitted.is_none() {
                        return self.prints_too_much();
                    }
                    // After an exit status, no process waits for the permission.
                    if self.marks.is_ready() && self.permitted.is_none() && self.exit.is_none()
                        && let Some(ending) = self.permit(context, held, cancel).await {
                        return ending;
                    }
                    if self.budget.is_exceeded() && self.may_be_told() {
                        self.tell_to_stop(self.output_limit()).await;
                    }
                }
                () = cancel.cancelled(), if may_be_told => {
                    self.tell_to_stop(StopCause::Cancel).await;
                    if self.permitted.is_none() {
                        return self.not_started();
                    }
                }
                () = context.aborting.cancelled() => return self.ended_or(Termination::HolderStopped),
                () = sleep_until(deadline) => {
                    if let (Some((started, since)), false) = (self.started, shown)
                        && since.elapsed() >= SHOW_PROGRESS_AFTER && self.exit.is_none() {
                        shown = true;
                        progress = Some(show_running(context, held, started));
                    } else if let Some(ending) = self.time_passed().await {
                        return ending;
                    }
                }
                _ = async { match progress.as_mut() { Some(write) => write.await, None => pending().await } } => {
                    progress = None;
                }
            }
        }
    }

    /// Handles one event of the session. Returns the end of the run if the event ends the run.
    async fn take(&mut self, event: SessionEvent) -> Option<Termination> {
        match event {
            SessionEvent::Started if self.accepted.is_none() => {
                self.accepted = Some(Instant::now());
                let _ = self.session.write_stdin(Bytes::from_static(EMPTY_ANSWERS)).await;
            }
            SessionEvent::Refused if self.accepted.is_none() && self.permitted.is_none() => {
                return Some(refused_to_execute());
            }
            SessionEvent::Started | SessionEvent::Refused => {}
            SessionEvent::Stdout(bytes) => self.hear(StreamKind::Stdout, bytes).await,
            SessionEvent::Stderr(bytes) => self.hear(StreamKind::Stderr, bytes).await,
            // Only the first exit status counts, because a command ends once.
            SessionEvent::ExitCode(code) if self.exit.is_none() => {
                self.unexpected.exited(code);
                self.exit = Some((Termination::Exited { code }, Instant::now()));
            }
            SessionEvent::Signal(signal) if self.exit.is_none() => {
                self.unexpected.signalled(&signal);
                self.exit = Some((Termination::Signalled { signal }, Instant::now()));
            }
            SessionEvent::ExitCode(_) | SessionEvent::Signal(_) => {}
            SessionEvent::Closed => return Some(self.ended_or(Termination::NoExitStatus)),
            SessionEvent::Lost => {
                self.is_lost = true;
                let problem = "the machine, the network or sshd went away".to_owned();
                return Some(self.ended_or(Termination::ConnectionLost { problem }));
            }
        }
        None
    }

    /// Handles the next bytes of a stream. Text that a start-up file prints before the mark is also recorded as output,
    /// as with ssh.
    async fn hear(&mut self, kind: StreamKind, bytes: Bytes) {
        let output = self.marks.take_off(kind, bytes);
        if !self.marks.is_started() {
            self.unexpected.push(&output);
        } else if self.started.is_none() {
            self.started = Some((self.cluster.now(), Instant::now()));
            self.recorder.started();
        }
        if self.marks.is_started() && self.marks.sudo_asks() {
            self.first_words.push(kind, &output);
        }
        self.record(kind, &output).await;
    }

    /// Records the next bytes of a stream up to the limit, and discards the rest.
    async fn record(&mut self, kind: StreamKind, output: &[u8]) {
        let recorded = self.budget.take(output);
        if !recorded.is_empty() {
            self.recorder.push(kind, recorded).await;
        }
        // The time is read after the push, so a slow push does not shorten the wait for output.
        self.last_output = Instant::now();
    }

    fn output_limit(&self) -> StopCause {
        StopCause::OutputLimit { maximum_bytes: self.maximum_bytes }
    }

    /// Returns the end of a run whose session Writ no longer follows:
    /// - If the start mark did not arrive: the result of `not_started`.
    /// - If the machine reported an exit status: the exit status.
    /// - In other cases: `otherwise`.
    fn ended_or(&self, otherwise: Termination) -> Termination {
        match (&self.exit, self.started) {
            (_, None) => self.not_started(),
            (Some((ending, _)), Some(_)) => ending.clone(),
            (None, Some(_)) => otherwise,
        }
    }

    /// Returns the time at which the loop must act even if no event arrives.
    fn next_deadline(&self, shown: bool) -> Instant {
        if let Some((_, ended)) = &self.exit {
            return drain_deadline(*ended, self.last_output, self.drain);
        }
        if let Some((_, since, killed)) = self.told {
            return since + if killed { KILL_GRACE } else { TERM_GRACE };
        }
        match self.started {
            None => self.start_due(),
            Some((_, started)) if !shown => started + SHOW_PROGRESS_AFTER.min(self.timeout),
            Some((_, started)) => started + self.timeout,
        }
    }

    /// Returns the deadline of the next step towards the start.
    fn start_due(&self) -> Instant {
        match (self.permitted, self.accepted) {
            (Some(permitted), _) => permitted + PERMISSION_DEADLINE,
            (None, Some(accepted)) => accepted + LOGIN_DEADLINE,
            (None, None) => self.requested + START_DEADLINE,
        }
    }

    /// Returns true if the login or the command still runs and has not received a stop request.
    fn may_be_told(&self) -> bool {
        self.told.is_none() && self.exit.is_none()
    }

    async fn tell_to_stop(&mut self, cause: StopCause) {
        self.told = Some((cause, Instant::now(), false));
        self.session.signal(Signal::Terminate).await;
    }

    /// Acts on a deadline that has passed. Returns the end of the run if there is nothing more to wait for.
    async fn time_passed(&mut self) -> Option<Termination> {
        if self.exit.is_some() {
            self.is_drain_over = true;
            return Some(self.ended_or(Termination::StopNotConfirmed));
        }
        match (self.told, self.started) {
            (Some((_, _, true)), _) => return Some(Termination::StopNotConfirmed),
            (Some((cause, _, false)), _) => {
                self.told = Some((cause, Instant::now(), true));
                self.session.signal(Signal::Kill).await;
            }
            (None, None) => {
                // Writ no longer follows the session, so the command must not start later.
                self.session.signal(Signal::Kill).await;
                return Some(self.start_overdue());
            }
            (None, Some((_, started))) if started.elapsed() >= self.timeout => {
                self.tell_to_stop(StopCause::Timeout).await;
            }
            (None, Some(_)) => {}
        }
        None
    }

    async fn outcome(self, ending: Termination, hurry: impl Future<Output = ()>) -> CommandOutcome {
        // sudo cannot forward KILL to the command, so the command perhaps still runs as the other user.
        let is_only_sudo =
            self.by_sudo && matches!((&ending, self.told), (Termination::Signalled { .. }, Some((_, _, true))));
        let ending = if is_only_sudo { Termination::StopNotConfirmed } else { ending };
        let ended = self.exit.as_ref().map(|(_, at)| *at);
        let duration_ms = match (self.started, ended) {
            (Some((_, started)), Some(ended)) => {
                i64::try_from(ended.saturating_duration_since(started).as_millis()).ok()
            }
            _ => None,
        };
        let stop_cause =
            self.told.map(|(cause, _, _)| cause).or_else(|| self.budget.is_exceeded().then(|| self.output_limit()));
        let incomplete_reason =
            incomplete_reason(self.budget.is_exceeded(), self.session.is_closed(), self.is_drain_over);
        let incomplete = incomplete_reason.is_some();
        // Only a command that ended by itself has written all of its output.
        let cut_off = incomplete || stop_cause.is_some() || !matches!(ending, Termination::Exited { .. });
        let CapturedOutput { stdout, stderr, stdout_record, stderr_record } =
            self.recorder.finish(cut_off, hurry).await;
        CommandOutcome {
            ending,
            stop_cause,
            no_processes_left: false,
            started: self.started.map(|(timestamp, _)| timestamp),
            duration_ms,
            stdout,
            stderr,
            output: OutputRecord {
                stdout: stdout_record,
                stderr: stderr_record,
                incomplete,
                incomplete_reason,
                // Only the launcher can list the processes that hold the output, and Direct mode has no launcher.
                held_by: Vec::new(),
            },
        }
    }
}

/// Returns the end of the wait for output: `drain` after the exit status, or later while output still arrives.
fn drain_deadline(ended: Instant, last_output: Instant, drain: Duration) -> Instant {
    let silence = last_output.max(ended) + MIN_SILENCE_AFTER_EXIT;
    silence.min(ended + MAX_DELAY_BY_OUTPUT).max(ended + drain)
}

/// Returns the reason why the record lacks output, or `None` if the record is complete. The output limit takes
/// precedence over all other reasons.
fn incomplete_reason(is_over_limit: bool, is_closed: bool, is_drain_over: bool) -> Option<IncompleteReason> {
    match (is_over_limit, is_closed, is_drain_over) {
        (true, _, _) => Some(IncompleteReason::OverLimit),
        (false, true, _) => None,
        (false, false, true) => Some(IncompleteReason::StillOpen),
        (false, false, false) => Some(IncompleteReason::NotReceived),
    }
}

/// Returns a future that writes the start to the status. A lost write is harmless, because the result also contains the
/// start.
fn show_running<'a>(context: &'a Context, held: &'a HeldClaim, started: Timestamp) -> Progress<'a> {
    Box::pin(async move {
        let status = execution::with_start(&held.execution, started, context.cluster.now());
        context.cluster.write_as_holder(&held.key, &held.token, &status).await
    })
}

#[cfg(test)]
mod tests;
