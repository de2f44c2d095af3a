//! From a slot to a claim. Nothing of the command is sent here.
//!
//! 1. read the execution, the Machine and the Secret;
//! 2. connect, log in, open a session (which executes nothing);
//! 3. read everything again, live, and decide again: a change that was committed while the connection was being made
//!    counts;
//! 4. claim (see `claim`).
//!
//! Where a connection to the machine is open already, the first step is left out: what is declared now is read with the
//! connection open in any case, and where it is no longer what the connection was made by, all is done from the start.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use tracing::Instrument as _;

use crate::api::{CommandExecution, ExecutionMode};
use crate::cluster::ClusterError;
use crate::execution::{LaunchProblem, NOW_MEANS_WITHIN, ObjectSize};
use crate::policy::{self, Decision, Request, RuleSet, Verdict};
use crate::ssh::{ConnectError, Connection, Session};
use crate::telemetry::{SPANS, metrics};

use super::audit::log_claim;
use super::claim::{self, Holding};
use super::connections::Open;
use super::declared::{Declared, read_declared};
use super::look::online;
use super::reach::{CONNECT_DEADLINE, Reached, connect, end_of, open_where_reached, reach_and_open};
use super::sights::problem_of;
use super::{Inner, Work};

/// How long opening a session may take.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// The pause where something has changed under the attempt: long enough to be no loop, short enough not to be noticed.
pub(super) const AGAIN_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// The pause where the API server did not answer.
const AGAIN_AFTER_SILENCE: Duration = Duration::from_secs(1);
/// The pause where it answered that this process may not do that: a person has to grant it.
pub(super) const AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// How an attempt ended.
pub(super) enum AttemptEnd {
    /// The claim is stored. The command may be sent.
    Claimed(Box<Claimed>),
    /// A claimed command has ended and is recorded.
    Done,
    /// There is nothing to do any more, or something else to decide: the controller looks again.
    Obsolete,
    /// Nothing was sent to the machine, and it may be tried again after this pause.
    Again(Duration),
    /// The machine was not reached.
    Offline(String),
    /// The machine allows no further connection, and executes on those that there are.
    Full {
        /// For how many commands at a time they have room.
        room: usize,
        /// What it said.
        problem: String,
    },
    /// It will not start.
    Refused {
        /// Why.
        problem: LaunchProblem,
        /// Whether others would meet the same on this machine, so that it is better left alone for a moment.
        machine_at_fault: bool,
    },
}

impl AttemptEnd {
    /// The same end for others who wanted the same; None where it was of one alone.
    pub fn of_others(&self) -> Option<Self> {
        match self {
            AttemptEnd::Offline(problem) => Some(AttemptEnd::Offline(problem.clone())),
            AttemptEnd::Refused { problem, machine_at_fault } => {
                Some(AttemptEnd::Refused { problem: problem.clone(), machine_at_fault: *machine_at_fault })
            }
            AttemptEnd::Full { room, problem } => Some(AttemptEnd::Full { room: *room, problem: problem.clone() }),
            AttemptEnd::Claimed(_) | AttemptEnd::Done | AttemptEnd::Obsolete | AttemptEnd::Again(_) => None,
        }
    }

    /// What was in the way, for those who only try again.
    pub fn into_problem(self) -> String {
        match self {
            AttemptEnd::Offline(problem) | AttemptEnd::Full { problem, .. } => problem,
            AttemptEnd::Refused { problem, .. } => problem.message,
            _ => "the API server does not answer".to_owned(),
        }
    }
}

/// A stored claim, and the open session to execute in.
pub(super) struct Claimed {
    pub holding: Holding,
    pub way: Way,
    pub session: Session,
}

/// How the machine was reached.
pub(super) enum Way {
    /// By a connection for this execution alone. A shared one that has died unnoticed would be found out only after the
    /// claim, and in Direct mode make an unknown outcome of what could have been tried again.
    Direct(Open),
    /// By a place on a shared one: the launcher's fence lets it be tried again after the claim too.
    Durable(Arc<Reached>),
}

