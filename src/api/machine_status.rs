//! Status of a Machine: the observations of Writ. It permits nothing. The only trust that depends on it is the first
//! host key under `hostKeyPolicy: TrustOnFirstUse`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observations of a Machine by Writ.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The `metadata.generation` for which this status was written; -1 until Writ has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// State of the machine, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,

    /// Cause of the phase, as a sentence of at most 2048 characters. If something is wrong, it says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,

    /// Conditions: Ready (commands can be started), Reachable (sshd answers), HostKeyVerified, Authenticated, and
    /// Stalled (somebody has to fix something). Absent until the first probe; `observedGeneration` is behind until
    /// then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Host keys that the machine has proved to have, at most 16. Under TrustOnFirstUse the first one is pinned here;
    /// to trust the next key, empty this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub host_keys: Vec<ObservedHostKey>,

    /// Key of the Secret that the machine accepted at the last login. During a rotation it shows which machines accept
    /// the new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_key: Option<LoginKey>,

    /// Time of the first login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_time: Option<Time>,

    /// Time of the last login that this status records. It may be 10 minutes older than the last login. Consecutive
    /// commands share a login, so a machine in use may also have an older time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time: Option<Time>,

    /// Duration of the last full login, in milliseconds, from resolving the name to the end of authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub latency_ms: Option<i64>,

    /// Number of running commands. Written 5 s or more after a change: all Machines together have 5 such writes per
    /// second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub running: Option<i64>,

    /// Number of queued executions. Written like `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub queued: Option<i64>,

    /// System information from the machine. The machine can lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
}

/// State of a machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MachinePhase {
    /// Not probed yet.
    #[default]
    Unknown,
    /// Writ logged in, and commands can be started.
    Online,
    /// Writ cannot reach the machine now. Queued executions keep waiting.
    Offline,
    /// `spec.suspend` is true: Writ opens no connection.
    Suspended,
    /// Writ cannot use the machine until somebody fixes the Machine, its Secret or the host. The message says what is
    /// wrong.
    Misconfigured,
}

impl MachinePhase {
    /// Returns the word in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            MachinePhase::Unknown => "Unknown",
            MachinePhase::Online => "Online",
            MachinePhase::Offline => "Offline",
            MachinePhase::Suspended => "Suspended",
            MachinePhase::Misconfigured => "Misconfigured",
        }
    }
}

/// Host key that a machine has proved to have.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedHostKey {
    /// Type of the key, as `ssh-keygen -l` of the public key file has it at the start of the line: `ssh-ed25519`.
    #[schemars(length(max = 64))]
    pub algorithm: String,

    /// SHA-256 fingerprint of the key, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Source of the trust in the key.
    pub trust: KeyTrust,

    /// Time at which the machine proved first that it has the key.
    pub first_seen_time: Time,
}

/// Key of the Secret that a machine accepted.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginKey {
    /// Name of its entry in the Secret: `ssh-privatekey`, `ssh-privatekey-2`.
    #[schemars(length(max = 64))]
    pub entry: String,

    /// SHA-256 fingerprint of its public half, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Fingerprints of the keys before it in the Secret, which the machine refused. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 64)))]
    pub refused: Vec<String>,
}

/// Source of the trust in a host key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum KeyTrust {
    /// An entry of `spec.hostKeys`.
    Pinned,
    /// A certificate of one of `spec.hostKeyAuthorities`.
    Authority,
    /// The first key that the machine showed (`hostKeyPolicy: TrustOnFirstUse`).
    FirstUse,
}

/// System information from a machine: printable ASCII, cut to 256 characters each.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemInfo {
    /// Host name (`uname -n`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub hostname: Option<String>,

    /// Operating system (PRETTY_NAME of /etc/os-release, else `uname -s`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub os: Option<String>,

    /// Architecture (`uname -m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub architecture: Option<String>,

    /// Kernel release (`uname -r`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub kernel: Option<String>,

    /// Login shell of the login user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub shell: Option<String>,

    /// Boot ID (/proc/sys/kernel/random/boot_id). Each boot has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub boot_id: Option<String>,
}
