//! Machine: a host that commands can be run on, and how to be sure that it is that host.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::machine_status::MachineStatus;
use super::whitelist::UnknownFields;
use super::{NameReference, USER_NAME};

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
    status = "MachineStatus",
    derive = "PartialEq",
    doc = "A host that commands run on, over SSH. It permits nothing by itself: a Whitelist does.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "User", type_ = "string", json_path = ".spec.user"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Queued", type_ = "integer", json_path = ".status.queued"),
    printcolumn(name = "Latency", type_ = "integer", json_path = ".status.latencyMs", priority = 1),
    printcolumn(name = "OS", type_ = "string", json_path = ".status.system.os", priority = 1),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.port", priority = 1),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxConcurrent", priority = 1),
    printcolumn(name = "Seen", type_ = "date", json_path = ".status.lastSeenTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Login-Key", type_ = "string", json_path = ".status.loginKey.fingerprint", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[x_kube(
    validation = Rule::new(
        "(has(self.hostKeys) && size(self.hostKeys) > 0) || (has(self.hostKeyAuthorities) && size(self.hostKeyAuthorities) > 0) || (has(self.hostKeyPolicy) && self.hostKeyPolicy == 'TrustOnFirstUse')"
    ).message("the machine must be known by something: put its keys into hostKeys (`writ machine keyscan HOST` prints them), or the authorities that sign its host certificates into hostKeyAuthorities, or set hostKeyPolicy: TrustOnFirstUse")
)]
pub struct MachineSpec {
    /// Where sshd listens: a host name (resolved at each connection; its addresses are tried in order), an IPv4 or an
    /// IPv6 address without brackets. A link-local one has its zone behind it (`fe80::1%eth0`), a network interface of the host
    /// that Writ runs on. The port is in `port`, never in here. Which addresses may be connected to at all is said by
    /// `writ serve --allow-cidr`, `--deny-cidr` and `--refuse-cidr`. A change holds for connections opened after it.
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9_])?[.]?$|^::[0-9A-Fa-f:.]*$|^[Ff][Ee][89ABab][0-9A-Fa-f]:[0-9A-Fa-f:.]*%[A-Za-z0-9._-]{1,15}$"
        )
    )]
    #[x_kube(validation = Rule::new(
        r"!self.contains(':') || self.matches('^[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,8}(:?[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+)?(%[A-Za-z0-9._-]+)?$')"
    ).message("spec.address must be a host name, an IPv4 address, or an IPv6 address without brackets; put the port into spec.port"))]
    pub address: String,

    /// TCP port of sshd, 1 to 65535. Default 22.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Login name on the machine, also one of a directory service (`CORP\jane`, `jane@corp.example`): at most 64 printable
    /// ASCII characters, without blanks, quotes and `: / ; & < > | ( ) { }`. A `$` may be the last; `-`, `#`, `%`, `+` and `\` may
    /// not be the first. Commands run as this user.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = [
        {"rule": format!("self.matches(r'{USER_NAME}')"), "message": "spec.user must be a login name of the machine: printable ASCII without blanks, quotes and : / ; & < > | ( ) { }, and not -, #, %, + or \\ first; without a line break and an @host (that is spec.address)"},
    ]))]
    pub user: String,

    /// The Secret with the private key to log in with: type `kubernetes.io/ssh-auth`, key `ssh-privatekey` (ed25519, ECDSA
    /// or RSA of at least 2048 bits, in a form that OpenSSH opens: its own, PKCS#8, PKCS#1 or SEC 1; the first key counts), with
    /// the label `writ.dev/credentials: "true"`. An encrypted key has its passphrase beside it in the key `passphrase`, and at
    /// most 256 rounds of bcrypt (`ssh-keygen -p -a 16` makes 16); a user certificate (`ssh-keygen -s`) is in the key
    /// `ssh-certificate`. For a rotation there may be up to three further keys, `ssh-privatekey-2` to `ssh-privatekey-4`, each with
    /// its own `ssh-certificate-2` and `passphrase-2` (without it, `passphrase` counts). All are tried in this order at each login,
    /// and the Machine's `status.loginKey` says which one was taken. If the Secret has the annotations `writ.dev/addresses` or `writ.dev/users` (lists of patterns with
    /// `*` and `?`, separated by commas), address and user of this Machine must match one of them. A pattern of numbers
    /// (`10.0.*`, `10.0.0.0/16`, `2001:db8::*`) is held against each address that `address` resolves to, and never against a
    /// name. A pattern for names is held against `address` label by label: `*.example.com` has one label before the rest,
    /// `**.example.com` one or more. Behind a jump host only the text of `address` counts. The Secret is read anew for each
    /// execution: a rotated key is used at once.
    pub credentials_ref: NameReference,

    /// The host keys that the machine may prove itself with, at most 16 OpenSSH public key lines
    /// (`writ machine keyscan HOST` prints them; compare one with the machine's own
    /// `/etc/ssh/ssh_host_ed25519_key.pub` before you trust it). Types: `ssh-ed25519`, `ecdsa-sha2-nistp256`,
    /// `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521`, `ssh-rsa` (used with SHA-2 only). A machine that shows any other key is
    /// not logged in to: the execution ends as LaunchFailed, reason HostKeyMismatch, and the Machine is Misconfigured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}( [ -~]*)?$'))"
    ).message("each host key must be an OpenSSH public key line of type ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521 or ssh-rsa; `writ machine keyscan HOST` prints them"))]
    pub host_keys: Vec<String>,

    /// The authorities (public key lines, at most 16) whose host certificates the machine may prove itself with. A
    /// certificate counts where it is a host certificate, is valid now by the clock of `writ`, and names `address` among its
    /// principals, as it is written in `spec.address`; `*` and `?` in a principal match as OpenSSH has it. One without
    /// principals is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}( [ -~]*)?$'))"
    ).message("each authority must be an OpenSSH public key line, as in the .pub file of the key that signs host certificates"))]
    pub host_key_authorities: Vec<String>,

    /// What is never accepted, at most 64: a public key line (as a host's own key, as the key in a certificate, or as the
    /// authority that signed it), a certificate line (that very certificate), or a fingerprint `SHA256:...` of a key. It
    /// wins over everything above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 8192)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [ -~]*)?$|^SHA256:[A-Za-z0-9+/]{43}$'))"
    ).message("each entry must be an OpenSSH public key line, a certificate line (a -cert.pub file), or a fingerprint SHA256:..."))]
    pub revoked_host_keys: Vec<String>,

    /// What becomes of a machine whose key is in none of the lists above. Default Strict.
    #[serde(default)]
    pub host_key_policy: HostKeyPolicy,

    /// The Machines of this namespace to go through, in order, as `ssh -J` does, at most 8. Each must say `allowJump: true`,
    /// and is held to its own host keys and credentials. The first is reached the way its own `jumpHosts` say. Each further
    /// address is resolved and reached by the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub jump_hosts: Vec<NameReference>,

    /// Whether other Machines may be reached through this one. Default false. What lies behind it is its network's matter:
    /// `--allow-cidr`, `--deny-cidr` and `--refuse-cidr` do not hold there.
    #[serde(default)]
    pub allow_jump: bool,

    /// How many commands may run on the machine at a time, 1 to 64. Default 4. Those over it wait, oldest first, in turn
    /// between those who asked for them.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: u32,

    /// How many executions may wait for this machine, 1 to 10000. Default 1000. One that comes over it is
    /// Rejected, reason QueueFull.
    #[serde(default = "default_queue_limit")]
    #[schemars(range(min = 1, max = 10000))]
    pub queue_limit: u32,

    /// Maintenance: nothing starts and nothing connects, what waits goes on waiting (its `startingDeadlineSeconds` run on).
    /// What runs already runs on and is recorded. Default false.
    #[serde(default)]
    pub suspend: bool,

    /// How commands are started on the machine. A change holds for executions that are claimed after it.
    #[serde(default)]
    pub execution: ExecutionSettings,

    /// How often it is looked whether the machine is there, by a full login.
    #[serde(default)]
    pub probe: ProbeSettings,

    /// Fields that this version does not know. A Machine that has any is not connected to: they may narrow what is trusted.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// What becomes of a machine whose key is not listed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HostKeyPolicy {
    /// It is not logged in to.
    #[default]
    Strict,
    /// The first key that it is seen with is frozen in `status.hostKeys` before anything is said to it. From then on any
    /// other key is treated as an attack: it is not logged in to, until a person has put the new key into `hostKeys` (or has
    /// emptied `status.hostKeys`). Only for a network in which nobody can be in between the first time. Where `hostKeys` or
    /// `hostKeyAuthorities` are given, they alone count.
    TrustOnFirstUse,
}

