//! The point of no return: one PUT of the status with the resourceVersion of a live read.
//!
//! An answer that was lost is settled by a live read and the claim's token (crash point 1 of the design): our token,
//! go on; no claim, try once more; another token, stop. While it cannot be settled nothing is sent.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use uuid::Uuid;

use crate::api::CommandExecution;
use crate::api::execution_status::{Claim, MachineRecord};
use crate::cluster::{ClusterError, ExecutionKey};
use crate::execution;
use crate::policy::Decision;
use crate::ssh::Connection;

use super::attempt::{AttemptEnd, Ground, decide_again, in_time, obsolete_or_again, read_ground};
use super::{Inner, Work};

/// How often somebody else may change the object (labels, say) between read and claim before the execution goes back
/// into its queue.
const CONFLICT_TRIES: u32 = 5;
/// The pause between live reads while a lost answer is being settled.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// A stored claim: the right to send the command, and to write the result.
pub(super) struct Holding {
    pub key: ExecutionKey,
    pub token: String,
    /// The execution as it was stored with the claim.
    pub execution: CommandExecution,
    pub decision: Decision,
}

/// Reads everything again, decides again, claims.
pub(super) async fn claim(
    inner: &Inner,
    work: &Work,
    connected_by: &Ground,
    connection: &Connection,
) -> Result<Holding, AttemptEnd> {
    // One token for all tries: a write that was thought lost and lands late is then still known as ours.
    let token = Uuid::new_v4().to_string();
    for _ in 0..CONFLICT_TRIES {
        let ground = read_ground(inner, work).await?;
        if !same_ground(connected_by, &ground) {
            // The connection is to what the Machine or the Secret said before. Make another one.
            return Err(AttemptEnd::Again);
        }
        if !in_time(&ground.execution) {
            return Err(AttemptEnd::Obsolete);
        }
        let decision = decide_again(inner, &ground).await?;
        let now = Timestamp::now();
        let claim = Claim { token: token.clone(), holder: inner.holder.clone(), dispatched_time: MicroTime(now) };
        let machine = machine_record(&ground, connection);
        let status = execution::claimed(&ground.execution, &decision, machine, claim, now);
        if !inner.holders.is_current() {
            // Others may take this process for gone, and what it claims for left behind.
            return Err(AttemptEnd::Again);
        }
        // From here on the controller leaves the status alone, also while the answer is under way.
        inner.queues().hold(&work.key);
        let stored = match inner.cluster.replace_status(&ground.execution, status).await {
            Ok(execution) => Ok(execution),
            Err(error) if error.is_ambiguous() || matches!(error, ClusterError::Conflict { .. }) => {
                settle(inner, &work.key, &token).await
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(execution) => return Ok(Holding { key: work.key.clone(), token, execution, decision }),
            Err(ClusterError::Conflict { .. }) => {}
            Err(error) => return Err(obsolete_or_again(&error)),
        }
    }
    Err(AttemptEnd::Again)
}

/// Reads until it is known whether the claim with this token is stored. Conflict: it is not, and may be tried again.
async fn settle(inner: &Inner, key: &ExecutionKey, token: &str) -> Result<CommandExecution, ClusterError> {
    loop {
        match inner.cluster.execution(&key.namespace, &key.name).await {
            Ok(live) => {
                let stored = live.status.as_ref().and_then(|status| status.claim.as_ref());
                return match stored {
                    Some(claim) if claim.token == token => Ok(live),
                    _ => Err(ClusterError::Conflict { what: key.to_string() }),
                };
            }
            Err(error) if error.is_ambiguous() && !inner.halted.is_cancelled() => {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether Machine and Secret are what the connection was made by.
fn same_ground(before: &Ground, now: &Ground) -> bool {
    before.machine.metadata.uid == now.machine.metadata.uid
        && before.machine.metadata.generation == now.machine.metadata.generation
        && before.secret.metadata.uid == now.secret.metadata.uid
        && before.secret.metadata.resource_version == now.secret.metadata.resource_version
}

fn machine_record(ground: &Ground, connection: &Connection) -> MachineRecord {
    let metadata = &ground.machine.metadata;
    MachineRecord {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        address: connection.peer().to_string(),
        user: ground.machine.spec.user.clone(),
        host_key_fingerprint: connection.fingerprint().to_owned(),
    }
}
