//! Provides the policy of a namespace: its Whitelists in compiled form.
//!
//! Each use of a policy first lists only the names and versions of all Whitelists. If a version has changed, Writ lists
//! all Whitelists in full, and compiles the changed Whitelists again.
//!
//! # Guarantees
//! 1. [`PolicyCache::rules`] includes every change of a Whitelist that was committed before the call. Concurrent
//!    callers share one read, which starts after their calls.
//! 2. All rules of a result come from the same moment. Without this guarantee, Writ could miss a Deny that a user moves
//!    from one Whitelist to another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, ListParams, ObjectList, ObjectMeta};
use kube::core::Request;
use kube::{Api, Resource as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Whitelist;
use crate::api::execution_status::ObjectRecord;
use crate::fairness::{Pool, Size};
use crate::policy::{self, CompiledWhitelist, RuleSet};

use super::coalesce::Coalescer;
use super::lean::LeanMetadata;
use super::{Cluster, ClusterError, Operation, PAGE, Slim};

/// Time without a use after which the compiled rules of a namespace are removed from the cache.
const EVICT_AFTER: Duration = Duration::from_secs(3600);

/// Maximum size of the metadata of a namespace's Whitelists, in bytes. Each decision reads this metadata completely.
const MAX_METADATA_BYTES: usize = 16_777_216;
/// Maximum size of a namespace's rules as text, in bytes. A Whitelist has up to 256 rules, which take about 100 KiB.
const MAX_RULE_BYTES: usize = 4_194_304;
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
    namespaces: Mutex<HashMap<String, (Instant, CachedPolicy)>>,
    /// The reads that are in progress, by namespace. Concurrent callers share a read.
    in_flight: Mutex<HashMap<String, Arc<Coalescer<RuleSet>>>>,
    /// Permits for full reads (lists of complete Whitelists).
    turns: Pool,
}

/// Version of a compiled Whitelist.
#[derive(Clone, Debug, Eq, PartialEq)]
struct CachedVersion {
    uid: String,
    resource_version: String,
}

/// Versions and rules of a namespace's Whitelists at one moment.
#[derive(Clone, Default)]
struct CachedPolicy {
    versions: BTreeMap<String, CachedVersion>,
    /// Size of the rules as text, in bytes.
    bytes: usize,
    rules: RuleSet,
}

impl PolicyCache {
    /// Returns an empty cache.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            namespaces: Mutex::default(),
            in_flight: Mutex::default(),
            turns: Pool::new(CONCURRENT_FULL_READS),
        }
    }

    /// Returns the rules of a namespace, read at a moment after the start of this call.
    ///
    /// # Errors
    /// See [`ClusterError`]. A Whitelist that cannot be decoded is not an error. The returned rules then allow nothing
    /// in the namespace.
    pub async fn rules(&self, namespace: &str) -> Result<RuleSet, ClusterError> {
        self.coalescer_for(namespace).call(async || self.refresh(namespace).await).await
    }

    fn coalescer_for(&self, namespace: &str) -> Arc<Coalescer<RuleSet>> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.retain(|name, shared| name == namespace || Arc::strong_count(shared) > 1);
        Arc::clone(in_flight.entry(namespace.to_owned()).or_default())
    }

    /// Reads the current versions of a namespace's Whitelists. If they differ from the cached versions, also reads the
    /// Whitelists in full.
    async fn refresh(&self, namespace: &str) -> Result<RuleSet, ClusterError> {
        let api: Api<Slim<Whitelist>> = Api::namespaced(self.cluster.client(), namespace);
        let what = format!("the Whitelists of {namespace}");
        let (mut versions, mut bytes) = (BTreeMap::new(), 0);
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let list = self.cluster.list_metadata(&api, &parameters);
            let page = self.cluster.call(Operation::GetWhitelists, &what, list).await?;
            bytes += page.items.iter().map(|whitelist| whitelist.bytes).sum::<usize>();
            versions.extend(page.items.iter().filter_map(|whitelist| named_version(whitelist.meta())));
            // The continue token makes all pages come from the same version of the list.
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                _ if bytes > MAX_METADATA_BYTES => return Ok(fail_closed(bytes, "metadata", MAX_METADATA_BYTES)),
                Some(more) => parameters = parameters.continue_token(&more),
                None => break,
            }
        }
        let cached = self.cached(namespace);
        if cached.versions == versions {
            Ok(cached.rules)
        } else {
            self.read_and_compile(namespace, &what, cached).await
        }
    }

    fn cached(&self, namespace: &str) -> CachedPolicy {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((asked, cached)) = namespaces.get_mut(namespace) else { return CachedPolicy::default() };
        *asked = Instant::now();
        cached.clone()
    }

    /// Reads all Whitelists of a namespace in one list. Compiles the changed Whitelists.
    async fn read_and_compile(
        &self,
        namespace: &str,
        what: &str,
        cached: CachedPolicy,
    ) -> Result<RuleSet, ClusterError> {
        let _turn = self.turns.place(namespace).await;
        let (list, bytes) = self.read_all(namespace, what).await?;
        // Compiles in a thread for blocking work, because the compilation of many patterns takes long.
        let current = tokio::task::spawn_blocking(move || compile_all(list, bytes, &cached)).await;
        let current = current.map_err(|error| ClusterError::Unavailable {
            target: what.to_owned(),
            message: format!("they could not be compiled: {error}"),
        })?;
        let rules = current.rules.clone();
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|name, (asked, _)| name != namespace && asked.elapsed() < EVICT_AFTER);
        if !current.versions.is_empty() {
            namespaces.insert(namespace.to_owned(), (Instant::now(), current));
        }
        evict_oldest(&mut namespaces);
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

