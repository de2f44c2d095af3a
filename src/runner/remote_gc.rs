//! Cleaning up on a machine after what was never acknowledged (a `writ` that was killed between a result and its
//! acknowledgement), and after journals that have had their time. Once a day for each machine that something runs on.
//!
//! The promise kept here: output is removed only where the API server says that this very execution has finished. Another
//! namespace, or another cluster, may use the same folder; theirs is not touched.

use std::collections::HashSet;
use std::time::Duration;

use crate::fleet::{LauncherConnection, connect_current, request};
use crate::launcher::{self, Answer, Uid};

use super::acknowledgements::MAX_BATCH;
use super::context::Context;
use super::queued_execution::QueuedExecution;

/// How long journals, and output that nobody asks for, are kept after the last word in them. A journal is what keeps its
/// command from starting again; `startingDeadlineSeconds` is at most 7 days.
const JOURNAL_DAYS: u32 = 30;
/// How many are looked at each time: what one request can carry back.
const MAX_LEFTOVERS: u32 = 100;
/// How long a machine may take for one request.
const DEADLINE: Duration = Duration::from_secs(60);

/// Tidies the machine of an execution. What fails is left for the next day.
pub(super) async fn collect(context: &Context, work: &QueuedExecution) {
    let tidied = async {
        let reached = connect_current(&context.dialer, &work.machine_key()).await?;
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
