//! The policy of a namespace, as of one moment: compiled once, looked at live each time.
//!
//! The promise kept here: a change of a Whitelist that was committed before [`Policies::rules`] was called counts. Those who
//! ask at the same time share a reading that began after they asked. Only names and versions are read for that; where they are no longer those that are compiled, the Whitelists are read in
//! full, all in one list, so that rules of two moments are never mixed (a Deny that moved from one Whitelist to another
//! would be in neither).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{DynamicObject, ListParams, ObjectMeta};
use kube::discovery::ApiResource;

use crate::api::Whitelist;
use crate::api::execution_status::ObjectRecord;
use crate::policy::{self, CompiledWhitelist, RuleSet};

use super::sharing::Shared;
use super::{Cluster, ClusterError, Operation};

/// After how long a namespace that nobody asks about is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The compiled Whitelists of the namespaces that were asked for. Bounded by what is in the cluster: a namespace that has
/// no Whitelists, or that nobody asks about, is forgotten, and what one Whitelist may compile into has a bound of its own.
pub struct Policies {
    cluster: Cluster,
    namespaces: Mutex<HashMap<String, (Instant, Known)>>,
    /// The readings of the namespaces that are asked about now.
    readings: Mutex<HashMap<String, Arc<Shared<RuleSet>>>>,
}

/// What a Whitelist was when it was compiled.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Version {
    uid: String,
    resource_version: String,
}

/// The Whitelists of one namespace at one moment: what they were, and what they come to.
#[derive(Clone, Default)]
struct Known {
    versions: BTreeMap<String, Version>,
    rules: RuleSet,
}

impl Policies {
    /// Knows nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, namespaces: Mutex::default(), readings: Mutex::default() }
    }

    /// The rules of a namespace, as they are at some moment after the call.
    ///
    /// # Errors
    /// See [`ClusterError`]. A Whitelist that does not decode is no error: it closes the namespace.
    pub async fn rules(&self, namespace: &str) -> Result<RuleSet, ClusterError> {
        self.readings_of(namespace).ask(async || self.look(namespace).await).await
    }

    fn readings_of(&self, namespace: &str) -> Arc<Shared<RuleSet>> {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|name, shared| name == namespace || Arc::strong_count(shared) > 1);
        Arc::clone(readings.entry(namespace.to_owned()).or_default())
    }

    /// Reads what they are now.
    async fn look(&self, namespace: &str) -> Result<RuleSet, ClusterError> {
        let api: Api<Whitelist> = Api::namespaced(self.cluster.client(), namespace);
        let what = format!("the Whitelists of {namespace}");
        let list =
            self.cluster.call(Operation::GetWhitelists, &what, api.list_metadata(&ListParams::default())).await?;
        let versions: BTreeMap<String, Version> =
            list.items.iter().filter_map(|object| named_version(&object.metadata)).collect();
        let known = self.known(namespace);
        if known.versions == versions { Ok(known.rules) } else { self.read(namespace, &what, known).await }
    }

    fn known(&self, namespace: &str) -> Known {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((asked, known)) = namespaces.get_mut(namespace) else { return Known::default() };
        *asked = Instant::now();
        known.clone()
    }

    /// Reads all Whitelists of a namespace in one list, and compiles those that have changed.
    async fn read(&self, namespace: &str, what: &str, known: Known) -> Result<RuleSet, ClusterError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client(), namespace, &ApiResource::erase::<Whitelist>(&()));
        let list = self.cluster.call(Operation::GetWhitelists, what, api.list(&ListParams::default())).await?;
        // Patterns take a while to compile, where there are many.
        let current = tokio::task::spawn_blocking(move || compile_all(list.items, &known)).await;
        let current = current.map_err(|error| ClusterError::Unavailable {
            what: what.to_owned(),
            message: format!("they could not be compiled: {error}"),
        })?;
        let rules = current.rules.clone();
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|name, (asked, _)| name != namespace && asked.elapsed() < FORGOTTEN_AFTER);
        if !current.versions.is_empty() {
            namespaces.insert(namespace.to_owned(), (Instant::now(), current));
        }
        Ok(rules)
    }
}

fn compile_all(objects: Vec<DynamicObject>, known: &Known) -> Known {
    let before: HashMap<&str, &Arc<CompiledWhitelist>> =
        known.rules.whitelists().iter().map(|whitelist| (whitelist.record.name.as_str(), whitelist)).collect();
    let (mut versions, mut whitelists) = (BTreeMap::new(), Vec::new());
    for object in objects {
        let Some((name, version)) = named_version(&object.metadata) else { continue };
        let is_known = known.versions.get(&name) == Some(&version);
        let compiled = before.get(name.as_str()).filter(|_| is_known).map(|compiled| Arc::clone(compiled));
        whitelists.push(compiled.unwrap_or_else(|| Arc::new(compile(object))));
        versions.insert(name, version);
    }
    Known { versions, rules: RuleSet::new(whitelists) }
}

fn named_version(metadata: &ObjectMeta) -> Option<(String, Version)> {
    let version = Version { uid: metadata.uid.clone()?, resource_version: metadata.resource_version.clone()? };
    Some((metadata.name.clone()?, version))
}

/// Compiles a Whitelist as the API server has it, also one that does not decode.
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
