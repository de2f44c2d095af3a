//! State of a claimed command in Durable mode, and the steps with which Writ follows the command. Plain types.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::execution::{Journal, LaunchProblem, Limits, MachineMatch, Termination};
use crate::fleet::LauncherConnection;
use crate::launcher::{Ended, FrameSize, Offsets, Uid};
use crate::output::{ByteBudget, Recorder};
use crate::policy::Redaction;
use crate::ssh::Session;
use crate::telemetry::SPANS;

use super::super::claim::HeldClaim;
use super::super::context::Context;
use super::super::queued_execution::QueuedExecution;
use super::clock::Clock;
use super::stopping::Stop;

/// First step of a run.
pub enum Start {
    /// The claim was just stored: send the command.
    Launch { reached: Arc<LauncherConnection>, session: Session },
    /// The claim was adopted: request the state of the command.
    Reattach,
}

/// Next step of a run.
pub(super) enum NextStep {
    Launch { reached: Arc<LauncherConnection>, session: Session },
    Reattach,
    Close { reached: Arc<LauncherConnection>, problem: LaunchProblem },
}

impl NextStep {
    pub fn span(&self) -> tracing::Span {
        match self {
            // The span ends with the session, normally at the end of the command.
            NextStep::Launch { .. } => tracing::info_span!(target: SPANS, "launch"),
            NextStep::Reattach => tracing::info_span!(target: SPANS, "follow"),
            NextStep::Close { .. } => tracing::info_span!(target: SPANS, "close"),
        }
    }
}

/// State of one command.
pub(super) struct DurableRun<'a> {
    pub context: &'a Context,
    pub work: &'a QueuedExecution,
    pub held: &'a mut HeldClaim,
    pub cancel: CancellationToken,
    /// True if the API server has confirmed the status in `held.execution`. False after a session
    /// ended during a write, because the end of a session cancels the write.
    pub is_status_stored: bool,
    /// Recorder of the output. `None` after the outcome was built.
    pub recorder: Option<Recorder>,
    pub uid: Uid,
    /// Number of bytes of each stream that Writ received, before redaction.
    pub received: Offsets,
    /// Maximum frame size of the next reply. `received_before` is the number of received bytes when Writ chose this
    /// size.
    pub max_frame: FrameSize,
    pub received_before: u64,
    /// Number of bytes that the record may still accept, for both streams together.
    pub budget: ByteBudget,
    /// Arrival time of the first byte beyond the budget.
    pub over_limit_since: Option<Instant>,
    /// Number of sessions in which other text was mixed into the reply.
    pub mixed_sessions: u32,
    /// Deadlines of the run.
    pub clock: Arc<Clock>,
    /// Time at which the command started, by the API server's clock.
    pub started: Option<Timestamp>,
    /// True if the machine has reported the start, to this holder or to an earlier holder.
    pub has_run: bool,
    /// Highest rank of all observed states of the journal.
    pub furthest: u8,
    /// Time of the last received output within the budget.
    pub progressed: Option<Instant>,
    /// True while the recorder is processing bytes.
    pub is_keeping: bool,
    /// True if the status already reports the start.
    pub shown: bool,
    /// Reason to stop the command, and the stop requests so far. `None` without such a reason.
    pub stop: Option<Stop>,
    /// Time at which the machine stopped answering. `None` if the machine answers.
    pub silent_since: Option<Instant>,
    /// Last problem that interrupted the run.
    pub problem: String,
    /// True if the machine has answered a request since the last failed connection.
    pub has_answered: bool,
    /// True if the last connection reached another host or another address.
    pub is_elsewhere: bool,
    /// True if an earlier request has an unknown result, so that the command has perhaps started.
    pub unsure: bool,
}

/// Result of a session.
pub(super) enum SessionEnd {
    /// The command ended, and its output was received as far as possible.
    Ended(Ended),
    /// The outcome is final, because Writ cannot learn more about the command.
    Concluded(Termination),
    /// The journal reports that the command is neither running nor ended.
    Journal { reached: Arc<LauncherConnection>, place: MachineMatch, journal: Journal },
    /// The connection was lost, or the machine does not answer as it should.
    Silence(String),
    /// The connection reached another host or address, so its report proves nothing about the command.
    Elsewhere(String),
    /// The deadline of the command has passed.
    OutOfTime,
    /// Other text was mixed into the reply. The bytes before that text are valid.
    Mixed { reached: Arc<LauncherConnection>, problem: String },
    /// The machine refused the launch.
    Refused { reached: Arc<LauncherConnection>, problem: LaunchProblem },
    /// Another process holds the claim, or this process is ending.
    NotOurs,
}

/// Result of an attempt to reattach.
pub(super) enum ReattachResult {
    Step(NextStep),
    Concluded(Termination),
    NotOurs,
}

impl<'a> DurableRun<'a> {
    /// Returns the state of a command that was just claimed, or adopted (`is_taken_over`).
    pub fn new(
        context: &'a Context,
        work: &'a QueuedExecution,
        held: &'a mut HeldClaim,
        uid: Uid,
        (redaction, is_taken_over): (&Redaction, bool),
        cancel: CancellationToken,
    ) -> Self {
        let recorder = Some(held.recorder(context, redaction));
        let status = held.execution.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let limits = limits_of(context, held);
        Self {
            context,
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
            clock: Arc::new(Clock::new(&held.execution, limits, is_taken_over, context.cluster.now())),
            started,
            has_run: started.is_some(),
            furthest: 0,
            progressed: None,
            is_keeping: false,
            shown: started.is_some(),
            stop: None,
            is_status_stored: true,
            silent_since: None,
            problem: String::new(),
            has_answered: false,
            is_elsewhere: false,
            unsure: false,
            held,
        }
    }
}

/// Returns the limits of a claimed command.
fn limits_of(context: &Context, held: &HeldClaim) -> Limits {
    let decision = &held.decision;
    Limits {
        timeout: Duration::from_secs(u64::from(decision.timeout_seconds)),
        drain: Duration::from_secs(u64::from(decision.output.drain_seconds)),
        maximum_bytes: u64::try_from(decision.output.maximum_bytes).unwrap_or(0),
        unreachable_timeout: context.limits.unreachable,
        stop_timeout: context.limits.stop,
    }
}