/// Returns the rules of a namespace whose Whitelists are too many or too large. These rules allow nothing in the
/// namespace.
fn fail_closed(bytes: usize, what: &str, most: usize) -> RuleSet {
    let record = ObjectRecord { name: "(all of them)".to_owned(), uid: String::new(), generation: 0 };
    let problem = format!(
        "the {what} of the Whitelists of this namespace take more than {most} bytes together ({bytes} until reading was given up); \
         delete some, or remove labels, annotations and rules"
    );
    RuleSet::new(vec![Arc::new(CompiledWhitelist::unreadable(record, &problem))])
}

/// Removes the least recently used namespaces from the cache until the cache is within [`MAX_CACHED_BYTES`].
fn evict_oldest(namespaces: &mut HashMap<String, (Instant, CachedPolicy)>) {
    let mut total: usize = namespaces.values().map(|(_, cached)| cached.bytes).sum();
    while total > MAX_CACHED_BYTES {
        let oldest = namespaces.iter().min_by_key(|(_, (asked, _))| *asked).map(|(name, _)| name.clone());
        let Some((_, gone)) = oldest.and_then(|oldest| namespaces.remove(&oldest)) else { return };
        total = total.saturating_sub(gone.bytes);
    }
}

fn compile_all(objects: Vec<DynamicObject>, bytes: usize, cached: &CachedPolicy) -> CachedPolicy {
    let before: HashMap<&str, &Arc<CompiledWhitelist>> =
        cached.rules.whitelists().iter().map(|whitelist| (whitelist.record.name.as_str(), whitelist)).collect();
    let (mut versions, mut whitelists) = (BTreeMap::new(), Vec::new());
    if bytes > MAX_RULE_BYTES {
        // Stores no versions. The next call therefore reads the Whitelists again, and notices a repair.
        return CachedPolicy { versions, bytes: 0, rules: fail_closed(bytes, "rules", MAX_RULE_BYTES) };
    }
    for object in objects {
        let Some((name, version)) = named_version(&object.metadata) else { continue };
        let is_known = cached.versions.get(&name) == Some(&version);
        let compiled = before.get(name.as_str()).filter(|_| is_known).map(|compiled| Arc::clone(compiled));
        whitelists.push(compiled.unwrap_or_else(|| Arc::new(compile(object))));
        versions.insert(name, version);
    }
    CachedPolicy { versions, bytes, rules: RuleSet::new(whitelists) }
}

fn named_version(metadata: &ObjectMeta) -> Option<(String, CachedVersion)> {
    let version = CachedVersion { uid: metadata.uid.clone()?, resource_version: metadata.resource_version.clone()? };
    Some((metadata.name.clone()?, version))
}

/// Compiles a Whitelist that comes from the API server. If the Whitelist cannot be decoded, the result allows nothing
/// in its namespace.
pub fn compile(object: DynamicObject) -> CompiledWhitelist {
    let record = ObjectRecord {
        name: object.metadata.name.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
    };
    match object.try_parse::<Whitelist>() {
        Ok(whitelist) => policy::compile(&whitelist),
        Err(error) => CompiledWhitelist::unreadable(record, &error.to_string()),
    }
}
