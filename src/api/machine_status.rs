//! Status of a Machine: the observations of Writ. The status permits nothing, with one exception. Under `hostKeyPolicy:
//! TrustOnFirstUse`, Writ trusts the first host key, which is stored here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observations of a Machine by Writ.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The `metadata.generation` for which Writ wrote this status; -1 until Writ has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// State of the machine, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,

    /// Cause of the phase, as a sentence of at most 2048 characters. If something is wrong, the message also has the
    /// remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,

    /// Conditions of the machine. Until the first probe, the conditions are absent and `observedGeneration` is behind.
    ///
    /// - Ready: commands can be started.
    /// - Reachable: sshd answers.
    /// - HostKeyVerified: the machine proved its identity.
    /// - Authenticated: the machine accepted the login.
    /// - Stalled: somebody has to fix something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Host keys that the machine has proved to have, at most 16. Under TrustOnFirstUse the first key is pinned here.
    /// Empty this list to trust the next key that the machine shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub host_keys: Vec<ObservedHostKey>,

    /// SSH key from the Secret with which the last login succeeded. During a rotation, this field shows if the machine
    /// accepts the new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_key: Option<LoginKey>,

    /// Time of the first successful login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_time: Option<Time>,

    /// Time of the last successful login that this status records. Writ can record a later login up to 10 minutes late.
    /// Consecutive commands share a login, so the time may be older while the machine is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time: Option<Time>,

    /// Duration of the last full login, in milliseconds, from the start of the name resolution to the end of the
    /// authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub latency_ms: Option<i64>,

    /// Number of running commands. After a change Writ updates the number, at most every 5 s, and for all Machines
    /// together at most 5 times per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub running: Option<i64>,

    /// Number of queued executions. Writ updates it like `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub queued: Option<i64>,

    /// System information that the machine reports. A machine can report false information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
}

/// State of a machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MachinePhase {
    /// Not probed yet.
    #[default]
    Unknown,
    /// Writ has logged in, and commands can be started.
    Online,
    /// Writ cannot reach the machine now. Queued executions keep waiting.
    Offline,
    /// `spec.suspend` is true: Writ opens no connection.
    Suspended,
    /// Writ cannot use the machine until somebody fixes the Machine, its Secret or the host. The message names the
    /// problem.
    Misconfigured,
}

impl MachinePhase {
    /// Returns the phase as the object spells it.
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
    /// Type of the key, as in the first word of the public key file: `ssh-ed25519`.
    #[schemars(length(max = 64))]
    pub algorithm: String,

    /// SHA-256 fingerprint of the key, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Source of the trust in the key.
    pub trust: KeyTrust,

    /// Time at which the machine first proved that it has the key.
    pub first_seen_time: Time,
}

/// SSH key from the Secret with which the login succeeded.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginKey {
    /// Entry of the Secret with the key: `ssh-privatekey`, `ssh-privatekey-2`.
    #[schemars(length(max = 64))]
    pub entry: String,

    /// SHA-256 fingerprint of the public key, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Fingerprints of the keys before this key in the Secret, at most 4. The machine refused these keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 64)))]
    pub refused: Vec<String>,
}

/// Source of the trust in a host key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum KeyTrust {
    /// The key is in `spec.hostKeys`.
    Pinned,
    /// One of `spec.hostKeyAuthorities` signed a certificate for the key.
    Authority,
    /// The key is the first one that the machine showed (`hostKeyPolicy: TrustOnFirstUse`).
    FirstUse,
}

/// System information that a machine reports. Each text is printable ASCII, cut to 256 characters.
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

    /// Boot ID (/proc/sys/kernel/random/boot_id). The boot ID changes at each boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub boot_id: Option<String>,
}
