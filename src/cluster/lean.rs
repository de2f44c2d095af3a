//! Decodes objects with reduced metadata. Users can make some parts large: labels, annotations, finalizers, managed
//! fields and owners. The decoder measures the size of these parts, then drops most of their content.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::api::{AUDIT_FINALIZER, CommandExecution, CommandExecutionSpec, CommandExecutionStatus};
use crate::execution::ObjectSize;

/// Prefix of Writ's own annotations. The decoder keeps all annotations with this prefix, so that a user cannot hide an
/// annotation behind many others. The API server stores at most 256 KiB of annotations per object.
const OWN_ANNOTATIONS: &str = "writ.dev/";
/// Annotation of `kubectl apply`. The decoder keeps the key, but not the value.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Maximum number of kept finalizers of an object, except Writ's own. Also the maximum number of kept `Apply` entries,
/// and of kept `Update` entries, in `metadata.managedFields`.
const MAX_KEPT_ENTRIES: usize = 32;
/// Maximum length of a kept annotation value, in bytes. The values of Writ's own annotations are single words.
const MAX_KEPT_VALUE_BYTES: usize = 1024;

/// Size and hash of a JSON value. The value itself is dropped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counted {
    /// Approximate length of the value as text, in bytes.
    pub bytes: usize,
    /// Hash of the content. The order of keys changes the hash, but the API server always sorts the keys of maps.
    pub hash: u64,
}

impl Counted {
    fn of(bytes: usize, content: impl std::hash::Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self { bytes, hash: hasher.finish() }
    }

    fn with(self, other: Self) -> Self {
        Self::of(self.bytes + other.bytes + 1, (self.hash, other.hash))
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountingVisitor)
    }
}

struct CountingVisitor;

