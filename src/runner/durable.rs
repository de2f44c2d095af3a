//! Runs a claimed command in Durable mode, from its launch to its end in the machine's journal.
//!
//! The command continues without this process and without a connection. After a lost connection, Writ reads the output
//! from the last offset. If this process dies, another process adopts the claim and reads all output again.
//!
//! Guarantee: the command starts at most once. On the machine, only the request that creates the journal file starts
//! the command. Writ repeats a launch only if [`execution::next_step`] allows it.
//!
//! ```text
//!            +--> launch ----+                    +--> ended: the outcome
//! begin -----+               +--> converse -------+--> silence: pause, connect, reattach
//!            +--> reattach --+    (`session`)     +--> journal: next step: launch | close | reattach | conclude
//!
//! if the deadline (`clock`) passes during a step or a pause: one final request, then the outcome (`ending`)
//! ```

mod clock;
mod ending;
mod reattach;
mod run_state;
mod session;
mod stopping;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::api::Reason;
use crate::api::execution_status::{IncompleteReason, OutputHolder, OutputRecord};
use crate::execution::{
    self, CommandOutcome, LaunchProblem, MachineMatch, ReattachStep, StopCause, TERM_GRACE, Termination,
};
use crate::fleet::{LauncherConnection, new_nonce};
use crate::launcher::{self, Ended, ExitOutcome as Exit, Holder, Missing, Uid};
use crate::output::CapturedOutput;
use crate::policy::Redaction;
use crate::ssh::Session;

use super::claim::HeldClaim;
use super::context::Context;
use super::messages::{signal_name, sudo_refused};
use super::queued_execution::QueuedExecution;
use clock::centiseconds;
pub(super) use run_state::Start;
use run_state::{DurableRun, NextStep, ReattachResult, SessionEnd};
use stopping::Stop;

/// Maximum number of sessions with foreign text in the launcher's reply. At this number, the run ends as soon as the
/// command has ended, even if output is missing.
const MAX_MIXED_SESSIONS: u32 = 8;

/// Launches a claimed command or reattaches to it, and follows it to its end. Returns `None` if this process is ending
/// or no longer holds the claim. Another process then follows the command.
pub(super) async fn run(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    begin: Start,
    cancel: CancellationToken,
) -> Option<CommandOutcome> {
    let Some(uid) = Uid::new(&held.key.uid) else {
        tracing::error!(execution = %held.key, "the API server gave a UID that cannot be one");
        return None;
    };
    let redaction = match held.redaction() {
        Ok(redaction) => redaction,
        // The redaction patterns of the decision do not compile, so this run records no output.
        Err(problem) => {
            let is_taken_over = matches!(begin, Start::Reattach);
            let mut run = DurableRun::new(context, work, held, uid, (&Redaction::default(), is_taken_over), cancel);
            return Some(match begin {
                Start::Launch { session, .. } => {
                    session.close().await;
                    run.refused(problem).await
                }
                // Perhaps another version of writ could compile the patterns and has sent the command.
                Start::Reattach => {
                    tracing::error!(execution = %run.held.key, error = problem.message, "a stored decision is of no use");
                    let problem = "the patterns to redact its output by cannot be used by this version of writ, so nothing of it \
                                   was read; another writ had claimed it, and it may have run"
                        .to_owned();
                    run.outcome(Termination::Unknown { reason: Reason::PolicyBroken, problem }, None).await
                }
            });
        }
    };
    let refusal = match &begin {
        Start::Launch { .. } => held.check_still_valid(context, &cancel),
        Start::Reattach => None,
    };
    let is_taken_over = matches!(begin, Start::Reattach);
    let mut run = DurableRun::new(context, work, held, uid, (&redaction, is_taken_over), cancel);
    match (refusal, begin) {
        (None, begin) => Box::pin(run.follow_through(begin)).await,
        (Some(problem), Start::Launch { session, .. }) => {
            session.close().await;
            Some(run.refused(problem).await)
        }
        (Some(problem), Start::Reattach) => Some(run.refused(problem).await),
    }
}

fn holder_record(holder: &Holder) -> OutputHolder {
    OutputHolder { process_id: i64::try_from(holder.process).unwrap_or(i64::MAX), name: holder.name.clone() }
}

