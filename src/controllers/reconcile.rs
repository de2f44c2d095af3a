//! Runs the loop that most controllers share. For each object in a queue, the loop gets a permit and reconciles the
//! object. The loop also retries after failures, and records heartbeats.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt as _};
use kube::Resource;
use kube::core::DynamicObject;
use kube::runtime::controller::{Action, Config, Error as AppliedError, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterError;
use crate::fairness::{Place, Size};
use crate::telemetry::{BackgroundTask, HEARTBEAT_INTERVAL, health, metrics};

use super::fair::{Due, Fair, Lane, Permits, UNBOUNDED};

/// The parts that differ between controllers. [`run`] contains the common parts.
pub(super) trait Reconcile: Send + Sync + 'static {
    /// Type of the objects in the store.
    type Object: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static;

    /// Name of the controller in metrics and health.
    const TASK: BackgroundTask;
    /// Maximum number of concurrent reconciles: in total, and per namespace.
    const MAX_CONCURRENT: Size;
    /// Maximum number of concurrent reconciles that can wait, in addition to [`Self::MAX_CONCURRENT`].
    const MAX_CONCURRENT_DEFERRABLE: Size = Size { places: 1, share: 1 };

    /// Reads an object live and makes the necessary changes. `object` only identifies the object, because its content
    /// can be outdated.
    fn reconcile(
        self: Arc<Self>,
        object: Arc<Self::Object>,
    ) -> impl Future<Output = Result<Action, ClusterError>> + Send;

    /// Returns the delay before the next reconcile after a failed reconcile.
    fn retry_after(error: &ClusterError) -> Duration;

    /// Returns true if the reconcile of this object can wait while others are in progress.
    fn is_deferrable(&self, _object: &Self::Object) -> bool {
        false
    }

    /// Waits for a second permit, if the reconcile of this object needs one. The second permit is released when the
    /// reconcile ends.
    fn admit(&self, _object: &Self::Object) -> impl Future<Output = Option<Place>> + Send {
        std::future::ready(None)
    }

    /// Called after each reconcile, even if it failed.
    fn reconciled(&self, _reference: &ObjectRef<Self::Object>) {}

    /// Called for a queued object that is not in the store.
    fn not_found(&self, _reference: &ObjectRef<DynamicObject>) {}
}

/// Reconciles the objects that `queue` names, until `stop` is cancelled. Each reconcile in progress then still runs to
/// its end.
pub(super) async fn run<R: Reconcile>(
    reconciler: Arc<R>,
    store: Store<R::Object>,
    queue: impl Stream<Item = ObjectRef<R::Object>> + Send + 'static,
    stop: CancellationToken,
) {
    let fair = Fair::new(Permits { prompt: R::MAX_CONCURRENT, deferrable: R::MAX_CONCURRENT_DEFERRABLE });
    let queue = stream::select(queue.boxed(), fair.requeued().boxed());
    let queue = queue.map(|reference| Ok::<_, Infallible>(ReconcileRequest::from(reference)));
    let queue = Box::pin(with_heartbeat(R::TASK, queue).take_until(stop.cancelled_owned()));
    let reconcile = |object: Arc<R::Object>, reconciler: Arc<R>| {
        let reference = ObjectRef::from(object.as_ref());
        let due = Due {
            object: reference.clone(),
            created: object.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            lane: if reconciler.is_deferrable(&object) { Lane::Deferrable } else { Lane::Prompt },
        };
        fair.in_turn(&due, move || async move {
            let _admission = reconciler.admit(&object).await;
            let result = instrumented(R::TASK, Arc::clone(&reconciler).reconcile(object)).await;
            reconciler.reconciled(&reference);
            result
        })
    };
    let error_policy = |_: Arc<R::Object>, error: &ClusterError, _: Arc<R>| Action::requeue(R::retry_after(error));
    let config = Config::default().concurrency(UNBOUNDED);
    let controller = R::TASK.as_str();
    applier(reconcile, error_policy, Arc::clone(&reconciler), store, queue, config)
        .for_each(|result| {
            match result {
                Ok(_) => {}
                Err(AppliedError::ObjectNotFound(reference)) => {
                    reconciler.not_found(&reference);
                    fair.forget(&reference);
                }
                Err(AppliedError::ReconcilerFailed(error, object)) => {
                    let category = error.category();
                    tracing::warn!(controller, %object, %error, category, "reconcile failed; retrying");
                }
                Err(error) => tracing::error!(controller, %error, "controller cannot reconcile"),
            }
            std::future::ready(())
        })
        .await;
}

/// Returns the references that another task sends, as a stream for the queue.
pub(super) fn received<Sent, K>(receiver: mpsc::Receiver<ObjectRef<Sent>>) -> impl Stream<Item = ObjectRef<K>> + Send
where
    Sent: Resource<DynamicType = ()> + 'static,
    K: Resource<DynamicType = ()> + 'static,
{
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|sent| (sent, receiver)) })
        .map(|sent| ObjectRef::new(&sent.name).within(&sent.namespace.unwrap_or_default()))
}

/// Returns the items of `queue`. Records heartbeats of the task while the task polls the returned stream.
pub(super) fn with_heartbeat<T>(task: BackgroundTask, queue: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let ticks = stream::unfold(interval(HEARTBEAT_INTERVAL), |mut ticks| async move {
        ticks.tick().await;
        Some(((), ticks))
    });
    let beats = ticks.map(move |()| {
        health().heartbeat(task);
        None
    });
    stream::select(queue.map(Some), beats).filter_map(std::future::ready)
}

/// Measures the duration of one reconcile, and counts a failed reconcile. If a reconcile does not end, the liveness
/// check reports it.
async fn instrumented<T>(
    task: BackgroundTask,
    reconcile: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    let _in_progress = health().track(task);
    let start = Instant::now();
    let result = reconcile.await;
    metrics().reconciled(task.as_str(), start);
    if let Err(error) = &result {
        metrics().reconcile_failed(task.as_str(), error.category());
    }
    result
}
