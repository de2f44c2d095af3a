//! The result into the status, however long the API server is away: a result that was observed and not written would
//! be a wrong record.

use std::time::Duration;

use tracing::Instrument as _;

use crate::api::{CommandExecution, CommandExecutionStatus, ExecutionMode, Phase};
use crate::cluster::WriteOutcome;
use crate::execution::{Notice, Outcome, REDUCTIONS, conclude, reduce};
use crate::telemetry::{SPANS, metrics};

use super::Inner;
use super::audit::log_end;
use super::claim::Holding;
use super::queue::random_fraction;

/// The pause after the first failed write; it doubles up to [`LONGEST_PAUSE`]. The slot stays taken meanwhile, so
/// what waits to be written is bounded by `maxConcurrent` of each machine.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause where somebody has to make room in the object.
const PAUSE_WHERE_FULL: Duration = Duration::from_secs(30);
/// Why there is less in a record than was seen.
pub(super) const REFUSED: &str = "the API server refused what the machine said of it";
pub(super) const TOO_LARGE: &str = "labels, annotations or other metadata fill the object";

/// Writes it; false where it is not ours to write, or was refused.
pub(super) async fn record(inner: &Inner, holding: &Holding, outcome: Outcome) -> bool {
    let mut status = conclude(&holding.execution, outcome, inner.cluster.now());
    // What a durable command did can be read again from its machine.
    let is_only_here = holding.execution.claim().is_some_and(|claim| claim.mode == ExecutionMode::Direct);
    let spool = inner.spool.as_ref().filter(|_| is_only_here);
    if let Some(spool) = spool {
        spool.keep(holding, &status).await;
    }
    let span = tracing::info_span!(target: SPANS, "record", phase = status.phase.as_str());
    let stored = write(inner, holding, &mut status).instrument(span).await;
    if let Some(spool) = spool {
        spool.forget(&holding.key.uid);
    }
    if stored {
        metrics().finished(&status);
        let cancelled = if status.phase == Phase::Cancelled { who_cancelled(inner, holding).await } else { None };
        log_end(cancelled.as_ref().unwrap_or(&holding.execution), &status, None);
        if let Some(notice) = Notice::of(&status) {
            inner.events.publish(&holding.execution, notice);
        }
    }
    stored
}

/// The execution with who cancelled it, which was not known at the claim. None if it is gone by now.
async fn who_cancelled(inner: &Inner, holding: &Holding) -> Option<CommandExecution> {
    let live = inner.cluster.execution(&holding.key.namespace, &holding.key.name).await.ok()?;
    (live.metadata.uid.as_deref() == Some(&holding.key.uid)).then_some(live)
}

/// Writes until it is stored, or will never be: false then.
async fn write(inner: &Inner, holding: &Holding, status: &mut CommandExecutionStatus) -> bool {
    let (mut step, mut pause) = (0, FIRST_PAUSE);
    let mut waits = None;
    loop {
        let (why, message) = match inner.cluster.write_as_holder(&holding.key, &holding.token, status).await {
            WriteOutcome::Stored => return true,
            WriteOutcome::NotOurs(why) => {
                metrics().result_lost("not_ours");
                tracing::error!(execution = %holding.key, uid = holding.key.uid, why, "a result was not stored: the claim is no longer ours");
                return false;
            }
            WriteOutcome::Refused(message) => (REFUSED, message),
            WriteOutcome::TooLarge(message) => (TOO_LARGE, message),
            WriteOutcome::Again(error) => {
                // One that is stored at once has not waited.
                waits.get_or_insert_with(|| metrics().result_waits());
                tracing::warn!(execution = %holding.key, %error, "a result waits for the API server");
                tokio::time::sleep(pause + pause.mul_f64(0.25 * random_fraction())).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                continue;
            }
        };
        if reduced(status, &mut step, why) {
            tracing::error!(execution = %holding.key, message, step, "a result was refused; it is stored with less in it");
        } else if why == TOO_LARGE {
            // A claim of a version that reserved no room. The outcome is known, so it is not given up.
            waits.get_or_insert_with(|| metrics().result_waits());
            tracing::error!(execution = %holding.key, uid = holding.key.uid, message, "a result does not fit; remove labels or annotations of the execution");
            tokio::time::sleep(PAUSE_WHERE_FULL).await;
        } else {
            metrics().result_lost("refused");
            tracing::error!(execution = %holding.key, uid = holding.key.uid, message, "a result was refused and is lost");
            return false;
        }
    }
}

/// Takes something out of a status that was refused, more than the last time: what the machine chose, at last everything but
/// how it ended. Better such a record than none. False where nothing is left to take out.
pub(super) fn reduced(status: &mut CommandExecutionStatus, step: &mut u32, why: &str) -> bool {
    while *step < REDUCTIONS {
        *step += 1;
        if reduce(status, *step, why) {
            return true;
        }
    }
    false
}
