//! Compiled Whitelists of one namespace at one moment. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::api::{DynamicObject, ObjectMeta};

use crate::api::Whitelist;
use crate::api::execution_status::ObjectRecord;
use crate::cluster::clock::Moment;
use crate::policy::{self, CompiledWhitelist, RuleSet};

/// Maximum size of a namespace's rules as text, in bytes. A Whitelist has up to 256 rules, which take about 100 KiB.
pub(super) const MAX_RULE_BYTES: usize = 4_194_304;

/// Version of a compiled Whitelist. A change of labels, annotations or status makes no new version, because no rule
/// depends on them. Otherwise each such change would cause a full read of all Whitelists of the namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Version {
    uid: String,
    /// Number that the API server increases with each change of the spec, and when the deletion begins.
    generation: Option<i64>,
    /// Version of the whole object. Used only if the API server sent no generation.
    resource_version: Option<String>,
}

/// Versions of a namespace's Whitelists, by name.
pub(super) type Versions = BTreeMap<String, Version>;

/// All Whitelists of a namespace at one moment.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub versions: Versions,
    /// Size of the rules as text, in bytes.
    pub bytes: usize,
    pub rules: RuleSet,
    /// Start of the latest list that found exactly these versions. The snapshot includes every change that was
    /// committed before this time.
    pub listed: Moment,
}

impl Snapshot {
    /// Compiles the Whitelists of one list. Uses the compiled Whitelists of `before` for unchanged versions. `bytes` is
    /// the size of the rules as text. `listed` is the start of the list.
    pub fn compile(objects: Vec<DynamicObject>, bytes: usize, before: Option<&Self>, listed: Moment) -> Self {
        if bytes > MAX_RULE_BYTES {
            // Contains no versions. The next call therefore reads the Whitelists again, and notices a repair.
            let rules = fail_closed(bytes, "rules", MAX_RULE_BYTES);
            return Self { versions: Versions::new(), bytes: 0, rules, listed };
        }
        let compiled = before.into_iter().flat_map(|before| before.rules.whitelists());
        let compiled: HashMap<&str, &Arc<CompiledWhitelist>> =
            compiled.map(|whitelist| (whitelist.record.name.as_str(), whitelist)).collect();
        let (mut versions, mut whitelists) = (Versions::new(), Vec::new());
        for object in objects {
            let Some((name, version)) = named_version(&object.metadata) else { continue };
            let is_known = before.is_some_and(|before| before.versions.get(&name) == Some(&version));
            let known = compiled.get(name.as_str()).filter(|_| is_known).map(|known| Arc::clone(known));
            whitelists.push(known.unwrap_or_else(|| Arc::new(compile(object))));
            versions.insert(name, version);
        }
        Self { versions, bytes, rules: RuleSet::new(whitelists), listed }
    }
}

/// Returns the name and the version of a Whitelist. Returns `None` if the API server did not send them.
pub(super) fn named_version(metadata: &ObjectMeta) -> Option<(String, Version)> {
    let generation = metadata.generation.filter(|generation| *generation > 0);
    let resource_version = if generation.is_none() { Some(metadata.resource_version.clone()?) } else { None };
    let version = Version { uid: metadata.uid.clone()?, generation, resource_version };
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

/// Returns the rules of a namespace whose Whitelists are too many or too large. These rules allow nothing in the
/// namespace.
pub(super) fn fail_closed(bytes: usize, what: &str, most: usize) -> RuleSet {
    let record = ObjectRecord { name: "(all of them)".to_owned(), uid: String::new(), generation: 0 };
    let problem = format!(
        "the {what} of the Whitelists of this namespace take more than {most} bytes together ({bytes} until reading was given up); \
         delete some, or remove labels, annotations and rules"
    );
    RuleSet::new(vec![Arc::new(CompiledWhitelist::unreadable(record, &problem))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(uid: &str, generation: Option<i64>, resource_version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some("rules".to_owned()),
            uid: Some(uid.to_owned()),
            generation,
            resource_version: Some(resource_version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_change_of_labels_or_status_makes_no_new_version() {
        let before = named_version(&metadata("a", Some(1), "10"));
        assert_eq!(before, named_version(&metadata("a", Some(1), "11")));
    }

    #[test]
    fn a_new_spec_or_a_new_object_of_the_same_name_makes_a_new_version() {
        let before = named_version(&metadata("a", Some(1), "10"));
        assert_ne!(before, named_version(&metadata("a", Some(2), "11")));
        assert_ne!(before, named_version(&metadata("b", Some(1), "11")));
    }

    #[test]
    fn without_a_generation_each_change_makes_a_new_version() {
        for generation in [None, Some(0)] {
            let before = named_version(&metadata("a", generation, "10"));
            assert!(before.is_some());
            assert_ne!(before, named_version(&metadata("a", generation, "11")));
        }
    }
}
