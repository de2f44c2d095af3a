//! The policy of a namespace, as of one moment: compiled once, looked at live each time.
//!
//! The promise kept here: a change of a Whitelist that was committed before [`Policies::rules`] was called counts. Those who
//! ask at the same time share a reading that began after they asked. Only names and versions are read for that; where they are no longer those that are compiled, the Whitelists are read in
//! full, all in one list, so that rules of two moments are never mixed (a Deny that moved from one Whitelist to another
//! would be in neither).

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

use super::lean::LeanMetadata;
use super::sharing::Shared;
use super::{Cluster, ClusterError, Operation, PAGE, Slim};

/// After how long a namespace that nobody asks about is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The most bytes of metadata of a namespace's Whitelists: each decision asks for all of it.
const MAXIMUM_METADATA: usize = 16_777_216;
/// The most bytes of rules of a namespace, as text. A Whitelist has up to 256 rules, which take about 100 KiB.
const MAXIMUM_RULES: usize = 4_194_304;
/// The most bytes of rules, as text, of which the compiled form is kept, of all namespaces together.
const MAXIMUM_KEPT: usize = 16_777_216;
/// Whitelists in a page where they are read whole: 6 MiB at most.
const WHOLE_PAGE: u32 = 4;
/// Namespaces whose Whitelists are read whole at a time: each may take several MiB. A namespace reads its own once at a time.
const READ_WHOLE: Size = Size { places: 2, share: 1 };

/// The compiled Whitelists of the namespaces that were asked for. Bounded in bytes; a namespace that has no Whitelists, or
/// that nobody asks about, is forgotten, and what one Whitelist may compile into has a bound of its own.
pub struct Policies {
    cluster: Cluster,
    namespaces: Mutex<HashMap<String, (Instant, Known)>>,
    /// The readings of the namespaces that are asked about now.
    readings: Mutex<HashMap<String, Arc<Shared<RuleSet>>>>,
    /// Namespaces whose Whitelists are read whole at a time.
    turns: Pool,
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
    /// How many bytes the rules took as text.
    bytes: usize,
    rules: RuleSet,
}

impl Policies {
    /// Knows nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, namespaces: Mutex::default(), readings: Mutex::default(), turns: Pool::new(READ_WHOLE) }
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
        let api: Api<Slim<Whitelist>> = Api::namespaced(self.cluster.client(), namespace);
        let what = format!("the Whitelists of {namespace}");
        let (mut versions, mut bytes) = (BTreeMap::new(), 0);
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let list = self.cluster.list_metadata(&api, &parameters);
            let page = self.cluster.call(Operation::GetWhitelists, &what, list).await?;
            bytes += page.items.iter().map(|whitelist| whitelist.bytes).sum::<usize>();
            versions.extend(page.items.iter().filter_map(|whitelist| named_version(whitelist.meta())));
            // All pages are of one moment: the token says which.
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                _ if bytes > MAXIMUM_METADATA => return Ok(closed(bytes, "metadata", MAXIMUM_METADATA)),
                Some(more) => parameters = parameters.continue_token(&more),
                None => break,
            }
        }
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
        let _turn = self.turns.place(namespace).await;
        let (list, bytes) = self.read_all(namespace, what).await?;
        // Patterns take a while to compile, where there are many.
        let current = tokio::task::spawn_blocking(move || compile_all(list, bytes, &known)).await;
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
        forget_oldest(&mut namespaces);
        Ok(rules)
    }

    /// The Whitelists of a namespace, without their status, and how many bytes they take. Where that is too much, those
    /// that were read until then: the caller sees it by the bytes.
    async fn read_all(&self, namespace: &str, what: &str) -> Result<(Vec<DynamicObject>, usize), ClusterError> {
        let requests = Request::new(Whitelist::url_path(&(), Some(namespace)));
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut parameters = ListParams::default().limit(WHOLE_PAGE);
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
                Some(more) if bytes <= MAXIMUM_RULES => parameters = parameters.continue_token(&more),
                _ => return Ok((all, bytes)),
            }
        }
    }
}

/// A Whitelist, also one that does not decode, without what others may fill.
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

/// The rules of a namespace whose Whitelists are too many or too large to be read: none, and the namespace is closed.
fn closed(bytes: usize, what: &str, most: usize) -> RuleSet {
    let record = ObjectRecord { name: "(all of them)".to_owned(), uid: String::new(), generation: 0 };
    let problem = format!(
        "the {what} of the Whitelists of this namespace take more than {most} bytes together ({bytes} until reading was given up); \
         delete some, or remove labels, annotations and rules"
    );
    RuleSet::new(vec![Arc::new(CompiledWhitelist::unreadable(record, &problem))])
}

/// Keeps what is compiled within its bound: who has not asked for the longest time is forgotten, and read again when he
/// asks.
fn forget_oldest(namespaces: &mut HashMap<String, (Instant, Known)>) {
    let mut total: usize = namespaces.values().map(|(_, known)| known.bytes).sum();
    while total > MAXIMUM_KEPT {
        let oldest = namespaces.iter().min_by_key(|(_, (asked, _))| *asked).map(|(name, _)| name.clone());
        let Some((_, gone)) = oldest.and_then(|oldest| namespaces.remove(&oldest)) else { return };
        total = total.saturating_sub(gone.bytes);
    }
}

fn compile_all(objects: Vec<DynamicObject>, bytes: usize, known: &Known) -> Known {
    let before: HashMap<&str, &Arc<CompiledWhitelist>> =
        known.rules.whitelists().iter().map(|whitelist| (whitelist.record.name.as_str(), whitelist)).collect();
    let (mut versions, mut whitelists) = (BTreeMap::new(), Vec::new());
    if bytes > MAXIMUM_RULES {
        // Not remembered: it is read again as soon as somebody may have mended it.
        return Known { versions, bytes: 0, rules: closed(bytes, "rules", MAXIMUM_RULES) };
    }
    for object in objects {
        let Some((name, version)) = named_version(&object.metadata) else { continue };
        let is_known = known.versions.get(&name) == Some(&version);
        let compiled = before.get(name.as_str()).filter(|_| is_known).map(|compiled| Arc::clone(compiled));
        whitelists.push(compiled.unwrap_or_else(|| Arc::new(compile(object))));
        versions.insert(name, version);
    }
    Known { versions, bytes, rules: RuleSet::new(whitelists) }
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
