//! Writes the result to the status. Retries while the API server is unreachable, so that no observed result is lost.

use std::time::Duration;

use tracing::Instrument as _;

use crate::api::{CommandExecution, CommandExecutionStatus, ExecutionMode, Phase};
use crate::backoff::Backoff;
use crate::cluster::WriteOutcome;
use crate::execution::{CommandOutcome, EventNotice, conclude};
use crate::fleet::jitter;
use crate::output::EndedStatus;
use crate::telemetry::{SPANS, metrics};

use super::audit::log_end;
use super::claim::HeldClaim;
use super::context::Context;
use super::shrink::{REFUSED, TOO_LARGE, shrink_status};

/// Pauses after failed writes. The slot stays in use during the pauses, so `maxConcurrent` of each machine limits the
/// number of waiting results.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5)).with_jitter(0.25);
/// Pause between writes while the object is full, until a user removes metadata from the object.
const PAUSE_WHERE_FULL: Duration = Duration::from_secs(30);
/// Writes the result. Returns false if the claim is lost or the API server refuses the result.
pub(super) async fn record(context: &Context, held: &mut HeldClaim, outcome: CommandOutcome) -> bool {
    let mut status = conclude(&held.execution, outcome, context.cluster.now());
    // In Durable mode, the machine also keeps the result, so only Direct mode needs the spool.
    let is_only_here = held.execution.claim().is_some_and(|claim| claim.mode == ExecutionMode::Direct);
    let spool = context.spool.as_ref().filter(|_| is_only_here);
    if let Some(spool) = spool {
        spool.keep(&held.key, &held.token, &status).await;
    }
    let span = tracing::info_span!(target: SPANS, "record", phase = status.phase.as_str());
    let stored = write(context, held, &mut status).instrument(span).await;
    if let Some(spool) = spool {
        spool.forget(&held.key.uid);
    }
    if stored {
        held.live.ended(EndedStatus::from(&status));
        metrics().finished(&status);
        let cancelled = if status.phase == Phase::Cancelled { who_cancelled(context, held).await } else { None };
        log_end(cancelled.as_ref().unwrap_or(&held.execution), &status, None);
        if let Some(notice) = EventNotice::of(&status) {
            context.events.publish(&held.execution, notice);
        }
    }
    stored
}

/// Reads the execution again, because only the current object names the user who cancelled it. Returns `None` if the
/// execution no longer exists or cannot be read.
async fn who_cancelled(context: &Context, held: &HeldClaim) -> Option<CommandExecution> {
    let live = context.cluster.execution(&held.key.namespace, &held.key.name).await.ok()?;
    (live.metadata.uid.as_deref() == Some(&held.key.uid)).then_some(live)
}

/// Writes until the result is stored. Returns false if the result can never be stored.
async fn write(context: &Context, held: &HeldClaim, status: &mut CommandExecutionStatus) -> bool {
    let (mut step, mut failures) = (0, 0);
    let mut waits = None;
    loop {
        let (why, message) = match context.cluster.write_as_holder(&held.key, &held.token, status).await {
            WriteOutcome::Stored => return true,
            WriteOutcome::ClaimLost(why) => {
                metrics().result_lost("not_ours");
                tracing::error!(execution = %held.key, uid = held.key.uid, error = why, "a result was not stored: the claim is no longer ours");
                return false;
            }
            WriteOutcome::Refused(message) => (REFUSED, message),
            WriteOutcome::TooLarge(message) => (TOO_LARGE, message),
            WriteOutcome::Unknown(error) => {
                // Metrics count a result as waiting only after a failed write.
                waits.get_or_insert_with(|| metrics().result_waits());
                tracing::warn!(execution = %held.key, %error, "a result waits for the API server");
                tokio::time::sleep(BACKOFF.delay(failures, jitter())).await;
                failures += 1;
                continue;
            }
        };
        if shrink_status(status, &mut step, why) {
            tracing::error!(execution = %held.key, error = message, step, "a result was refused; it is stored with less in it");
        } else if why == TOO_LARGE {
            // This happens if an older version of Writ wrote the claim and reserved no space for the result. Writ tries
            // again, because the outcome is known.
            waits.get_or_insert_with(|| metrics().result_waits());
            tracing::error!(execution = %held.key, uid = held.key.uid, error = message, "a result does not fit; remove labels or annotations of the execution");
            tokio::time::sleep(PAUSE_WHERE_FULL).await;
        } else {
            metrics().result_lost("refused");
            tracing::error!(execution = %held.key, uid = held.key.uid, error = message, "a result was refused and is lost");
            return false;
        }
    }
}
