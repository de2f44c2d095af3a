//! Runs one session with the launcher, from the request to the end of the output.
//!
//! The loop never stops reading the channel, because an unread channel would block the shared connection.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::api::{CommandExecutionStatus, Reason};
use crate::cluster::{ExecutionKey, WriteOutcome};
use crate::execution::{
    self, Journal, LaunchProblem, MachineMatch, ReattachStep, SHOW_PROGRESS_AFTER, StopCause, Termination,
};
use crate::fleet::{LauncherConnection, LauncherError, REFUSED, UnexpectedOutput, closed, is_refused_cut, send};
use crate::launcher::{Answer, Ended, ExecRequest, Nonce, Reply, ReplyEvent, RequestRefusal};
use crate::output::StreamKind;
use crate::ssh::{Session, SessionEvent};

use super::super::context::Context;
use super::super::messages::{launch_refused, not_started};
use super::run_state::{DurableRun, SessionEnd};
use super::stopping::{Stop, StopReport};

/// Maximum time from a request to the machine's answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Maximum time until the machine reports the end of a command whose output exceeds the limit. The time starts at the
/// first byte above the limit. After this time, Writ sends a stop request. The machine's watchdog normally ends the
/// command within a second.
const OVER_LIMIT_DEADLINE: Duration = Duration::from_secs(10);

type Progress<'a> = Pin<Box<dyn Future<Output = WriteOutcome> + Send + 'a>>;
type Stopping<'a> = Pin<Box<dyn Future<Output = StopReport> + Send + 'a>>;

/// One session with the launcher.
struct Conversation {
    session: Session,
    reply: Reply,
    asked: Instant,
    /// Time at which the machine reported that the command runs, by the clock of this process.
    running_since: Option<Instant>,
    /// End of the command, if the machine has reported it. The remaining output can still arrive.
    end: Option<End>,
    /// Output of the login before the reply, and the exit code or signal of the session.
    unexpected: UnexpectedOutput,
}

/// End of a command, as the machine reports it.
enum End {
    Ended(Ended),
    Lost { rebooted: bool },
}

