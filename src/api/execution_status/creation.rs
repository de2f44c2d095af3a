//! What is true of an execution from its creation on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the metadata of an execution said at its creation. Whoever may patch executions may change metadata later.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationRecord {
    /// Whether the API server or Argo CD made its name up (`metadata.generateName`). Such a name does not come again, so
    /// there is no ExecutionReceipt.
    pub name_generated: bool,
    /// Whether it is a copy of an execution that may have run already, from a backup or an export (annotation
    /// `writ.dev/restored`).
    #[serde(default)]
    pub restored_copy: bool,
    /// Whether its creator said that such a copy is to run (annotation `writ.dev/run-again`).
    #[serde(default)]
    pub run_again: bool,
}
