//! The changes of the executions of one namespace: first a list of the unfinished ones, then each changed one.
//!
//! The shared watch has only names and versions, so the feed reads each changed execution. An execution that changes
//! several times before its read is read once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::api::CommandExecution;
use crate::cluster::{Change, Cluster, ClusterError, Removal, Slim};
use crate::gateway::error::ApiError;
use crate::gateway::names::command_id;
use crate::gateway::state::Gateway;
use crate::gateway::view::CommandView;

use super::message::{error, to_json};
use super::pending::Pending;
use super::pump::{Closing, Feed, FeedItem};

/// Maximum number of executions in the first message.
const MAX_LISTED: usize = 500;
/// Maximum size of the executions in the first message, in bytes. The others follow one by one.
const MAX_LISTED_BYTES: usize = 128 << 10;
/// Number of concurrent reads for the first message.
const CONCURRENT_READS: usize = 8;
/// Maximum length of a command in a message, in bytes. An argument vector can be longer.
const MAX_COMMAND_BYTES: usize = 8 << 10;
/// Maximum number of remembered versions, about 200 bytes each. With more, all are forgotten, and some executions are
/// perhaps sent twice.
const MAX_SENT: usize = 4096;
/// Pause after a failed read.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Version of an execution that does not exist.
const DELETED: &str = "deleted";

/// Feed of the changes of executions.
pub struct ChangeFeed {
    gateway: Gateway,
    namespace: String,
    changes: BoxStream<'static, Change<Slim<CommandExecution>>>,
    /// Reports also executions that were created and ended between two reads of `changes`.
    removals: BoxStream<'static, Removal>,
    pending: Pending,
    /// UID and version of each execution as it was sent last.
    sent: HashMap<String, String>,
    ready: VecDeque<FeedItem>,
    is_listed: bool,
    has_removal_list: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ChangeMessage<'a> {
    Listed { commands: Vec<CommandView>, is_complete: bool },
    Changed { command: Box<CommandView> },
    Deleted { command_id: String },
    Gap { reason: &'a str },
}

enum Step {
    Change(Option<Change<Slim<CommandExecution>>>),
    Removal(Option<Removal>),
    Read,
}

impl ChangeFeed {
    /// Returns the feed of a namespace.
    pub fn new(gateway: &Gateway, namespace: String) -> Self {
        let unfinished = gateway.unfinished();
        let has_changed = |before: &Slim<CommandExecution>, after: &Slim<CommandExecution>| {
            before.meta().resource_version != after.meta().resource_version
        };
        Self {
            gateway: gateway.clone(),
            namespace,
            removals: unfinished.removals().boxed(),
            changes: unfinished.subscribe(has_changed).boxed(),
            pending: Pending::new(Instant::now()),
            sent: HashMap::new(),
            ready: VecDeque::new(),
            is_listed: false,
            has_removal_list: false,
        }
    }

    async fn step(&mut self) -> Step {
        let (has_pending, next_read) = (!self.pending.is_empty() && self.is_listed, self.pending.next_read());
        tokio::select! {
            change = self.changes.next() => Step::Change(change),
            removal = self.removals.next() => Step::Removal(removal),
            () = sleep_until(next_read), if has_pending => Step::Read,
        }
    }

    async fn advance(&mut self) {
        match self.step().await {
            Step::Change(Some(Change::Applied(object) | Change::Deleted(object))) => {
                if object.meta().namespace.as_ref() == Some(&self.namespace) {
                    self.push(&object.name_any());
                }
            }
            Step::Change(Some(Change::Listed(all))) => self.handle_list(&all).await,
            Step::Removal(Some(Removal::One(namespace, name))) => {
                if namespace == self.namespace {
                    self.push(&name);
                }
            }
            // The first one is the begin of the subscription.
            Step::Removal(Some(Removal::Any)) => {
                if std::mem::replace(&mut self.has_removal_list, true) {
                    self.add(&ChangeMessage::Gap { reason: "watch_interrupted" });
                }
            }
            Step::Change(None) | Step::Removal(None) => {
                let stopping = ApiError::unavailable("the gateway stops; repeat the call");
                self.ready.push_back(FeedItem::Last(error(&stopping), Closing::GoingAway));
            }
            Step::Read => {
                if let Some(name) = self.pending.pop(Instant::now()) {
                    self.read(&name).await;
                }
            }
        }
    }

    fn push(&mut self, name: &str) {
        if !self.pending.push(name) {
            self.add(&ChangeMessage::Gap { reason: "too_many_changes" });
        }
    }

    fn add(&mut self, message: &ChangeMessage<'_>) {
        // One message about missing changes is enough until the client has taken it.
        let item = FeedItem::Message(to_json(message));
        if self.ready.back() != Some(&item) {
            self.ready.push_back(item);
        }
    }

