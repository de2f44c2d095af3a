//! Record of the decision: the rule, and the exact command.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which rule allowed an execution, and what exactly was to be executed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// The Whitelist of the rule, as it was at the decision.
    pub whitelist: ObjectRecord,
    /// Name of the rule.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// The argument vector, word for word.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub argv: Vec<String>,
    /// The rule's `actionType`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub action_type: String,
    /// The user to run as, by sudo. Absent: the login user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub run_as: Option<String>,
    /// The folder to run in. Absent: the login directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub working_directory: Option<String>,
    /// Environment variables, beside those that are always set (PATH and LC_ALL).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub environment: BTreeMap<String, String>,
    /// How long the command may take, in seconds.
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    /// Whether it may be given a terminal and standard input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// How much output is kept and allowed.
    #[serde(default)]
    pub output: OutputBounds,
    /// The patterns by which output is redacted before it is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)))]
    pub redact: Vec<String>,
    /// Seconds after its end for which the record is kept at least, as the rule says. Absent: as the installation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,
    /// SHA-256 of all of the above, as `sha256:` and lower case hexadecimal: of the JSON of this object without
    /// `digest` and `decidedTime`, keys sorted, no blanks. To check it:
    /// `kubectl get cmdexec NAME -o json | jq -cSj '.status.decision | del(.digest, .decidedTime)' | sha256sum`.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub digest: String,
    /// When it was decided, by Writ's clock.
    pub decided_time: MicroTime,
}

/// Limits on the output of one command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputBounds {
    /// How much of each stream the status shows, as encoded in JSON.
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: u32,
    /// How much the command may write to both streams together.
    #[schemars(range(min = 0))]
    pub maximum_bytes: i64,
    /// Seconds that Writ waits after the command's exit while other processes still hold its output open, 0 to 60.
    /// Default 2, also for decisions of versions without this field.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: u32,
}

impl Default for OutputBounds {
    /// The limits of a rule without `output`: 8 KiB shown of each stream, 64 MiB in all, 2 s of waiting.
    fn default() -> Self {
        Self { inline_bytes: 8192, maximum_bytes: 67_108_864, drain_seconds: default_drain_seconds() }
    }
}

/// Default of `drainSeconds`, in seconds: short for a requester, long for the last output of an ending service.
fn default_drain_seconds() -> u32 {
    2
}

/// One object at one moment.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRecord {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID: another object of the same name has another one.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its generation: every change of its spec counts one up.
    pub generation: i64,
}
