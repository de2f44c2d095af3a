//! A claimed command in Durable mode, as far as it is known, and the steps of following it. Plain types.

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

/// Where to begin.
pub enum Start {
    /// The claim was just stored: send the command.
    Launch { reached: Arc<LauncherConnection>, session: Session },
    /// The claim was taken over: see what has become of it.
    Reattach,
}

/// What to do next.
pub(super) enum NextStep {
    Launch { reached: Arc<LauncherConnection>, session: Session },
    Reattach,
    Close { reached: Arc<LauncherConnection>, problem: LaunchProblem },
}

impl NextStep {
    pub fn span(&self) -> tracing::Span {
        match self {
            // From the request to the end, where nothing comes between.
            NextStep::Launch { .. } => tracing::info_span!(target: SPANS, "launch"),
            NextStep::Reattach => tracing::info_span!(target: SPANS, "follow"),
            NextStep::Close { .. } => tracing::info_span!(target: SPANS, "close"),
        }
    }
}

/// One command, as far as it is known.
pub(super) struct DurableRun<'a> {
    pub context: &'a Context,
    pub work: &'a QueuedExecution,
    pub held: &'a mut HeldClaim,
    pub cancel: CancellationToken,
    /// None once it is finished.
    pub recorder: Option<Recorder>,
    pub uid: Uid,
    /// How many bytes of each stream were received, as the machine wrote them.
    pub received: Offsets,
    /// Largest frame of the next reply, and the number of received bytes when it was chosen.
    pub max_frame: FrameSize,
    pub received_before: u64,
    /// Bytes that the record may still take, of both streams together.
    pub budget: ByteBudget,
    /// Time at which the first byte beyond that arrived.
    pub over_limit_since: Option<Instant>,
    /// Sessions in which other text was mixed into the reply.
    pub mixed_sessions: u32,
    /// Until when it is followed.
    pub clock: Arc<Clock>,
    /// When it started, by our clock.
    pub started: Option<Timestamp>,
    /// Whether the machine said, to whomever, that it had started.
    pub has_run: bool,
    /// How far the journal has come, of all that was seen of it.
    pub furthest: u8,
    /// When output was received last that counts.
    pub progressed: Option<Instant>,
    /// True while received bytes are on their way into the record.
    pub is_keeping: bool,
    /// Whether the status says that it runs.
    pub shown: bool,
    /// What was done to stop it.
    pub stop: Option<Stop>,
    /// Since when the machine does not answer.
    pub silent_since: Option<Instant>,
    /// What was in the way last.
    pub problem: String,
    /// Whether the machine gave an answer when it was asked last.
    pub has_answered: bool,
    /// Whether another host, or another address, was reached last.
    pub is_elsewhere: bool,
    /// Whether it may have been sent in a request whose answer is not known.
    pub unsure: bool,
}

/// What came of a session.
pub(super) enum SessionEnd {
    /// It ended, and all that it wrote was received.
    Ended(Ended),
    /// There is nothing more to be learned.
    Concluded(Termination),
    /// The machine's record says that it does not run.
    Journal { reached: Arc<LauncherConnection>, place: MachineMatch, journal: Journal },
    /// The connection was lost, or the machine does not answer as it should.
    Silence(String),
    /// Another host, or another address, was reached, and what it says settles nothing.
    Elsewhere(String),
    /// The deadline of the command is over.
    OutOfTime,
    /// Other text was mixed into the reply. The bytes before it count.
    Mixed { reached: Arc<LauncherConnection>, problem: String },
    /// The machine refused the launch.
    Refused { reached: Arc<LauncherConnection>, problem: LaunchProblem },
    /// It is somebody else's now, or this process is ending.
    NotOurs,
}

/// What follows from looking.
pub(super) enum ReattachResult {
    Step(NextStep),
    Concluded(Termination),
    NotOurs,
}

impl<'a> DurableRun<'a> {
    /// A command that was just claimed, or adopted (`is_taken_over`).
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
            silent_since: None,
            problem: String::new(),
            has_answered: false,
            is_elsewhere: false,
            unsure: false,
            held,
        }
    }
}

/// The limits of a claimed command.
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