impl Way {
    pub fn connection(&self) -> &Connection {
        match self {
            Way::Direct(open) => &open.connection,
            Way::Durable(reached) => reached.line.connection(),
        }
    }
}

/// Everything that a decision rests on, read live.
pub(super) struct Ground {
    pub execution: CommandExecution,
    pub declared: Declared,
}

pub(super) async fn attempt(inner: &Inner, work: &Work) -> AttemptEnd {
    match try_to_claim(inner, work).await {
        Ok(claimed) => AttemptEnd::Claimed(Box::new(claimed)),
        Err(end) => end,
    }
}

async fn try_to_claim(inner: &Inner, work: &Work) -> Result<Claimed, AttemptEnd> {
    // Up to the claim nothing is lost by leaving off at once.
    let (declared, way, session) = tokio::select! {
        prepared = prepare(inner, work) => prepared?,
        () = inner.stopping.cancelled() => return Err(AttemptEnd::Obsolete),
    };
    let claiming = claim::claim(inner, work, &declared, &way);
    match claiming.instrument(tracing::info_span!(target: SPANS, "claim")).await {
        Ok(holding) => {
            let waited = Duration::try_from(inner.cluster.now().duration_since(work.created)).unwrap_or(Duration::ZERO);
            metrics().claimed(waited);
            log_claim(&holding.execution, "an execution is claimed", None);
            Ok(Claimed { holding, way, session })
        }
        Err(end) => {
            session.hang_up().await;
            if let Way::Direct(open) = way {
                open.connection.close().await;
            }
            Err(end)
        }
    }
}

/// Reads what is needed to connect, connects, and opens a session.
async fn prepare(inner: &Inner, work: &Work) -> Result<(Arc<Declared>, Way, Session), AttemptEnd> {
    if inner.holders.standing().is_none() {
        // It could claim nothing: do not log in for that.
        return Err(AttemptEnd::Again(AGAIN_AFTER_SILENCE));
    }
    if let Some((declared, reached, session)) = open_where_reached(inner, work).await {
        return Ok((declared, Way::Durable(Arc::new(reached)), session));
    }
    let Ground { declared, .. } = read_ground(inner, work).await?;
    if declared.machine.spec.suspend {
        // The controller sees the same, and says why it waits.
        return Err(AttemptEnd::Obsolete);
    }
    let (way, session) = match open(inner, &declared).await {
        Ok(opened) => opened,
        Err(end) => {
            if let Some(problem) = problem_of(&end) {
                inner.saw(&declared.machine, problem);
            }
            return Err(end);
        }
    };
    let declared = Arc::new(declared);
    if let Way::Durable(_) = way {
        inner.connections.note(work.machine_key(), &declared);
    }
    Ok((declared, way, session))
}

/// Reaches the machine as its mode wants it, and opens a session.
async fn open(inner: &Inner, declared: &Declared) -> Result<(Way, Session), AttemptEnd> {
    match declared.machine.spec.execution.mode {
        ExecutionMode::Direct => {
            let open = connect(inner, declared).await?;
            let session = open.connection.open(OPEN_DEADLINE).await;
            metrics().session(session.as_ref().map_or_else(ConnectError::category, |_| "opened"));
            let session = session.map_err(|error| end_of(&error))?;
            inner.saw(&declared.machine, online(&open.connection, None));
            Ok((Way::Direct(open), session))
        }
        ExecutionMode::Durable => {
            let (reached, session) = reach_and_open(inner, declared).await?;
            Ok((Way::Durable(Arc::new(reached)), session))
        }
    }
}

/// Whether an unfinished execution is claimed with this token.
pub(super) fn is_ours(execution: &CommandExecution, token: &str) -> bool {
    !execution.phase().is_finished() && execution.claim().is_some_and(|claim| claim.token == token)
}

