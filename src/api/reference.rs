//! References between objects. A reference stays in the namespace of its object, so an object of one team cannot refer
//! to an object of another team.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reference to an object in the same namespace. The kind of the object depends on the field with the reference.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NameReference {
    /// Name of the object, in this namespace: lower case letters, digits, `-` and `.`, at most 253 characters.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')", "message": "must be the name of an object in this namespace: lower case letters, digits, - and ., with a letter or digit first and last; without a namespace and a line break"},
    ]))]
    pub name: String,
}

impl NameReference {
    /// Returns a reference to `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
