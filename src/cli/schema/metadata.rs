//! Checks `metadata` as the API server does. The schema of a CRD does not contain these checks.

use super::validator::{Kind, Validator};
use super::words::shortened;
use crate::api::metadata::{Metadata, metadata_problems};
use crate::cli::manifest::{Content, Node};

/// Fields of an ObjectMeta. kubectl refuses other fields.
const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Maximum length of a DNS subdomain. The name of an object must be a DNS subdomain.
const LONGEST_NAME: usize = 253;
/// Maximum length of a DNS label, such as the name of a namespace. The value of a Kubernetes label has the same limit.
/// The part after the `/` in the key of a Kubernetes label also has this limit.
const LONGEST_LABEL: usize = 63;

pub(super) fn check(object: &Node, validator: &mut Validator) {
    let Some(metadata) = object.get("metadata") else {
        return validator.say("metadata.name", object.line, Kind::Bound, "it is missing: give the Whitelist a name");
    };
    if !matches!(metadata.content, Content::Map(_)) {
        return validator.say("metadata", metadata.line, Kind::Type, "it must be a map");
    }
    for (index, entry) in metadata.entries().iter().enumerate() {
        validator.key("metadata", entry, metadata.entries().get(..index).unwrap_or_default(), true);
        if !FIELDS.contains(&entry.key.as_str()) {
            let path = format!("metadata.{}", entry.key);
            validator.say(&path, entry.line, Kind::Bound, "there is no such field; is it misspelt?");
        }
    }
    let name = text(metadata, "name", validator);
    let generated = text(metadata, "generateName", validator);
    if name.is_none() && generated.is_none() && metadata.get("name").is_none() {
        validator.say("metadata.name", metadata.line, Kind::Bound, "it is missing: give the Whitelist a name");
    }
    if let Some(name) = name.filter(|name| !is_subdomain(name)) {
        let message = format!(
            "it must have at most {LONGEST_NAME} lower case letters, digits, `-` and `.`, and begin and end with a letter or digit, but is {:?}",
            shortened(&name)
        );
        validator.say("metadata.name", metadata.line_of("name"), Kind::Bound, message);
    }
    if let Some(namespace) = text(metadata, "namespace", validator).filter(|namespace| !is_label(namespace)) {
        let message = format!(
            "must have at most {LONGEST_LABEL} lower case letters, digits and `-`, and begin and end with a letter or digit, but is {:?}",
            shortened(&namespace)
        );
        validator.say("metadata.namespace", metadata.line_of("namespace"), Kind::Bound, message);
    }
    let (labels, annotations) = (labels(metadata, validator), annotations(metadata, validator));
    let borrowed =
        |pairs| <[(String, String, usize)]>::iter(pairs).map(|(key, value, _)| (key.as_str(), value.as_str()));
    let finalizers = metadata.get("finalizers").map(Node::items).unwrap_or_default();
    let bounded = Metadata {
        labels: borrowed(&labels).collect(),
        annotations: borrowed(&annotations).collect(),
        finalizers: finalizers.iter().filter_map(Node::text).collect(),
    };
    for problem in metadata_problems(&bounded) {
        let path = format!("metadata.{}", problem.field);
        validator.say(&path, metadata.line_of(problem.field), Kind::Bound, problem.message);
    }
}

/// Returns the text of a field. If the field is not a string, reports a problem.
fn text(metadata: &Node, field: &str, validator: &mut Validator) -> Option<String> {
    let node = metadata.get(field)?;
    let text = node.text().map(str::to_owned);
    if text.is_none() {
        let message = super::words::of_type("string", &node.content);
        validator.say(&format!("metadata.{field}"), node.line, Kind::Type, message);
    }
    text
}

fn labels(metadata: &Node, validator: &mut Validator) -> Vec<(String, String, usize)> {
    let pairs = pairs(metadata, "labels", validator);
    for (key, value, line) in &pairs {
        let path = format!("metadata.labels.{key}");
        if !is_qualified(key) {
            validator.say(&path, *line, Kind::Bound, "not a valid name of a label");
        }
        if !value.is_empty() && !is_value(value) {
            let message = format!(
                "must have at most {LONGEST_LABEL} letters, digits, `-`, `_` and `.`, and begin and end with a letter or digit, but is {:?}",
                shortened(value)
            );
            validator.say(&path, *line, Kind::Bound, message);
        }
    }
    pairs
}

fn annotations(metadata: &Node, validator: &mut Validator) -> Vec<(String, String, usize)> {
    let pairs = pairs(metadata, "annotations", validator);
    for (key, _, line) in &pairs {
        if !is_qualified(&key.to_lowercase()) {
            validator.say(
                &format!("metadata.annotations.{key}"),
                *line,
                Kind::Bound,
                "not a valid name of an annotation",
            );
        }
    }
    pairs
}

/// Returns the entries of a map of strings: key, value and line.
fn pairs(metadata: &Node, field: &str, validator: &mut Validator) -> Vec<(String, String, usize)> {
    let Some(map) = metadata.get(field) else { return Vec::new() };
    if !matches!(map.content, Content::Map(_)) {
        validator.say(&format!("metadata.{field}"), map.line, Kind::Type, "it must be a map of strings");
    }
    let mut pairs = Vec::new();
    for (index, entry) in map.entries().iter().enumerate() {
        let path = format!("metadata.{field}");
        validator.key(&path, entry, map.entries().get(..index).unwrap_or_default(), true);
        match (&entry.node.content, entry.node.text()) {
            (_, Some(value)) => pairs.push((entry.key.clone(), value.to_owned(), entry.line)),
            (Content::Null, _) => pairs.push((entry.key.clone(), String::new(), entry.line)),
            (content, None) => {
                let message = super::words::of_type("string", content);
                validator.say(&format!("{path}.{}", entry.key), entry.line, Kind::Type, message);
            }
        }
    }
    pairs
}

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_LABEL).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    // Only the whole subdomain has a length limit, not its parts.
    let is_part = |part: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    (1..=LONGEST_NAME).contains(&text.len()) && text.split('.').all(is_part)
}

fn is_value(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LONGEST_LABEL
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Returns true if the text is a valid key of a label, with or without a prefix, for example `app` or
/// `example.com/app`.
fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_value(name),
        None => is_value(text),
    }
}
