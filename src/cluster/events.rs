//! Kubernetes events. They are for people, not for the record: publishing never delays or fails anything, so they go
//! through a bounded queue, and what does not fit is counted and dropped.

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

/// Events that may wait. A burst of 200 executions has three each; more than that is noise that the API server should
/// be spared.
const QUEUE: usize = 1024;
/// Events that are remembered, to count one that comes again instead of telling it twice. Most never come again: each is about
/// another execution. An event that comes again does so within fewer than this.
const REMEMBERED: usize = 256;
/// How long an event is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(360);
/// Who tells.
const CONTROLLER: &str = "writ.dev/writ";
/// How long publishing one may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Hands events to a task that publishes them.
#[derive(Clone)]
pub struct EventPublisher {
    queue: mpsc::Sender<(ObjectReference, Note)>,
}

/// An event, in the words of Kubernetes.
struct Note {
    reason: String,
    warning: bool,
    message: String,
    action: &'static str,
}

impl EventPublisher {
    /// Starts the task; it ends when the last publisher is dropped and the queue is empty.
    pub fn start(cluster: &Cluster, holder: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let recorder = Recorder { cluster: cluster.clone(), holder: holder.to_owned(), told: HashMap::new() };
        let task = tokio::spawn(publish_all(recorder, receiver));
        (Self { queue }, task)
    }

    /// Queues an event about an execution.
    pub fn publish(&self, about: &CommandExecution, notice: EventNotice) {
        let EventNotice { reason, warning, message } = notice;
        let note = Note { reason: format!("{reason:?}"), warning, message, action: "Execute" };
        self.queue(about.object_ref(&()), note);
    }

    /// Queues an event about what Writ makes of a Whitelist.
    pub fn publish_verdict(&self, about: ObjectReference, reason: &str, warning: bool, message: &str) {
        let note = Note { reason: reason.to_owned(), warning, message: message.to_owned(), action: "Compile" };
        self.queue(about, note);
    }

    /// Queues an event about what was seen of a Machine.
    pub fn publish_sight(&self, about: ObjectReference, reason: String, warning: bool, message: String) {
        self.queue(about, Note { reason, warning, message, action: "Look" });
    }

    /// Queues a warning about an execution that should be deleted and stays.
    pub fn publish_staying(&self, about: ObjectReference, reason: &str, message: &str) {
        let note = Note { reason: reason.to_owned(), warning: true, message: message.to_owned(), action: "Remove" };
        self.queue(about, note);
    }

    fn queue(&self, about: ObjectReference, note: Note) {
        if self.queue.try_send((about, note)).is_err() {
            metrics().event("dropped");
            tracing::warn!("too many events wait to be published; one was dropped");
        }
    }
}

/// What is the same about events that are one, told several times.
#[derive(Eq, Hash, PartialEq)]
struct Key {
    about: (Option<String>, Option<String>, Option<String>),
    reason: String,
    action: &'static str,
    warning: bool,
}

/// An event that was published.
struct Told {
    name: String,
    count: i32,
    last: Instant,
}

/// Publishes events. As kube's own recorder, but its times are the API server's, as all times next to them.
struct Recorder {
    cluster: Cluster,
    holder: String,
    told: HashMap<Key, Told>,
}

impl Recorder {
    async fn publish(&mut self, about: ObjectReference, note: Note) -> Result<(), kube::Error> {
        self.told.retain(|_, told| told.last.elapsed() < REMEMBERED_FOR);
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let key = Key {
            about: (about.namespace.clone(), about.name.clone(), about.uid.clone()),
            reason: note.reason.clone(),
            action: note.action,
            warning: note.warning,
        };
        let (now, last) = (self.cluster.now(), Instant::now());
        let api: Api<Event> = Api::namespaced(self.cluster.client(), about.namespace.as_deref().unwrap_or("default"));
        if let Some(told) = self.told.get_mut(&key) {
            (told.count, told.last) = (told.count.saturating_add(1), last);
            let series = json!({"series": {"count": told.count, "lastObservedTime": MicroTime(now)}});
            let patched = api.patch(&told.name, &PatchParams::default(), &Patch::Merge(&series)).await;
            if patched.is_err() {
                // The API server forgets events after an hour.
                self.told.remove(&key);
            }
            return patched.map(drop);
        }
        let event = event(about, note, &self.holder, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.told.insert(key, Told { name, count: 1, last });
        Ok(())
    }
}

fn event(about: ObjectReference, note: Note, holder: &str, now: Timestamp) -> Event {
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or("writ"), now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: about.namespace.clone(), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason),
        action: Some(note.action.to_owned()),
        note: Some(note.message.chars().take(1024).collect()),
        regarding: Some(about),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(holder.to_owned()),
        ..Event::default()
    }
}

async fn publish_all(mut recorder: Recorder, mut queue: mpsc::Receiver<(ObjectReference, Note)>) {
    while let Some((about, note)) = queue.recv().await {
        match timeout(DEADLINE, recorder.publish(about, note)).await {
            Ok(Ok(())) => metrics().event("published"),
            Ok(Err(error)) => {
                metrics().event("failed");
                tracing::warn!(%error, "an event could not be published");
            }
            Err(_) => {
                metrics().event("failed");
                tracing::warn!("an event could not be published in time");
            }
        }
    }
}
