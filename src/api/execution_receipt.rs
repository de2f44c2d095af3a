//! ExecutionReceipt: the record of an execution that Writ deleted when its TTL expired. As long as the receipt exists,
//! the same manifest does not run again.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Phase, Reason};

/// Record of a CommandExecution that Writ deleted when its TTL expired. As long as the receipt exists, another
/// execution of the same name and spec does not run. The other execution finishes at once, in the phase of the first
/// execution, with reason AlreadyExecuted.
///
/// Only Writ writes receipts, and receipts do not expire. If somebody deletes an execution of this name and spec by
/// hand, Writ also deletes the receipt. If you delete the receipt yourself, an execution of this name and spec runs
/// again.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "ExecutionReceipt",
    plural = "executionreceipts",
    shortname = "cmdrcpt",
    category = "writ",
    namespaced,
    derive = "PartialEq",
    doc = "What remains of a CommandExecution that was deleted when its TTL expired: as long as the receipt exists, another one of the same name and spec does not run. Only Writ writes it.",
    printcolumn(name = "Execution", type_ = "string", json_path = ".spec.executionName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.phase"),
    printcolumn(name = "First-UID", type_ = "string", json_path = ".spec.uid"),
    printcolumn(name = "Completed", type_ = "date", json_path = ".spec.completionTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Machine", type_ = "string", json_path = ".spec.machine", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".spec.exitCode", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionReceiptSpec {
    /// Name of the CommandExecution, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub execution_name: String,

    /// SHA-256 of the execution's spec, in lower case hexadecimal. The input is the JSON of the spec with sorted keys
    /// and without spaces. The JSON omits absent fields, empty maps, `requestedBy`, `cancelRequested`, `cancelledBy`,
    /// `ttlSecondsAfterFinished` and `whenOffline: Wait`. If an execution of the same name has another digest, the
    /// receipt does not apply, and the execution runs.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub digest: String,

    /// UID of the first execution of this name and spec. Writ decided only about this execution. The command ran only
    /// if a rule allowed this execution.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// Phase in which the first execution finished. Later executions of the same name and spec finish in this phase
    /// too.
    pub phase: Phase,

    /// Reason of the first execution (see `status.reason` of a CommandExecution).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,

    /// Exit code of the first execution, 0 to 4294967295. Absent if the machine reported no exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,

    /// Time at which the machine confirmed the start of the first execution, by Writ's clock. Absent if Writ observed
    /// no start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// Time at which the first execution finished, by Writ's clock.
    pub completion_time: MicroTime,

    /// UID of the last execution of this name and spec that Writ deleted when its TTL expired. At first the same as
    /// `uid`. Only this field of a receipt changes. If somebody deletes an execution with another UID by hand, Writ
    /// also deletes this receipt, so that the command can run again.
    #[schemars(length(min = 1, max = 64))]
    pub expired_uid: String,

    /// Name of the Machine of the execution.
    #[schemars(length(min = 1, max = 253))]
    pub machine: String,

    /// UID of the Machine to which the first execution was sent. Absent if the execution was never claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub machine_uid: Option<String>,

    /// Creator of the first execution (`spec.requestedBy`). Absent if the API server did not record the creator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<ReceiptRequester>,

    /// Name of the Whitelist with the rule that allowed the first execution. Absent if no rule allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub whitelist: Option<String>,

    /// Name of the rule that allowed the first execution. Absent if no rule allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub rule: Option<String>,

    /// SHA-256 of the argument vector of the first execution (`status.decision.argv`), in lower case hexadecimal. The
    /// input is the JSON of the argument vector without spaces. To compute it: `jq -cnj '["/bin/echo", "hello"]' |
    /// sha256sum`. Absent if no rule allowed the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub argv_digest: Option<String>,
}

/// Requester of an execution, as a receipt records it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptRequester {
    /// User name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// User ID from the authenticator. Empty if the authenticator provides none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,
}

/// Earlier execution of the same name and spec, because of which the later execution does not run.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstExecution {
    /// UID of the earlier execution.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// Time at which the earlier execution finished, by Writ's clock.
    pub completion_time: MicroTime,

    /// Exit code of the earlier execution, 0 to 4294967295. Absent if the machine reported no exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,
}
