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

use tracing::Instrument as _;

use crate::api::ExecutionMode;
use crate::fleet::{
    ConnectFailure, OPEN_DEADLINE, RETRY_AFTER_SILENCE, ResolvedMachine, connect, connect_and_open, online,
    try_open_existing,
};
use crate::ssh::{ConnectError, Session};
use crate::telemetry::{SPANS, metrics};

use super::audit::log_claim;
use super::claim::{self, HeldClaim};
use super::context::Context;
use super::decision_input::{DecisionInput, read_decision_input};
use super::queued_execution::QueuedExecution;
use super::transport::Transport;

/// A stored claim, and the open session to execute in.
pub(super) struct Claimed {
    pub held: HeldClaim,
    pub transport: Transport,
    pub session: Session,
}

/// Connects to the machine of an execution, and claims the execution.
///
/// # Errors
/// Why it is not claimed. Nothing of the command was sent.
pub(super) async fn attempt(context: &Context, work: &QueuedExecution) -> Result<Claimed, ConnectFailure> {
    // Up to the claim nothing is lost by leaving off at once.
    let (resolved, way, session) = tokio::select! {
        prepared = prepare(context, work) => prepared?,
        () = context.draining.cancelled() => return Err(ConnectFailure::Obsolete),
    };
    let claiming = claim::claim(context, work, &resolved, &way);
    match claiming.instrument(tracing::info_span!(target: SPANS, "claim")).await {
        Ok(held) => {
            let waited =
                Duration::try_from(context.cluster.now().duration_since(work.created)).unwrap_or(Duration::ZERO);
            metrics().claimed(waited);
            log_claim(&held.execution, "execution claimed", None);
            Ok(Claimed { held, transport: way, session })
        }
        Err(end) => {
            session.close().await;
            if let Transport::Direct(open) = way {
                open.connection.close().await;
            }
            Err(end)
        }
    }
}

/// Reads what is needed to connect, connects, and opens a session.
async fn prepare(
    context: &Context,
    work: &QueuedExecution,
) -> Result<(Arc<ResolvedMachine>, Transport, Session), ConnectFailure> {
    if context.holders.current_epoch().is_none() {
        // It could claim nothing: do not log in for that.
        return Err(ConnectFailure::RetryAfter(RETRY_AFTER_SILENCE));
    }
    if let Some((resolved, reached, session)) = try_open_existing(&context.dialer, &work.machine_key()).await {
        return Ok((resolved, Transport::Durable(Arc::new(reached)), session));
    }
    let DecisionInput { resolved, .. } = read_decision_input(context, work).await?;
    if resolved.machine.spec.suspend {
        // The controller sees the same, and says why it waits.
        return Err(ConnectFailure::Obsolete);
    }
    let (way, session) = match open(context, &resolved).await {
        Ok(opened) => opened,
        Err(end) => {
            if let Some(problem) = end.probe_result() {
                context.dialer.record(&resolved.machine, problem);
            }
            return Err(end);
        }
    };
    let resolved = Arc::new(resolved);
    if let Transport::Durable(_) = way {
        context.dialer.machine_of(&resolved).connections.remember_spec(&resolved);
    }
    Ok((resolved, way, session))
}

/// Reaches the machine as its mode wants it, and opens a session.
async fn open(context: &Context, resolved: &ResolvedMachine) -> Result<(Transport, Session), ConnectFailure> {
    match resolved.machine.spec.execution.mode {
        ExecutionMode::Direct => {
            let open = connect(&context.dialer, resolved).await?;
            let session = open.connection.open(OPEN_DEADLINE).await;
            metrics().session(session.as_ref().map_or_else(ConnectError::category, |_| "opened"));
            let session = session.map_err(|error| ConnectFailure::from_ssh(&error))?;
            context.dialer.record(&resolved.machine, online(&open.connection, None));
            Ok((Transport::Direct(open), session))
        }
        ExecutionMode::Durable => {
            let (reached, session) = connect_and_open(&context.dialer, resolved).await?;
            Ok((Transport::Durable(Arc::new(reached)), session))
        }
    }
}