/// How often it is looked whether a machine is there. While executions wait for it, at most every 10 s.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSettings {
    /// Seconds from one look to the next, 10 to 86400. Default 300. After failures the pauses grow up to this. 0: never; the
    /// machine is then seen only when something runs there, or waits for what a person has to mend.
    #[serde(default = "default_probe_interval")]
    #[schemars(range(min = 0, max = 86400))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 10").message("probe.intervalSeconds must be 0 (never) or at least 10"))]
    pub interval_seconds: u32,

    /// Seconds that resolving, connecting, the handshake and logging in may take together, 1 to 60; also for executions.
    /// Default 10.
    #[serde(default = "default_probe_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { interval_seconds: default_probe_interval(), timeout_seconds: default_probe_timeout() }
    }
}

impl MachineSpec {
    /// A machine with the defaults of all that has any. It is known by nothing yet.
    pub fn new(address: &str, user: &str, secret: &str) -> Self {
        Self {
            address: address.to_owned(),
            port: default_port(),
            user: user.to_owned(),
            credentials_ref: NameReference::new(secret),
            host_keys: Vec::new(),
            host_key_authorities: Vec::new(),
            revoked_host_keys: Vec::new(),
            host_key_policy: HostKeyPolicy::default(),
            jump_hosts: Vec::new(),
            allow_jump: false,
            max_concurrent: default_max_concurrent(),
            queue_limit: default_queue_limit(),
            suspend: false,
            execution: ExecutionSettings::default(),
            probe: ProbeSettings::default(),
            unknown_fields: UnknownFields::new(),
        }
    }

