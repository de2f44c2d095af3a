//! Retries a claimed command that a login did not start, if the reason is temporary.
//!
//! The task keeps the claim, waits for the machine, and sends the command again in another session. The command still
//! starts at most once, because the refused session executed nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::backoff::Backoff;
use crate::execution::{self, LaunchProblem};
use crate::ssh::Session;

use crate::fleet::{ConnectFailure, OPEN_DEADLINE, Open, ResolvedMachine, connect, jitter, read_and_resolve};

use super::super::claim::{DEADLINE_BEFORE_LOGIN, HeldClaim};
use super::super::context::Context;
use super::super::decision_input::{
    DecisionInput, decide_again, is_before_deadline, is_claimed_with, is_same_command, read_execution, with_machine,
};
use super::super::queued_execution::{QueuedExecution, ReadExecution};

/// Pauses before further attempts to open a session.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10)).with_jitter(0.25);

/// Reason why no other session was opened.
enum Not {
    /// A later attempt can succeed.
    Yet,
    /// The command will not start.
    Ever(LaunchProblem),
}

fn never<T>(reason: Reason, why: &str) -> Result<T, Not> {
    Err(Not::Ever(LaunchProblem { reason, message: format!("{why}; it was not started") }))
}

/// Opens another session as soon as the machine allows a session. `refused` is the reason why the last session did not
/// execute the command. `tries` is the number of sessions so far.
///
/// # Errors
/// The reason why the command will not start.
pub(super) async fn open_again(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    cancel: &CancellationToken,
    refused: &LaunchProblem,
    tries: u32,
) -> Result<(Open, Session), LaunchProblem> {
    let problem = &refused.message;
    tracing::info!(execution = %held.key, error = problem, "the login of a claimed command did not start it; trying again");
    if tries == 1 {
        let status = execution::with_login_wait(&held.execution, problem, context.cluster.now());
        // The status informs the user. Nothing else depends on this write.
        let _ = context.cluster.write_as_holder(&held.key, &held.token, &status).await;
    }
    let mut failures = tries.saturating_sub(1);
    loop {
        let pause = BACKOFF.delay(failures, jitter());
        failures = failures.saturating_add(1);
        tokio::select! {
            () = sleep(pause) => {}
            () = cancel.cancelled() => {}
            () = context.draining.cancelled() => {}
        }
        match try_again(context, work, held, cancel).await {
            Ok(opened) => return Ok(opened),
            Err(Not::Yet) => {}
            Err(Not::Ever(problem)) => return Err(after_refusal(problem, refused)),
        }
    }
}

/// Returns the reason why a command did not start, after a login that did not start it. `refused` is what this login
/// said. If the machine refused exec requests until the starting deadline, Writ reports the refusal as the reason.
pub(super) fn after_refusal(problem: LaunchProblem, refused: &LaunchProblem) -> LaunchProblem {
    let LaunchProblem { reason, message } = problem;
    let is_plain = reason == Reason::StartingDeadlineExceeded && refused.reason == Reason::ExecRequestRefused;
    let reason = if is_plain { refused.reason } else { reason };
    LaunchProblem { reason, message: format!("{message}; the login said last: {}", refused.message) }
}

async fn try_again(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    cancel: &CancellationToken,
) -> Result<(Open, Session), Not> {
    may_go_on(context, held, cancel)?;
    let resolved =
        read_and_resolve(&context.cluster, &work.key.namespace, &work.machine).await.map_err(|_| Not::Yet)?;
    if resolved.machine.spec.suspend {
        return never(Reason::MachineSuspended, "the machine was suspended before it had started");
    }
    let open = connect(&context.fleet, &resolved).await.map_err(|_| Not::Yet)?;
    let opened = match may_start(context, work, held, cancel, &resolved, &open).await {
        Ok(()) => open.connection.open(OPEN_DEADLINE).await.map_err(|_| Not::Yet),
        Err(not) => Err(not),
    };
    match opened {
        Ok(session) => Ok((open, session)),
        Err(not) => {
            open.connection.close().await;
            Err(not)
        }
    }
}

fn may_go_on(context: &Context, held: &HeldClaim, cancel: &CancellationToken) -> Result<(), Not> {
    if context.draining.is_cancelled() {
        return never(Reason::HolderLost, "this writ serve shut down before it had started the command");
    }
    if cancel.is_cancelled() {
        return never(Reason::CancelledBeforeStart, "cancelled before it started");
    }
    if !is_before_deadline(&held.execution, context.cluster.now()) {
        return never(Reason::StartingDeadlineExceeded, DEADLINE_BEFORE_LOGIN);
    }
    Ok(())
}

/// Reads everything again with the connection open, and decides again, as before the claim.
async fn may_start(
    context: &Context,
    work: &QueuedExecution,
    held: &mut HeldClaim,
    cancel: &CancellationToken,
    resolved: &ResolvedMachine,
    open: &Open,
) -> Result<(), Not> {
    let standing = context.holders.current_epoch().ok_or(Not::Yet)?;
    let decided = Instant::now();
    let read = async {
        let ReadExecution { execution, .. } = read_execution(context, work, Some(&held.token)).await?;
        Box::pin(with_machine(context, work, execution)).await
    };
    let ground: DecisionInput = match read.await {
        Ok(ground) if is_claimed_with(&ground.execution, &held.token) => ground,
        Ok(_) | Err(ConnectFailure::Obsolete) => {
            return never(Reason::HolderLost, "the claim is no longer that of this writ");
        }
        Err(_) => return Err(Not::Yet),
    };
    may_go_on(context, held, cancel)?;
    if ground.execution.is_cancelled_or_deleted() {
        return never(Reason::CancelledBeforeStart, "cancelled before it started");
    }
    let recorded = held.execution.status.as_ref().and_then(|status| status.machine.as_ref());
    let is_same = recorded.is_some_and(|machine| {
        machine.address == open.connection.peer()
            && machine.host_key_fingerprint == open.connection.fingerprint()
            && Some(&machine.uid) == resolved.machine.metadata.uid.as_ref()
            && machine.user == resolved.machine.spec.user
    });
    if !is_same || ground.resolved.pool_key() != resolved.pool_key() {
        return never(Reason::MachineChanged, "the Machine, or where it leads, changed before it had started");
    }
    match decide_again(context, &ground).await {
        Ok(decision) if is_same_command(&decision.record(held.decision.decided_time.clone()), &held.decision) => {}
        Ok(_) | Err(ConnectFailure::Obsolete) => {
            let why = "the policy changed before it had started, and would not run the same";
            return never(Reason::PolicyChanged, why);
        }
        Err(_) => return Err(Not::Yet),
    }
    if context.holders.current_epoch() != Some(standing) {
        return Err(Not::Yet);
    }
    (held.standing, held.decided) = (standing, decided);
    Ok(())
}
