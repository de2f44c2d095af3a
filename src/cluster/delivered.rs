//! Keeps the texts of the executions that the watch has just delivered. A reconcile uses such a text in place of a live
//! read.
//!
//! A text can be outdated when it is used. This is safe, because every write that depends on the text names the
//! resourceVersion of the text. If the execution has changed, the API server refuses the write, and Writ reads the
//! execution live.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, StreamExt as _};
use kube::Resource as _;
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::CommandExecution;
use crate::execution::ObjectSize;
use crate::telemetry::Watch;

use super::lean::LeanExecution;
use super::shared_watch::{SharedWatch, share};
use super::{Cluster, Slim, execution_resource};

/// Maximum length of a kept text, in bytes. The text of most executions without a result has 2 to 4 KiB.
const MAX_TEXT_BYTES: usize = 16_384;
/// Maximum length of all kept texts together, in bytes. About 1,000 executions can then wait for their reconcile. Writ
/// reads further executions live.
const MAX_KEPT_BYTES: usize = 4_194_304;
/// Time after which a text can be dropped if the memory is full. Normally a reconcile uses a text within a second.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Texts of executions that the watch has delivered and that no reconcile has used yet.
#[derive(Default)]
pub struct DeliveredExecutions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Latest text of each execution, by namespace and name.
    texts: HashMap<Name, Text>,
    /// Length of all texts together.
    bytes: usize,
}

/// Namespace and name.
type Name = (Option<String>, Option<String>);

struct Text {
    uid: Option<String>,
    text: Box<str>,
    delivered: Instant,
}

impl Cluster {
    /// Returns the shared watch of the executions that match `field_selector`, and the texts that this watch delivers.
    /// Poll the returned future to keep the watch up to date.
    pub fn execution_watch(
        &self,
        watch: Watch,
        field_selector: &str,
    ) -> (SharedWatch<Slim<CommandExecution>>, Arc<DeliveredExecutions>, impl Future<Output = ()> + Send + use<>) {
        let delivered = Arc::<DeliveredExecutions>::default();
        let kept = Arc::clone(&delivered);
        let events = self.watch::<Delivery>(Some(field_selector));
        let events: BoxStream<'static, _> = events.map(move |event| event.map(|event| kept.receive(event))).boxed();
        let (shared, follow) = share(watch, events);
        (shared, delivered, follow)
    }
}

impl DeliveredExecutions {
    /// Removes and returns the last delivered version of an execution, and its size. `metadata` has the name and the UID
    /// of the execution. Returns `None` if no text is kept, or if the text cannot be decoded. The caller must then read
    /// the execution live.
    pub fn take(&self, metadata: &ObjectMeta) -> Option<(CommandExecution, ObjectSize)> {
        let Text { uid, text, .. } = self.kept().remove(&name_of(metadata))?;
        if uid.is_none() || uid != metadata.uid {
            return None;
        }
        let execution: LeanExecution = serde_json::from_str(&text).ok()?;
        Some(execution.with_size(text.len()))
    }

    /// Keeps the text of a delivered execution, and returns the event without the text.
    fn receive(&self, event: Event<Delivery>) -> Event<Slim<CommandExecution>> {
        match event {
            Event::Apply(delivery) => Event::Apply(self.keep(delivery)),
            Event::InitApply(delivery) => Event::InitApply(self.keep(delivery)),
            Event::Delete(delivery) => {
                self.kept().remove(&name_of(delivery.slim.meta()));
                Event::Delete(delivery.slim)
            }
            Event::Init => {
                // The new list delivers all texts again. For an execution that no longer exists, no event follows.
                *self.kept() = Kept::default();
                Event::Init
            }
            Event::InitDone => Event::InitDone,
        }
    }

