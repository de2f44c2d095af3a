//! Deletes finished executions after their TTL.
//!
//! The controller keeps finished executions in an `ExpiryQueue`. When an execution is due, a reconcile reads the
//! execution live and takes one of these actions:
//!
//! - The execution is being deleted: remove the stored output and then the finalizer. If a user deleted the execution,
//!   first remove the receipt.
//! - The TTL has expired: store the receipt, then delete the execution.
//! - The minimum retention is over: add an annotation that allows users to delete the execution.
//!
//! After a failure, the execution returns to the queue with a delay.
//!
//! # Guarantees
//! - The deletion of an execution completes only after the execution has finished and its stored output was removed.
//! - After the TTL of an execution, Writ first stores its receipt (`receipts`) and then deletes the execution. The
//!   receipt prevents a second run of the same manifest.
//! - Ten thousand finished executions take a few MiB of memory. Writ keeps only their names, UIDs and the times of
//!   their next actions.
//! - An execution that cannot be decoded does not affect other executions.
//! - Each execution is read live before it is removed.

mod event_dedup;
mod expiry_queue;
mod finished;
mod problem;
mod receipt_quota;
mod receipts;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use kube::Resource as _;
use kube::api::GetParams;
use kube::core::Request;
use kube::runtime::watcher::Event;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{CommandExecution, Phase};
use crate::cluster::{
    Cluster, ClusterError, EventPublisher, ExecutionKey, LeanExecution, Operation, log_watch_failure,
};
use crate::output::{OutputKey, Store, StoreError};
use crate::telemetry::{BackgroundTask, HEARTBEAT_INTERVAL, Watch, health, metrics};

use expiry_queue::ExpiryQueue;
use finished::FinishedExecution;
pub use finished::RetentionPolicy;
use problem::{RemovalError, RemovalReporter};
use receipts::Receipts;

/// Maximum number of concurrent reconciles. Each reconcile makes a few short calls, and none is urgent.
const MAX_CONCURRENT: usize = 8;
/// Maximum sleep before the loop checks the queue again. A longer sleep could miss a change of the clock.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// Pause of all reconciles after a failure of the API server or the store. Without the pause, thousands of due
/// executions would immediately repeat the failed calls.
const SYSTEMIC_BACKOFF: Duration = Duration::from_secs(1);

/// Dependencies of this controller.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// The output store. `None` if outputs are not stored.
    pub store: Option<Store>,
    /// Publishes events.
    pub events: EventPublisher,
    /// Retention of executions.
    pub policy: RetentionPolicy,
    /// Maximum number of receipts per namespace. At this number, Writ keeps expired executions instead of deleting
    /// them.
    pub receipt_limit: u64,
}

/// Dependencies of a reconcile.
struct RetentionContext {
    cluster: Cluster,
    store: Option<Store>,
    policy: RetentionPolicy,
    receipts: Receipts,
}

/// Runs the controller until `stop` is cancelled. This controller has its own watch and loop, because it stores no
/// objects and mostly acts at certain times, not on changes.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { cluster, store, events: publisher, policy, receipt_limit } = context;
    let mut events = cluster.watch::<FinishedExecution>(Some(&finished_selector()));
    let receipts = Receipts::new(cluster.clone(), receipt_limit);
    let context = Arc::new(RetentionContext { cluster: cluster.clone(), store, policy, receipts });
    let mut reporter = RemovalReporter::new(publisher);
    let mut in_progress = FuturesUnordered::<BoxFuture<'static, (ExecutionKey, Result<(), RemovalError>)>>::new();
    let (mut queue, mut busy) = (ExpiryQueue::new(policy), HashSet::new());
    let (mut not_before, mut ticks) = (Instant::now(), interval(HEARTBEAT_INTERVAL));
    loop {
        let due = queue.next_delay(cluster.now()).map(|delay| Instant::now() + delay.min(MAX_SLEEP));
        let next = due.map_or_else(|| Instant::now() + MAX_SLEEP, |at| at.max(not_before));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => health().heartbeat(BackgroundTask::Retention),
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if matches!(event, Event::InitDone) {
                        health().listed(Watch::Finished);
                    }
                    queue.handle_event(event);
                }
                Some(Err(error)) => log_watch_failure(Watch::Finished, &error),
                None => return,
            },
            Some((key, result)) = in_progress.next(), if !in_progress.is_empty() => {
                busy.remove(&key);
                if let Err(error) = result {
                    reporter.report(&key, &error);
                    if error.is_systemic() {
                        not_before = Instant::now() + SYSTEMIC_BACKOFF;
                    }
                    queue.reschedule(key, cluster.now() + error.retry_after());
                }
            }
            () = tokio::time::sleep_until(next), if in_progress.len() < MAX_CONCURRENT => {
                let Some(key) = queue.pop_due(cluster.now()) else { continue };
                if !busy.insert(key.clone()) {
                    // An event has scheduled the execution again, but its earlier reconcile is still in progress. The
                    // new reconcile waits.
                    queue.reschedule(key, cluster.now() + Duration::from_secs(1));
                    continue;
                }
                let context = Arc::clone(&context);
                in_progress.push(Box::pin(async move {
                    let _in_progress = health().track(BackgroundTask::Retention);
                    let start = std::time::Instant::now();
                    let result = reconcile(&context, &key).await;
                    metrics().reconciled(BackgroundTask::Retention.as_str(), start);
                    (key, result)
                }));
            }
        }
    }
}

