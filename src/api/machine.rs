//! Machine: a host that runs commands, and the keys that prove its identity.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::machine_status::MachineStatus;
use super::unknown_fields::UnknownFields;
use super::{NameReference, USER_NAME};

/// A host that Writ reaches over SSH: its address, the host keys that prove its identity, and the Secret with the key
/// for the login. A Machine permits nothing by itself: the Whitelists of its namespace list the commands that may run
/// on it.
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
    doc = "A host that runs commands, over SSH. A Machine permits nothing by itself: a Whitelist does.",
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
    /// Address of sshd: a host name, an IPv4 address, or an IPv6 address without brackets. Writ resolves a name at each
    /// connection and tries its addresses in order. A link-local address ends with its zone (`fe80::1%eth0`): a network
    /// interface of the host on which Writ runs. The port is in `port`, never in this field. `writ serve --allow-cidr`,
    /// `--deny-cidr` and `--refuse-cidr` limit the addresses to which Writ connects. A change applies to connections
    /// that Writ opens after the change.
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

    /// Login user on the machine. Names of directory services are possible (`CORP\jane`, `jane@corp.example`). At most
    /// 64 printable ASCII characters without spaces, quotes and `: / ; & < > | ( ) { }`. `$` may only be the last
    /// character. `-`, `#`, `%`, `+` and `\` must not be the first. Commands run as this user.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = [
        {"rule": format!("self.matches(r'{USER_NAME}')"), "message": "spec.user must be a login name of the machine: printable ASCII without blanks, quotes and : / ; & < > | ( ) { }, and not -, #, %, + or \\ first; without a line break and an @host (that is spec.address)"},
    ]))]
    pub user: String,

    /// Secret with the private key for the login: type `kubernetes.io/ssh-auth`, key `ssh-privatekey`, label
    /// `writ.dev/credentials: "true"`. Writ reads the Secret again for each execution, so a rotated key applies at
    /// once.
    ///
    /// The private key is ed25519, ECDSA, or RSA of at least 2048 bits, in a form that OpenSSH reads: its own, PKCS#8,
    /// PKCS#1 or SEC 1. If `ssh-privatekey` contains several private keys, Writ uses the first one. The passphrase of
    /// an encrypted private key is in the key `passphrase`. Such a private key has at most 256 rounds of bcrypt
    /// (`ssh-keygen -p -a 16` makes 16). A user certificate (`ssh-keygen -s`) is in the key `ssh-certificate`.
    ///
    /// For a rotation, add up to three private keys, `ssh-privatekey-2` to `ssh-privatekey-4`. Each can have its own
    /// certificate and passphrase, for example `ssh-certificate-2` and `passphrase-2` (`passphrase` is the fallback).
    /// Writ tries all private keys in this order at each login. `status.loginKey` of the Machine names the private key
    /// that the machine accepted.
    ///
    /// The annotations `writ.dev/addresses` and `writ.dev/users` of the Secret are patterns with `*` and `?`, separated
    /// by commas. If an annotation is set, the address or user of this Machine must match one of its patterns. The
    /// forms of a pattern for addresses:
    ///
    /// - Writ compares a pattern of numbers (`10.0.*`, `10.0.0.0/16`, `2001:db8::*`) with each address that `address`
    ///   resolves to, and never with a name. Behind a jump host only the text of `address` counts.
    /// - Writ compares a pattern for names with `address` label by label. `*.example.com` matches one label before
    ///   `.example.com`, `**.example.com` one or more labels.
    pub credentials_ref: NameReference,

    /// Pinned host keys of the machine, at most 16 OpenSSH public key lines. `writ machine keyscan HOST` prints them.
    /// Before you trust them, compare them with `/etc/ssh/ssh_host_ed25519_key.pub` on the machine. Types:
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521`, `ssh-rsa` (used with SHA-2
    /// only).
    ///
    /// If the machine shows another key, Writ does not log in, and the Machine is Misconfigured. Executions that were
    /// created after the Machine was last Online, and before Writ found the other key, end as LaunchFailed, reason
    /// HostKeyMismatch. All other executions stay Queued until the Machine is repaired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}( [ -~]*)?$'))"
    ).message("each host key must be an OpenSSH public key line of type ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521 or ssh-rsa; `writ machine keyscan HOST` prints them"))]
    pub host_keys: Vec<String>,

    /// Certificate authorities (CA) of host certificates, at most 16 OpenSSH public key lines. Writ accepts a host
    /// certificate under three conditions:
    ///
    /// - One of these authorities signed the certificate.
    /// - The certificate is valid now, by the clock of `writ`.
    /// - One of the principals of the certificate is `address`, exactly as in `spec.address`. `*` and `?` in a
    ///   principal match as in OpenSSH. Writ refuses a certificate without principals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}( [ -~]*)?$'))"
    ).message("each authority must be an OpenSSH public key line, as in the .pub file of the key that signs host certificates"))]
    pub host_key_authorities: Vec<String>,

    /// Revoked host keys, at most 64 entries. Writ refuses a revoked key even if a list above accepts it. The forms of
    /// an entry:
    ///
    /// - A public key line revokes this host key, certificates for this key, and certificates that this key signed.
    /// - A certificate line revokes this certificate.
    /// - A fingerprint `SHA256:...` revokes the key with this fingerprint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 8192)))]
    #[x_kube(validation = Rule::new(
        r"self.all(key, key.matches('^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [ -~]*)?$|^SHA256:[A-Za-z0-9+/]{43}$'))"
    ).message("each entry must be an OpenSSH public key line, a certificate line (a -cert.pub file), or a fingerprint SHA256:..."))]
    pub revoked_host_keys: Vec<String>,

    /// Policy for a host key that none of the lists above accepts. Default Strict.
    #[serde(default)]
    pub host_key_policy: HostKeyPolicy,

    /// Jump hosts: Machines of this namespace through which Writ reaches this machine, in order, as with `ssh -J`. At
    /// most 8. Each must have `allowJump: true`, and its own host keys and credentials apply. If the first jump host
    /// has `jumpHosts` of its own, Writ reaches the first jump host through them. Each jump host resolves and dials the
    /// address of the next Machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub jump_hosts: Vec<NameReference>,

    /// Permission to reach other Machines through this one. Default false. `--allow-cidr`, `--deny-cidr` and
    /// `--refuse-cidr` do not apply to the addresses that this machine dials. Limit these addresses in the machine's
    /// network.
    #[serde(default)]
    pub allow_jump: bool,

    /// Maximum number of commands that run on the machine concurrently, 1 to 64. Default 4. Further executions wait in
    /// a queue: requesters take turns, and the oldest execution of a requester comes first.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: u32,

    /// Maximum number of executions in the queue of the machine, 1 to 10000. Default 1000. If the queue is full, a new
    /// execution is Rejected, reason QueueFull.
    #[serde(default = "default_queue_limit")]
    #[schemars(range(min = 1, max = 10000))]
    pub queue_limit: u32,

    /// Maintenance mode. Writ opens no connection and starts no command. Queued executions keep waiting, and their
    /// `startingDeadlineSeconds` keep counting. Running commands continue and are recorded. Default false.
    #[serde(default)]
    pub suspend: bool,

    /// Settings for starting commands. A change applies to executions that are claimed after the change.
    #[serde(default)]
    pub execution: ExecutionSettings,

    /// Settings for probes. A probe is a full login that only observes the machine.
    #[serde(default)]
    pub probe: ProbeSettings,

    /// Fields that this version does not know. Writ does not connect to a Machine with such a field, because the field
    /// may limit the trust in the machine.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Policy for a host key that no list of the Machine accepts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HostKeyPolicy {
    /// Writ does not log in.
    #[default]
    Strict,
    /// Writ pins the first key that the machine shows: it stores the key in `status.hostKeys` before it sends anything.
    /// Writ then treats any other key as an attack and does not log in, until somebody puts the new key into `hostKeys`
    /// or empties `status.hostKeys`. Use this policy only in a network in which nobody can intercept the first
    /// connection. Ignored if `hostKeys` or `hostKeyAuthorities` is set.
    TrustOnFirstUse,
}

/// Interval and timeout of probes. While executions wait for the machine, Writ probes it at most every 10 seconds.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSettings {
    /// Interval between probes, in seconds, 10 to 86400. Default 300. After a failure, the first retry comes sooner.
    /// The delay of further retries grows up to this interval. 0 switches probes off. Writ then observes the machine
    /// only when it runs a command there, or while executions wait for a machine that somebody has to fix.
    #[serde(default = "default_probe_interval")]
    #[schemars(range(min = 0, max = 86400))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 10").message("probe.intervalSeconds must be 0 (never) or at least 10"))]
    pub interval_seconds: u32,

    /// Timeout for name resolution, connection, handshake and login together, in seconds, 1 to 60. Default 10. The
    /// timeout also applies to the connections of executions.
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
    /// Returns the spec of a Machine with the defaults of all optional fields. The spec has no host keys yet.
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

    /// Returns the reason why Writ must not connect with this spec: the spec has a field that this version does not
    /// know, or its address is invalid. Returns `None` if Writ may connect.
    pub fn problem(&self) -> Option<String> {
        if let Some(name) = self.unknown_fields.keys().next() {
            return Some(format!(
                "spec.{name} is not known to this version of writ, which therefore does not connect: take it out if it is a \
                 misspelling, else upgrade writ and its CRDs"
            ));
        }
        self.address_problem()
    }

    /// Returns the reason why `address` is not valid, or `None` if it is valid. A valid address is an IP address or a
    /// host name without a colon. The CRDs of earlier versions perhaps admitted other addresses.
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

/// Settings for starting commands on a machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionSettings {
    /// Execution mode. Durable commands survive if Writ or its connection is lost. Default Durable.
    #[serde(default)]
    pub mode: ExecutionMode,

    /// Directory on the machine for journals and output in Durable mode. An absolute path of letters, digits and `/ . _
    /// -`, 2 to 512 characters. Default: `.local/state/writ` in the home of the login user. Ignored in Direct mode.
    ///
    /// The directory must belong to the login user and must survive a reboot (not /tmp, /run or /dev/shm). Writ creates
    /// a missing directory with mode 0700. Do not change this field while commands run, or within the
    /// `startingDeadlineSeconds` of commands that were sent. The new directory has no record of commands from the old
    /// directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 512), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')", "message": "spec.execution.directory must be an absolute path of letters, digits and / . _ -, without a / at its end, without // and with no part that begins with a dot"},
    ]))]
    pub directory: Option<String>,
}

/// Mode in which Writ starts commands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ExecutionMode {
    /// A launcher in sh starts the command. Writ sends the launcher with each command and installs nothing. If Writ or
    /// its connection is lost, the command continues, and Writ reads its whole output and exit code later. Needs
    /// `/bin/sh`, `/proc`, `setsid`, `mkfifo` and the usual tools (`cat`, `dd`, `env`, `find`, `grep`, `ls`, `mkdir`,
    /// `readlink`, `rm`, `sleep`, `tr`, `wc`) on the machine. A journal of about 200 bytes stays on the machine for
    /// each command for 30 days, and prevents a second start.
    #[default]
    Durable,
    /// Writ sends one plain SSH exec request, and nothing stays on the machine. If the connection or the `writ serve`
    /// process is lost, the execution ends as OutcomeUnknown. The command can then die before it has finished its work.
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
