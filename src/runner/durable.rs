//! A claimed command in Durable mode, from the launch to what the machine's own record says of its end.
//!
//! The command hangs on nothing here: a lost connection is made again, and the output read on from where it was left; a
//! `writ` that is lost is followed by another, which reads it all anew. The promise kept here: the launch is sent only
//! where [`execution::next`] allows it, and the machine's fence lets it start once.
//!
//! ```text
//!            +--> launch --+                      +--> ended: the outcome
//! begin -----+             +--> converse ---------+--> silence: pause, reach, look
//!            +--> look ----+    (`conversation`)  +--> journal: next() -> launch | close | look on | conclude
//!
//! each step, and each pause, ends at the deadline (`clock`): one last question, and the outcome (`ending`)
//! ```

mod clock;
mod conversation;
mod ending;
mod looking;
mod stopping;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::api::Reason;
use crate::api::execution_status::{IncompleteReason, OutputHolder, OutputRecord};
use crate::execution::{self, Ending, LaunchProblem, Limits, Next, Outcome, Place, StopCause, TERM_GRACE};
use crate::launcher::{self, Ended, FrameSize, Holder, Missing, Offsets, Outcome as Exit, Uid};
use crate::output::{ByteBudget, Recorded, Recorder};
use crate::policy::Redaction;
use crate::ssh::Session;
use crate::telemetry::SPANS;

use super::asking::new_nonce;
use super::claim::Holding;
use super::reach::Reached;
use super::saying::{signal_name, sudo_refused};
use super::{Inner, Work};
use clock::Clock;
use conversation::Said;
use ending::centiseconds;
use looking::Look;
pub(super) use looking::runs_the_same;
use stopping::Stop;

/// Maximum number of sessions with other text in the reply. After them, Writ gives up the output that is still missing.
const MAX_MIXED_SESSIONS: u32 = 8;

/// Where to begin.
pub(super) enum Begin {
    /// The claim was just stored: send the command.
    Launch { reached: Arc<Reached>, session: Session },
    /// The claim was taken over: see what has become of it.
    Look,
}

/// What to do next.
enum Step {
    Launch { reached: Arc<Reached>, session: Session },
    Look,
    Close { reached: Arc<Reached>, problem: LaunchProblem },
}

impl Step {
    fn span(&self) -> tracing::Span {
        match self {
            // From the request to the end, where nothing comes between.
            Step::Launch { .. } => tracing::info_span!(target: SPANS, "launch"),
            Step::Look => tracing::info_span!(target: SPANS, "follow"),
            Step::Close { .. } => tracing::info_span!(target: SPANS, "close"),
        }
    }
}

/// One command, as far as it is known.
pub(super) struct Run<'a> {
    inner: &'a Inner,
    work: &'a Work,
    holding: &'a mut Holding,
    cancel: CancellationToken,
    /// None once it is finished.
    recorder: Option<Recorder>,
    uid: Uid,
    /// How many bytes of each stream were received, as the machine wrote them.
    received: Offsets,
    /// Largest frame of the next reply, and the number of received bytes when it was chosen.
    max_frame: FrameSize,
    received_before: u64,
    /// Bytes that the record may still take, of both streams together.
    budget: ByteBudget,
    /// Time at which the first byte beyond that arrived.
    over_limit_since: Option<Instant>,
    /// Sessions in which other text was mixed into the reply.
    mixed_sessions: u32,
    /// Until when it is followed.
    clock: Arc<Clock>,
    /// When it started, by our clock.
    started: Option<Timestamp>,
    /// Whether the machine said, to whomever, that it had started.
    has_run: bool,
    /// How far the journal has come, of all that was seen of it.
    furthest: u8,
    /// When output was received last that counts.
    progressed: Option<Instant>,
    /// True while received bytes are on their way into the record.
    is_keeping: bool,
    /// Whether the status says that it runs.
    shown: bool,
    /// What was done to stop it.
    stop: Option<Stop>,
    /// Since when the machine does not answer.
    silent_since: Option<Instant>,
    /// What was in the way last.
    problem: String,
    /// Whether the machine gave an answer when it was asked last.
    has_answered: bool,
    /// Whether another host, or another address, was reached last.
    is_elsewhere: bool,
    /// Whether it may have been sent in a request whose answer is not known.
    unsure: bool,
}

