//! A claimed command in Direct mode, from the request to execute to what was observed of its end.
//!
//! The loop waits for nothing but the next thing to happen, and for a moment where the output store is behind (see
//! [`Recorder::push`]), so the channel is always drained: one that is not freezes its whole connection. Exit status, output
//! and end of output come in any order. The end is the closing of the channel, or the end of the wait after the exit
//! status (`decision.output.drainSeconds`) if another process still holds the output open.
//!
//! The machine starts the command once it has read a permission that Writ sends when the login shell has come to it (`start`). The
//! exit code, and the time, count from the mark behind that. Without the permission it has not started, whatever is lost
//! (`not_started`).
//!
//! What the stored decision says of the output holds from the first byte on. Patterns are compiled before the command is
//! sent. A command that writes more than `decision.output.maximumBytes` receives a stop request, and the loop discards
//! what it writes beyond that limit.

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

/// How long the machine may take to answer the request to execute.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How long the login may take from there until it is ready for the command, while its start-up files do their work.
const LOGIN_DEADLINE: Duration = Duration::from_secs(90);
/// How long the command may take to start from the permission on: this is a way to the machine and back.
const PERMISSION_DEADLINE: Duration = Duration::from_secs(15);
/// Minimum silence after the exit status, whatever `drainSeconds` says: bytes that the command itself wrote may arrive
/// after its exit status.
const MIN_SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Time after the exit status up to which late output may delay the end beyond `drainSeconds`. A process that the
/// command left behind may write without a pause.
const MAX_DELAY_BY_OUTPUT: Duration = Duration::from_secs(10);
/// How long a command that was told to end (TERM) may take before it is told to be ended (KILL).
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long the end of a killed command may take to be seen.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// What is known of a running command.
struct Run {
    session: Session,
    recorder: Recorder,
    /// For its clock.
    cluster: Cluster,
    /// Bytes that the record may still take, of both streams together, as the machine sent them.
    budget: ByteBudget,
    maximum_bytes: u64,
    /// Wait for output after the exit status.
    drain: Duration,
    requested: Instant,
    /// When the machine confirmed that it executes the login shell.
    accepted: Option<Instant>,
    marks: Marks,
    /// When the permission to start was sent, or may have been.
    permitted: Option<Instant>,
    /// What the login said and did before the command started.
    unexpected: UnexpectedOutput,
    /// When the mark of the start came, on both clocks.
    started: Option<(Timestamp, Instant)>,
    /// Whether the connection was lost.
    is_lost: bool,
    /// When and how it ended.
    exit: Option<(Termination, Instant)>,
    /// When output was last recorded or discarded.
    last_output: Instant,
    /// True once the wait after the exit status was over and the channel still open.
    is_drain_over: bool,
    /// Why, when, and whether the second signal was sent too.
    told: Option<(StopCause, Instant, bool)>,
    timeout: Duration,
    /// Whether it runs as another user, with sudo in between.
    by_sudo: bool,
    /// What it wrote first, if sudo may be what wrote it.
    first_words: FirstWords,
}

type Progress<'a> = Pin<Box<dyn Future<Output = WriteOutcome> + Send + 'a>>;

/// Sends a claimed command and watches it to its end. Also why the machine's account keeps others from starting there, if
/// that is so.
pub(super) async fn run(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    opened: (Open, Session),
    cancel: CancellationToken,
) -> (CommandOutcome, Option<LaunchProblem>) {
    let (mut open, mut session) = opened;
    let mut tries = 0;
    loop {
        let (outcome, cause) = run_once(context, held, session, cancel.clone()).await;
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
    }
}

