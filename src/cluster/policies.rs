//! Provides the policy of a namespace: its Whitelists in compiled form. docs/design/20261130-policy-freshness.md
//! explains the two kinds of reads.
//!
//! - [`PolicyCache::listed`] lists the names and versions of all Whitelists. If a version has changed, Writ lists all
//!   Whitelists in full, and compiles the changed Whitelists again. A list takes about 0.1 s, because the API server
//!   first waits for a progress notification of etcd.
//! - [`PolicyCache::confirmed`] reads the version of each known Whitelist by name, which takes a few milliseconds. While
//!   a namespace is in use, Writ lists its Whitelists every second in the background, to find new Whitelists.
//!
//! # Guarantees
//! 1. [`PolicyCache::listed`] includes every change of a Whitelist that was committed before the call.
//! 2. [`PolicyCache::confirmed`] includes every change and deletion of a Whitelist that was committed before the call.
//!    It includes each Whitelist that was created [`MAX_LIST_AGE`] or longer before the call, even if the watch hangs.
//! 3. All rules of a result come from the same moment. Without this guarantee, Writ could miss a Deny that a user moves
//!    from one Whitelist to another.
//!
//! Concurrent callers share one read, which starts after their calls.

mod snapshot;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::stream::{Stream, StreamExt as _};
use kube::api::{DynamicObject, GetParams, ListParams, ObjectList};
use kube::core::Request;
use kube::{Api, Resource as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Whitelist;
use crate::fairness::{Pool, Size};
use crate::policy::RuleSet;

use super::clock::Moment;
use super::coalesce::KeyedCoalescer;
use super::lean::LeanMetadata;
use super::{Change, Cluster, ClusterError, Operation, PAGE, Slim};
pub use snapshot::compile;
use snapshot::{MAX_RULE_BYTES, Snapshot, Version, Versions, fail_closed, named_version};

/// Maximum age of the list of Whitelists that a start may depend on. A new Whitelist counts for each start whose check
/// begins this long after its creation.
pub const MAX_LIST_AGE: Duration = Duration::from_secs(2);
/// Interval between lists in the background. The interval is shorter than [`MAX_LIST_AGE`], so that a start waits for a
/// list only if a list takes longer than the difference.
const RELIST_INTERVAL: Duration = Duration::from_secs(1);
/// Time after the last use of a namespace during which Writ lists its Whitelists in the background.
const RELIST_FOR: Duration = Duration::from_secs(10);
/// Maximum number of Whitelists in a namespace that Writ reads by name. With more Whitelists, one list is cheaper.
const MAX_READ_BY_NAME: usize = 8;
/// Maximum number of concurrent shared reads of one namespace. A burst of 300 executions makes a few dozen reads.
const MAX_CONCURRENT_READS: usize = 4;
/// Time without a use after which the compiled rules of a namespace are removed from the cache.
const EVICT_AFTER: Duration = Duration::from_secs(3600);

/// Maximum size of the metadata of a namespace's Whitelists, in bytes. Each list reads this metadata completely.
const MAX_METADATA_BYTES: usize = 16_777_216;
/// Maximum size of all cached rules, in bytes of their text. The cache holds the rules in compiled form.
const MAX_CACHED_BYTES: usize = 16_777_216;
/// Number of Whitelists in a page of a full read, which is a list of complete Whitelists. A page takes at most 6 MiB.
const FULL_READ_PAGE: u32 = 4;
/// Maximum number of concurrent full reads (lists of complete Whitelists), at most one for each namespace. A full read
/// can take several MiB.
const CONCURRENT_FULL_READS: Size = Size { places: 2, share: 1 };

/// Compiled Whitelists of the namespaces in use. Two limits bound the memory: `MAX_CACHED_BYTES` for the rules as text,
/// and the compiler's limit for the cost of the patterns of each Whitelist.
pub struct PolicyCache {
    cluster: Cluster,
    /// True if [`Self::confirmed`] must list the Whitelists, like [`Self::listed`].
    is_strict: bool,
    state: Mutex<State>,
    /// Lists that are in progress, by namespace. Concurrent callers share a list.
    lists: KeyedCoalescer<RuleSet>,
    /// Reads of [`Self::confirmed`] that are in progress, by namespace.
    confirmations: KeyedCoalescer<RuleSet>,
    /// Permits for full reads (lists of complete Whitelists).
    turns: Pool,
}

#[derive(Default)]
struct State {
    snapshots: HashMap<String, Cached>,
    /// Time at which all snapshots were forgotten, as [`Moment::reading`]. A read that began earlier is not stored.
    forgotten: Option<i128>,
    /// Namespaces that Writ lists in the background, and the time of their last use.
    in_use: HashMap<String, Instant>,
}

/// Latest snapshot of a namespace.
struct Cached {
    snapshot: Snapshot,
    /// Time of the last use.
    used: Instant,
    /// Time at which the watch last reported a change that the snapshot does not contain, as [`Moment::reading`].
    changed: Option<i128>,
}

impl Cached {
    /// Returns true if the watch has reported no change since the list of the snapshot.
    fn is_current(&self) -> bool {
        self.changed.is_none_or(|changed| changed <= self.snapshot.listed.reading)
    }
}

impl PolicyCache {
    /// Returns an empty cache. If `is_strict` is true, [`Self::confirmed`] lists the Whitelists, like [`Self::listed`].
    pub fn new(cluster: Cluster, is_strict: bool) -> Self {
        Self {
            cluster,
            is_strict,
            state: Mutex::default(),
            lists: KeyedCoalescer::new(MAX_CONCURRENT_READS),
            confirmations: KeyedCoalescer::new(MAX_CONCURRENT_READS),
            turns: Pool::new(CONCURRENT_FULL_READS),
        }
    }

    /// Returns the rules of a namespace. The rules include every change that was committed before this call.
    ///
    /// # Errors
    /// See [`ClusterError`]. A Whitelist that cannot be decoded is not an error. The returned rules then allow nothing
    /// in the namespace.
    pub async fn listed(self: &Arc<Self>, namespace: &str) -> Result<RuleSet, ClusterError> {
        let (cache, listed) = (Arc::clone(self), namespace.to_owned());
        self.lists.call(namespace, move || async move { cache.list(&listed).await }).await
    }

    /// Returns the rules of a namespace for a start. Does not include a Whitelist that was created less than
    /// [`MAX_LIST_AGE`] ago, if Writ does not know this Whitelist yet. Includes every other change that was committed
    /// before this call.
    ///
    /// # Errors
    /// As for [`Self::listed`].
    pub async fn confirmed(self: &Arc<Self>, namespace: &str) -> Result<RuleSet, ClusterError> {
        if self.is_strict {
            return self.listed(namespace).await;
        }
        self.list_in_background(namespace);
        let (cache, confirmed) = (Arc::clone(self), namespace.to_owned());
        self.confirmations.call(namespace, move || async move { cache.confirm(&confirmed).await }).await
    }

    /// Returns the rules of the latest read. Returns `None` if there is no latest read, or if the watch has reported a
    /// change since. The rules can be outdated nevertheless, so Writ starts nothing by them.
    pub fn last_known(&self, namespace: &str) -> Option<RuleSet> {
        self.use_cached(namespace, |cached| cached.is_current().then(|| cached.snapshot.rules.clone()))
    }

    /// Records the changes that the watch of Whitelists reports. The next [`Self::confirmed`] then lists the Whitelists
    /// of the namespace. Ends when the watch ends.
    pub async fn follow(&self, changes: impl Stream<Item = Change<Slim<Whitelist>>> + Send) {
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            self.note(&change);
        }
    }

    fn note(&self, change: &Change<Slim<Whitelist>>) {
        let now = Some(self.cluster.clock.reading());
        let mut state = self.state();
        let (metadata, is_deleted) = match change {
            Change::Applied(whitelist) => (whitelist.meta(), false),
            Change::Deleted(whitelist) => (whitelist.meta(), true),
            // The watch has started again, and has perhaps missed changes. If the cluster was restored from a backup,
            // generations repeat. So Writ reads all Whitelists again.
            Change::Listed(_) => {
                state.snapshots.clear();
                state.forgotten = now;
                return;
            }
        };
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let Some(cached) = state.snapshots.get_mut(namespace) else { return };
        let known = metadata.name.as_ref().and_then(|name| cached.snapshot.versions.get(name));
        let is_news = match named_version(metadata) {
            Some((_, version)) if !is_deleted => known != Some(&version),
            _ => known.is_some(),
        };
        if is_news {
            cached.changed = now;
        }
    }

    /// Lists the Whitelists of a namespace every [`RELIST_INTERVAL`], until the namespace is unused for [`RELIST_FOR`].
    fn list_in_background(self: &Arc<Self>, namespace: &str) {
        if self.state().in_use.insert(namespace.to_owned(), Instant::now()).is_some() {
            return;
        }
        let (cache, namespace) = (Arc::downgrade(self), namespace.to_owned());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RELIST_INTERVAL).await;
                let Some(cache) = cache.upgrade() else { return };
                if !cache.is_in_use(&namespace) {
                    return;
                }
                let listed = cache.state().snapshots.get(&namespace).map(|cached| cached.snapshot.listed);
                let age = listed.map(|listed| cache.cluster.clock.elapsed(listed));
                if age.is_none_or(|age| age >= RELIST_INTERVAL / 2) {
                    // An error is ignored, because the next start reads the Whitelists and reports the error.
                    let _ = cache.listed(&namespace).await;
                }
            }
        });
    }

    /// Returns true if the namespace was used during the last [`RELIST_FOR`]. Else forgets the namespace.
    fn is_in_use(&self, namespace: &str) -> bool {
        let mut state = self.state();
        let is_in_use = state.in_use.get(namespace).is_some_and(|used| used.elapsed() < RELIST_FOR);
        if !is_in_use {
            state.in_use.remove(namespace);
        }
        is_in_use
    }

    /// Reads each known Whitelist by name. If all have the versions of the snapshot, returns the rules of the snapshot.
    /// Else lists the Whitelists.
    ///
    /// Versions never repeat. If each Whitelist has its version of the snapshot, then all of them had these versions
    /// when the first of the reads began. The rules therefore come from the same moment.
    async fn confirm(self: &Arc<Self>, namespace: &str) -> Result<RuleSet, ClusterError> {
        let Some(snapshot) = self.recent_snapshot(namespace) else { return self.listed(namespace).await };
        let reads = snapshot.versions.iter().map(|(name, version)| self.has_version(namespace, name, version));
        let is_same = try_join_all(reads).await?.into_iter().all(|is_same| is_same);
        // The reads can take seconds. Meanwhile, the list can become too old, or the watch can report a new Whitelist.
        let now = self.recent_snapshot(namespace).filter(|now| is_same && now.versions == snapshot.versions);
        match now {
            Some(now) => Ok(now.rules),
            None => self.listed(namespace).await,
        }
    }

    /// Returns the snapshot of a namespace, if reads by name are enough to confirm it.
    fn recent_snapshot(&self, namespace: &str) -> Option<Snapshot> {
        self.use_cached(namespace, |cached| {
            let is_recent = self.cluster.clock.elapsed(cached.snapshot.listed) < MAX_LIST_AGE && cached.is_current();
            let is_small = cached.snapshot.versions.len() <= MAX_READ_BY_NAME;
            (is_recent && is_small).then(|| cached.snapshot.clone())
        })
    }

    /// Reads the metadata of one Whitelist. Returns true if the Whitelist has this version.
    async fn has_version(&self, namespace: &str, name: &str, version: &Version) -> Result<bool, ClusterError> {
        let read = async {
            let requests = Request::new(Whitelist::url_path(&(), Some(namespace)));
            let request = requests.get_metadata(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
            self.cluster.client.request::<Slim<Whitelist>>(request).await
        };
        let read = self.cluster.call(Operation::GetWhitelists, format!("the Whitelist {namespace}/{name}"), read);
        match read.await {
            Ok(whitelist) => Ok(named_version(whitelist.meta()).is_some_and(|(_, current)| current == *version)),
            Err(ClusterError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the current versions of a namespace's Whitelists. If they differ from the snapshot, also reads the
    /// Whitelists in full.
    async fn list(&self, namespace: &str) -> Result<RuleSet, ClusterError> {
        let started = self.cluster.clock.moment();
        let api: Api<Slim<Whitelist>> = Api::namespaced(self.cluster.client(), namespace);
        let what = format!("the Whitelists of {namespace}");
        let (mut versions, mut bytes) = (Versions::new(), 0);
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let list = self.cluster.list_metadata(&api, &parameters);
            let page = self.cluster.call(Operation::GetWhitelists, &what, list).await?;
            bytes += page.items.iter().map(|whitelist| whitelist.bytes).sum::<usize>();
            versions.extend(page.items.iter().filter_map(|whitelist| named_version(whitelist.meta())));
            // The continue token makes all pages come from the same version of the list.
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                _ if bytes > MAX_METADATA_BYTES => {
                    // Without a snapshot, each later use lists the Whitelists again.
                    self.state().snapshots.remove(namespace);
                    return Ok(fail_closed(bytes, "metadata", MAX_METADATA_BYTES));
                }
                Some(more) => parameters = parameters.continue_token(&more),
                None => break,
            }
        }
        if let Some(rules) = self.note_list(namespace, &versions, started) {
            return Ok(rules);
        }
        let _turn = self.turns.place(namespace).await;
        // Meanwhile, a concurrent list has perhaps caused a full read.
        match self.note_list(namespace, &versions, started) {
            Some(rules) => Ok(rules),
            None => self.read_and_compile(namespace, &what).await,
        }
    }

    /// Records the versions that a list found, which started at `started`. Returns the rules of the snapshot, if it has
    /// the same versions or is more recent. Else the snapshot counts as outdated, even if a later full read fails.
    fn note_list(&self, namespace: &str, versions: &Versions, started: Moment) -> Option<RuleSet> {
        let mut state = self.state();
        let Cached { snapshot, changed, .. } = state.snapshots.get_mut(namespace)?;
        // A snapshot that is more recent than the list includes every change that the list includes.
        if snapshot.versions == *versions || snapshot.listed.reading >= started.reading {
            snapshot.listed = snapshot.listed.later(started);
            return Some(snapshot.rules.clone());
        }
        *changed = (*changed).max(Some(started.reading));
        None
    }

    /// Reads all Whitelists of a namespace in one list. Compiles the changed Whitelists. The caller holds a permit of
    /// [`Self::turns`].
    async fn read_and_compile(&self, namespace: &str, what: &str) -> Result<RuleSet, ClusterError> {
        let started = self.cluster.clock.moment();
        let (list, bytes) = self.read_all(namespace, what).await?;
        let before = self.use_cached(namespace, |cached| Some(cached.snapshot.clone()));
        // Compiles in a thread for blocking work, because the compilation of many patterns takes long.
        let compiling = tokio::task::spawn_blocking(move || Snapshot::compile(list, bytes, before.as_ref(), started));
        let snapshot = compiling.await.map_err(|error| ClusterError::Unavailable {
            target: what.to_owned(),
            message: format!("they could not be compiled: {error}"),
        })?;
        let rules = snapshot.rules.clone();
        self.state().keep(namespace, snapshot);
        Ok(rules)
    }

    /// Returns the Whitelists of a namespace without their status, and the size of their names and specs in bytes. If
    /// this size exceeds [`MAX_RULE_BYTES`], the function stops early, and the caller must not use the incomplete list.
    async fn read_all(&self, namespace: &str, what: &str) -> Result<(Vec<DynamicObject>, usize), ClusterError> {
        let requests = Request::new(Whitelist::url_path(&(), Some(namespace)));
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut parameters = ListParams::default().limit(FULL_READ_PAGE);
        loop {
            let read = async {
                let request = requests.list(&parameters).map_err(kube::Error::BuildRequest)?;
                let text = self.cluster.client.request_text(request).await?;
                let page: ObjectList<Whole> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
                Ok(page)
            };
            let page = self.cluster.call(Operation::GetWhitelists, what, read).await?;
            for whole in page.items {
                bytes += whole.metadata.kept.name.as_ref().map_or(0, String::len) + json_length(&whole.spec);
                all.push(whole.into_object());
            }
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) if bytes <= MAX_RULE_BYTES => parameters = parameters.continue_token(&more),
                _ => return Ok((all, bytes)),
            }
        }
    }

    /// Records a use of a namespace's snapshot, and returns the result of `take`.
    fn use_cached<T>(&self, namespace: &str, take: impl FnOnce(&Cached) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        let cached = state.snapshots.get_mut(namespace)?;
        cached.used = Instant::now();
        take(cached)
    }

    /// Locks the state. The caller must not await anything while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Stores a snapshot, unless the stored snapshot is more recent. A snapshot without Whitelists is not stored, so
    /// that the next use lists the Whitelists again.
    fn keep(&mut self, namespace: &str, snapshot: Snapshot) {
        self.snapshots.retain(|_, cached| cached.used.elapsed() < EVICT_AFTER);
        if self.forgotten.is_some_and(|forgotten| snapshot.listed.reading <= forgotten) {
            return;
        }
        let stored = self.snapshots.get(namespace);
        if stored.is_some_and(|stored| stored.snapshot.listed.reading > snapshot.listed.reading) {
            return;
        }
        if snapshot.versions.is_empty() {
            self.snapshots.remove(namespace);
        } else {
            let changed = stored.and_then(|stored| stored.changed);
            self.snapshots.insert(namespace.to_owned(), Cached { snapshot, used: Instant::now(), changed });
        }
        self.evict_oldest();
    }

    /// Removes the least recently used snapshots until the cache is within [`MAX_CACHED_BYTES`].
    fn evict_oldest(&mut self) {
        let mut total: usize = self.snapshots.values().map(|cached| cached.snapshot.bytes).sum();
        while total > MAX_CACHED_BYTES {
            let oldest = self.snapshots.iter().min_by_key(|(_, cached)| cached.used).map(|(name, _)| name.clone());
            let Some(gone) = oldest.and_then(|oldest| self.snapshots.remove(&oldest)) else { return };
            total = total.saturating_sub(gone.snapshot.bytes);
        }
    }
}

/// A Whitelist with [`LeanMetadata`] and an untyped spec. A spec that Writ cannot decode therefore causes no error
/// here.
#[derive(Clone, Deserialize)]
struct Whole {
    metadata: LeanMetadata,
    #[serde(default)]
    spec: Value,
}

impl Whole {
    fn into_object(self) -> DynamicObject {
        DynamicObject { types: None, metadata: self.metadata.kept, data: json!({"spec": self.spec}) }
    }
}

fn json_length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(json_length).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + 4 + json_length(value)).sum::<usize>() + 2
        }
        _ => 8,
    }
}