/// Sends, or looks for, a claimed command and watches it to its end. None where it is left to somebody else: this process
/// is ending, or the claim is no longer its own.
pub(super) async fn run(
    inner: &Inner,
    work: &Work,
    holding: &mut Holding,
    begin: Begin,
    cancel: CancellationToken,
) -> Option<Outcome> {
    let Some(uid) = Uid::new(&holding.key.uid) else {
        tracing::error!(execution = %holding.key, "the API server gave a UID that cannot be one");
        return None;
    };
    let redaction = match holding.redaction() {
        Ok(redaction) => redaction,
        // What is not kept cannot be wrong; it was refused before it was sent, or sent by who could.
        Err(problem) => {
            let is_taken_over = matches!(begin, Begin::Look);
            let mut run = Run::new(inner, work, holding, uid, (&Redaction::default(), is_taken_over), cancel);
            return Some(match begin {
                Begin::Launch { session, .. } => {
                    session.hang_up().await;
                    run.refused(problem).await
                }
                // Another version of writ may have sent it, which could read them.
                Begin::Look => {
                    tracing::error!(execution = %run.holding.key, problem = problem.message, "a stored decision is of no use");
                    let problem = "the patterns to redact its output by cannot be used by this version of writ, so nothing of it \
                                   was read; another writ had claimed it, and it may have run"
                        .to_owned();
                    run.outcome(Ending::Unknown { reason: Reason::PolicyBroken, problem }, None).await
                }
            });
        }
    };
    let refusal = match &begin {
        Begin::Launch { .. } => holding.reason_not_to_start(inner, &cancel),
        Begin::Look => None,
    };
    let is_taken_over = matches!(begin, Begin::Look);
    let mut run = Run::new(inner, work, holding, uid, (&redaction, is_taken_over), cancel);
    match (refusal, begin) {
        (None, begin) => run.follow_through(begin).await,
        (Some(problem), Begin::Launch { session, .. }) => {
            session.hang_up().await;
            Some(run.refused(problem).await)
        }
        (Some(problem), Begin::Look) => Some(run.refused(problem).await),
    }
}

fn holder_record(holder: &Holder) -> OutputHolder {
    OutputHolder { process_id: i64::try_from(holder.process).unwrap_or(i64::MAX), name: holder.name.clone() }
}

impl<'a> Run<'a> {
    fn new(
        inner: &'a Inner,
        work: &'a Work,
        holding: &'a mut Holding,
        uid: Uid,
        (redaction, is_taken_over): (&Redaction, bool),
        cancel: CancellationToken,
    ) -> Self {
        let recorder = Some(holding.recorder(inner, redaction));
        let status = holding.execution.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let limits = limits_of(inner, holding);
        Self {
            inner,
            work,
            cancel,
            recorder,
            uid,
            received: Offsets::default(),
            max_frame: FrameSize::default(),
            received_before: 0,
            budget: ByteBudget::new(limits.maximum_bytes),
            over_limit_since: None,
            mixed_sessions: 0,
            clock: Arc::new(Clock::new(&holding.execution, limits, is_taken_over, inner.cluster.now())),
            started,
            has_run: started.is_some(),
            furthest: 0,
            progressed: None,
            is_keeping: false,
            shown: started.is_some(),
            stop: None,
            silent_since: None,
            problem: String::new(),
            has_answered: false,
            is_elsewhere: false,
            unsure: false,
            holding,
        }
    }

    async fn follow_through(&mut self, begin: Begin) -> Option<Outcome> {
        let mut step = match begin {
            Begin::Launch { reached, session } => Step::Launch { reached, session },
            Begin::Look => {
                self.unsure = true;
                Step::Look
            }
        };
        loop {
            let span = step.span();
            let said = self.take_step(step).instrument(span).await;
            step = match said {
                Said::Ended(ended) => return Some(self.ended(ended).await),
                Said::Concluded(ending) => return Some(self.outcome(ending, None).await),
                Said::NotOurs => return None,
                Said::OutOfTime => return Some(self.out_of_time().await),
                // Nothing was started by this request. That nothing is by another is made sure of.
                Said::Refused { reached, problem } => Step::Close { reached, problem },
                Said::Mixed { reached, problem } => {
                    self.unsure = true;
                    self.mixed_sessions += 1;
                    let has_ended =
                        if self.mixed_sessions < MAX_MIXED_SESSIONS { None } else { self.poll_in_time(&reached).await };
                    if let Some(ended) = has_ended {
                        return Some(self.ended(ended).await);
                    }
                    match self.look_again(&problem).await {
                        Ok(step) => step,
                        Err(outcome) => return outcome,
                    }
                }
                Said::Journal { reached, place, journal } => match self.judge_journal(reached, place, &journal).await {
                    Ok(step) => step,
                    Err(outcome) => return outcome,
                },
                Said::Silence(problem) | Said::Elsewhere(problem) => {
                    self.unsure = true;
                    match self.look_again(&problem).await {
                        Ok(step) => step,
                        Err(outcome) => return outcome,
                    }
                }
            };
        }
    }