    /// Handles a list of all unfinished executions. The first one becomes the first message.
    async fn handle_list(&mut self, all: &[Arc<Slim<CommandExecution>>]) {
        let own = all.iter().filter(|object| object.meta().namespace.as_ref() == Some(&self.namespace));
        let mut newest: Vec<_> = own.collect();
        newest.sort_by_key(|object| std::cmp::Reverse(object.meta().creation_timestamp.as_ref().map(|time| time.0)));
        if std::mem::replace(&mut self.is_listed, true) {
            for object in newest {
                let version = version(object.meta().uid.as_deref(), object.meta().resource_version.as_deref());
                if self.sent.get(&object.name_any()) != Some(&version) {
                    self.push(&object.name_any());
                }
            }
            return;
        }
        let names: Vec<String> = newest.iter().map(|object| object.name_any()).collect();
        let listed = names.len().min(MAX_LISTED);
        let (cluster, namespace) = (self.gateway.cluster().clone(), self.namespace.clone());
        let reads = stream::iter(names.iter().take(listed).cloned())
            .map(|name| read_named(cluster.clone(), namespace.clone(), name))
            .buffered(CONCURRENT_READS);
        let mut reads = std::pin::pin!(reads);
        let (mut commands, mut bytes, mut taken) = (Vec::new(), 0, 0);
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok(execution) => {
                    let view = view(&execution);
                    bytes += to_json(&view).len();
                    if bytes > MAX_LISTED_BYTES {
                        break;
                    }
                    self.remember(&name, version_of(&execution));
                    commands.push(view);
                }
                // It was deleted in the meantime. The watch reports that.
                Err(ClusterError::NotFound { .. }) => {}
                Err(failed) => {
                    tracing::debug!(%failed, name, "execution not readable for a stream of changes");
                    break;
                }
            }
            taken += 1;
        }
        let is_complete = taken == names.len();
        self.add(&ChangeMessage::Listed { commands, is_complete });
        for name in names.iter().skip(taken) {
            self.push(name);
        }
    }

    async fn read(&mut self, name: &str) {
        match self.gateway.cluster().execution(&self.namespace, name).await {
            Ok(execution) => {
                if self.remember(name, version_of(&execution)) {
                    self.add(&ChangeMessage::Changed { command: Box::new(view(&execution)) });
                }
            }
            Err(ClusterError::NotFound { .. }) => {
                if self.remember(name, DELETED.to_owned()) {
                    self.add(&ChangeMessage::Deleted { command_id: command_id(&self.namespace, name) });
                }
            }
            Err(ClusterError::Unavailable { .. }) => self.pending.retry(name, Instant::now() + RETRY_AFTER),
            // The next change of the execution is read again.
            Err(failed) => tracing::warn!(%failed, name, "execution not readable for a stream of changes"),
        }
    }

    /// Remembers the version that is sent. Returns false if this version was sent already.
    fn remember(&mut self, name: &str, version: String) -> bool {
        if self.sent.len() >= MAX_SENT && !self.sent.contains_key(name) {
            self.sent.clear();
        }
        self.sent.insert(name.to_owned(), version.clone()) != Some(version)
    }
}

impl Feed for ChangeFeed {
    async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            self.advance().await;
        }
    }
}

async fn read_named(
    cluster: Cluster,
    namespace: String,
    name: String,
) -> (String, Result<CommandExecution, ClusterError>) {
    let read = cluster.execution(&namespace, &name).await;
    (name, read)
}

fn version(uid: Option<&str>, resource_version: Option<&str>) -> String {
    format!("{}/{}", uid.unwrap_or_default(), resource_version.unwrap_or_default())
}

fn version_of(execution: &CommandExecution) -> String {
    version(execution.metadata.uid.as_deref(), execution.metadata.resource_version.as_deref())
}

/// Returns an execution for a message.
fn view(execution: &CommandExecution) -> CommandView {
    let mut view = CommandView::of(execution);
    if view.command.len() > MAX_COMMAND_BYTES {
        let end = view.command.floor_char_boundary(MAX_COMMAND_BYTES);
        view.command.truncate(end);
        view.command.push_str("...");
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CommandExecutionSpec;

    #[test]
    fn messages_have_the_documented_form() {
        let execution = CommandExecution::new("x", CommandExecutionSpec::on_machine("web-1"));
        let parsed =
            |message: &ChangeMessage<'_>| -> serde_json::Value { serde_json::from_str(&to_json(message)).unwrap() };
        let changed = parsed(&ChangeMessage::Changed { command: Box::new(view(&execution)) });
        assert_eq!((&changed["type"], &changed["command"]["machine"]), (&"changed".into(), &"web-1".into()));
        let listed = parsed(&ChangeMessage::Listed { commands: vec![view(&execution)], is_complete: true });
        assert_eq!((&listed["type"], &listed["commands"][0]["status"]), (&"listed".into(), &"pending".into()));
        let deleted = parsed(&ChangeMessage::Deleted { command_id: "ops:x".to_owned() });
        assert_eq!(deleted, serde_json::json!({"type": "deleted", "command_id": "ops:x"}));
    }

    #[test]
    fn a_long_argument_vector_is_cut() {
        let mut execution = CommandExecution::new("x", CommandExecutionSpec::on_machine("web-1"));
        execution.spec.argv = Some(vec!["\u{e9}".repeat(2048); 64]);
        let command = view(&execution).command;
        assert!(command.len() <= MAX_COMMAND_BYTES + 3 && command.ends_with("..."), "{}", command.len());
    }
}
