//! Shares one watch of a kind among several tasks of this process. These tasks are the subscribers of the watch.
//!
//! ```text
//! API server --> one watch --> store <--------------- subscribers read metadata by name
//!                    |
//!                    +--> feed of each subscriber (names) --> Subscription: compares with the store --> Change
//! ```
//!
//! kube's shared reflector is not suitable, for three reasons:
//!
//! - The reflector sends no deletions.
//! - A slow subscriber blocks the watch of the reflector.
//! - A subscriber's stream stops if an object disappears before the subscriber reads the object's change.
//!
//! # Guarantees
//! - A subscription yields every deletion and the latest version of every object. The subscription can skip earlier
//!   versions.
//! - A slow subscriber delays neither the watch nor another subscriber. After more than [`MAX_QUEUED_NAMES`]
//!   changes, the slow subscriber compares the whole store.
//! - An object takes memory only for its metadata in the store, and for a name and a pointer in each subscription.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::stream::{self, Stream, StreamExt as _};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::telemetry::{Watch, health};

use super::multi_namespace_watch::log_watch_failure;
use super::{Cluster, Slim};

/// Maximum number of names in the feed of one subscriber, about 100 KiB. After more changes, the subscriber compares
/// all objects of the store with the versions that the subscriber has read.
const MAX_QUEUED_NAMES: usize = 1024;

/// Metadata of all objects of one kind, and the feeds of the subscribers of the watch. Clones share both.
pub struct SharedWatch<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    feeds: Arc<Mutex<Feeds<K>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for SharedWatch<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), feeds: Arc::clone(&self.feeds) }
    }
}

/// A change of the store.
pub enum Change<K> {
    /// The object was created or changed.
    Applied(Arc<K>),
    /// The object was deleted, or another object with the same name was created. Holds the last version that the
    /// subscription has read.
    Deleted(Arc<K>),
    /// All objects of a complete list. Objects that are new in the list get no additional `Applied`.
    Listed(Vec<Arc<K>>),
}

impl Cluster {
    /// Returns a watch of the metadata of a kind, and a future. Poll the future to keep the watch up to date. Drop the
    /// future to end the watch. `field_selector` selects the objects.
    pub fn shared_watch<K>(
        &self,
        watch: Watch,
        field_selector: Option<&str>,
    ) -> (SharedWatch<Slim<K>>, impl Future<Output = ()> + Send + use<K>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static,
    {
        share(watch, self.watch::<Slim<K>>(field_selector))
    }
}

/// Returns a shared watch of these events, and the future that keeps it up to date.
pub(super) fn share<K>(
    watch: Watch,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> (SharedWatch<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, mut writer) = store::<K>();
    let shared = SharedWatch { store: reader, feeds: Arc::default() };
    let feeds = CloseOnDrop(Arc::clone(&shared.feeds));
    let keep_up_to_date = async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                // Updates the store first. A subscriber that receives the object's name then reads this version of the
                // object or a later version.
                Ok(event) => {
                    writer.apply_watcher_event(&event);
                    lock(&feeds.0).announce(watch, &event);
                }
                Err(error) => log_watch_failure(watch, &error),
            }
        }
    };
    (shared, keep_up_to_date)
}

impl<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static> SharedWatch<K> {
    /// Returns the store with the metadata of all objects.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Subscribes to the changes. If `has_changed(previous, new)` returns false for an object, the subscription skips
    /// the new version of the object. The stream ends when the watch ends.
    pub fn subscribe(&self, has_changed: fn(&K, &K) -> bool) -> impl Stream<Item = Change<K>> + Send + use<K> {
        let feed = lock(&self.feeds).add();
        let subscription = Subscription {
            feed,
            store: self.store.clone(),
            known: HashMap::new(),
            ready: VecDeque::new(),
            has_changed,
        };
        stream::unfold(subscription, |mut subscription| async move {
            subscription.next().await.map(|change| (change, subscription))
        })
    }

    /// Subscribes to the removals of objects. In contrast to [`Self::subscribe`], the stream also reports objects that
    /// were created and removed before the subscriber read the change, and keeps no metadata. The stream ends when the
    /// watch ends.
    pub fn removals(&self) -> impl Stream<Item = Removal> + Send + use<K> {
        let feed = lock(&self.feeds).add();
        stream::unfold((feed, self.store.clone()), |(feed, store)| async move {
            loop {
                let next = lock(&feed.queue).next();
                match next {
                    Next::CompareOne(reference) if store.get(&reference).is_none() => {
                        let namespace = reference.namespace.clone().unwrap_or_default();
                        return Some((Removal::One(namespace, reference.name.clone()), (feed, store)));
                    }
                    Next::CompareOne(_) => {}
                    Next::CompareAll => return Some((Removal::Any, (feed, store))),
                    Next::Wait => feed.news.notified().await,
                    Next::End => return None,
                }
            }
        })
    }
}

/// Names of removed objects, from [`SharedWatch::removals`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removal {
    /// Namespace and name of an object that is not in the store. The subscriber perhaps never read the object.
    One(String, String),
    /// Any object was perhaps removed, because there was a new list, or there were more than [`MAX_QUEUED_NAMES`]
    /// changes.
    Any,
}

/// The feeds of all subscribers.
struct Feeds<K: Resource<DynamicType = ()> + 'static> {
    feeds: Vec<Weak<Feed<K>>>,
    /// True after the store has received a complete list.
    is_listed: bool,
    is_closed: bool,
}

