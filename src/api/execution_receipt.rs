//! ExecutionReceipt: what stays of an execution that its time to live has deleted, so that it is not run again.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Phase, Reason};

/// What stays of a CommandExecution that was deleted because its time to live was over. While it is there, another one of
/// the same name and spec is not run: it ends at once, with the phase of the first and reason AlreadyExecuted. Written by
/// Writ alone, and never removed by time. It is deleted with an execution of this name and spec that somebody deletes
/// themselves; deleting it by hand lets such an execution run again.
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
    doc = "What stays of a CommandExecution that its time to live deleted: while it is there, another one of the same name and spec is not run. Written by Writ.",
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

    /// SHA-256 of the execution's spec, in lower case hexadecimal: of its JSON, keys sorted, no blanks, without
    /// `requestedBy`, `cancelRequested`, `cancelledBy` and `ttlSecondsAfterFinished`, and without what is absent or an empty
    /// map. An execution of the same name with another spec is another one, and runs.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub digest: String,

    /// UID of the first execution of this name and spec: the one that was really handled.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// The phase in which the first one finished. Another one of the same name and spec ends in it too.
    pub phase: Phase,

    /// Why the first one finished so, in one word (see `status.reason` of a CommandExecution).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,

    /// The exit code of the first one, 0 to 4294967295. Absent where none was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,

    /// When the machine confirmed the start of the first one, by Writ's clock. Absent where no start was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// When the first one finished, by Writ's clock.
    pub completion_time: MicroTime,

    /// UID of the last execution of this name and spec that its time to live deleted; `uid` at first. The only field that
    /// changes. One that is deleted and is not named here was deleted by somebody, who may want it to run again: this
    /// receipt then goes with it.
    #[schemars(length(min = 1, max = 64))]
    pub expired_uid: String,

    /// Name of the Machine that it was for.
    #[schemars(length(min = 1, max = 253))]
    pub machine: String,

    /// UID of the Machine that the first one was sent to. Absent if it was never claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub machine_uid: Option<String>,

    /// Who created the first one (`spec.requestedBy`). Absent if the API server did not say who that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<ReceiptRequester>,

    /// Name of the Whitelist with the rule that allowed the first one. Absent if no rule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub whitelist: Option<String>,

    /// Name of the rule that allowed the first one. Absent if no rule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub rule: Option<String>,

    /// SHA-256 of the argument vector of the first one (`status.decision.argv`), in lower case hexadecimal: of its JSON
    /// without blanks. To compute it: `jq -cnj '["/bin/echo", "hello"]' | sha256sum`. Absent if no rule allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub argv_digest: Option<String>,
}

/// Who asked, as far as a receipt says it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptRequester {
    /// The user name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// The authenticator's own identifier of the user; empty if there is none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,
}

/// The execution of the same name and spec that was handled before this one, and why this one is not run.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstExecution {
    /// Its UID.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// When it finished, by Writ's clock.
    pub completion_time: MicroTime,

    /// The exit code that its machine reported, 0 to 4294967295. Absent where none was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub exit_code: Option<i64>,
}