impl DurableRun<'_> {
    async fn follow_through(&mut self, begin: Start) -> Option<CommandOutcome> {
        let mut step = match begin {
            Start::Launch { reached, session } => NextStep::Launch { reached, session },
            Start::Reattach => {
                self.unsure = true;
                NextStep::Reattach
            }
        };
        loop {
            let span = step.span();
            let said = self.take_step(step).instrument(span).await;
            step = match said {
                SessionEnd::Ended(ended) => return Some(self.ended(ended).await),
                SessionEnd::Concluded(ending) => return Some(self.outcome(ending, None).await),
                SessionEnd::NotOurs => return None,
                SessionEnd::OutOfTime => return Some(self.out_of_time().await),
                // The refused launch started nothing. The next step prevents a start by any other request.
                SessionEnd::Refused { reached, problem } => NextStep::Close { reached, problem },
                SessionEnd::Mixed { reached, problem } => {
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
                SessionEnd::Journal { reached, place, journal } => {
                    match self.judge_journal(reached, place, &journal).await {
                        Ok(step) => step,
                        Err(outcome) => return outcome,
                    }
                }
                SessionEnd::Silence(problem) | SessionEnd::Elsewhere(problem) => {
                    self.unsure = true;
                    match self.look_again(&problem).await {
                        Ok(step) => step,
                        Err(outcome) => return outcome,
                    }
                }
            };
        }
    }

    /// Sends the launch request.
    async fn launch(&mut self, reached: Arc<LauncherConnection>, session: Session) -> SessionEnd {
        let (decision, status) = (&self.held.decision, self.held.execution.status.as_ref());
        let Some(remote) = status.and_then(|status| status.remote.as_ref()) else {
            return SessionEnd::Concluded(Termination::Refused(LaunchProblem {
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
        self.converse(reached, session, &request, nonce, MachineMatch::Exact).await
    }

    /// Returns the outcome of a command whose end the machine has recorded.
    async fn ended(&mut self, ended: Ended) -> CommandOutcome {
        if ended.refused_by_sudo {
            // Only sudo ran, not the command.
            self.started = None;
            let problem = sudo_refused("a password is required", &self.held.execution);
            return self.outcome(Termination::Refused(problem), Some(ended)).await;
        }
        let told = self.told(&ended);
        // If the machine could not count the remaining processes, Writ assumes that some processes remain.
        let survivors =
            ended.was_ended && (ended.processes_left != Some(0) || self.stop.as_ref().is_some_and(Stop::left_some));
        let ending = match ended.outcome {
            _ if told.is_some() && survivors => Termination::StopNotConfirmed,
            Exit::Exited(code) => Termination::Exited { code: u32::from(code) },
            Exit::Signalled(number) => Termination::Signalled { signal: signal_name(number) },
            Exit::Unknown => Termination::StoppedExitUnknown,
        };
        // The command can end before the stop request arrives, so only the machine's record shows if the stop request
        // ended the command.
        self.stop = told.map(Stop::new);
        self.outcome(ending, Some(ended)).await
    }

    fn output_limit(&self) -> StopCause {
        let maximum_bytes = u64::try_from(self.held.decision.output.maximum_bytes).unwrap_or(0);
        StopCause::OutputLimit { maximum_bytes }
    }

    /// Returns the cause of the stop per the machine's record, or `None` if the command was not stopped.
    fn told(&self, ended: &Ended) -> Option<StopCause> {
        if ended.timed_out {
            return Some(StopCause::Timeout);
        }
        // Writ also counts the output itself, because a machine can fail to enforce the limit.
        if ended.over_limit || self.budget.is_exceeded() {
            return Some(self.output_limit());
        }
        let asked_for = if self.cancel.is_cancelled() || self.held.execution.is_cancelled_or_deleted() {
            StopCause::Cancel
        } else {
            // Without a request of a user, only the timeout is a reason for the stop.
            StopCause::Timeout
        };
        ended.stopped.then(|| self.stop.as_ref().map_or(asked_for, |stop| stop.cause))
    }

    async fn refused(&mut self, problem: LaunchProblem) -> CommandOutcome {
        self.outcome(Termination::Refused(problem), None).await
    }

    async fn outcome(&mut self, ending: Termination, ended: Option<Ended>) -> CommandOutcome {
        // Adds the time of a cancellation to the status. The write of the result stores this time.
        self.note_stop_request();
        let incomplete_reason = self.missing_output(ended.as_ref());
        let whole = incomplete_reason.is_none();
        let stop_cause = self.stop.as_ref().map(|stop| stop.cause);
        // Output is complete only if all output arrived and the command exited by itself.
        let cut_off = !whole || stop_cause.is_some() || !matches!(ending, Termination::Exited { .. });
        let recorder = self.recorder.take().unwrap_or_else(|| self.held.recorder(self.context, &Redaction::default()));
        let hurry = self.context.aborting.cancelled();
        let CapturedOutput { stdout, stderr, stdout_record, stderr_record, recording } =
            recorder.finish(cut_off, hurry).await;
        let held_by = ended.iter().flat_map(|ended| &ended.holders).map(holder_record).collect();
        CommandOutcome {
            ending,
            stop_cause,
            no_processes_left: ended.as_ref().is_some_and(|ended| ended.processes_left == Some(0)),
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
                recording,
            },
        }
    }

    /// Returns the reason why the record lacks output, or `None` if the output is complete.
    fn missing_output(&self, ended: Option<&Ended>) -> Option<IncompleteReason> {
        let Some(ended) = ended else { return Some(IncompleteReason::NotReceived) };
        if ended.over_limit || self.budget.is_exceeded() {
            return Some(IncompleteReason::OverLimit);
        }
        if self.is_keeping {
            // The deadline passed while the recorder was still processing bytes.
            return Some(IncompleteReason::NotReceived);
        }
        match ended.missing {
            Some(Missing::Held) => Some(IncompleteReason::StillOpen),
            Some(Missing::ReaderEnded) => Some(IncompleteReason::ReaderEnded),
            Some(Missing::DiskFull) => Some(IncompleteReason::DiskFull),
            Some(Missing::FileSizeLimit) => Some(IncompleteReason::FileSizeLimit),
            Some(Missing::Removed) => Some(IncompleteReason::Removed),
            None if ended.output_removed => Some(IncompleteReason::Removed),
            None => (self.received != ended.lengths).then_some(IncompleteReason::NotReceived),
        }
    }

    /// Returns the next step for a state of the journal. An error finishes the run, as in [`DurableRun::look_again`].
    async fn judge_journal(
        &mut self,
        reached: Arc<LauncherConnection>,
        place: MachineMatch,
        journal: &execution::Journal,
    ) -> Result<NextStep, Option<CommandOutcome>> {
        // If the journal has made no progress since the last request, Writ pauses before the next request.
        if !self.note_journal(journal) && self.wait_out("its journal did not move on").await {
            return Err(Some(self.out_of_time().await));
        }
        let (clock, cancel) = (Arc::clone(&self.clock), self.cancel.clone());
        match clock.in_time(&cancel, Box::pin(self.decide(reached, place, journal))).await {
            Some(ReattachResult::Step(step)) => Ok(step),
            Some(ReattachResult::Concluded(ending)) => Err(Some(self.outcome(ending, None).await)),
            Some(ReattachResult::NotOurs) => Err(None),
            None => Err(Some(self.out_of_time().await)),
        }
    }

    async fn decide(
        &mut self,
        reached: Arc<LauncherConnection>,
        place: MachineMatch,
        journal: &execution::Journal,
    ) -> ReattachResult {
        let has_run = self.has_run;
        let may_start = if *journal == execution::Journal::Absent && place == MachineMatch::Exact && !has_run {
            match self.may_start(&reached).await {
                Ok(may_start) => may_start,
                Err(look) => return look,
            }
        } else {
            Ok(())
        };
        match execution::next_step(place, journal, has_run, may_start) {
            ReattachStep::Launch => match reached.open().await {
                Ok(session) => ReattachResult::Step(NextStep::Launch { reached, session }),
                Err(_) => ReattachResult::Step(NextStep::Reattach),
            },
            ReattachStep::Close(problem) => ReattachResult::Step(NextStep::Close { reached, problem }),
            ReattachStep::Conclude(ending) => ReattachResult::Concluded(ending),
            ReattachStep::Follow | ReattachStep::Retry => ReattachResult::Step(NextStep::Reattach),
        }
    }
}
