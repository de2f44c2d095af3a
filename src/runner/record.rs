//! The result into the status, however long the API server is away: a result that was observed and not written would
//! be a wrong record.

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

/// Pauses after failed writes. The slot stays in use meanwhile, so
/// what waits to be written is bounded by `maxConcurrent` of each machine.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5)).with_jitter(0.25);
/// The pause where somebody has to make room in the object.
const PAUSE_WHERE_FULL: Duration = Duration::from_secs(30);
/// Writes it; false where it is not ours to write, or was refused.
pub(super) async fn record(context: &Context, held: &mut HeldClaim, outcome: CommandOutcome) -> bool {
    let mut status = conclude(&held.execution, outcome, context.cluster.now());
    // What a durable command did can be read again from its machine.
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

/// The execution with who cancelled it, which was not known at the claim. None if it is gone by now.
async fn who_cancelled(context: &Context, held: &HeldClaim) -> Option<CommandExecution> {
    let live = context.cluster.execution(&held.key.namespace, &held.key.name).await.ok()?;
    (live.metadata.uid.as_deref() == Some(&held.key.uid)).then_some(live)
}

/// Writes until it is stored, or will never be: false then.
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
                // One that is stored at once has not waited.
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
            // A claim of a version that reserved no room. The outcome is known, so it is not given up.
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
