//! Kubernetes events. They are for people, not for the record: publishing never delays or fails anything, so they go
//! through a bounded queue, and what does not fit is counted and dropped.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::CommandExecution;
use crate::execution::Notice;
use crate::telemetry::metrics;

use super::Cluster;

/// Events that may wait. A burst of 200 executions has three each; more than that is noise that the API server should
/// be spared.
const QUEUE: usize = 1024;
/// Events after which the recorder is exchanged for a new one. It remembers each for six minutes (2 to 3 KiB), to count one that
/// comes again instead of telling it twice, and looks through all that it remembers for every new one. Most never come again:
/// each is about another execution. What comes again does so within fewer than this.
const REMEMBERED: usize = 256;
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
        let reporter = Reporter { controller: "writ.dev/writ".to_owned(), instance: Some(holder.to_owned()) };
        let client = cluster.client();
        let task = tokio::spawn(publish_all(move || Recorder::new(client.clone(), reporter.clone()), receiver));
        (Self { queue }, task)
    }

    /// Queues an event about an execution.
    pub fn publish(&self, about: &CommandExecution, notice: Notice) {
        let Notice { reason, warning, message } = notice;
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

async fn publish_all(new_recorder: impl Fn() -> Recorder, mut queue: mpsc::Receiver<(ObjectReference, Note)>) {
    let mut recorder = new_recorder();
    let mut remembered = 0;
    while let Some((about, note)) = queue.recv().await {
        if remembered == REMEMBERED {
            recorder = new_recorder();
            remembered = 0;
        }
        remembered += 1;
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason,
            note: Some(note.message.chars().take(1024).collect()),
            action: note.action.to_owned(),
            secondary: None,
        };
        match timeout(DEADLINE, recorder.publish(&event, &about)).await {
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
