//! Publishes Kubernetes events, which inform users and are not part of the audit record.
//!
//! Publishing never delays the caller and never fails. If the queue of events is full, Writ drops new events and counts
//! them.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::api::CommandExecution;
use crate::execution::EventNotice;
use crate::telemetry::metrics;

use super::Cluster;

/// Maximum number of queued events. A burst of 200 executions makes 600 events.
const MAX_QUEUED_EVENTS: usize = 1024;
/// Maximum number of remembered events. If a remembered event repeats, Writ increases the count of the stored event
/// instead of creating a new event.
const REMEMBERED: usize = 256;
/// Time for which an event is remembered, as in kube's recorder.
const REMEMBERED_FOR: Duration = Duration::from_secs(360);
/// Reporting controller of all events.
const CONTROLLER: &str = "writ.dev/writ";
/// Maximum time to publish one event.
const DEADLINE: Duration = Duration::from_secs(5);

/// Sender to the task that publishes events.
#[derive(Clone)]
pub struct EventPublisher {
    queue: mpsc::Sender<(ObjectReference, QueuedEvent)>,
}

/// An event in the queue.
struct QueuedEvent {
    reason: String,
    warning: bool,
    message: String,
    action: &'static str,
}

impl EventPublisher {
    /// Starts the task that publishes events. The task ends when the last publisher is dropped and the queue is empty.
    pub fn start(cluster: &Cluster, holder: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED_EVENTS);
        let recorder = Recorder { cluster: cluster.clone(), holder: holder.to_owned(), told: HashMap::new() };
        let task = tokio::spawn(publish_all(recorder, receiver));
        (Self { queue }, task)
    }

    /// Queues an event about an execution.
    pub fn publish(&self, regarding: &CommandExecution, notice: EventNotice) {
        let EventNotice { reason, warning, message } = notice;
        let event = QueuedEvent { reason: format!("{reason:?}"), warning, message, action: "Execute" };
        self.queue(regarding.object_ref(&()), event);
    }

    /// Queues an event about the state of a Whitelist.
    pub fn publish_whitelist(&self, regarding: ObjectReference, reason: &str, warning: bool, message: &str) {
        let event = QueuedEvent { reason: reason.to_owned(), warning, message: message.to_owned(), action: "Compile" };
        self.queue(regarding, event);
    }

    /// Queues an event about the state of a Machine.
    pub fn publish_machine(&self, regarding: ObjectReference, reason: String, warning: bool, message: String) {
        self.queue(regarding, QueuedEvent { reason, warning, message, action: "Look" });
    }

    /// Queues a warning about an execution that cannot be deleted.
    pub fn publish_removal_blocked(&self, regarding: ObjectReference, reason: &str, message: &str) {
        let event =
            QueuedEvent { reason: reason.to_owned(), warning: true, message: message.to_owned(), action: "Remove" };
        self.queue(regarding, event);
    }

    fn queue(&self, regarding: ObjectReference, event: QueuedEvent) {
        if self.queue.try_send((regarding, event)).is_err() {
            metrics().event("dropped");
            tracing::warn!("event dropped: the queue is full");
        }
    }
}

/// Fields that are equal in all events of one series.
#[derive(Eq, Hash, PartialEq)]
struct Key {
    regarding: (Option<String>, Option<String>, Option<String>),
    reason: String,
    action: &'static str,
    warning: bool,
}

/// A published event, and the number of events in its series.
struct Told {
    name: String,
    count: i32,
    last: Instant,
}

/// Publisher of events. Unlike kube's recorder, this publisher takes all times from [`Cluster::now`], the API server's
/// clock.
struct Recorder {
    cluster: Cluster,
    holder: String,
    told: HashMap<Key, Told>,
}

impl Recorder {
    async fn publish(&mut self, regarding: ObjectReference, event: QueuedEvent) -> Result<(), kube::Error> {
        self.told.retain(|_, told| told.last.elapsed() < REMEMBERED_FOR);
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let key = Key {
            regarding: (regarding.namespace.clone(), regarding.name.clone(), regarding.uid.clone()),
            reason: event.reason.clone(),
            action: event.action,
            warning: event.warning,
        };
        let (now, last) = (self.cluster.now(), Instant::now());
        let api: Api<Event> =
            Api::namespaced(self.cluster.client(), regarding.namespace.as_deref().unwrap_or("default"));
        if let Some(told) = self.told.get_mut(&key) {
            (told.count, told.last) = (told.count.saturating_add(1), last);
            let series = json!({"series": {"count": told.count, "lastObservedTime": MicroTime(now)}});
            let patched = api.patch(&told.name, &PatchParams::default(), &Patch::Merge(&series)).await;
            if patched.is_err() {
                // The API server deletes each event after an hour, so the stored event is perhaps gone. The next
                // repetition creates a new event.
                self.told.remove(&key);
            }
            return patched.map(drop);
        }
        let event = new_event(regarding, event, &self.holder, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.told.insert(key, Told { name, count: 1, last });
        Ok(())
    }
}

fn new_event(regarding: ObjectReference, event: QueuedEvent, holder: &str, now: Timestamp) -> Event {
    let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or("writ"), now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: regarding.namespace.clone(), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason),
        action: Some(event.action.to_owned()),
        note: Some(event.message.chars().take(1024).collect()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(holder.to_owned()),
        ..Event::default()
    }
}

async fn publish_all(mut recorder: Recorder, mut queue: mpsc::Receiver<(ObjectReference, QueuedEvent)>) {
    while let Some((regarding, event)) = queue.recv().await {
        match timeout(DEADLINE, recorder.publish(regarding, event)).await {
            Ok(Ok(())) => metrics().event("published"),
            Ok(Err(error)) => {
                metrics().event("failed");
                tracing::warn!(%error, "event not published");
            }
            Err(_) => {
                metrics().event("failed");
                tracing::warn!("event not published in time");
            }
        }
    }
}
