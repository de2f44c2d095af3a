//! Records that are fixed with the claim: the machine, the holder, and the place of the journal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::machine::ExecutionMode;

/// The Machine that an execution was sent to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The address and port that were connected to, as `IP:port`; behind jump hosts `NAME:port via ...`, the way back to the
    /// first one.
    #[schemars(length(max = 2700))]
    pub address: String,
    /// The login user.
    #[schemars(length(max = 64))]
    pub user: String,
    /// SHA-256 fingerprint of the host key that the machine proved itself with, as `SHA256:...`.
    #[schemars(length(max = 128))]
    pub host_key_fingerprint: String,
}

/// Who is responsible for an execution from its claim on.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// A random token; the result is accepted only from who knows it.
    #[schemars(length(min = 1, max = 64))]
    pub token: String,
    /// The process that holds the claim: namespace and name of its Lease, by which it is known to be alive.
    #[schemars(length(min = 1, max = 256))]
    pub holder: String,
    /// How the command is started (`spec.execution.mode` of the Machine at the claim).
    #[serde(default)]
    pub mode: ExecutionMode,
    /// When the claim was made, by the clock of who made it first.
    pub dispatched_time: MicroTime,
    /// After which the command is not started any more, by the same clock. The machine itself refuses it then (see
    /// `remote.notAfterUptimeMs`). Absent in Direct mode, where it is started at once or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_time: Option<MicroTime>,
}

/// The longest folder that is recorded, in characters.
pub const MAX_DIRECTORY_LENGTH: usize = 1024;
/// The longest id of a folder or of a boot that is recorded, in characters.
pub const MAX_ID_LENGTH: usize = 64;

/// What the start of a command hangs on, as the machine showed it before the claim. The command is started only where all
/// of it is still so: a name may lead to another host tomorrow, and a folder may be another one.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteRecord {
    /// The folder with the journal of the command.
    #[schemars(length(max = MAX_DIRECTORY_LENGTH))]
    pub directory: String,
    /// A random word that Writ keeps in that folder: another folder has another one.
    #[schemars(length(max = MAX_ID_LENGTH))]
    pub directory_id: String,
    /// The machine's boot id (`/proc/sys/kernel/random/boot_id`): another one after each boot.
    #[schemars(length(max = MAX_ID_LENGTH))]
    pub boot_id: String,
    /// The machine's uptime, in milliseconds, after which its launcher does not start the command any more. Uptime, as
    /// the machine's clock may be wrong.
    #[schemars(range(min = 0))]
    pub not_after_uptime_ms: i64,
}