impl DurableRun<'_> {
    /// Sends a request and processes the reply.
    pub(super) async fn converse(
        &mut self,
        reached: Arc<LauncherConnection>,
        mut session: Session,
        request: &ExecRequest,
        nonce: Nonce,
        place: MachineMatch,
    ) -> SessionEnd {
        if let Err(error) = send(&mut session, request).await {
            reached.permit.discard().await;
            return SessionEnd::Silence(error.to_string());
        }
        let mut conversation = Conversation {
            session,
            reply: Reply::resuming(&nonce, self.received),
            asked: Instant::now(),
            running_since: None,
            end: None,
            unexpected: UnexpectedOutput::default(),
        };
        let heard = self.listen(&reached, &mut conversation).await;
        self.clock.note_session(conversation.asked.elapsed());
        conversation.session.close().await;
        match heard {
            Heard::End(SessionEnd::Silence(problem)) => {
                // The discard warns other tasks that share the connection.
                reached.permit.discard().await;
                SessionEnd::Silence(problem)
            }
            Heard::End(said) => said,
            // The connection still works for other tasks, so the permit is not discarded.
            Heard::TurnedAway(problem) => SessionEnd::Silence(problem),
            Heard::Mixed(problem) => SessionEnd::Mixed { reached, problem },
            Heard::Journal(journal) => self.weigh(reached, place, journal),
            Heard::Refused(problem) => SessionEnd::Refused { reached, problem },
        }
    }

    /// Returns the end of a session that reported a journal state. If [`execution::next_step`] returns `Retry`, the
    /// report is from another host, so the end is `Elsewhere`.
    fn weigh(&mut self, reached: Arc<LauncherConnection>, place: MachineMatch, journal: Journal) -> SessionEnd {
        if execution::next_step(place, &journal, self.has_run, Ok(())) == ReattachStep::Retry {
            self.is_elsewhere = true;
            return SessionEnd::Elsewhere(elsewhere(&reached));
        }
        SessionEnd::Journal { reached, place, journal }
    }

    async fn listen(&mut self, reached: &Arc<LauncherConnection>, conversation: &mut Conversation) -> Heard {
        let (context, work, cancel, key) = (self.context, self.work, self.cancel.clone(), self.held.key.clone());
        let token = self.held.token.clone();
        let mut progress: Option<Progress<'_>> = None;
        let mut stopping: Option<Stopping<'_>> = None;
        loop {
            let may_cancel = self.stop.is_none() && conversation.running_since.is_some();
            let deadline = self.next_deadline(conversation, stopping.is_some());
            tokio::select! {
                event = conversation.session.next() => {
                    if let Some(heard) = self.take(event, reached, conversation).await {
                        return heard;
                    }
                }
                () = cancel.cancelled(), if may_cancel => {
                    self.clock.note_cancel();
                    self.decide_to_stop(StopCause::Cancel);
                }
                () = context.aborting.cancelled() => return Heard::End(SessionEnd::NotOurs),
                report = async { match stopping.as_mut() { Some(task) => task.await, None => pending().await } } => {
                    stopping = None;
                    if let Some(stop) = self.stop.as_mut() {
                        stop.note(report);
                    }
                }
                written = async { match progress.as_mut() { Some(write) => write.await, None => pending().await } } => {
                    self.is_status_stored = matches!(written, WriteOutcome::Stored);
                    progress = None;
                }
                () = sleep_until(deadline) => {
                    if let Some(heard) = self.time_passed(conversation, stopping.is_some()) {
                        return heard;
                    }
                    if let (Some(since), Some(started), false) = (conversation.running_since, self.started, self.shown)
                        && since.elapsed() >= SHOW_PROGRESS_AFTER {
                        self.shown = true;
                        let status = execution::with_start(&self.held.execution, started, context.cluster.now());
                        self.change_status(status.clone());
                        progress = Some(show(context, &key, &token, status));
                    }
                }
            }
            if progress.is_none() && self.note_stop_request() {
                progress = self.held.execution.status.clone().map(|status| show(context, &key, &token, status));
            }
            if let (Some(stop), None) = (self.stop.as_mut(), &stopping)
                && stop.is_due()
            {
                stop.note_asked();
                stopping = Some(Box::pin(Stop::ask(
                    &context.fleet,
                    work.machine_key(),
                    Arc::clone(reached),
                    self.uid.clone(),
                )));
            }
        }
    }

    /// Processes one event of the session. Returns `Some` if the event ends the session.
    async fn take(
        &mut self,
        event: SessionEvent,
        reached: &LauncherConnection,
        conversation: &mut Conversation,
    ) -> Option<Heard> {
        let Conversation { reply, running_since, end, unexpected, .. } = conversation;
        let mut heard = None;
        // Output that `reply` emits for this event.
        let mut written = Vec::new();
        let mut hear = |item: ReplyEvent<'_>| match item {
            ReplyEvent::Stdout(bytes) => written.push((StreamKind::Stdout, Bytes::copy_from_slice(bytes))),
            ReplyEvent::Stderr(bytes) => written.push((StreamKind::Stderr, Bytes::copy_from_slice(bytes))),
            ReplyEvent::Answer(answer) => heard = self.hear(answer, reached, running_since, end),
            ReplyEvent::Malformed(broken) => heard = Some(Heard::Mixed(broken.to_string())),
        };
        if let (SessionEvent::Stdout(bytes) | SessionEvent::Stderr(bytes), false) = (&event, reply.has_begun()) {
            unexpected.push(bytes);
        }
        match event {
            SessionEvent::Stdout(bytes) => reply.stdout(&bytes, &mut hear),
            SessionEvent::Stderr(bytes) => reply.stderr(&bytes, &mut hear),
            SessionEvent::ExitCode(code) => unexpected.exited(code),
            SessionEvent::Signal(signal) => unexpected.signalled(&signal),
            SessionEvent::Started | SessionEvent::Written => {}
            SessionEvent::Refused => return Some(Heard::End(SessionEnd::Silence(REFUSED.to_owned()))),
            SessionEvent::Closed if is_refused_cut(reply, unexpected.exit_code()) => {
                return Some(Heard::Refused(launch_refused(&RequestRefusal::Cut)));
            }
            SessionEvent::Closed if !reply.has_begun() => {
                return Some(match closed(unexpected) {
                    LauncherError::SessionRefused(problem) => Heard::TurnedAway(problem),
                    other => Heard::End(SessionEnd::Silence(other.to_string())),
                });
            }
            // The session closed before standard error arrived. The record therefore reports missing output.
            SessionEvent::Closed if reply.is_without_stderr() && end.is_some() => return end.take().map(Heard::from),
            SessionEvent::Closed => {
                let problem = "the launcher's session was closed before all was said".to_owned();
                return Some(Heard::End(SessionEnd::Silence(problem)));
            }
            SessionEvent::Lost => return Some(Heard::End(SessionEnd::Silence("the connection was lost".to_owned()))),
        }
        for (kind, bytes) in written {
            self.keep(kind, &bytes).await;
        }
        if heard.is_none() && reply.is_complete() {
            heard = end.take().map(Heard::from);
        }
        heard
    }

    async fn keep(&mut self, kind: StreamKind, bytes: &[u8]) {
        let received = match kind {
            StreamKind::Stdout => &mut self.received.stdout,
            StreamKind::Stderr => &mut self.received.stderr,
        };
        *received = received.saturating_add(bytes.len() as u64);
        let in_all = self.received.stdout.saturating_add(self.received.stderr);
        let kept = self.budget.take(bytes);
        if !kept.is_empty() {
            // Bytes within the budget are progress, even if no answer of the machine follows.
            self.silent_since = None;
            self.progressed = Some(Instant::now());
            self.clock.note_bytes(kept.len() as u64, in_all);
        }
        if let Some(recorder) = self.recorder.as_mut().filter(|_| !kept.is_empty()) {
            self.is_keeping = true;
            recorder.push(kind, kept).await;
            self.is_keeping = false;
        }
        if self.budget.is_exceeded() {
            self.over_limit_since.get_or_insert_with(Instant::now);
        }
    }

    /// Processes one answer of the launcher. Returns `Some` if no more answers follow.
    fn hear(
        &mut self,
        answer: Answer,
        reached: &LauncherConnection,
        running_since: &mut Option<Instant>,
        end: &mut Option<End>,
    ) -> Option<Heard> {
        self.silent_since = None;
        self.has_answered = true;
        match answer {
            Answer::Running(running) => {
                *running_since = Some(Instant::now());
                if self.note_journal(&Journal::Running) {
                    tracing::info!(
                        execution = %self.held.key, uid = self.held.key.uid, machine = self.work.machine,
                        "command running"
                    );
                }
                self.note_start(running.started_centiseconds, reached);
                let ago = running.started_centiseconds.zip(running.now_centiseconds);
                let ago = ago.map_or(0, |(started, now)| now.saturating_sub(started));
                self.clock.note_started(Duration::from_millis(ago.saturating_mul(10)));
                None
            }
            Answer::Ended(ended) => {
                self.note_start(ended.started_centiseconds, reached);
                *end = Some(End::Ended(ended));
                None
            }
            Answer::Lost(lost) => {
                self.note_start(lost.started_centiseconds, reached);
                *end = Some(End::Lost { rebooted: lost.rebooted });
                None
            }
            Answer::Absent => Some(Heard::Journal(Journal::Absent)),
            Answer::Starting => Some(Heard::Journal(Journal::Starting)),
            Answer::Tombstoned => Some(Heard::Journal(Journal::Tombstoned)),
            // The machine reported earlier that the command runs.
            Answer::NotStarted(_) if self.has_run => Some(Heard::End(SessionEnd::Concluded(Termination::Unknown {
                reason: Reason::RecordLost,
                problem: "the command started, but its journal on the machine is gone".to_owned(),
            }))),
            Answer::NotStarted(why) => {
                let problem = not_started(&why, &self.held.execution);
                Some(Heard::End(SessionEnd::Concluded(Termination::Refused(problem))))
            }
            Answer::Refused(refusal) => Some(Heard::Refused(launch_refused(&refusal))),
            other => Some(Heard::End(SessionEnd::Silence(format!("the launcher answered {other:?}")))),
        }
    }

    /// Records the start, which the machine reports as an uptime. If the machine has rebooted since the claim, the
    /// start time stays unknown. The recorded time is never before the claim and never in the future.
    fn note_start(&mut self, started_centiseconds: Option<u64>, reached: &LauncherConnection) {
        self.has_run = true;
        if let Some(recorder) = &self.recorder {
            recorder.started();
        }
        let Some(status) = self.held.execution.status.as_ref() else { return };
        let claimed = status.claim.as_ref().map(|claim| claim.dispatched_time.0);
        let same_boot = status.remote.as_ref().is_some_and(|remote| remote.boot_id == reached.known.facts.boot_id);
        if self.started.is_none() && same_boot {
            let now = self.context.cluster.now();
            let said = started_centiseconds.and_then(|started| reached.known.time_at(started, now)).unwrap_or(now);
            self.started = Some(claimed.map_or(said, |claimed| said.max(claimed)).min(now));
        }
    }

    fn next_deadline(&self, conversation: &Conversation, is_stopping: bool) -> Instant {
        self.next_in_session(conversation, is_stopping).min(self.clock.end())
    }

    fn next_in_session(&self, conversation: &Conversation, is_stopping: bool) -> Instant {
        let Some(since) = conversation.running_since else { return self.answer_due(conversation) };
        if let Some(stop) = &self.stop {
            return if is_stopping { since + LONG } else { stop.next_deadline(self.progressed) };
        }
        // The status cannot show an unknown start. Without this check, the deadline would stay in the past, and the
        // loop would never pause.
        if !self.shown && self.started.is_some() {
            return since + SHOW_PROGRESS_AFTER;
        }
        let over_limit = self.over_limit_since.map(|since| since + OVER_LIMIT_DEADLINE);
        let due = [self.clock.stop_due(), over_limit].into_iter().flatten().min();
        due.unwrap_or_else(|| since + LONG)
    }

    /// Returns the deadline for the machine's answer. Output that arrives before the answer extends the deadline.
    fn answer_due(&self, conversation: &Conversation) -> Instant {
        let asked = conversation.session.fed().unwrap_or(conversation.asked);
        self.progressed.map_or(asked, |at| at.max(asked)) + ANSWER_DEADLINE + conversation.session.slack()
    }

    /// Handles a passed deadline. Returns `Some` if the session has nothing more to wait for.
    fn time_passed(&mut self, conversation: &Conversation, is_stopping: bool) -> Option<Heard> {
        let now = Instant::now();
        if now >= self.clock.end() {
            return Some(Heard::End(SessionEnd::OutOfTime));
        }
        if conversation.running_since.is_none() {
            if now < self.answer_due(conversation) {
                return None;
            }
            let seconds = ANSWER_DEADLINE.as_secs();
            let problem = match conversation.session.fed() {
                Some(_) => format!("the machine did not answer within {seconds} s"),
                None => format!("the machine did not take the request within {seconds} s"),
            };
            return Some(Heard::End(SessionEnd::Silence(problem)));
        }
        match &mut self.stop {
            Some(stop) if !is_stopping && stop.is_over(self.progressed) => {
                Some(Heard::End(SessionEnd::Concluded(Termination::StopNotConfirmed)))
            }
            Some(_) => None,
            None => {
                if self.clock.stop_due().is_some_and(|due| now >= due) {
                    self.decide_to_stop(StopCause::Timeout);
                } else if self.over_limit_since.is_some_and(|since| since.elapsed() >= OVER_LIMIT_DEADLINE) {
                    self.decide_to_stop(self.output_limit());
                }
                None
            }
        }
    }
}

