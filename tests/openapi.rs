//! The OpenAPI document: `docs/openapi.json` is the document that the gateway serves. With `WRIT_WRITE=1` (`make
//! generate`), the test writes the file.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets an impossible state has to fail"
)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Methods of an OpenAPI path. Other keys of a path are not operations.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn document() -> String {
    writ::gateway::openapi_json().expect("a document")
}

/// Returns path, method and content of each operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let methods = METHODS.iter().filter_map(|method| Some((*method, item.get(method)?.clone())));
        methods.map(|(method, operation)| (path.clone(), method.to_owned(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let document = document();
    if std::env::var_os("WRIT_WRITE").is_some() {
        std::fs::write(&path, &document).expect("docs/openapi.json is writable");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == document, "docs/openapi.json is not the served document; run `make generate` and commit it");
}

#[test]
fn the_document_has_version_and_security_and_each_operation_is_described() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["api_key"]["name"], "X-API-Key");
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    assert_eq!(document["security"].as_array().map(Vec::len), Some(3), "each of the three credentials is enough");
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(operation["summary"].is_string(), "{name} has no summary");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name} needs one tag");
        // An operation whose own security is empty needs no credential.
        let is_public = operation["security"] == serde_json::json!([{}]);
        assert!(is_public || operation["responses"]["401"].is_object(), "{name} does not document 401");
        let id = operation["operationId"].as_str().expect("an operationId").to_owned();
        assert!(ids.insert(id.clone()), "{name}: another operation has the operationId {id}; rename its function");
    }
    assert!(ids.len() >= 7, "{ids:?}");
}

#[test]
fn each_reference_in_the_document_has_its_target() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(target.is_some(), "{reference} does not exist");
    }
}