    /// Sends the command.
    async fn launch(&mut self, reached: Arc<Reached>, session: Session) -> Said {
        let (decision, status) = (&self.holding.decision, self.holding.execution.status.as_ref());
        let Some(remote) = status.and_then(|status| status.remote.as_ref()) else {
            return Said::Concluded(Ending::Refused(LaunchProblem {
                reason: Reason::PolicyBroken,
                message:
                    "the API server did not store where the command is sent (status.remote): install the CRDs of this \
                          version of writ; nothing was sent"
                        .to_owned(),
            }));
        };
        let nonce = new_nonce();
        let launch = launcher::Launch {
            uid: &self.uid,
            decision,
            boot_id: &remote.boot_id,
            not_after_centiseconds: u64::try_from(remote.not_after_uptime_ms / 10).unwrap_or(0),
            grace_centiseconds: centiseconds(TERM_GRACE),
        };
        self.clock.note_sent();
        let request = launcher::launch(&nonce, &reached.known.facts, &launch);
        self.converse(reached, session, &request, nonce, Place::Same).await
    }

    /// The end of the command by the machine's record.
    async fn ended(&mut self, ended: Ended) -> Outcome {
        if ended.refused_by_sudo {
            // What was there for a moment was sudo.
            self.started = None;
            let problem = sudo_refused("a password is required", &self.holding.execution);
            return self.outcome(Ending::Refused(problem), Some(ended)).await;
        }
        let told = self.told(&ended);
        // Where nobody could see what is left, something may be.
        let survivors = ended.was_ended && (ended.left != Some(0) || self.stop.as_ref().is_some_and(Stop::left_some));
        let ending = match ended.outcome {
            _ if told.is_some() && survivors => Ending::NotSeenToStop,
            Exit::Exited(code) => Ending::Exited { code: u32::from(code) },
            Exit::Signalled(number) => Ending::Signalled { signal: signal_name(number) },
            Exit::Unknown => Ending::Gone,
        };
        // What the machine says counts: a command may have ended before it could be told.
        self.stop = told.map(Stop::new);
        self.outcome(ending, Some(ended)).await
    }

    fn output_limit(&self) -> StopCause {
        let maximum_bytes = u64::try_from(self.holding.decision.output.maximum_bytes).unwrap_or(0);
        StopCause::OutputLimit { maximum_bytes }
    }

    /// Why the command was told to stop, by what the machine recorded of that.
    fn told(&self, ended: &Ended) -> Option<StopCause> {
        if ended.timed_out {
            return Some(StopCause::Timeout);
        }
        // The bound is ours, too: a machine that did not keep it says nothing of it.
        if ended.over_limit || self.budget.is_exceeded() {
            return Some(self.output_limit());
        }
        let asked_for = if self.cancel.is_cancelled() || self.holding.execution.is_unwanted() {
            StopCause::Cancel
        } else {
            // Nobody wanted that: a holder found it to run past its time.
            StopCause::Timeout
        };
        ended.stopped.then(|| self.stop.as_ref().map_or(asked_for, |stop| stop.cause))
    }

    async fn refused(&mut self, problem: LaunchProblem) -> Outcome {
        self.outcome(Ending::Refused(problem), None).await
    }

