//! The result into the status, however long the API server is away: a result that was observed and not written would
//! be a wrong record.

use std::time::Duration;

use jiff::Timestamp;
use tracing::Instrument as _;

use crate::api::{CommandExecution, CommandExecutionStatus, ExecutionMode, Phase};
use crate::cluster::WriteOutcome;
use crate::execution::{MAXIMUM_MESSAGE_CHARACTERS, Notice, Outcome, conclude};
use crate::telemetry::{SPANS, metrics};

use super::Inner;
use super::audit::log_end;
use super::claim::Holding;
use super::queue::random_fraction;

/// The pause after the first failed write; it doubles up to [`LONGEST_PAUSE`]. The slot stays taken meanwhile, so
/// what waits to be written is bounded by `maxConcurrent` of each machine.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Writes it; false where it is not ours to write, or was refused.
pub(super) async fn record(inner: &Inner, holding: &Holding, outcome: Outcome) -> bool {
    let mut status = conclude(&holding.execution, outcome, Timestamp::now());
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
    let mut refused = 0;
    let mut pause = FIRST_PAUSE;
    let mut waits = None;
    loop {
        match inner.cluster.write_as_holder(&holding.key, &holding.token, status).await {
            WriteOutcome::Stored => return true,
            WriteOutcome::NotOurs(why) => {
                metrics().result_lost("not_ours");
                tracing::error!(execution = %holding.key, uid = holding.key.uid, why, "a result was not stored: the claim is no longer ours");
                return false;
            }
            WriteOutcome::Refused(message) if refused < 2 => {
                tracing::error!(execution = %holding.key, message, "a result was refused; it is stored with less in it");
                reduce(status, refused == 0);
                refused += 1;
            }
            WriteOutcome::Refused(message) => {
                metrics().result_lost("refused");
                tracing::error!(execution = %holding.key, uid = holding.key.uid, message, "a result was refused and is lost");
                return false;
            }
            WriteOutcome::Again(error) => {
                // One that is stored at once has not waited.
                waits.get_or_insert_with(|| metrics().result_waits());
                tracing::warn!(execution = %holding.key, %error, "a result waits for the API server");
                tokio::time::sleep(pause + pause.mul_f64(0.25 * random_fraction())).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Takes out what the machine chooses: its output, and at last everything that it said but how it ended. Better such a record
/// than none.
fn reduce(status: &mut CommandExecutionStatus, only_the_output: bool) {
    status.stdout = None;
    status.stderr = None;
    let note = "the API server refused what the machine said of it; ";
    if only_the_output {
        let message = status.message.take().unwrap_or_default();
        status.message = Some(format!("{note}{message}").chars().take(MAXIMUM_MESSAGE_CHARACTERS).collect());
    } else {
        (status.output, status.start_time, status.duration_ms) = (None, None, None);
        status.message = Some(format!("{note}what is here is all that could be stored"));
        for condition in &mut status.conditions {
            condition.message.clear();
        }
    }
}
