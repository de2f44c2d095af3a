//! Taking over a claim that was left behind: by a process that died, or by a task of this one.
//!
//! One PUT with the resourceVersion of a live read gives the claim a new token and this process's name; from then on
//! whoever had it before can write nothing any more. A claim that has this process's name already needs none. What has become of the command is then asked of its machine (see
//! `durable`).

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::CommandExecution;
use crate::api::execution_status::DecisionRecord;
use crate::cluster::ClusterError;
use crate::execution::{self, HolderFact};
use crate::telemetry::metrics;

use super::audit::log_claim;
use super::claim::{Holding, Settled, settle};
use super::{Inner, Work};

/// How often somebody else may change the object between read and write before it is left for later.
const CONFLICT_TRIES: u32 = 5;
/// The pause after such a change.
const AGAIN_AFTER_CHANGE: Duration = Duration::from_millis(200);

/// Takes the claim of an execution over. None where that is not possible now, or not called for any more; the controller
/// looks again.
pub(super) async fn take_over(inner: &Inner, work: &Work) -> Option<Holding> {
    let token = Uuid::new_v4().to_string();
    for _ in 0..CONFLICT_TRIES {
        let standing = inner.holders.standing()?;
        let decided = Instant::now();
        let live = inner.cluster.execution(&work.key.namespace, &work.key.name).await.ok()?;
        if live.metadata.uid.as_deref() != Some(&work.key.uid) || live.phase().is_finished() {
            return None;
        }
        let claim = live.claim()?;
        if matches!(inner.holders.fact(&claim.holder).await.ok()?, HolderFact::MayBeAlive) {
            return None;
        }
        if claim.holder == inner.holder {
            // Nobody else can write with its token, and the task that could has ended.
            let (token, decision) = (claim.token.clone(), decision_of(&live)?);
            metrics().adopted();
            log_claim(&live, "takes up a claim of this process that none of its tasks has", None);
            let key = work.key.clone();
            return Some(Holding { key, token, execution: live, decision, is_whole: true, standing, decided });
        }
        let before = claim.holder.clone();
        let status = execution::taken_over(&live, &inner.holder, &token, inner.cluster.now())?;
        let settled = match inner.cluster.replace_status(&live, status).await {
            Ok(stored) => Settled::Ours(Box::new(stored)),
            Err(error) if error.is_ambiguous() => settle(inner, &work.key, &token).await,
            Err(ClusterError::Conflict { .. }) => Settled::NotStored,
            Err(error) => {
                tracing::warn!(%error, execution = %work.key, "a claim that was left behind could not be taken over");
                return None;
            }
        };
        match settled {
            Settled::Ours(execution) => {
                metrics().adopted();
                log_claim(&execution, "took over a claim that was left behind", Some(&before));
                let decision = decision_of(&execution)?;
                let key = work.key.clone();
                // Whether the decision is whole is seen before it would be launched: it has to equal a new one.
                return Some(Holding {
                    key,
                    token,
                    execution: *execution,
                    decision,
                    is_whole: true,
                    standing,
                    decided,
                });
            }
            Settled::NotStored => sleep(AGAIN_AFTER_CHANGE).await,
            Settled::Over => return None,
        }
    }
    None
}

fn decision_of(execution: &CommandExecution) -> Option<DecisionRecord> {
    execution.status.as_ref().and_then(|status| status.decision.clone())
}
