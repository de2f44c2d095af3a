//! References between objects. They never leave the namespace: an object of one team cannot name another team's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names one object of a kind that the field fixes, in the namespace of the object that refers to it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NameReference {
    /// Name of the object, in this namespace: lower case letters, digits, `-` and `.`, at most 253 characters.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')", "message": "must be the name of an object in this namespace: lower case letters, digits, - and ., with a letter or digit first and last; without a namespace and a line break"},
    ]))]
    pub name: String,
}

impl NameReference {
    /// A reference to `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