impl<'de> Visitor<'de> for CountingVisitor {
    type Value = Counted;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Counted, E> {
        Ok(Counted::of(5, value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Counted, E> {
        Ok(Counted::of(8, value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Counted, E> {
        Ok(Counted::of(8, value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Counted, E> {
        Ok(Counted::of(8, value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Counted, E> {
        Ok(Counted::of(value.len() + 2, value))
    }

    fn visit_unit<E>(self) -> Result<Counted, E> {
        Ok(Counted::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Counted, A::Error> {
        let mut all = Counted { bytes: 1, hash: 0 };
        while let Some(item) = items.next_element::<Counted>()? {
            all = all.with(item);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Counted, A::Error> {
        let mut all = Counted { bytes: 1, hash: 1 };
        while let Some((key, value)) = entries.next_entry::<Counted, Counted>()? {
            all = all.with(key).with(value);
        }
        Ok(all)
    }
}

/// Metadata without most of the parts that users can make large.
#[derive(Clone, Debug, Default)]
pub struct LeanMetadata {
    /// Names, versions, times, Writ's own annotations and finalizer, and a limited number of other finalizers and field
    /// managers. Contains no labels and no owners.
    pub kept: ObjectMeta,
    /// Sizes of the parts of the metadata. `total` is 0, because the size of the whole object is not known here.
    pub size: ObjectSize,
    /// Index of Writ's finalizer in the object's complete list of finalizers.
    pub audit_finalizer: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generate_name: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Counted,
    annotations: Annotations,
    finalizers: Finalizers,
    managed_fields: Managers,
    owner_references: Counted,
}

impl<'de> Deserialize<'de> for LeanMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let some = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
        Ok(Self {
            size: ObjectSize {
                total: 0,
                labels: raw.labels.bytes,
                annotations: raw.annotations.bytes,
                finalizers: raw.finalizers.bytes,
                managed_fields: raw.managed_fields.bytes,
                owner_references: raw.owner_references.bytes,
            },
            audit_finalizer: raw.finalizers.audit,
            kept: ObjectMeta {
                name: raw.name,
                namespace: raw.namespace,
                uid: raw.uid,
                generate_name: raw.generate_name,
                resource_version: raw.resource_version,
                generation: raw.generation,
                creation_timestamp: raw.creation_timestamp,
                deletion_timestamp: raw.deletion_timestamp,
                annotations: Some(raw.annotations.kept).filter(|kept| !kept.is_empty()),
                finalizers: some(raw.finalizers.kept),
                managed_fields: Some(raw.managed_fields.kept).filter(|kept| !kept.is_empty()),
                ..ObjectMeta::default()
            },
        })
    }
}

#[derive(Default)]
struct Annotations {
    kept: BTreeMap<String, String>,
    bytes: usize,
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;
        impl<'de> Visitor<'de> for Keep {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("annotations")
            }

            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Annotations, A::Error> {
                let mut all = Annotations::default();
                while let Some(key) = entries.next_key::<String>()? {
                    all.bytes += key.len() + 4;
                    if key.starts_with(OWN_ANNOTATIONS) {
                        let mut value = entries.next_value::<String>()?;
                        all.bytes += value.len() + 2;
                        value.truncate(value.floor_char_boundary(MAX_KEPT_VALUE_BYTES));
                        value.shrink_to_fit();
                        all.kept.insert(key, value);
                    } else {
                        all.bytes += entries.next_value::<Counted>()?.bytes;
                        if key == LAST_APPLIED {
                            all.kept.insert(key, String::new());
                        }
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(Keep)
    }
}

#[derive(Default)]
struct Finalizers {
    kept: Vec<String>,
    audit: Option<usize>,
    bytes: usize,
}

impl<'de> Deserialize<'de> for Finalizers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        let mut index = 0;
        each(deserializer, |name: String| {
            all.bytes += name.len() + 3;
            if name == AUDIT_FINALIZER {
                all.audit = Some(index);
            }
            if all.kept.len() < MAX_KEPT_ENTRIES || name == AUDIT_FINALIZER {
                all.kept.push(name);
            }
            index += 1;
        })?;
        Ok(all)
    }
}

#[derive(Default)]
struct Managers {
    kept: Vec<ManagedFieldsEntry>,
    bytes: usize,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manager {
    manager: Option<String>,
    operation: Option<String>,
    subresource: Option<String>,
    time: Option<Time>,
    fields_v1: Counted,
}

impl<'de> Deserialize<'de> for Managers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        each(deserializer, |entry: Manager| {
            // Adds 128 bytes, an estimate for the field names and the times.
            all.bytes += entry.fields_v1.bytes + entry.manager.as_ref().map_or(0, String::len) + 128;
            if all.kept.iter().filter(|kept| kept.operation == entry.operation).count() < MAX_KEPT_ENTRIES {
                let Manager { manager, operation, subresource, time, .. } = entry;
                all.kept.push(ManagedFieldsEntry { manager, operation, subresource, time, ..Default::default() });
            }
        })?;
        Ok(all)
    }
}

/// Decodes a list and passes each item to `take`. `null` counts as an empty list.
fn each<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D, take: impl FnMut(T)) -> Result<(), D::Error> {
    struct Each<T, F>(F, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_unit<E: de::Error>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
            while let Some(item) = items.next_element()? {
                (self.0)(item);
            }
            Ok(())
        }
    }
    deserializer.deserialize_any(Each(take, std::marker::PhantomData))
}

/// An execution with [`LeanMetadata`].
#[derive(Deserialize)]
pub struct LeanExecution {
    metadata: LeanMetadata,
    spec: CommandExecutionSpec,
    #[serde(default)]
    status: Option<CommandExecutionStatus>,
}

impl LeanExecution {
    /// Returns the execution and its size. `total` is the length of the JSON text in bytes.
    pub fn with_size(self, total: usize) -> (CommandExecution, ObjectSize) {
        let Self { metadata, spec, status } = self;
        (CommandExecution { metadata: metadata.kept, spec, status }, ObjectSize { total, ..metadata.size })
    }
}

#[cfg(test)]
mod tests;