    async fn outcome(&mut self, ending: Ending, ended: Option<Ended>) -> Outcome {
        if let Some(status) = self.status_of_stop() {
            // Stored with the result.
            self.holding.execution.status = Some(status);
        }
        let incomplete_reason = self.missing_output(ended.as_ref());
        let whole = incomplete_reason.is_none();
        let told_to_stop = self.stop.as_ref().map(|stop| stop.cause);
        // Only what a command wrote that ended by itself can be taken for all that it had to write.
        let cut_off = !whole || told_to_stop.is_some() || !matches!(ending, Ending::Exited { .. });
        let recorder = self.recorder.take().unwrap_or_else(|| self.holding.recorder(self.inner, &Redaction::default()));
        let hurry = self.inner.halted.cancelled();
        let Recorded { stdout, stderr, stdout_record, stderr_record } = recorder.finish(cut_off, hurry).await;
        let held_by = ended.iter().flat_map(|ended| &ended.holders).map(holder_record).collect();
        Outcome {
            ending,
            told_to_stop,
            nothing_left: ended.as_ref().is_some_and(|ended| ended.left == Some(0)),
            started: self.started,
            duration_ms: ended.as_ref().and_then(|ended| {
                let centiseconds = ended.ended_centiseconds?.checked_sub(ended.started_centiseconds?)?;
                i64::try_from(centiseconds.checked_mul(10)?).ok()
            }),
            stdout,
            stderr,
            output: OutputRecord {
                stdout: stdout_record,
                stderr: stderr_record,
                incomplete: !whole,
                incomplete_reason,
                held_by: if incomplete_reason == Some(IncompleteReason::StillOpen) { held_by } else { Vec::new() },
            },
        }
    }

    /// Why output is missing in the record; None if it is whole.
    fn missing_output(&self, ended: Option<&Ended>) -> Option<IncompleteReason> {
        let Some(ended) = ended else { return Some(IncompleteReason::NotReceived) };
        if ended.over_limit || self.budget.is_exceeded() {
            return Some(IncompleteReason::OverLimit);
        }
        if self.is_keeping {
            // The deadline came while bytes were on their way into the record.
            return Some(IncompleteReason::NotReceived);
        }
        match ended.missing {
            Some(Missing::Held) => Some(IncompleteReason::StillOpen),
            Some(Missing::ReaderEnded) => Some(IncompleteReason::ReaderEnded),
            Some(Missing::DiskFull) => Some(IncompleteReason::DiskFull),
            Some(Missing::FileSizeLimit) => Some(IncompleteReason::FileSizeLimit),
            Some(Missing::Removed) => Some(IncompleteReason::Removed),
            None if ended.output_gone => Some(IncompleteReason::Removed),
            None => (self.received != ended.lengths).then_some(IncompleteReason::NotReceived),
        }
    }

    /// What the journal asks for. The error is the end, as with [`Run::look_again`].
    async fn judge_journal(
        &mut self,
        reached: Arc<Reached>,
        place: Place,
        journal: &execution::Journal,
    ) -> Result<Step, Option<Outcome>> {
        // A machine that says the same again, or something from before, is asked no sooner for it.
        if !self.note_journal(journal) && self.wait_out("its journal did not move on").await {
            return Err(Some(self.out_of_time().await));
        }
        let (clock, cancel) = (Arc::clone(&self.clock), self.cancel.clone());
        match clock.in_time(&cancel, self.decide(reached, place, journal)).await {
            Some(Look::Step(step)) => Ok(step),
            Some(Look::Concluded(ending)) => Err(Some(self.outcome(ending, None).await)),
            Some(Look::NotOurs) => Err(None),
            None => Err(Some(self.out_of_time().await)),
        }
    }

    async fn decide(&mut self, reached: Arc<Reached>, place: Place, journal: &execution::Journal) -> Look {
        let has_run = self.has_run;
        let may_start = if *journal == execution::Journal::Absent && place == Place::Same && !has_run {
            match self.may_start(&reached).await {
                Ok(may_start) => may_start,
                Err(look) => return look,
            }
        } else {
            Ok(())
        };
        match execution::next(place, journal, has_run, may_start) {
            Next::Launch => match reached.open().await {
                Ok(session) => Look::Step(Step::Launch { reached, session }),
                Err(_) => Look::Step(Step::Look),
            },
            Next::Close(problem) => Look::Step(Step::Close { reached, problem }),
            Next::Conclude(ending) => Look::Concluded(ending),
            Next::Follow | Next::LookOn => Look::Step(Step::Look),
        }
    }
}

/// The limits of a claimed command.
fn limits_of(inner: &Inner, holding: &Holding) -> Limits {
    let decision = &holding.decision;
    Limits {
        timeout: Duration::from_secs(u64::from(decision.timeout_seconds)),
        drain: Duration::from_secs(u64::from(decision.output.drain_seconds)),
        maximum_bytes: u64::try_from(decision.output.maximum_bytes).unwrap_or(0),
        patience: inner.patience.unreachable,
        stop_patience: inner.patience.stop,
    }
}
