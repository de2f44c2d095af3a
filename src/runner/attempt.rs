//! One attempt to claim an execution that has a slot. The attempt sends no part of the command.
//!
//! 1. Read the Machine and the Secret. Read the execution, unless the controller has just read it.
//! 2. Connect, log in, and open a session. The session executes nothing yet.
//! 3. Read policy, Machine and Secret again from the API server, and decide again, so that a change during step 2 is
//!    detected.
//! 4. Claim (see `claim`). The claim fails if the execution has changed since it was read.
//!
//! If a shared connection is already open, the attempt uses this connection and starts with the session of step 2. If
//! step 3 finds a changed Machine or Secret, the next attempt starts with step 1.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;

use crate::api::ExecutionMode;
use crate::fleet::{
    ConnectFailure, OPEN_DEADLINE, RETRY_AFTER_CHANGE, RETRY_AFTER_SILENCE, ResolvedMachine, connect, connect_and_open,
    online, read_and_resolve, try_open_existing,
};
use crate::ssh::{ConnectError, Session};
use crate::telemetry::{SPANS, metrics};

use super::audit::log_claim;
use super::claim::{self, HeldClaim};
use super::context::Context;
use super::decision_input::read_execution;
use super::execution_connection::ExecutionConnection;
use super::queued_execution::QueuedExecution;

/// Stored claim, and the open session that executes the command.
pub(super) struct Claimed {
    pub held: HeldClaim,
    pub connection: ExecutionConnection,
    pub session: Session,
}

/// Connects to the machine of an execution, and claims the execution.
///
/// # Errors
/// The reason why the execution is not claimed. No part of the command was sent.
pub(super) async fn attempt(context: &Context, work: &QueuedExecution) -> Result<Claimed, ConnectFailure> {
    let known = context.recent_reads.take(&work.key.uid, Instant::now());
    // Before the claim, a shutdown can stop the attempt at once, because no command was sent.
    let (resolved, connection, session) = tokio::select! {
        prepared = prepare(context, work, known.is_some()) => prepared?,
        () = context.draining.cancelled() => return Err(ConnectFailure::Obsolete),
    };
    let claiming = Box::pin(claim::claim(context, work, known, &resolved, &connection));
    match claiming.instrument(tracing::info_span!(target: SPANS, "claim")).await {
        Ok(held) => {
            let waited =
                Duration::try_from(context.cluster.now().duration_since(work.created)).unwrap_or(Duration::ZERO);
            metrics().claimed(waited);
            log_claim(&held.execution, "execution claimed", None);
            Ok(Claimed { held, connection, session })
        }
        Err(end) => {
            session.close().await;
            if let ExecutionConnection::Direct(open) = connection {
                open.connection.close().await;
            }
            Err(end)
        }
    }
}

/// Reads the objects that describe the machine, connects, and opens a session. If the execution is not known, first
/// checks that it may still start.
async fn prepare(
    context: &Context,
    work: &QueuedExecution,
    is_known: bool,
) -> Result<(Arc<ResolvedMachine>, ExecutionConnection, Session), ConnectFailure> {
    if context.holders.current_epoch().is_none() {
        // Without a valid Lease this process cannot claim, so the attempt opens no connection.
        return Err(ConnectFailure::RetryAfter(RETRY_AFTER_SILENCE));
    }
    if !work.is_interactive
        && let Some((resolved, reached, session)) = try_open_existing(&context.fleet, &work.machine_key()).await
    {
        return Ok((resolved, ExecutionConnection::Durable(Arc::new(reached)), session));
    }
    if !is_known {
        read_execution(context, work, None).await?;
    }
    let resolved = Box::pin(read_and_resolve(&context.cluster, &work.key.namespace, &work.machine)).await?;
    if resolved.machine.spec.suspend {
        // The controllers read the same Machine, stop its queue, and report why the execution waits. The execution stays
        // in the queue, because its place counts for `queueLimit`.
        context.fleet.machines.wake(&work.machine_key());
        return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
    }
    let (connection, session) = match open(context, work, &resolved).await {
        Ok(opened) => opened,
        Err(end) => {
            if let Some(problem) = end.probe_result() {
                context.fleet.record(&resolved.machine, problem);
            }
            return Err(end);
        }
    };
    let resolved = Arc::new(resolved);
    if let ExecutionConnection::Durable(_) = connection {
        context.fleet.machine_of(&resolved).connections.remember_spec(&resolved);
    }
    Ok((resolved, connection, session))
}

/// Connects to the machine as its execution mode requires, and opens a session. The launcher of Durable mode passes no
/// input, so interactive executions need Direct mode.
async fn open(
    context: &Context,
    work: &QueuedExecution,
    resolved: &ResolvedMachine,
) -> Result<(ExecutionConnection, Session), ConnectFailure> {
    let mode = resolved.machine.spec.execution.mode;
    match if work.is_interactive { ExecutionMode::Direct } else { mode } {
        ExecutionMode::Direct => {
            let open = connect(&context.fleet, resolved).await?;
            let session = open.connection.open(OPEN_DEADLINE).await;
            metrics().session(session.as_ref().map_or_else(ConnectError::category, |_| "opened"));
            let session = session.map_err(|error| ConnectFailure::from_ssh(&error))?;
            if mode == ExecutionMode::Direct {
                // In Durable mode, an observation also needs the facts of the launcher.
                context.fleet.record(&resolved.machine, online(&open.connection, None));
            }
            Ok((ExecutionConnection::Direct(open), session))
        }
        ExecutionMode::Durable => {
            let (reached, session) = connect_and_open(&context.fleet, resolved).await?;
            Ok((ExecutionConnection::Durable(Arc::new(reached)), session))
        }
    }
}