/// One session. Also why the login did not execute, if that is how it ended.
async fn run_once(
    context: &Context,
    held: &HeldClaim,
    session: Session,
    cancel: CancellationToken,
) -> (CommandOutcome, Option<RefusalCause>) {
    let usable = held.redaction();
    let recorder = held.recorder(context, usable.as_ref().unwrap_or(&Redaction::default()));
    let mut run = Run::new(session, &held.decision, recorder, context.cluster.clone());
    let requested = match usable {
        Ok(_) => run.request(context, held, &cancel).await,
        Err(problem) => Err(problem),
    };
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

    /// Sends the request to execute, unless it may not start any more.
    async fn request(
        &self,
        context: &Context,
        held: &HeldClaim,
        cancel: &CancellationToken,
    ) -> Result<(), LaunchProblem> {
        if let Some(problem) = held.check_still_valid(context, cancel) {
            return Err(problem);
        }
        let line = marked_command_line(&held.decision, READY_WORDS);
        self.session.exec(&line).await.map_err(|error| LaunchProblem {
            reason: Reason::ExecRequestRefused,
            message: format!("the connection was lost before the command was sent ({error}); nothing was sent"),
        })
    }

    /// Lets the command start, unless it may not any more.
    async fn permit(&mut self, context: &Context, held: &HeldClaim, cancel: &CancellationToken) -> Option<Termination> {
        if let Some(problem) = held.check_may_permit(context, cancel) {
            return Some(Termination::Refused(problem));
        }
        // From here on it may have started, even if sending fails.
        self.permitted = Some(Instant::now());
        // That the connection is gone is seen by who listens. The command waits for no input.
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
                    // What has an exit code already waits for nothing.
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

    /// Takes in what the machine said; Some when that was the end.
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
            // The first word counts: a command ends once.
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

    /// Takes in the next bytes of a stream. What a start-up file prints before the mark is output, as under ssh.
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
        // After the store: while it was behind, more output may have arrived.
        self.last_output = Instant::now();
    }

    fn output_limit(&self) -> StopCause {
        StopCause::OutputLimit { maximum_bytes: self.maximum_bytes }
    }

    /// The end where nothing more comes: what was observed before counts, else `otherwise`.
    fn ended_or(&self, otherwise: Termination) -> Termination {
        match (&self.exit, self.started) {
            (_, None) => self.not_started(),
            (Some((ending, _)), Some(_)) => ending.clone(),
            (None, Some(_)) => otherwise,
        }
    }

    /// When something has to be done even if nothing happens.
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

    /// Until when the next step towards the start must be seen.
    fn start_due(&self) -> Instant {
        match (self.permitted, self.accepted) {
            (Some(permitted), _) => permitted + PERMISSION_DEADLINE,
            (None, Some(accepted)) => accepted + LOGIN_DEADLINE,
            (None, None) => self.requested + START_DEADLINE,
        }
    }

    /// Whether there is a login, or a running command, that was not told yet.
    fn may_be_told(&self) -> bool {
        self.told.is_none() && self.exit.is_none()
    }

    async fn tell_to_stop(&mut self, cause: StopCause) {
        self.told = Some((cause, Instant::now(), false));
        self.session.signal(Signal::Terminate).await;
    }

    /// A deadline is over; Some when there is nothing more to wait for.
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
                // It must not start later, when nobody watches it.
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
        // KILL ends sudo, which cannot pass it on: what ran as the other user may still run.
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
        // Only what a command wrote that ended by itself can be taken for all that it had to write.
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
                // Only the launcher can see which processes hold the output.
                held_by: Vec::new(),
            },
        }
    }
}

/// Returns when the wait for output after the exit status is over: after `drain`, or later while output still arrives.
fn drain_deadline(ended: Instant, last_output: Instant, drain: Duration) -> Instant {
    let silence = last_output.max(ended) + MIN_SILENCE_AFTER_EXIT;
    silence.min(ended + MAX_DELAY_BY_OUTPUT).max(ended + drain)
}

/// Returns why the record lacks output; `None` if it has all of it. The limit comes first, because it is certain that
/// bytes are missing then.
fn incomplete_reason(is_over_limit: bool, is_closed: bool, is_drain_over: bool) -> Option<IncompleteReason> {
    match (is_over_limit, is_closed, is_drain_over) {
        (true, _, _) => Some(IncompleteReason::OverLimit),
        (false, true, _) => None,
        (false, false, true) => Some(IncompleteReason::StillOpen),
        (false, false, false) => Some(IncompleteReason::NotReceived),
    }
}

/// Tells the status that the command runs. It is written beside the draining, and losing it loses nothing: the result
/// follows.
fn show_running<'a>(context: &'a Context, held: &'a HeldClaim, started: Timestamp) -> Progress<'a> {
    Box::pin(async move {
        let status = execution::with_start(&held.execution, started, context.cluster.now());
        context.cluster.write_as_holder(&held.key, &held.token, &status).await
    })
}

#[cfg(test)]
mod tests;
