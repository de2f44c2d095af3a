//! Fields of a later version. The kinds that grant rights keep them, so that a rollback does not widen a right.

use std::collections::BTreeMap;

/// Fields that this version does not know, by name.
pub type UnknownFields = BTreeMap<String, serde_json::Value>;
