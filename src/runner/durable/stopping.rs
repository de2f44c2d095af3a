//! Telling a command on a machine to stop, beside the session that follows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::execution::{StopCause, TERM_GRACE};
use crate::fleet::{Dialer, LauncherConnection, MachineKey, open_control_session, request};
use crate::launcher::{self, Answer, Uid};

use super::clock::centiseconds;

/// How long the machine may take to say what is left: it waits the grace itself, and a moment after KILL.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// The pause before the machine is asked again, where it did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often it is asked.
const TRIES: u32 = 5;
/// How long after it was stopped a command's end may take to be told.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// A command that is being stopped.
pub(super) struct Stop {
    pub cause: StopCause,
    /// When the machine was asked last.
    asked: Option<Instant>,
    /// How often it was asked, in all sessions.
    tries: u32,
    report: Option<StopReport>,
}

/// What the machine said of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum StopReport {
    /// So many processes of it are left.
    Left(u64),
    /// Nothing, or nothing that can be understood.
    Unknown(String),
}

impl Stop {
    pub fn new(cause: StopCause) -> Self {
        Self { cause, asked: None, tries: 0, report: None }
    }

    /// Whether the machine is to be asked now.
    pub fn is_due(&self) -> bool {
        match (&self.report, self.asked) {
            (Some(StopReport::Left(_)), _) => false,
            (_, None) => true,
            (_, Some(asked)) => self.tries < TRIES && asked.elapsed() >= AGAIN_AFTER,
        }
    }

    /// Whether the machine said what is left.
    pub fn is_answered(&self) -> bool {
        matches!(self.report, Some(StopReport::Left(_)))
    }

    /// The machine is being asked. Counts also if no answer comes, or the session of the command ends before.
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

    /// Whether the machine said that something of it still runs.
    pub fn left_some(&self) -> bool {
        matches!(self.report, Some(StopReport::Left(left)) if left > 0)
    }

    /// When to look again. `progressed` is when output was received last.
    pub fn next_deadline(&self, progressed: Option<Instant>) -> Instant {
        let asked = self.asked.unwrap_or_else(Instant::now);
        match self.report {
            Some(StopReport::Left(_)) => self.over_at(asked, progressed),
            _ if self.tries < TRIES => asked + AGAIN_AFTER,
            _ => self.over_at(asked, progressed),
        }
    }

    /// The end stands behind the output, which may be a long one.
    fn over_at(&self, asked: Instant, progressed: Option<Instant>) -> Instant {
        progressed.map_or(asked, |progressed| progressed.max(asked)) + END_DEADLINE
    }

    /// Whether there is nothing more to wait for: it was stopped as well as could be, and its end was not told.
    pub fn is_over(&self, progressed: Option<Instant>) -> bool {
        let asked_enough = self.is_answered() || self.tries >= TRIES;
        asked_enough && self.asked.is_some_and(|asked| Instant::now() >= self.over_at(asked, progressed))
    }

    /// Asks the machine, in a session of its own.
    pub async fn ask(dialer: &Dialer, machine: MachineKey, reached: Arc<LauncherConnection>, uid: Uid) -> StopReport {
        let (_other, session) = match open_control_session(dialer, &machine, &reached).await {
            Ok(opened) => opened,
            Err(problem) => return StopReport::Unknown(problem),
        };
        let facts = &reached.known.facts;
        match request(session, STOP_DEADLINE, |nonce| launcher::stop(nonce, facts, &uid, centiseconds(TERM_GRACE)))
            .await
        {
            // What cannot be seen may be there.
            Ok(Answer::Stopped { processes_left }) => StopReport::Left(processes_left.unwrap_or(1)),
            // It was quicker, or never began.
            Ok(Answer::Ended(_) | Answer::NotStarted(_) | Answer::Tombstoned | Answer::Absent) => StopReport::Left(0),
            Ok(other) => StopReport::Unknown(format!("{other:?}")),
            Err(error) => StopReport::Unknown(error.to_string()),
        }
    }
}
