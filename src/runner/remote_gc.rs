//! Cleanup of a machine, once a day if commands run on it. It removes output that was never acknowledged, because a
//! `writ` died between a result and its acknowledgement. It also removes expired journals.
//!
//! Guarantee: Writ removes output only if the API server reports that this execution has finished. Other namespaces or
//! other clusters may use the same directory. Their output stays.

use std::collections::HashSet;
use std::time::Duration;

use crate::fleet::{LauncherConnection, connect_current, request};
use crate::launcher::{self, Answer, Uid};

use super::acknowledgements::MAX_BATCH;
use super::context::Context;
use super::queued_execution::QueuedExecution;

/// Days for which journals and unacknowledged output stay after their last entry. The journal prevents a second start
/// of its command, and `startingDeadlineSeconds` is at most 7 days.
const JOURNAL_DAYS: u32 = 30;
/// Maximum number of outputs checked per cleanup. This is the capacity of one reply.
const MAX_LEFTOVERS: u32 = 100;
/// Time for one request to the machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Cleans up the machine of an execution. After a failure, a later cleanup tries again.
pub(super) async fn collect(context: &Context, work: &QueuedExecution) {
    let tidied = async {
        let reached = connect_current(&context.fleet, &work.machine_key()).await?;
        remove_leftovers(context, work, &reached).await?;
        match ask(&reached, |nonce, facts| launcher::prune(nonce, facts, JOURNAL_DAYS)).await? {
            Answer::Done => Ok(()),
            other => Err(format!("it answered {other:?}")),
        }
    };
    let outcome: Result<(), String> = tokio::select! {
        outcome = tidied => outcome,
        () = context.draining.cancelled() => return,
    };
    if let Err(problem) = outcome {
        tracing::warn!(machine = %work.machine, error = problem, "a machine could not be tidied; it is tried again later");
        context.gc_schedule.postpone(work.machine_key());
    }
}

async fn remove_leftovers(
    context: &Context,
    work: &QueuedExecution,
    reached: &LauncherConnection,
) -> Result<(), String> {
    let left = match ask(reached, |nonce, facts| launcher::unacknowledged(nonce, facts, MAX_LEFTOVERS)).await? {
        Answer::Unacknowledged(left) if left.is_empty() => return Ok(()),
        Answer::Unacknowledged(left) => left,
        other => return Err(format!("it answered {other:?}")),
    };
    let named: HashSet<&str> = left.iter().map(Uid::as_str).collect();
    let finished = context.cluster.filter_finished(&work.key.namespace, &work.machine, &named).await;
    let finished = finished.map_err(|error| error.to_string())?;
    let finished: Vec<&Uid> = left.iter().filter(|uid| finished.contains(uid.as_str())).collect();
    for uids in finished.chunks(MAX_BATCH) {
        ask(reached, |nonce, facts| launcher::acknowledge(nonce, facts, uids)).await?;
    }
    Ok(())
}

async fn ask(
    reached: &LauncherConnection,
    build: impl FnOnce(&launcher::Nonce, &launcher::LauncherFacts) -> launcher::ExecRequest,
) -> Result<Answer, String> {
    let session = reached.open().await.map_err(|error| error.to_string())?;
    let facts = &reached.known.facts;
    request(session, DEADLINE, |nonce| build(nonce, facts)).await.map_err(|error| error.to_string())
}