/// Returns the field selector for finished executions. The controller of executions watches the unfinished executions.
fn finished_selector() -> String {
    let unfinished = Phase::ALL.iter().filter(|phase| !phase.is_finished());
    unfinished.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}

/// Reads one execution live, and carries out the next step of its removal.
async fn reconcile(context: &RetentionContext, key: &ExecutionKey) -> Result<(), RemovalError> {
    let Some(live) = read(context, key).await? else { return Ok(()) };
    if !live.slim.is_finished() {
        return Ok(());
    }
    if live.slim.is_being_deleted() {
        return finalize_deletion(context, key, &live).await;
    }
    let now = context.cluster.now();
    let is_over = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if is_over(live.slim.expiry(&context.policy)) {
        return expire(context, key, &live).await;
    }
    if is_over(live.slim.mark_time(&context.policy)) {
        context.cluster.mark_retention_over(key, live.slim.meta().resource_version.clone()).await?;
    }
    Ok(())
}

/// Result of a live read of an execution.
struct LiveExecution {
    slim: FinishedExecution,
    /// The whole execution, or the decoder's message if it cannot be decoded.
    decoded: Result<CommandExecution, String>,
}

impl LiveExecution {
    fn decoded(&self) -> Result<&CommandExecution, RemovalError> {
        self.decoded.as_ref().map_err(|message| RemovalError::Unreadable(message.clone()))
    }
}

/// Reads the execution with the UID of `key`. Returns `None` if this execution does not exist, even if another
/// execution has the same name.
async fn read(context: &RetentionContext, key: &ExecutionKey) -> Result<Option<LiveExecution>, RemovalError> {
    let requests = Request::new(CommandExecution::url_path(&(), Some(&key.namespace)));
    let client = context.cluster.client();
    // The text is decoded twice, because Writ must also remove an execution that is readable only as a
    // `FinishedExecution`.
    let get = async {
        let request = requests.get(&key.name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        client.request_text(request).await
    };
    let text = match context.cluster.call(Operation::GetExecution, format!("CommandExecution {key}"), get).await {
        Ok(text) => text,
        Err(ClusterError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let slim: FinishedExecution =
        serde_json::from_str(&text).map_err(|error| RemovalError::Unreadable(error.to_string()))?;
    if slim.meta().uid.as_deref() != Some(&key.uid) {
        return Ok(None);
    }
    let decoded = serde_json::from_str::<LeanExecution>(&text).map_err(|error| error.to_string());
    Ok(Some(LiveExecution { slim, decoded: decoded.map(|lean| lean.with_size(text.len()).0) }))
}

/// Completes the deletion of an execution: removes its stored output and its finalizer. If a user deleted the
/// execution, first removes its receipt.
async fn finalize_deletion(
    context: &RetentionContext,
    key: &ExecutionKey,
    live: &LiveExecution,
) -> Result<(), RemovalError> {
    let Some(finalizer) = live.slim.metadata.audit_finalizer else { return Ok(()) };
    // If the execution cannot be decoded, its receipt stays. The same manifest then does not run again, which is safe.
    if let Ok(execution) = &live.decoded {
        context.receipts.remove_after_manual_delete(execution).await?;
    }
    remove_stored(context, key).await?;
    match context.cluster.remove_finalizer(key, finalizer).await {
        Ok(()) => tracing::info!(execution = %key, uid = key.uid, "execution removed: it was deleted"),
        Err(ClusterError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Deletes an execution after its TTL. First stores its receipt.
async fn expire(context: &RetentionContext, key: &ExecutionKey, live: &LiveExecution) -> Result<(), RemovalError> {
    let written = context.receipts.write(live.decoded()?).await?;
    if !live.slim.has_finalizer() {
        // Without the finalizer, the deletion removes the execution immediately. The stored output must therefore be
        // removed first.
        remove_stored(context, key).await?;
    }
    match context.cluster.delete(key, live.slim.meta().resource_version.clone()).await {
        Ok(()) => {
            tracing::info!(execution = %key, uid = key.uid, "execution deleted: its TTL expired");
            Ok(())
        }
        Err(error @ (ClusterError::Conflict { .. } | ClusterError::NotFound { .. })) => {
            let now = read(context, key).await?;
            if now.is_none_or(|now| now.slim.is_being_deleted()) {
                context.receipts.undo(&written).await?;
            }
            if matches!(error, ClusterError::NotFound { .. }) { Ok(()) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

async fn remove_stored(context: &RetentionContext, key: &ExecutionKey) -> Result<(), StoreError> {
    let Some(store) = &context.store else { return Ok(()) };
    store.remove(&OutputKey { namespace: key.namespace.clone(), uid: key.uid.clone() }).await
}
