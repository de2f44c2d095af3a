//! Adoption of a claim whose holder died, or whose task in this process ended.
//!
//! One PUT writes a new token and the identity of this process into the claim. After this PUT, the previous holder
//! cannot write the status any more. The PUT contains the resourceVersion that was just read from the API server.
//!
//! If this process already holds the claim, Writ does not write the claim.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::CommandExecution;
use crate::cluster::{ClusterError, LeaseEpoch};
use crate::execution::{self, HolderFact};
use crate::telemetry::metrics;

use super::audit::log_claim;
use super::claim::{ClaimState, HeldClaim, publish_claim, resolve_claim};
use super::context::Context;
use super::queued_execution::QueuedExecution;

/// Maximum number of attempts if other clients change the execution between read and write. After these attempts, the
/// controller tries again later.
const CONFLICT_TRIES: u32 = 5;
/// Pause after another client changed the object.
const RETRY_AFTER_CHANGE: Duration = Duration::from_millis(200);

/// Adopts the claim of an execution. Returns `None` if the adoption is impossible now, or no longer necessary. The
/// controller then reconciles the execution again.
pub(super) async fn adopt_claim(context: &Context, work: &QueuedExecution) -> Option<HeldClaim> {
    let token = Uuid::new_v4().to_string();
    for _ in 0..CONFLICT_TRIES {
        let standing = context.holders.current_epoch()?;
        let decided = Instant::now();
        let live = context.cluster.execution(&work.key.namespace, &work.key.name).await.ok()?;
        if live.metadata.uid.as_deref() != Some(&work.key.uid) || live.phase().is_finished() {
            return None;
        }
        let claim = live.claim()?;
        if matches!(context.holders.holder_fact(&claim.holder).await.ok()?, HolderFact::MayBeAlive) {
            return None;
        }
        if claim.holder == context.holders.own_identity() {
            // The claim keeps its token, because the only task with this token has ended.
            let token = claim.token.clone();
            log_claim(&live, "takes up a claim of this process that none of its tasks has", None);
            return held_claim(context, work, token, live, (standing, decided));
        }
        let before = claim.holder.clone();
        let status = execution::with_new_holder(&live, context.holders.own_identity(), &token, context.cluster.now())?;
        let state = match context.cluster.replace_status(&live, status).await {
            Ok(stored) => ClaimState::Ours(Box::new(stored)),
            Err(error) if error.is_ambiguous() => resolve_claim(context, &work.key, &token).await,
            Err(ClusterError::Conflict { .. }) => ClaimState::NotStored,
            Err(error) => {
                tracing::warn!(%error, execution = %work.key, "a claim that was left behind could not be taken over");
                return None;
            }
        };
        match state {
            ClaimState::Ours(execution) => {
                log_claim(&execution, "claim adopted", Some(&before));
                return held_claim(context, work, token, *execution, (standing, decided));
            }
            ClaimState::NotStored => sleep(RETRY_AFTER_CHANGE).await,
            ClaimState::Lost => return None,
        }
    }
    None
}

/// Returns the adopted claim, or `None` if the execution has no decision. Every claim that Writ writes has a decision.
fn held_claim(
    context: &Context,
    work: &QueuedExecution,
    token: String,
    execution: CommandExecution,
    (standing, decided): (LeaseEpoch, Instant),
) -> Option<HeldClaim> {
    let decision = execution.status.as_ref().and_then(|status| status.decision.clone())?;
    metrics().adopted();
    let key = work.key.clone();
    let live = publish_claim(context, &key, true);
    // `is_stored_unchanged` needs no check here. If the adopted command must still be launched, Writ first compares a
    // new decision with the stored decision.
    Some(HeldClaim { key, token, execution, decision, is_stored_unchanged: true, standing, decided, live })
}
