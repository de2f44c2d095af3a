//! Messages about values that do not match the schema.

use crate::cli::manifest::Content;

/// Returns a message about a value of the wrong type, with the correct notation.
pub(super) fn of_type(wanted: &str, content: &Content) -> String {
    let kind = match wanted {
        "string" => "a string",
        "array" => "a list",
        "object" => "a map",
        "integer" => "a whole number",
        _ => "true or false",
    };
    match content {
        Content::Bool(_, written) if wanted == "string" => {
            format!("the bare word {written} is a boolean for kubectl; quote it: \"{written}\"")
        }
        Content::Number(_, written) if wanted == "string" => {
            format!("the bare word {written} is a number for kubectl; quote it: \"{written}\"")
        }
        Content::Null if wanted == "string" => {
            "must be a string, but is nothing (null) for kubectl; quote the intended text: \"\"".to_owned()
        }
        Content::Text(text) if matches!(wanted, "integer" | "boolean") => {
            format!("must be {kind}, but is the text {:?}; remove the quotes if it is one", shortened(text))
        }
        Content::Text(text) => format!("must be {kind}, but is the text {:?}", shortened(text)),
        Content::Null => format!("must be {kind}, but is nothing (null)"),
        Content::Bool(value, _) => format!("must be {kind}, but is {value}"),
        Content::Number(number, _) => format!("must be {kind}, but is {number}"),
        Content::List(_) => format!("must be {kind}, but is a list"),
        Content::Map(_) => format!("must be {kind}, but is a map; quote it if {{ and }} belong to a text"),
    }
}

/// Returns a message about a length outside its limits, or `None` if the length is within the limits.
pub(super) fn outside(length: usize, least: Option<i64>, most: Option<i64>, of: &str) -> Option<String> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let bounds = match (least, most) {
        (Some(least), _) if length < least => format!("at least {least}"),
        (_, Some(most)) if length > most => format!("at most {most}"),
        _ => return None,
    };
    Some(format!("must have {bounds} {of}, but has {length}"))
}

/// Patterns of the CRD, each with its description for messages.
pub(super) const PATTERNS: &[(&str, &str)] = &[
    ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "lower case letters, digits and `-`, and begin and end with a letter or digit"),
    (
        "^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        "lower case letters, digits, `-` and `_`, and begin and end with a letter or digit",
    ),
    ("^[ -~]+$", "printable ASCII characters"),
    ("^[ -~]*$", "printable ASCII characters"),
    ("^/[ -~]*$", "printable ASCII characters, and begin with /"),
    (crate::api::USER_NAME, "the characters of a user name, which is no number"),
];

/// Returns a message about a text that does not match the pattern of its field.
pub(super) fn of_pattern(pattern: &str, text: &str) -> String {
    match PATTERNS.iter().find(|(known, _)| *known == pattern) {
        Some((_, meaning)) => format!("must have {meaning}, but is {:?}", shortened(text)),
        None => format!("must match {pattern}, but is {:?}", shortened(text)),
    }
}

/// Shortens a value for a message. The user recognizes the value by its start.
pub(in crate::cli) fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
