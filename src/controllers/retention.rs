//! The controller of finished executions: deletes them when their time is over, and lets go those that are being deleted,
//! with what is stored of them.
//!
//! The promises kept here: an execution that is being deleted goes only once it has finished and its stored output is
//! removed; one whose time is over is deleted only once its receipt is stored (`receipts`), so that it is not run again when
//! it is applied again; ten thousand finished ones cost a few MiB, as nothing is kept of those without a time to live (and
//! of the others name, UID and time); one that does not decode stops nobody; everything is read again, live, before it is
//! removed.
//!
//! ```text
//! finished executions (slim) --> Due: by time --> look: read live -+-> being deleted: receipt of what a person deleted,
//!                                     ^                            |   stored output, finalizer
//!                                     |                            +-> over: receipt, delete (then it is being deleted)
//!                                     |                            +-> may be deleted by others from now on: mark
//!                                     +--- again, after a pause <--+-> it failed, or has to stay
//! ```

mod due;
mod finished;
mod problem;
mod receipts;
mod room;
mod told;

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
use crate::cluster::{Cluster, ClusterError, EventPublisher, ExecutionKey, LeanExecution, Operation};
use crate::output::{Owner, Store, StoreError};
use crate::telemetry::{BackgroundTask, HEARTBEAT_INTERVAL, Watch, health, metrics};

use super::places::watch_all;
use super::watching::{failed, watch_config};

use due::Due;
use finished::Finished;
pub use finished::Keeping;
use problem::{Problem, Teller};
use receipts::Receipts;

/// Executions looked at at a time: each is a few short calls, and none of it is urgent.
const CONCURRENCY: usize = 8;
/// How long the loop waits at most for the next one to be over: the clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The pause after API server or store failed, for all: thousands that wait must not ask all at once, again and again.
const PAUSE_FOR_ALL: Duration = Duration::from_secs(1);

/// What this controller needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Where outputs are stored; None: nowhere.
    pub store: Option<Store>,
    /// Tells people.
    pub events: EventPublisher,
    /// How long executions are kept.
    pub keeping: Keeping,
    /// How many receipts a namespace may have; where there are more, executions stay.
    pub receipt_limit: u64,
}

/// What looking at an execution needs.
struct Working {
    cluster: Cluster,
    store: Option<Store>,
    keeping: Keeping,
    receipts: Receipts,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { cluster, store, events: publisher, keeping, receipt_limit } = context;
    let config = watch_config().fields(&finished_selector());
    let mut events = watch_all(cluster.watch_apis::<Finished>(), config);
    let receipts = Receipts::new(cluster.clone(), receipt_limit);
    let context = Arc::new(Working { cluster: cluster.clone(), store, keeping, receipts });
    let mut teller = Teller::new(publisher);
    let mut looking = FuturesUnordered::<BoxFuture<'static, (ExecutionKey, Result<(), Problem>)>>::new();
    let (mut due, mut busy) = (Due::new(keeping), HashSet::new());
    let (mut not_before, mut turns) = (Instant::now(), interval(HEARTBEAT_INTERVAL));
    loop {
        let wait = due.wait(cluster.now()).map(|wait| Instant::now() + wait.min(LONGEST_WAIT));
        let next = wait.map_or_else(|| Instant::now() + LONGEST_WAIT, |at| at.max(not_before));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => health().heartbeat(BackgroundTask::Retention),
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if matches!(event, Event::InitDone) {
                        health().listed(Watch::Finished);
                    }
                    due.take(event);
                }
                Some(Err(error)) => failed(Watch::Finished, &error),
                None => return,
            },
            Some((key, result)) = looking.next(), if !looking.is_empty() => {
                busy.remove(&key);
                if let Err(problem) = result {
                    teller.tell(&key, &problem);
                    if problem.concerns_all() {
                        not_before = Instant::now() + PAUSE_FOR_ALL;
                    }
                    due.again(key, cluster.now() + problem.pause());
                }
            }
            () = tokio::time::sleep_until(next), if looking.len() < CONCURRENCY => {
                let Some(key) = due.pop(cluster.now()) else { continue };
                if !busy.insert(key.clone()) {
                    // An event came for it while it was looked at.
                    due.again(key, cluster.now() + Duration::from_secs(1));
                    continue;
                }
                let context = Arc::clone(&context);
                looking.push(Box::pin(async move {
                    let _guard = health().track(BackgroundTask::Retention);
                    let began = std::time::Instant::now();
                    let result = look(&context, &key).await;
                    metrics().reconciled(BackgroundTask::Retention.as_str(), began);
                    (key, result)
                }));
            }
        }
    }
}