/// Reads the execution, its Machine and its Secret.
async fn read_ground(inner: &Inner, work: &Work) -> Result<Ground, AttemptEnd> {
    let (execution, _) = read_execution(inner, work, None).await?;
    with_machine(inner, work, execution).await
}

/// Reads the execution, and how large it is. A claim with `token` is our own, made a moment ago.
pub(super) async fn read_execution(
    inner: &Inner,
    work: &Work,
    token: Option<&str>,
) -> Result<(CommandExecution, ObjectSize), AttemptEnd> {
    let namespace = &work.key.namespace;
    let read = inner.cluster.execution_and_size(namespace, &work.key.name).await;
    let (execution, size) = read.map_err(|error| obsolete_or_again(&error))?;
    let is_ours = token.is_some_and(|token| is_ours(&execution, token));
    if execution.metadata.uid.as_deref() != Some(&work.key.uid)
        || execution.phase().is_finished()
        || (!is_ours && (execution.is_claimed() || execution.is_unwanted() || inner.stopping.is_cancelled()))
    {
        return Err(AttemptEnd::Obsolete);
    }
    Ok((execution, size))
}

/// Reads the Machine and the Secret beside an execution.
pub(super) async fn with_machine(
    inner: &Inner,
    work: &Work,
    execution: CommandExecution,
) -> Result<Ground, AttemptEnd> {
    let declared = read_declared(&inner.cluster, &work.key.namespace, &work.machine).await?;
    Ok(Ground { execution, declared })
}

/// Decides again, from what is live.
pub(super) async fn decide_again(inner: &Inner, ground: &Ground) -> Result<Decision, AttemptEnd> {
    let namespace = ground.execution.metadata.namespace.as_deref().unwrap_or_default();
    let rules = inner.policies.rules(namespace).await.map_err(|error| obsolete_or_again(&error))?;
    decide_by(inner, ground, &rules).await
}

/// The same by rules that were just read.
pub(super) async fn decide_by(inner: &Inner, ground: &Ground, rules: &RuleSet) -> Result<Decision, AttemptEnd> {
    let request = Request::parse(&ground.execution.spec).map_err(|_| AttemptEnd::Obsolete)?;
    let identity = inner.stamping.identity(&ground.execution).await;
    match policy::decide(rules, &request, ground.declared.machine.labels(), identity) {
        Verdict::Allow(decision) => Ok(*decision),
        // The controller sees the same, and says why.
        Verdict::Deny(_) => Err(AttemptEnd::Obsolete),
    }
}

/// Whether the execution may still start: its deadline is not over.
pub(super) fn in_time(execution: &CommandExecution, now: Timestamp) -> bool {
    execution.metadata.creation_timestamp.is_some() && now < not_after(execution, now)
}

/// When its deadline is over. It counts from its creation; both are by the API server's clock.
pub(super) fn not_after(execution: &CommandExecution, now: Timestamp) -> Timestamp {
    let may_wait = match execution.spec.starting_deadline_seconds {
        // One attempt, now; the attempt itself may take as long as its own deadlines let it.
        0 => NOW_MEANS_WITHIN + CONNECT_DEADLINE + OPEN_DEADLINE,
        seconds => Duration::from_secs(u64::from(seconds)),
    };
    let left = may_wait.saturating_sub(execution.age(now).unwrap_or(may_wait));
    now.checked_add(left).unwrap_or(now)
}

/// What a failed read means before the claim: gone or changed is for the controller to judge, no answer is asked again.
pub(super) fn obsolete_or_again(error: &ClusterError) -> AttemptEnd {
    match error {
        ClusterError::Unavailable { .. } => {
            tracing::warn!(%error, category = error.category(), "an execution waits for the API server");
            AttemptEnd::Again(AGAIN_AFTER_SILENCE)
        }
        ClusterError::Forbidden { .. } => {
            tracing::warn!(%error, category = error.category(), "an execution waits for a permission");
            AttemptEnd::Again(AGAIN_AFTER_REFUSAL)
        }
        _ => AttemptEnd::Obsolete,
    }
}
