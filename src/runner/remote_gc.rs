//! Cleans up the launcher's directory on a machine. A cleanup starts after the end of a command, at most once a day for
//! each machine. The cleanup removes:
//!
//! 1. Unacknowledged output of finished executions. Their `writ serve` died before the acknowledgement.
//! 2. Journals whose last entry is older than `JOURNAL_DAYS`, with their output.
//!
//! # Guarantees
//!
//! A cleanup removes the output of an execution early only if the API server reports the execution as finished. All
//! other output stays for `JOURNAL_DAYS` after the last entry of its journal. For example, executions of other clusters
//! can have files in the same directory.

use std::collections::HashSet;
use std::time::Duration;

use crate::fleet::{LauncherConnection, connect_current, request};
use crate::launcher::{self, Answer, Uid};

use super::acknowledgements::MAX_BATCH;
use super::context::Context;
use super::queued_execution::QueuedExecution;

/// Number of days for which a journal and its unacknowledged output stay after the last entry. Must exceed the maximum
/// of `startingDeadlineSeconds` (7 days), because the journal prevents a second start.
const JOURNAL_DAYS: u32 = 30;
/// Maximum number of outputs that one cleanup checks. One reply of the launcher has space for this number of UIDs.
const MAX_LEFTOVERS: u32 = 100;
/// Maximum duration of one request to the machine.
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