impl<K: Resource<DynamicType = ()> + 'static> Default for Feeds<K> {
    fn default() -> Self {
        Self { feeds: Vec::new(), is_listed: false, is_closed: false }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Feeds<K> {
    fn add(&mut self) -> Arc<Feed<K>> {
        let queue = Queue { names: VecDeque::new(), is_everything: self.is_listed, is_closed: self.is_closed };
        let feed = Arc::new(Feed { queue: Mutex::new(queue), news: Notify::new() });
        self.feeds.push(Arc::downgrade(&feed));
        feed
    }

    fn announce(&mut self, watch: Watch, event: &Event<K>) {
        match event {
            Event::Apply(object) | Event::Delete(object) => self.each(|queue| queue.push(reference_to(object))),
            Event::InitDone => {
                health().listed(watch);
                self.is_listed = true;
                self.each(Queue::push_everything);
            }
            // These events do not change the store. The store changes when the list is complete.
            Event::Init | Event::InitApply(_) => {}
        }
    }

    fn each(&mut self, change: impl Fn(&mut Queue<K>)) {
        self.feeds.retain(|feed| {
            let Some(feed) = feed.upgrade() else { return false };
            change(&mut lock(&feed.queue));
            feed.news.notify_one();
            true
        });
    }
}

/// Ends the streams of all subscribers when the watch ends, even if the watch panics.
struct CloseOnDrop<K: Resource<DynamicType = ()> + 'static>(Arc<Mutex<Feeds<K>>>);

impl<K: Resource<DynamicType = ()> + 'static> Drop for CloseOnDrop<K> {
    fn drop(&mut self) {
        let mut feeds = lock(&self.0);
        feeds.is_closed = true;
        feeds.each(|queue| queue.is_closed = true);
    }
}

/// Feed of one subscriber: names of changed objects.
struct Feed<K: Resource<DynamicType = ()> + 'static> {
    queue: Mutex<Queue<K>>,
    /// Notified when the queue has changed.
    news: Notify,
}

struct Queue<K: Resource<DynamicType = ()> + 'static> {
    /// Names of changed objects, at most [`MAX_QUEUED_NAMES`].
    names: VecDeque<ObjectRef<K>>,
    /// True if the subscriber must compare all objects of the store with the versions that it has read. In this case,
    /// `names` is empty.
    is_everything: bool,
    is_closed: bool,
}

/// Next step of a subscription.
enum Next<K: Resource<DynamicType = ()> + 'static> {
    CompareOne(ObjectRef<K>),
    CompareAll,
    Wait,
    End,
}

impl<K: Resource<DynamicType = ()> + 'static> Queue<K> {
    fn push(&mut self, reference: ObjectRef<K>) {
        if self.is_everything {
            return;
        }
        if self.names.len() < MAX_QUEUED_NAMES {
            self.names.push_back(reference);
        } else {
            self.push_everything();
        }
    }

    fn push_everything(&mut self) {
        self.names = VecDeque::new();
        self.is_everything = true;
    }

    fn next(&mut self) -> Next<K> {
        if std::mem::take(&mut self.is_everything) {
            return Next::CompareAll;
        }
        match self.names.pop_front() {
            Some(reference) => Next::CompareOne(reference),
            None if self.is_closed => Next::End,
            None => Next::Wait,
        }
    }
}

/// State of one subscription.
struct Subscription<K: Resource<DynamicType = ()> + Clone + 'static> {
    feed: Arc<Feed<K>>,
    store: Store<K>,
    /// Last version of each object that the subscription has read, usually shared with the store.
    known: HashMap<ObjectRef<K>, Arc<K>>,
    /// Changes that the subscription has found but not yet yielded: at most two for each object, and one for the list.
    ready: VecDeque<Change<K>>,
    has_changed: fn(&K, &K) -> bool,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Subscription<K> {
    async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            let next = lock(&self.feed.queue).next();
            match next {
                Next::CompareOne(reference) => {
                    let current = self.store.get(&reference);
                    if let Some(object) = self.compare(reference, current) {
                        self.ready.push_back(Change::Applied(object));
                    }
                }
                Next::CompareAll => self.compare_all(),
                Next::Wait => self.feed.news.notified().await,
                Next::End => return None,
            }
        }
    }

    /// Compares an object with its previous version. If the object was deleted or replaced, queues the deletion of the
    /// previous version. Returns the object if it is new or changed.
    fn compare(&mut self, reference: ObjectRef<K>, current: Option<Arc<K>>) -> Option<Arc<K>> {
        let Some(current) = current else {
            self.ready.extend(self.known.remove(&reference).map(Change::Deleted));
            return None;
        };
        let before = self.known.insert(reference, Arc::clone(&current));
        match before {
            Some(before) if before.meta().uid != current.meta().uid => {
                self.ready.push_back(Change::Deleted(before));
                Some(current)
            }
            Some(before) => (self.has_changed)(&before, &current).then_some(current),
            None => Some(current),
        }
    }

    fn compare_all(&mut self) {
        let all = self.store.state();
        let current: HashMap<_, _> =
            all.iter().map(|object| (reference_to(object.as_ref()), Arc::clone(object))).collect();
        let deleted: Vec<_> = self.known.keys().filter(|reference| !current.contains_key(reference)).cloned().collect();
        for reference in deleted {
            self.compare(reference, None);
        }
        for (reference, object) in current {
            let is_new = !self.known.contains_key(&reference);
            if let Some(object) = self.compare(reference, Some(object)).filter(|_| !is_new) {
                self.ready.push_back(Change::Applied(object));
            }
        }
        self.ready.push_back(Change::Listed(all));
    }
}

/// Returns a reference that contains only namespace and name. `ObjectRef::from` would also keep UID and
/// resourceVersion.
fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectRef<K> {
    let metadata = object.meta();
    let reference = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
    match metadata.namespace.as_deref() {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
