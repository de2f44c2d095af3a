//! Machine: a host that commands can be run on, and how to be sure that it is that host.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameReference;

/// A host that Writ reaches over SSH: where it is, which host key proves that it is it, and with which key to log
/// in. A Machine permits nothing by itself: what may run there is said by the Whitelists of its namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "Machine",
    plural = "machines",
    shortname = "mach",
    category = "writ",
    namespaced,
    derive = "PartialEq",
    doc = "A host that commands run on, over SSH. It permits nothing by itself: a Whitelist does.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.port"),
    printcolumn(name = "User", type_ = "string", json_path = ".spec.user"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxConcurrent", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Where sshd listens: a host name (resolved at each connection), an IPv4 or an IPv6 address without brackets.
    /// A change holds for connections opened after it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$|^::[0-9A-Fa-f:.]*$")
    )]
    pub address: String,

    /// TCP port of sshd, 1 to 65535. Default 22.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Login name on the machine, at most 64 visible ASCII characters. Commands run as this user.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[!-~]+$"))]
    pub user: String,

    /// The Secret with the private key to log in with: type `kubernetes.io/ssh-auth`, key `ssh-privatekey` (an
    /// unencrypted ed25519 or ECDSA key in OpenSSH or PKCS#8 form), with the label `writ.dev/credentials: "true"`.
    /// It is read anew for each execution.
    pub credentials_ref: NameReference,

    /// The host keys that the machine may prove itself with, 1 to 16 OpenSSH public key lines
    /// (`ssh-keyscan -t ed25519 HOST` prints one; compare it with the machine's own
    /// `/etc/ssh/ssh_host_ed25519_key.pub` before you trust it). Types: `ssh-ed25519`, `ecdsa-sha2-nistp256`,
    /// `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521`. A machine that shows any other key is not logged in to: the
    /// execution ends as LaunchFailed, reason HostKeyMismatch.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,2}( [ -~]*)?$'))"
    ).message("each host key must be an OpenSSH public key line of type ssh-ed25519, ecdsa-sha2-nistp256, -nistp384 or -nistp521; `ssh-keyscan -t ed25519 HOST` prints one (without its first word)"))]
    pub host_keys: Vec<String>,

    /// How many commands may run on the machine at a time, 1 to 64. Default 4. Those over it wait, oldest first.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: u32,

    /// How many executions may wait for this machine, 1 to 10000. Default 1000. One that comes over it is
    /// Rejected, reason QueueFull.
    #[serde(default = "default_queue_limit")]
    #[schemars(range(min = 1, max = 10000))]
    pub queue_limit: u32,

    /// How commands are started on the machine. A change holds for executions that are claimed after it.
    #[serde(default)]
    pub execution: ExecutionSettings,
}

/// How commands are started on a machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionSettings {
    /// What becomes of a command when Writ or the connection is lost while it runs. Default Durable.
    #[serde(default)]
    pub mode: ExecutionMode,

    /// For Durable: the folder on the machine for the journals and the output of what runs, as an absolute path of
    /// letters, digits and `/ . _ -`. It must belong to the login user, and must outlast a reboot (not /tmp, /run or
    /// /dev/shm). Default: `.local/state/writ` in the login user's home; made with mode 0700 where it is not there. Do not
    /// change it while commands run, nor within the `startingDeadlineSeconds` of what was started: another folder knows
    /// nothing of what was started by way of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 512), regex(pattern = r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"))]
    pub directory: Option<String>,
}

/// How a command is started, and what is left of it on the machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ExecutionMode {
    /// By a launcher in sh, sent with each command: the command goes on without Writ or its connection, and its whole
    /// output and exit code are read later. Needs `/bin/sh`, `/proc` and `setsid` on the machine, installs nothing, and
    /// leaves a journal of about 200 bytes for each command for 30 days, by which none is started twice.
    #[default]
    Durable,
    /// As one plain SSH request: nothing is left on the machine. A command whose connection or whose `writ` is lost
    /// ends as OutcomeUnknown, and may die of the lost connection half done.
    Direct,
}

fn default_port() -> u16 {
    22
}

fn default_max_concurrent() -> u32 {
    4
}

fn default_queue_limit() -> u32 {
    1000
}
