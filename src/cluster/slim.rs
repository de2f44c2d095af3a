//! Objects in watches and lists: only name, version and size. Writ reads the content live when it is needed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Deserializer};

use super::lean::Counted;

/// Maximum number of objects in a page of a list. An object takes up to 1.5 MiB, so a page takes up to 15 MiB.
pub const PAGE: u32 = 10;

/// An object of kind `K` with only its name, version and times. Takes about 500 bytes.
pub struct Slim<K> {
    pub(super) metadata: ObjectMeta,
    /// Approximate size of the whole object in bytes.
    pub bytes: usize,
    /// Hash of the object's labels.
    pub labels: u64,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Slim<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), bytes: self.bytes, labels: self.labels, kind: PhantomData }
    }
}

impl<K> fmt::Debug for Slim<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metadata, bytes, .. } = self;
        write!(formatter, "Slim({:?}/{:?}, {bytes} bytes)", metadata.namespace, metadata.name)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Counted,
    annotations: Counted,
    finalizers: Counted,
    managed_fields: Counted,
    owner_references: Counted,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Counted,
    #[serde(default)]
    status: Counted,
}

impl<'de, K> Deserialize<'de> for Slim<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata, spec, status } = Object::deserialize(deserializer)?;
        let parts = [
            metadata.labels,
            metadata.annotations,
            metadata.finalizers,
            metadata.managed_fields,
            metadata.owner_references,
            spec,
            status,
        ];
        Ok(Self {
            bytes: parts.iter().map(|part| part.bytes).sum(),
            labels: metadata.labels.hash,
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                generation: metadata.generation,
                creation_timestamp: metadata.creation_timestamp,
                deletion_timestamp: metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
            kind: PhantomData,
        })
    }
}

impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>> Resource for Slim<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Implements [`Resource`] for a type that holds a part of a CommandExecution. The second argument is the path of its
/// metadata.
macro_rules! execution_resource {
    ($type:ty, $($metadata:ident).+) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                crate::api::CommandExecution::kind(&())
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                crate::api::CommandExecution::group(&())
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                crate::api::CommandExecution::version(&())
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                crate::api::CommandExecution::plural(&())
            }

            fn meta(&self) -> &kube::api::ObjectMeta {
                &self.$($metadata).+
            }

            fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
                &mut self.$($metadata).+
            }
        }
    };
}
pub(crate) use execution_resource;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Machine;

    #[test]
    fn an_object_is_known_by_its_name_its_size_and_a_hash_of_its_labels() {
        let object = |labels: serde_json::Value| {
            let metadata = json!({"name": "x", "namespace": "team", "uid": "u", "generation": 2, "labels": labels,
                "annotations": {"a": "y".repeat(5000)}});
            let text =
                json!({"apiVersion": "v", "kind": "Machine", "metadata": metadata, "spec": {"strange": [1, "z"]}});
            serde_json::from_str::<Slim<Machine>>(&text.to_string()).unwrap()
        };
        let (one, same, other) = (object(json!({"a": "b"})), object(json!({"a": "b"})), object(json!({"a": "c"})));
        assert_eq!((one.labels == same.labels, one.labels == other.labels), (true, false));
        assert!(one.bytes > 5000 && one.meta().annotations.is_none() && one.meta().labels.is_none());
        assert_eq!((one.meta().name.as_deref(), one.meta().generation), (Some("x"), Some(2)));
    }
}