/// Only what has finished: unfinished ones are the other controller's.
fn finished_selector() -> String {
    let unfinished = Phase::ALL.iter().filter(|phase| !phase.is_finished());
    unfinished.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}

/// Looks at one: reads it live, and removes it as far as that can be done now.
async fn look(context: &Working, key: &ExecutionKey) -> Result<(), Problem> {
    let Some(live) = read(context, key).await? else { return Ok(()) };
    if !live.slim.is_finished() {
        return Ok(());
    }
    if live.slim.is_being_deleted() {
        return let_go(context, key, &live).await;
    }
    let now = context.cluster.now();
    let is_over = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if is_over(live.slim.expiry(&context.keeping)) {
        return expire(context, key, &live).await;
    }
    if is_over(live.slim.to_be_marked(&context.keeping)) {
        context.cluster.mark_retention_over(key, live.slim.meta().resource_version.clone()).await?;
    }
    Ok(())
}

/// An execution that was just read.
struct Live {
    slim: Finished,
    /// All of it, or why it does not decode.
    whole: Result<CommandExecution, String>,
}

impl Live {
    fn whole(&self) -> Result<&CommandExecution, Problem> {
        self.whole.as_ref().map_err(|message| Problem::Unreadable(message.clone()))
    }
}

/// None where it is gone; another one of its name is not it.
async fn read(context: &Working, key: &ExecutionKey) -> Result<Option<Live>, Problem> {
    let requests = Request::new(CommandExecution::url_path(&(), Some(&key.namespace)));
    let client = context.cluster.client();
    // Decoded twice, as one that does not decode whole has to go too.
    let get = async {
        let request = requests.get(&key.name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        client.request_text(request).await
    };
    let text = match context.cluster.call(Operation::GetExecution, format!("CommandExecution {key}"), get).await {
        Ok(text) => text,
        Err(ClusterError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let slim: Finished = serde_json::from_str(&text).map_err(|error| Problem::Unreadable(error.to_string()))?;
    if slim.meta().uid.as_deref() != Some(&key.uid) {
        return Ok(None);
    }
    let whole = serde_json::from_str::<LeanExecution>(&text).map_err(|error| error.to_string());
    Ok(Some(Live { slim, whole: whole.map(|whole| whole.with_size(text.len()).0) }))
}

/// It is being deleted, whoever wanted it: it goes, once nothing is left of it.
async fn let_go(context: &Working, key: &ExecutionKey, live: &Live) -> Result<(), Problem> {
    let Some(finalizer) = live.slim.metadata.audit_finalizer else { return Ok(()) };
    // Where it does not decode a receipt stays, which keeps the next one of its name from running: the safe side.
    if let Ok(execution) = &live.whole {
        context.receipts.remove_where_a_person_deleted(execution).await?;
    }
    remove_stored(context, key).await?;
    match context.cluster.remove_finalizer(key, finalizer).await {
        Ok(()) => tracing::info!(execution = %key, uid = key.uid, "an execution that was deleted is let go"),
        Err(ClusterError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Its time is over: first the receipt, then it is deleted.
async fn expire(context: &Working, key: &ExecutionKey, live: &Live) -> Result<(), Problem> {
    let written = context.receipts.write(live.whole()?).await?;
    if !live.slim.is_held() {
        // Nothing would hold it after this.
        remove_stored(context, key).await?;
    }
    match context.cluster.delete(key, live.slim.meta().resource_version.clone()).await {
        Ok(()) => {
            tracing::info!(execution = %key, uid = key.uid, "an execution is deleted: its time to live is over");
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

async fn remove_stored(context: &Working, key: &ExecutionKey) -> Result<(), StoreError> {
    let Some(store) = &context.store else { return Ok(()) };
    store.remove(&Owner { namespace: key.namespace.clone(), uid: key.uid.clone() }).await
}
