//! Record of the decision: the rule, and the exact command.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rule that allowed an execution, and the exact command.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// Whitelist of the rule, as it was at the decision.
    pub whitelist: ObjectRecord,
    /// Name of the rule.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// Exact argument vector of the command.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub argv: Vec<String>,
    /// The rule's `actionType`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub action_type: String,
    /// User that runs the command, by sudo. If absent, the login user runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub run_as: Option<String>,
    /// Working directory of the command. If absent, the login directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub working_directory: Option<String>,
    /// Environment variables of the command. PATH and LC_ALL are always set in addition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub environment: BTreeMap<String, String>,
    /// Timeout of the command, in seconds from its start, 1 to 86400.
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    /// True if the rule allows a terminal and standard input for the command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// True if the rule makes the recording of a session contain the input. Else the recording has the time and the
    /// size of each input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_input: bool,
    /// Limits on the output.
    #[serde(default)]
    pub output: OutputBounds,
    /// Patterns for text in the output that Writ redacts before it stores the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)))]
    pub redact: Vec<String>,
    /// Minimum retention of the finished execution, as set in the rule, in seconds from the end of the execution. If
    /// absent, `writ serve --minimum-retention-seconds` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,
    /// SHA-256 of all fields above, as `sha256:` and lower case hexadecimal. The input is the JSON of this object with
    /// sorted keys and without spaces, without `digest` and `decidedTime`. To check it: `kubectl get cmdexec NAME -o
    /// json | jq -cSj '.status.decision | del(.digest, .decidedTime)' | sha256sum`.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub digest: String,
    /// Time of the decision, by Writ's clock.
    pub decided_time: MicroTime,
}

/// Limits on the output of one command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputBounds {
    /// Maximum size of each stream in the status, in bytes as encoded in JSON, 0 to 16384.
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: u32,
    /// Maximum size of the output, in bytes of both streams together.
    #[schemars(range(min = 0))]
    pub maximum_bytes: i64,
    /// Maximum time that Writ waits for more output after the command's exit, while other processes still hold the
    /// output open. In seconds, 0 to 60. Default 2, also for decisions of versions without this field.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: u32,
}

impl Default for OutputBounds {
    /// Returns the limits of a rule without `output`: 8 KiB of each stream in the status, 64 MiB of both streams
    /// together, and a wait of at most 2 s after the command's exit.
    fn default() -> Self {
        Self { inline_bytes: 8192, maximum_bytes: 67_108_864, drain_seconds: default_drain_seconds() }
    }
}

/// Returns the default of `drainSeconds`, in seconds. 2 s are enough for the last output of a service that is ending.
fn default_drain_seconds() -> u32 {
    2
}

/// Identity of an object at the time of the decision.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRecord {
    /// Name of the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID of the object. Another object of the same name has another UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Generation of the object. Each change of its spec increments it.
    pub generation: i64,
}
