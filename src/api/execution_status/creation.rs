//! Record of the metadata of an execution at its creation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts from the metadata of an execution at its creation. Writ records these facts, because anyone who may patch
/// executions may change the metadata later.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationRecord {
    /// True if the API server or Argo CD generated the name (`metadata.generateName`). A generated name is not used
    /// again, so Writ writes no ExecutionReceipt.
    pub name_generated: bool,
    /// True if the execution is a copy from a backup or an export (annotation `writ.dev/restored`). The command of a
    /// copy has perhaps run already.
    #[serde(default)]
    pub restored_copy: bool,
    /// True if the creator requested that the command of a restored copy runs (annotation `writ.dev/run-again`).
    #[serde(default)]
    pub run_again: bool,
}