    fn keep(&self, delivery: Delivery) -> Slim<CommandExecution> {
        let Delivery { slim, text } = delivery;
        self.kept().replace(slim.meta(), text, Instant::now());
        slim
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Replaces the text of an execution. Keeps no text if the memory for texts is full.
    fn replace(&mut self, metadata: &ObjectMeta, text: Option<Box<str>>, now: Instant) {
        let name = name_of(metadata);
        self.remove(&name);
        let Some(text) = text else { return };
        if self.bytes.saturating_add(text.len()) > MAX_KEPT_BYTES {
            self.texts.retain(|_, kept| now.saturating_duration_since(kept.delivered) < KEPT_FOR);
            self.bytes = self.texts.values().map(|kept| kept.text.len()).sum();
        }
        if self.bytes.saturating_add(text.len()) <= MAX_KEPT_BYTES {
            self.bytes += text.len();
            self.texts.insert(name, Text { uid: metadata.uid.clone(), text, delivered: now });
        }
    }

    fn remove(&mut self, name: &Name) -> Option<Text> {
        let kept = self.texts.remove(name)?;
        self.bytes = self.bytes.saturating_sub(kept.text.len());
        Some(kept)
    }
}

fn name_of(metadata: &ObjectMeta) -> Name {
    (metadata.namespace.clone(), metadata.name.clone())
}

/// An execution as the watch delivers it.
struct Delivery {
    slim: Slim<CommandExecution>,
    /// Text of the execution, if it has at most [`MAX_TEXT_BYTES`].
    text: Option<Box<str>>,
}

/// The watch clones the objects that it remembers. A clone has no text, so that a remembered object stays small.
impl Clone for Delivery {
    fn clone(&self) -> Self {
        Self { slim: self.slim.clone(), text: None }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slim.fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for Delivery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let slim = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let text = Some(Box::<str>::from(text)).filter(|text| text.len() <= MAX_TEXT_BYTES);
        Ok(Self { slim, text })
    }
}

execution_resource!(Delivery, slim.metadata);

#[cfg(test)]
mod tests {
    use kube::core::watch::WatchEvent;
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, version: &str, metadata: usize) -> Value {
        json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": name, "namespace": "team", "uid": format!("uid of {name}"), "resourceVersion": version,
                "labels": {"a": "y".repeat(metadata)}},
            "spec": {"machineRef": {"name": "web-1"}, "command": "true"}})
    }

    /// Returns the delivery of an event in the form in which the API server sends it.
    fn delivered(object: &Value) -> Delivery {
        let line = format!(r#"{{"type":"ADDED","object":{object}}}"#);
        match serde_json::from_str::<WatchEvent<Delivery>>(&line).unwrap() {
            WatchEvent::Added(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    /// Takes the text of the execution with this name. Returns its version.
    fn taken(all: &DeliveredExecutions, name: &str) -> Option<String> {
        let (execution, _) = all.take(delivered(&object(name, "0", 0)).meta())?;
        execution.metadata.resource_version
    }

    #[test]
    fn each_text_is_used_once_and_the_latest_wins() {
        let all = DeliveredExecutions::default();
        let last = object("x", "2", 10);
        all.receive(Event::InitApply(delivered(&object("x", "1", 10))));
        all.receive(Event::Apply(delivered(&last)));
        let (execution, size) = all.take(delivered(&last).meta()).unwrap();
        assert_eq!(execution.metadata.resource_version.as_deref(), Some("2"));
        assert_eq!((size.total, size.labels > 10), (last.to_string().len(), true));
        assert_eq!(taken(&all, "x"), None);
    }

    #[test]
    fn a_deleted_a_large_an_undecodable_and_another_execution_are_read_live() {
        let all = DeliveredExecutions::default();
        all.receive(Event::Apply(delivered(&object("deleted", "1", 10))));
        all.receive(Event::Delete(delivered(&object("deleted", "2", 10))));
        all.receive(Event::Apply(delivered(&object("large", "1", 10))));
        all.receive(Event::Apply(delivered(&object("large", "2", MAX_TEXT_BYTES))));
        let mut strange = object("strange", "1", 10);
        strange["spec"]["command"] = json!(["a list"]);
        let slim = all.receive(Event::Apply(delivered(&strange)));
        assert!(matches!(slim, Event::Apply(slim) if slim.meta().name.as_deref() == Some("strange")));
        let mut other = object("other", "1", 10);
        other["metadata"]["uid"] = json!("that of an earlier execution");
        all.receive(Event::Apply(delivered(&other)));
        all.receive(Event::Apply(delivered(&object("before the list", "1", 10))));
        for name in ["deleted", "large", "strange", "other"] {
            assert_eq!(taken(&all, name), None, "{name}");
        }
        all.receive(Event::Init);
        assert_eq!(taken(&all, "before the list"), None);
        assert_eq!(all.kept().bytes, 0);
    }

    #[test]
    fn memory_for_texts_is_bounded_and_copies_have_no_text() {
        let all = DeliveredExecutions::default();
        let count = MAX_KEPT_BYTES / 10_000 + 50;
        for index in 0..count {
            let delivery = delivered(&object(&format!("x{index}"), "1", 10_000));
            assert!(delivery.clone().text.is_none());
            all.receive(Event::Apply(delivery));
        }
        let (bytes, kept) = {
            let kept = all.kept();
            (kept.bytes, kept.texts.len())
        };
        assert!(bytes <= MAX_KEPT_BYTES && kept < count && kept > 350, "{bytes} bytes of {kept} texts");
        assert_eq!(taken(&all, &format!("x{}", count - 1)), None);
        // Texts that nobody used make room after a minute.
        let late = delivered(&object("late", "1", 10_000));
        all.kept().replace(late.slim.meta(), late.text, Instant::now() + KEPT_FOR);
        assert_eq!(all.kept().texts.len(), 1);
        assert_eq!(taken(&all, "late").as_deref(), Some("1"));
        assert_eq!(all.kept().bytes, 0);
    }

    #[test]
    fn a_list_is_delivered_like_events() {
        let list = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecutionList",
            "metadata": {"resourceVersion": "9"}, "items": [object("x", "1", 10)]});
        let list: kube::api::ObjectList<Delivery> = serde_json::from_str(&list.to_string()).unwrap();
        assert!(list.items.iter().all(|delivery| delivery.text.is_some()));
    }
}
