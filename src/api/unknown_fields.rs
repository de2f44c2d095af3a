//! Keeps fields that only a later version of Writ knows. The kinds that grant rights (Machine and Whitelist) keep these
//! fields, so that a rollback to an earlier version never widens a right.

use std::collections::BTreeMap;

/// Fields that this version does not know, by name.
pub type UnknownFields = BTreeMap<String, serde_json::Value>;
