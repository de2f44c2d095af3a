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
mod client;
mod client_input;
mod drain;
mod first_words;
mod launch_problem;
mod not_started;
mod run_outcome;
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
use crate::api::execution_status::DecisionRecord;
use crate::cluster::{Cluster, WriteOutcome};
use crate::execution::{self, CommandOutcome, LaunchProblem, SHOW_PROGRESS_AFTER, StopCause, Termination};
use crate::output::{ByteBudget, Recorder, StreamKind};
use crate::policy::{Redaction, marked_command_line};
use crate::ssh::{Session, SessionEvent, Signal};

use crate::fleet::{Open, RefusalCause, UnexpectedOutput};

use super::claim::HeldClaim;
use super::context::Context;
use super::queued_execution::QueuedExecution;
use client::{Client, next_input, no_session, stop_requested};
use drain::drain_deadline;
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
    /// Client of an interactive execution.
    client: Option<Client>,
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
    let (mut tries, mut refused, mut client) = (0, None, Client::take(context, held));
    loop {
        let (outcome, cause) = run_once(context, held, (session, &mut client), cancel.clone(), refused.as_ref()).await;
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

/// Runs one session. Also returns the cause if the login did not execute the command. `client` is left for the next
/// session. `refused` is what the login said in the previous session.
async fn run_once(
    context: &Context,
    held: &HeldClaim,
    (session, client): (Session, &mut Option<Client>),
    cancel: CancellationToken,
    refused: Option<&LaunchProblem>,
) -> (CommandOutcome, Option<RefusalCause>) {
    let usable = held.redaction();
    let recorder = held.recorder(context, usable.as_ref().unwrap_or(&Redaction::default()));
    let mut run = Run::new(session, &held.decision, recorder, context.cluster.clone());
    let no_client = no_session(held, client.as_ref());
    if let Some(problem) = usable.err().or_else(|| must_not_send(context, held, &cancel, refused)).or(no_client) {
        return (run.outcome(Termination::Refused(problem), context.aborting.cancelled()).await, None);
    }
    run.client = client.take();
    run.record_session(held);
    let requested = run.request(held).await;
    let ending = match requested {
        Ok(()) => {
            let ending = run.watch(context, held, &cancel).await;
            run.unless_sudo_asked(ending, &held.execution)
        }
        Err(problem) => Termination::Refused(problem),
    };
    let cause = run.cause(&ending);
    *client = run.client.take();
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
            client: None,
            first_words: FirstWords::default(),
        }
    }

    /// Sends the exec request.
    async fn request(&mut self, held: &HeldClaim) -> Result<(), LaunchProblem> {
        let input = self.prepare_input().await?;
        let line = marked_command_line(&held.decision, READY_WORDS, input);
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
        // Without a client, the permission is the last input. If the write fails, the next event reports the lost
        // connection.
        if self.session.write_stdin(self.marks.permission()).await.is_ok() && self.client.is_none() {
            let _ = self.session.end_input().await;
        }
        None
    }

    async fn watch(&mut self, context: &Context, held: &HeldClaim, cancel: &CancellationToken) -> Termination {
        let mut progress: Option<Progress<'_>> = None;
        let (mut shown, left) = (false, self.client.as_ref().map(Client::left));
        loop {
            let (deadline, may_be_told) = (self.next_deadline(shown), self.may_be_told());
            let may_take_input = self.may_take_input();
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
                input = next_input(&mut self.client), if may_take_input => self.pass(input).await,
                cause = stop_requested(cancel, left.as_ref()), if may_be_told => {
                    self.tell_to_stop(cause).await;
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
            // After a write, the loop takes the next input.
            SessionEvent::Started | SessionEvent::Refused | SessionEvent::Written => {}
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
            Some((_, started)) => {
                let idle = self.idle_end().map_or(started + self.timeout, |(end, _)| end);
                idle.min(started + self.timeout)
            }
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
        self.session.signal(self.stop_signal()).await;
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
            (None, Some(_)) => {
                if let Some((_, idle)) = self.idle_end().filter(|(end, _)| *end <= Instant::now()) {
                    self.tell_to_stop(StopCause::Idle { seconds: idle.as_secs() }).await;
                }
            }
        }
        None
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
