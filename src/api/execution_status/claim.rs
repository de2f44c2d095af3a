//! Parts of the status that are set at the claim: the machine, the process that holds the claim, and the place of the
//! journal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::machine::ExecutionMode;

/// Machine to which an execution was sent.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// Name of the Machine.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID of the Machine.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Generation of the Machine.
    pub generation: i64,
    /// Address and port to which Writ connected, as `IP:port`. With jump hosts, `NAME:port via HOST:port via ...`. The
    /// first HOST is the jump host nearest to the machine.
    #[schemars(length(max = 2700))]
    pub address: String,
    /// Login user.
    #[schemars(length(max = 64))]
    pub user: String,
    /// SHA-256 fingerprint of the host key that the machine proved to have, as `SHA256:...`.
    #[schemars(length(max = 128))]
    pub host_key_fingerprint: String,
}

/// Claim of an execution: the process that is responsible for it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Random token. The API server stores a result only if the result comes with this token.
    #[schemars(length(min = 1, max = 64))]
    pub token: String,
    /// Process that holds the claim, as namespace and name of its Lease. As long as the Lease is renewed, the process
    /// is alive.
    #[schemars(length(min = 1, max = 256))]
    pub holder: String,
    /// Execution mode of the command (`spec.execution.mode` of the Machine at the claim).
    #[serde(default)]
    pub mode: ExecutionMode,
    /// Time of the first claim, by the clock of the process that made it. An adoption does not change this time.
    pub dispatched_time: MicroTime,
    /// Time after which the command must not start, by the same clock as `dispatchedTime`. The machine enforces it by
    /// its uptime (`remote.notAfterUptimeMs`). Absent in Direct mode, in which the command starts at once or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_time: Option<MicroTime>,
}

/// Maximum length of a recorded directory, in characters.
pub const MAX_DIRECTORY_LENGTH: usize = 1024;
/// Maximum length of a recorded directory ID or boot ID, in characters.
pub const MAX_ID_LENGTH: usize = 64;

/// Place of the journal, as the machine reported it before the claim. Writ starts the command only if the machine still
/// reports this place. If not, the host name leads to another host now, or somebody replaced the directory.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteRecord {
    /// Directory on the machine with the journal of the command.
    #[schemars(length(max = MAX_DIRECTORY_LENGTH))]
    pub directory: String,
    /// Random ID that Writ stores in the journal directory. Another directory has another ID.
    #[schemars(length(max = MAX_ID_LENGTH))]
    pub directory_id: String,
    /// Boot ID of the machine (`/proc/sys/kernel/random/boot_id`). The boot ID changes at each boot.
    #[schemars(length(max = MAX_ID_LENGTH))]
    pub boot_id: String,
    /// Latest uptime of the machine, in milliseconds, at which its launcher may start the command. The limit is an
    /// uptime, because the clock of the machine may be wrong.
    #[schemars(range(min = 0))]
    pub not_after_uptime_ms: i64,
}
