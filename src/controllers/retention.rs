//! The controller of finished executions: deletes them when their time is over, and lets go those that are being deleted,
//! with what is stored of them.
//!
//! The promises kept here: an execution that is being deleted goes only once it has finished and its stored output is
//! removed; ten thousand finished ones cost a few MiB, as nothing is kept of those without a
//! `ttlSecondsAfterFinished` (and of the others name, UID and time); one that does not decode stops nobody; everything is
//! read again, live, before it is removed.
//!
//! ```text
//! finished executions (slim) --> Due: by time --> look: read live -+-> being deleted: remove stored output, finalizer
//!                                     ^                            +-> over: delete (then it is being deleted)
//!                                     +--- again, after a pause <--+-> it failed
//! ```

mod due;
mod finished;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::api::Phase;
use crate::cluster::{Cluster, ClusterError, ExecutionKey, Operation};
use crate::output::{Owner, Store, StoreError};
use crate::telemetry::{BEAT, Loop, Watch, health, metrics};

use super::watching::{WatchBackoff, failed, watch_config};

use due::Due;
use finished::Finished;

/// Executions looked at at a time: each is a few short calls, and none of it is urgent.
const CONCURRENCY: usize = 8;
/// Executions in a page of the list: at 24 KiB each, 2.4 MiB are decoded at a time.
const PAGE: u32 = 100;
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
}

/// Why an execution could not be removed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("its stored output could not be removed, so it stays")]
    Store(#[from] StoreError),
}

impl Problem {
    /// Whether others would meet the same.
    fn concerns_all(&self) -> bool {
        matches!(self, Self::Cluster(ClusterError::Unavailable { .. }) | Self::Store(_))
    }

    /// When to try again.
    fn pause(&self) -> Duration {
        match self {
            // It changed while it was looked at.
            Self::Cluster(ClusterError::Conflict { .. } | ClusterError::Invalid { .. }) => Duration::from_secs(2),
            Self::Cluster(ClusterError::Unavailable { .. } | ClusterError::NotFound { .. }) => Duration::from_secs(5),
            // A person has to do something.
            Self::Cluster(ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. }) => Duration::from_secs(30),
            Self::Store(_) => Duration::from_secs(10),
        }
    }
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let config = watch_config().fields(&finished_selector()).page_size(PAGE);
    let mut events = pin!(watcher(context.cluster.watched::<Finished>(), config).backoff(WatchBackoff));
    let context = Arc::new(context);
    let mut looking = FuturesUnordered::<BoxFuture<'static, (ExecutionKey, Result<(), Problem>)>>::new();
    let (mut due, mut busy) = (Due::default(), HashSet::new());
    let (mut not_before, mut turns) = (Instant::now(), interval(BEAT));
    loop {
        let wait = due.wait(Timestamp::now()).map(|wait| Instant::now() + wait.min(LONGEST_WAIT));
        let next = wait.map_or_else(|| Instant::now() + LONGEST_WAIT, |at| at.max(not_before));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => health().beat(Loop::Retention),
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
                    tell(&key, &problem);
                    if problem.concerns_all() {
                        not_before = Instant::now() + PAUSE_FOR_ALL;
                    }
                    due.again(key, Timestamp::now() + problem.pause());
                }
            }
            () = tokio::time::sleep_until(next), if looking.len() < CONCURRENCY => {
                let Some(key) = due.pop(Timestamp::now()) else { continue };
                if !busy.insert(key.clone()) {
                    // An event came for it while it was looked at.
                    due.again(key, Timestamp::now() + Duration::from_secs(1));
                    continue;
                }
                let context = Arc::clone(&context);
                looking.push(Box::pin(async move {
                    let _looking = health().looks(Loop::Retention);
                    let began = std::time::Instant::now();
                    let result = look(&context, &key).await;
                    metrics().reconciled(Loop::Retention.as_str(), began);
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

fn tell(key: &ExecutionKey, problem: &Problem) {
    let category = match problem {
        Problem::Cluster(error) => error.category(),
        Problem::Store(_) => "store",
    };
    metrics().reconcile_failed(Loop::Retention.as_str(), category);
    let source = std::error::Error::source(problem).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(execution = %key, uid = key.uid, %problem, source, "a finished execution could not be removed; trying again");
}

/// Looks at one: reads it live, and removes it as far as that can be done now.
async fn look(context: &Context, key: &ExecutionKey) -> Result<(), Problem> {
    let api: Api<Finished> = Api::namespaced(context.cluster.client(), &key.namespace);
    let live = match context
        .cluster
        .call(Operation::GetExecution, format!("CommandExecution {key}"), api.get(&key.name))
        .await
    {
        Ok(live) => live,
        Err(ClusterError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if live.metadata.uid.as_deref() != Some(&key.uid) || !live.is_finished() {
        return Ok(());
    }
    let finalizers = live.metadata.finalizers.clone().unwrap_or_default();
    let done = if live.is_being_deleted() {
        if !live.is_held() {
            return Ok(());
        }
        remove_stored(context, key).await?;
        context.cluster.release(key, &finalizers).await
    } else {
        if live.expiry().is_none_or(|expiry| expiry > Timestamp::now()) {
            return Ok(());
        }
        if !live.is_held() {
            // Nothing would hold it after this.
            remove_stored(context, key).await?;
        }
        context.cluster.delete(key, live.metadata.resource_version.clone()).await
    };
    match done {
        Ok(()) if live.is_being_deleted() => {
            tracing::info!(execution = %key, uid = key.uid, "an execution that was deleted is let go");
            Ok(())
        }
        Ok(()) => {
            tracing::info!(execution = %key, uid = key.uid, "an execution is deleted: ttlSecondsAfterFinished are over");
            Ok(())
        }
        Err(ClusterError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn remove_stored(context: &Context, key: &ExecutionKey) -> Result<(), StoreError> {
    let Some(store) = &context.store else { return Ok(()) };
    store.remove(&Owner { namespace: key.namespace.clone(), uid: key.uid.clone() }).await
}
