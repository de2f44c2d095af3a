//! Keeps the texts of the executions that the watch has just delivered. A reconcile uses such a text in place of a live
//! read.
//!
//! A text can be outdated when it is used. This is safe, because every write that depends on the text names the
//! resourceVersion of the text. If the execution has changed, the API server refuses the write, and Writ reads the
//! execution live.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{BoxStream, StreamExt as _};
use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::CommandExecution;
use crate::execution::ObjectSize;
use crate::telemetry::Watch;

use super::lean::LeanExecution;
use super::shared_watch::{SharedWatch, share};
use super::{Cluster, Slim};

/// Maximum length of a kept text, in bytes. The text of most executions without a result has 2 to 4 KiB.
const MAX_TEXT_BYTES: usize = 16_384;
/// Maximum length of all kept texts together, in bytes. About 1,000 executions can then wait for their reconcile. Writ
/// reads further executions live.
const MAX_KEPT_BYTES: usize = 4_194_304;

/// Texts of executions that the watch has delivered and that no reconcile has used yet.
#[derive(Default)]
pub struct DeliveredExecutions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Latest text of each execution, by UID.
    texts: HashMap<String, Box<str>>,
    /// Length of all texts together.
    bytes: usize,
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
    /// Removes and returns the last delivered version of the execution with this UID, and its size. Returns `None` if
    /// no text is kept, or if the text cannot be decoded. The caller must then read the execution live.
    pub fn take(&self, uid: &str) -> Option<(CommandExecution, ObjectSize)> {
        let text = self.kept().remove(uid)?;
        let execution: LeanExecution = serde_json::from_str(&text).ok()?;
        Some(execution.with_size(text.len()))
    }

    /// Keeps the text of a delivered execution, and returns the event without the text.
    fn receive(&self, event: Event<Delivery>) -> Event<Slim<CommandExecution>> {
        match event {
            Event::Apply(delivery) => Event::Apply(self.keep(delivery)),
            Event::InitApply(delivery) => Event::InitApply(self.keep(delivery)),
            Event::Delete(delivery) => {
                self.kept().remove(delivery.slim.meta().uid.as_deref().unwrap_or_default());
                Event::Delete(delivery.slim)
            }
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
        }
    }

    fn keep(&self, delivery: Delivery) -> Slim<CommandExecution> {
        let Delivery { slim, text } = delivery;
        if let Some(uid) = &slim.meta().uid {
            self.kept().replace(uid, text);
        }
        slim
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Replaces the text of an execution. Keeps no text if the memory for texts is full.
    fn replace(&mut self, uid: &str, text: Option<Box<str>>) {
        self.remove(uid);
        if let Some(text) = text.filter(|text| self.bytes.saturating_add(text.len()) <= MAX_KEPT_BYTES) {
            self.bytes += text.len();
            self.texts.insert(uid.to_owned(), text);
        }
    }

    fn remove(&mut self, uid: &str) -> Option<Box<str>> {
        let text = self.texts.remove(uid)?;
        self.bytes = self.bytes.saturating_sub(text.len());
        Some(text)
    }
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

impl Resource for Delivery {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        CommandExecution::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        CommandExecution::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        CommandExecution::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        CommandExecution::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.slim.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.slim.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::watch::WatchEvent;
    use serde_json::{Value, json};

    use super::*;

    fn object(uid: &str, version: &str, metadata: usize) -> Value {
        json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": uid, "namespace": "team", "uid": uid, "resourceVersion": version,
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

    fn version(read: Option<(CommandExecution, ObjectSize)>) -> Option<String> {
        read.and_then(|(execution, _)| execution.metadata.resource_version)
    }

    #[test]
    fn each_text_is_used_once_and_the_latest_wins() {
        let delivered_ones = DeliveredExecutions::default();
        let first = object("u", "1", 10);
        delivered_ones.receive(Event::InitApply(delivered(&first)));
        delivered_ones.receive(Event::Apply(delivered(&object("u", "2", 10))));
        let (execution, size) = delivered_ones.take("u").unwrap();
        assert_eq!(execution.metadata.resource_version.as_deref(), Some("2"));
        assert_eq!((size.total, size.labels > 10), (first.to_string().len(), true));
        assert!(delivered_ones.take("u").is_none());
    }

    #[test]
    fn a_deleted_a_large_and_an_undecodable_execution_are_read_live() {
        let delivered_ones = DeliveredExecutions::default();
        delivered_ones.receive(Event::Apply(delivered(&object("deleted", "1", 10))));
        delivered_ones.receive(Event::Delete(delivered(&object("deleted", "2", 10))));
        delivered_ones.receive(Event::Apply(delivered(&object("large", "1", 10))));
        delivered_ones.receive(Event::Apply(delivered(&object("large", "2", MAX_TEXT_BYTES))));
        let mut strange = object("strange", "1", 10);
        strange["spec"]["command"] = json!(["a list"]);
        let slim = delivered_ones.receive(Event::Apply(delivered(&strange)));
        assert!(matches!(slim, Event::Apply(slim) if slim.meta().name.as_deref() == Some("strange")));
        for uid in ["deleted", "large", "strange"] {
            assert_eq!(version(delivered_ones.take(uid)), None, "{uid}");
        }
        assert_eq!(delivered_ones.kept().bytes, 0);
    }

    #[test]
    fn memory_for_texts_is_bounded_and_copies_have_no_text() {
        let delivered_ones = DeliveredExecutions::default();
        let count = MAX_KEPT_BYTES / 10_000 + 50;
        for index in 0..count {
            let delivery = delivered(&object(&format!("u{index}"), "1", 10_000));
            assert!(delivery.clone().text.is_none());
            delivered_ones.receive(Event::Apply(delivery));
        }
        let bytes = delivered_ones.kept().bytes;
        let kept = delivered_ones.kept().texts.len();
        assert!(bytes <= MAX_KEPT_BYTES && kept < count && kept > 350, "{bytes} bytes of {kept} texts");
        assert!(delivered_ones.take("u0").is_some());
        assert!(delivered_ones.take(&format!("u{}", count - 1)).is_none());
    }

    #[test]
    fn a_list_is_delivered_like_events() {
        let list = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecutionList",
            "metadata": {"resourceVersion": "9"}, "items": [object("u", "1", 10)]});
        let list: kube::api::ObjectList<Delivery> = serde_json::from_str(&list.to_string()).unwrap();
        assert!(list.items.iter().all(|delivery| delivery.text.is_some()));
    }
}