    /// Why nobody may connect by this spec, whatever it says else: it has fields that this version does not know.
    pub fn problem(&self) -> Option<String> {
        if let Some(name) = self.unknown_fields.keys().next() {
            return Some(format!(
                "spec.{name} is not known to this version of writ, which therefore does not connect: take it out if it is a \
                 misspelling, else upgrade writ and its CRDs"
            ));
        }
        self.address_problem()
    }

    /// Why `address` is neither a name nor an address: names have no colons. The API server refuses such a Machine, but may have
    /// stored it before it did.
    fn address_problem(&self) -> Option<String> {
        let address = &self.address;
        let without_zone = address.split('%').next().unwrap_or_default();
        if !address.contains(':') || is_ipv6(without_zone) {
            return None;
        }
        let bracketed = address.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
        let (host, port) = bracketed.or_else(|| address.rsplit_once(':'))?;
        let remedy = match port.parse::<u16>() {
            Ok(port) if bracketed.is_some() || !host.contains(':') => {
                format!("put the port into spec.port: address: {host}, port: {port}")
            }
            _ => "write an IPv6 address without brackets, and put the port into spec.port".to_owned(),
        };
        Some(format!("spec.address {address:?} is neither a host name nor an IP address; {remedy}"))
    }
}

/// Returns true if a text has the form of an IPv6 address (RFC 4291, section 2.2).
fn is_ipv6(text: &str) -> bool {
    let groups: Vec<&str> = text.split(':').collect();
    let (last, before) = groups.split_last().unwrap_or((&"", &[]));
    let is_group = |group: &&str| group.len() <= 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_quad = last.split('.').count() == 4 && last.split('.').all(|part| part.parse::<u8>().is_ok());
    let is_long_enough = text.contains("::") || groups.len() == if is_quad { 7 } else { 8 };
    groups.len() <= 9 && is_long_enough && before.iter().all(is_group) && (is_quad || is_group(last))
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
    #[schemars(length(min = 2, max = 512), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')", "message": "spec.execution.directory must be an absolute path of letters, digits and / . _ -, without a / at its end, without // and with no part that begins with a dot"},
    ]))]
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

fn default_probe_interval() -> u32 {
    300
}

fn default_probe_timeout() -> u32 {
    10
}

fn default_max_concurrent() -> u32 {
    4
}

fn default_queue_limit() -> u32 {
    1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_port_in_it_is_a_problem_that_names_the_field_for_it() {
        let problem = |address: &str| MachineSpec::new(address, "deploy", "web-ssh").problem();
        for (address, remedy) in [
            ("127.0.0.1:22022", "address: 127.0.0.1, port: 22022"),
            ("web-1.example:22", "address: web-1.example, port: 22"),
            ("[fe80::1]:22", "address: fe80::1, port: 22"),
            ("web-1:ssh", "spec.port"),
            ("ab:cd:22", "without brackets"),
            ("10.0.0.1:22:33", "without brackets"),
            ("::1:99999", "without brackets"),
        ] {
            let said = problem(address).unwrap();
            assert!(said.contains(address) && said.contains("spec.port") && said.contains(remedy), "{said}");
        }
        for address in [
            "web-1",
            "web-1.example.",
            "10.0.0.1",
            "::1",
            "2001:db8::1:22",
            "fe80::1%eth0",
            "::ffff:10.0.0.1",
            "1:2:3:4:5:6:7::",
        ] {
            assert_eq!(problem(address), None, "{address}");
        }
    }
}