/// Returns a message about a host that is not the host of the claim.
pub(super) fn elsewhere(reached: &LauncherConnection) -> String {
    format!("another host answers under this name: {} with boot id {}", reached.address(), reached.known.facts.boot_id)
}

/// Returns a future that writes the progress to the status. If the write is lost, the next reattach repeats it, or the
/// write of the result includes the progress.
fn show<'a>(context: &'a Context, key: &ExecutionKey, token: &str, status: CommandExecutionStatus) -> Progress<'a> {
    let (key, token) = (key.clone(), token.to_owned());
    Box::pin(async move { context.cluster.write_as_holder(&key, &token, &status).await })
}

/// A duration that is longer than any wait of a session.
const LONG: Duration = Duration::from_secs(86_400 * 2);

/// Result of reading a session.
enum Heard {
    End(SessionEnd),
    /// The machine executed nothing in this session, for a temporary reason.
    TurnedAway(String),
    Mixed(String),
    Journal(Journal),
    Refused(LaunchProblem),
}

impl From<End> for Heard {
    fn from(end: End) -> Self {
        match end {
            End::Ended(ended) => Heard::End(SessionEnd::Ended(ended)),
            End::Lost { rebooted } => Heard::Journal(Journal::Lost { rebooted }),
        }
    }
}
