//! What Writ has seen of a Machine. Nothing is permitted by it; what is trusted by it is the first key of a machine under
//! `hostKeyPolicy: TrustOnFirstUse`, and nothing else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Writ has seen of a Machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The `metadata.generation` that this status speaks of; -1 until Writ has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How the machine is, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,

    /// Why, in a sentence; what to do where something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,

    /// Ready (commands can be started), Reachable (sshd answers), HostKeyVerified, Authenticated; Stalled where a person has to do
    /// something. None where nobody has looked: until then, `observedGeneration` is behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The host keys that the machine has proved. Under TrustOnFirstUse the first one is frozen here; emptying this list is
    /// how a person says that the next key is to be trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub host_keys: Vec<ObservedHostKey>,

    /// The key of the Secret that the machine let Writ in by at the last login. While a key is rotated, it says which machines
    /// take the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_key: Option<LoginKey>,

    /// When the machine was logged in to for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_time: Option<Time>,

    /// When the machine was logged in to last, as of the last write of this status: that may be 10 minutes older than the last
    /// login. Commands share a login while they follow each other, so a machine in use may show an older time, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time: Option<Time>,

    /// How long the last full login took, in milliseconds: from resolving the name to the end of authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub latency_ms: Option<i64>,

    /// How many commands run there. Written 5 s after a change, or later: all Machines together have 5 such writes in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub running: Option<i64>,

    /// How many executions wait for it. Written as `running` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub queued: Option<i64>,

    /// What the machine says of itself. It can lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
}

/// How a machine is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MachinePhase {
    /// It was not looked at yet.
    #[default]
    Unknown,
    /// It was logged in to, and commands can be started.
    Online,
    /// It cannot be reached now. What waits for it goes on waiting.
    Offline,
    /// `spec.suspend` is true: nothing connects.
    Suspended,
    /// It was reached, or could be, but something is wrong that a person has to mend; the message says what.
    Misconfigured,
}

impl MachinePhase {
    /// The word in the object.
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

/// A host key that a machine has proved to have.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedHostKey {
    /// Its type, as `ssh-keygen -l` of the public key file has it at the start of the line: `ssh-ed25519`.
    #[schemars(length(max = 64))]
    pub algorithm: String,

    /// Its fingerprint, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// By what it was trusted.
    pub trust: KeyTrust,

    /// When it was proved first.
    pub first_seen_time: Time,
}

/// A key of the Secret that a machine let Writ in by.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginKey {
    /// The name of its entry in the Secret: `ssh-privatekey`, `ssh-privatekey-2`.
    #[schemars(length(max = 64))]
    pub entry: String,

    /// SHA-256 fingerprint of its public half, as `ssh-keygen -l` prints it: `SHA256:...`.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Fingerprints of the keys before it in the Secret, which the machine refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 64)))]
    pub refused: Vec<String>,
}

/// By what a host key was trusted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum KeyTrust {
    /// It is one of `spec.hostKeys`.
    Pinned,
    /// By a certificate of one of `spec.hostKeyAuthorities`.
    Authority,
    /// It was the first that was seen (`hostKeyPolicy: TrustOnFirstUse`).
    FirstUse,
}

/// What a machine says of itself: printable ASCII, cut to 256 characters each.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemInfo {
    /// `uname -n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub hostname: Option<String>,

    /// PRETTY_NAME of /etc/os-release, else `uname -s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub os: Option<String>,

    /// `uname -m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub architecture: Option<String>,

    /// `uname -r`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub kernel: Option<String>,

    /// The login user's shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub shell: Option<String>,

    /// /proc/sys/kernel/random/boot_id: another one means that the machine was booted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub boot_id: Option<String>,
}
