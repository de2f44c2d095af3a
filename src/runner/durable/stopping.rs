//! Stop requests to the machine. Each request has its own session, next to the session that follows the command.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::execution::{StopCause, TERM_GRACE};
use crate::fleet::{Fleet, LauncherConnection, MachineKey, open_control_session, request};
use crate::launcher::{self, Answer, Uid};

use super::clock::centiseconds;

/// Maximum time from a stop request to the machine's report of the remaining processes. Includes the grace period
/// between TERM and KILL.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Pause before the next stop request if the machine did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Maximum number of stop requests.
const TRIES: u32 = 5;
/// Maximum wait for the end of the command after a stop request. The machine's answer and more output restart the wait.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// A command that Writ is stopping.
pub(super) struct Stop {
    pub cause: StopCause,
    /// Time of the last stop request, or of its answer if the machine answered.
    asked: Option<Instant>,
    /// Number of stop requests in all sessions.
    tries: u32,
    report: Option<StopReport>,
}

/// Answer of the machine to a stop request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum StopReport {
    /// Number of remaining processes of the command.
    Left(u64),
    /// The machine did not answer, or the answer is unreadable. Holds the problem.
    Unknown(String),
}

impl Stop {
    pub fn new(cause: StopCause) -> Self {
        Self { cause, asked: None, tries: 0, report: None }
    }

    /// Returns true if a stop request must be sent now.
    pub fn is_due(&self) -> bool {
        match (&self.report, self.asked) {
            (Some(StopReport::Left(_)), _) => false,
            (_, None) => true,
            (_, Some(asked)) => self.tries < TRIES && asked.elapsed() >= AGAIN_AFTER,
        }
    }

    /// Returns true if the machine reported the number of remaining processes.
    pub fn is_answered(&self) -> bool {
        matches!(self.report, Some(StopReport::Left(_)))
    }

    /// Records that a stop request is being sent. The request counts even without an answer.
    pub fn note_asked(&mut self) {
        self.tries = self.tries.saturating_add(1);
        self.asked = Some(Instant::now());
    }

    pub fn note(&mut self, report: StopReport) {
        if let StopReport::Unknown(problem) = &report {
            tracing::warn!(error = problem, "a machine did not say whether it has stopped a command");
        }
        self.asked = Some(Instant::now());
        self.report = Some(report);
    }

    /// Returns true if the machine reported that processes remain.
    pub fn left_some(&self) -> bool {
        matches!(self.report, Some(StopReport::Left(left)) if left > 0)
    }

    /// Returns the time of the next stop request. If no more stop requests follow, returns the deadline for the end of
    /// the command. `progressed` is the time of the last received output.
    pub fn next_deadline(&self, progressed: Option<Instant>) -> Instant {
        let asked = self.asked.unwrap_or_else(Instant::now);
        match self.report {
            Some(StopReport::Left(_)) => self.over_at(asked, progressed),
            _ if self.tries < TRIES => asked + AGAIN_AFTER,
            _ => self.over_at(asked, progressed),
        }
    }

    /// Returns the deadline for the end of the command. Output extends the deadline, because the machine reports the
    /// end after all output.
    fn over_at(&self, asked: Instant, progressed: Option<Instant>) -> Instant {
        progressed.map_or(asked, |progressed| progressed.max(asked)) + END_DEADLINE
    }

    /// Returns true if Writ sends no more stop requests, and if the machine did not report the end of the command in
    /// time.
    pub fn is_over(&self, progressed: Option<Instant>) -> bool {
        let asked_enough = self.is_answered() || self.tries >= TRIES;
        asked_enough && self.asked.is_some_and(|asked| Instant::now() >= self.over_at(asked, progressed))
    }

    /// Sends a stop request in a separate session.
    pub async fn ask(fleet: &Fleet, machine: MachineKey, reached: Arc<LauncherConnection>, uid: Uid) -> StopReport {
        let (_other, session) = match open_control_session(fleet, &machine, &reached).await {
            Ok(opened) => opened,
            Err(problem) => return StopReport::Unknown(problem),
        };
        let facts = &reached.known.facts;
        match request(session, STOP_DEADLINE, |nonce| launcher::stop(nonce, facts, &uid, centiseconds(TERM_GRACE)))
            .await
        {
            // If the machine cannot count the processes, Writ assumes that one process remains.
            Ok(Answer::Stopped { processes_left }) => StopReport::Left(processes_left.unwrap_or(1)),
            // The command ended first, or never started.
            Ok(Answer::Ended(_) | Answer::NotStarted(_) | Answer::Tombstoned | Answer::Absent) => StopReport::Left(0),
            Ok(other) => StopReport::Unknown(format!("{other:?}")),
            Err(error) => StopReport::Unknown(error.to_string()),
        }
    }
}
