//! Pauses, stop requests and the deadline of a command that Writ follows.

use std::sync::Arc;

use tokio::time::{sleep, timeout};

use crate::api::{CommandExecutionStatus, Reason};
use crate::cluster::WriteOutcome;
use crate::execution::{self, CommandOutcome, FINAL_POLL, Journal, MachineMatch, StopCause, Termination};
use crate::fleet::{LauncherConnection, connect_launcher, jitter};
use crate::launcher::Ended;

use super::run_state::{DurableRun, NextStep, SessionEnd};
use super::stopping::Stop;

/// Returns the rank of a journal state. A journal changes only to a state of a higher rank.
fn rank(journal: &Journal) -> u8 {
    match journal {
        Journal::Absent => 1,
        Journal::Starting => 2,
        Journal::Running => 3,
        Journal::Lost { .. } => 4,
        Journal::Tombstoned | Journal::Ended => 5,
    }
}

impl DurableRun<'_> {
    /// Takes one step. If the deadline passes during the step, the step ends with `OutOfTime`.
    pub(super) async fn take_step(&mut self, step: NextStep) -> SessionEnd {
        let (clock, cancel) = (Arc::clone(&self.clock), self.cancel.clone());
        // The box keeps the largest futures of a run off the stack.
        let taken = Box::pin(async {
            match step {
                NextStep::Launch { reached, session } => self.launch(reached, session).await,
                NextStep::Reattach => Box::pin(self.look()).await,
                NextStep::Close { reached, problem } => self.close(reached, problem).await,
            }
        });
        clock.in_time(&cancel, taken).await.unwrap_or(SessionEnd::OutOfTime)
    }

    /// Polls the machine without reading output. Returns the end of the command, or `None` if the machine reports no
    /// end before the deadline.
    pub(super) async fn poll_in_time(&self, reached: &LauncherConnection) -> Option<Ended> {
        self.clock.in_time(&self.cancel, self.poll(reached)).await.flatten()
    }

    /// Records a state of the journal. Returns true if its rank is higher than the rank of all earlier states.
    pub(super) fn note_journal(&mut self, journal: &Journal) -> bool {
        let rank = rank(journal);
        let is_progress = rank > self.furthest;
        if is_progress {
            self.furthest = rank;
            self.clock.note_step();
        }
        is_progress
    }

    /// Pauses, then returns the next step.
    ///
    /// # Errors
    /// The end of the run: an outcome if the deadline passed, `None` if this process is ending.
    pub(super) async fn look_again(&mut self, problem: &str) -> Result<NextStep, Option<CommandOutcome>> {
        if self.wait_out(problem).await {
            return Err(Some(self.out_of_time().await));
        }
        if self.context.aborting.is_cancelled() { Err(None) } else { Ok(NextStep::Reattach) }
    }

    /// Pauses before the next connection to the machine. Returns true if the deadline passed.
    pub(super) async fn wait_out(&mut self, problem: &str) -> bool {
        self.choose_frame_size();
        problem.clone_into(&mut self.problem);
        self.silent_since.get_or_insert_with(tokio::time::Instant::now);
        let pause = self.clock.pause();
        let pause = pause + pause.mul_f64(0.5 * jitter());
        tracing::warn!(
            execution = %self.held.key, error = problem, pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the machine of a claimed command does not answer as it should; trying again"
        );
        let (clock, cancel) = (Arc::clone(&self.clock), self.cancel.clone());
        tokio::select! {
            () = sleep(pause) => false,
            () = self.context.aborting.cancelled() => false,
            () = clock.over(&cancel) => true,
        }
    }

    /// Chooses a smaller frame size if the last session received no bytes.
    fn choose_frame_size(&mut self) {
        let received = self.received.stdout.saturating_add(self.received.stderr);
        if received == self.received_before {
            self.max_frame = self.max_frame.smaller();
        }
        self.received_before = received;
    }

    /// Handles the deadline. Writ polls the machine one last time. If the machine reports no end of the command, the
    /// outcome is unknown.
    pub(super) async fn out_of_time(&mut self) -> CommandOutcome {
        if let Ok(Some(ended)) = timeout(FINAL_POLL, self.last_look()).await {
            return self.ended(ended).await;
        }
        if self.cancel.is_cancelled() || self.held.execution.is_cancelled_or_deleted() {
            self.stop.get_or_insert_with(|| Stop::new(StopCause::Cancel));
        }
        let problem = if self.problem.is_empty() { "it did not report the end" } else { self.problem.as_str() };
        let claimed = self.clock.now().as_secs();
        let unreached = self.silent_since.filter(|_| !self.has_answered).map(|since| since.elapsed().as_secs());
        let problem = match unreached {
            Some(seconds) => format!("the machine gave no answer for {seconds} s ({problem})"),
            None if self.is_elsewhere => {
                format!("the host that the command was sent to was not found again within {claimed} s ({problem})")
            }
            None => {
                format!("the machine answers, and did not report the end within {claimed} s of the claim ({problem})")
            }
        };
        let problem = format!("{problem}; the command may have run, and may still run");
        let reason = match unreached {
            // After a stop request, `ConnectionLost` informs the user that the command perhaps still runs.
            _ if self.stop.is_some() => Reason::ConnectionLost,
            None if self.is_elsewhere => Reason::MachineChanged,
            None if !self.has_run => Reason::StartNotConfirmed,
            _ => Reason::ConnectionLost,
        };
        self.outcome(Termination::Unknown { reason, problem }, None).await
    }

    async fn last_look(&self) -> Option<Ended> {
        let ground = self.ground().await.ok()?;
        let reached = connect_launcher(&self.context.fleet, &ground.resolved).await.ok()?;
        let place = self.compare(&reached).ok()?;
        let has_record = matches!(
            place,
            MachineMatch::Exact | MachineMatch::Rebooted | MachineMatch::Different { same_directory: true }
        );
        if has_record { self.poll(&reached).await } else { None }
    }

    /// Sends a stop request for a cancelled or overdue command. The request has its own short session, because a longer
    /// session can break.
    pub(super) async fn stop_beforehand(&mut self, reached: &Arc<LauncherConnection>, place: MachineMatch) {
        // On another host or after a reboot, no process of the command exists.
        if place != MachineMatch::Exact || !self.has_run {
            return;
        }
        if self.stop.is_none() {
            let is_due = self.clock.stop_due().is_some_and(|due| due <= tokio::time::Instant::now());
            match (self.cancel.is_cancelled(), is_due) {
                (true, _) => self.decide_to_stop(StopCause::Cancel),
                (false, true) => self.decide_to_stop(StopCause::Timeout),
                (false, false) => return,
            }
        }
        let Some(stop) = self.stop.as_mut().filter(|stop| !stop.is_answered()) else { return };
        stop.note_asked();
        tokio::select! {
            report = Stop::ask(&self.context.fleet, self.work.machine_key(), Arc::clone(reached), self.uid.clone()) => stop.note(report),
            // The next holder sends the stop request.
            () = self.context.aborting.cancelled() => {}
        }
    }

    pub(super) fn decide_to_stop(&mut self, cause: StopCause) {
        self.stop = Some(Stop::new(cause));
        self.clock.note_stop();
    }

    /// Writes the status again if the last write was not confirmed. The next holder needs the stored time of a
    /// cancellation, because the stop timeout counts from this time.
    pub(super) async fn store_status(&mut self) {
        self.note_stop_request();
        if let Some(status) = self.held.execution.status.as_ref().filter(|_| !self.is_status_stored) {
            let written = self.context.cluster.write_as_holder(&self.held.key, &self.held.token, status).await;
            self.is_status_stored = matches!(written, WriteOutcome::Stored);
        }
    }

    /// Adds the time at which Writ noticed a cancellation, if the status has no such time. Does not store the status.
    /// Returns true if the status changed.
    pub(super) fn note_stop_request(&mut self) -> bool {
        let status = self.held.execution.status.as_ref();
        let is_noted = status.is_none_or(|status| status.stop_requested_time.is_some());
        let Some(noticed) = self.clock.cancel_noticed().filter(|_| !is_noted) else { return false };
        self.change_status(execution::with_stop_request(&self.held.execution, noticed, self.context.cluster.now()));
        true
    }

    /// Changes the status. The change is not stored yet.
    pub(super) fn change_status(&mut self, status: CommandExecutionStatus) {
        self.held.execution.status = Some(status);
        self.is_status_stored = false;
    }
}
