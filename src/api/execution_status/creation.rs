//! Record of the metadata of an execution at its creation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Metadata of an execution at its creation. Anyone who may patch executions may change the metadata later.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationRecord {
    /// True if the API server or Argo CD generated the name (`metadata.generateName`). A generated name is not used
    /// again, so there is no ExecutionReceipt.
    pub name_generated: bool,
    /// True if the execution is a copy from a backup or an export, so that its command may have run already (annotation
    /// `writ.dev/restored`).
    #[serde(default)]
    pub restored_copy: bool,
    /// True if the creator wants such a copy to run (annotation `writ.dev/run-again`).
    #[serde(default)]
    pub run_again: bool,
}
