//! Checks manifests against the schema of the CRD, as the API server does.
//!
//! # Guarantees
//! If no problem is found, the API server accepts the manifest. A test checks that this module knows every keyword and
//! every CEL rule of the schema.
//!
//! # Caveats
//! Admission policies of the cluster are not checked. `docs/design/20261130-reads-as-kubectl.md` explains why this
//! module does not use a library.

mod metadata;
mod validator;
mod words;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::api::crds;

use super::manifest::{Content, Node};
use validator::Validator;

pub use validator::{Kind, Problem};
pub(super) use words::shortened;

/// Schema of a Whitelist of `writ.dev/v1alpha1`, as in `crds/whitelists.yaml`.
static WHITELIST: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    let definitions = crds::all().into_iter().map(|(_, definition)| definition);
    let whitelist = definitions.filter(|definition| definition.spec.names.kind == "Whitelist");
    let schema = whitelist.flat_map(|definition| definition.spec.versions).find_map(|version| version.schema);
    schema.and_then(|schema| schema.open_api_v3_schema).unwrap_or_default()
});

/// Returns the problems of a Whitelist, sorted by line.
pub fn problems(object: &Node) -> Vec<Problem> {
    let mut validator = Validator::default();
    metadata::check(object, &mut validator);
    // The status is not checked, because the API server ignores the status of a manifest.
    validator.fields("", object, &WHITELIST, &["apiVersion", "kind", "metadata", "status"]);
    validator.found.sort_by_key(|problem| problem.line);
    validator.found
}

/// Returns the Whitelist as the API server stores it, without null values in fields that the schema knows.
pub fn stored(object: &Node) -> Value {
    without_nulls(object, &WHITELIST)
}

fn without_nulls(node: &Node, schema: &JSONSchemaProps) -> Value {
    let of_field = |key: &str| {
        let of_values = match &schema.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(of_values)) => Some(of_values.as_ref()),
            _ => None,
        };
        schema.properties.as_ref().and_then(|properties| properties.get(key)).or(of_values)
    };
    match (&node.content, &schema.items) {
        (Content::Map(entries), _) => {
            let fields = entries.iter().filter_map(|entry| match (of_field(&entry.key), &entry.node) {
                (Some(_), node) if node.is_null() => None,
                (Some(of_field), node) => Some((entry.key.clone(), without_nulls(node, of_field))),
                (None, node) => Some((entry.key.clone(), node.value())),
            });
            Value::Object(fields.collect())
        }
        (Content::List(items), Some(JSONSchemaPropsOrArray::Schema(of_items))) => {
            Value::Array(items.iter().map(|item| without_nulls(item, of_items)).collect())
        }
        _ => node.value(),
    }
}

#[cfg(test)]
mod tests;
