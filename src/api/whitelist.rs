//! Whitelist: the only source of permission.
//!
//! A field of a later version may narrow a rule. A rule with an unknown field is therefore out of force, also after a
//! rollback to this version. For this purpose, every type keeps unknown fields (`unknown_fields`), and the API server
//! does not drop them. See `docs/design/20261121-unknown-rule-fields.md`.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::USER_NAME;
use super::selector::MachineSelector;
use super::unknown_fields::UnknownFields;

/// Rules for the commands that may run on the Machines of this namespace. A command that no rule allows does not run.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "Whitelist",
    plural = "whitelists",
    shortname = "wl",
    category = "writ",
    namespaced,
    status = "WhitelistStatus",
    derive = "PartialEq",
    doc = "Rules for the commands that may run on the Machines of this namespace. Default deny: a command that no rule allows does not run.",
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.ruleCount"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Warnings", type_ = "integer", json_path = ".status.warningCount"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct WhitelistSpec {
    /// Rules, 1 to 256, each with a unique name. If a Deny rule of the namespace matches a request, the request is
    /// Rejected, even if other rules allow it. If several rules allow the request with the same outcome, Writ uses the
    /// first of these rules (Whitelists by name, rules in this order). If their outcomes differ, the request is
    /// Rejected, reason Ambiguous.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<WhitelistRule>,

    /// Fields that this version does not know. If a Whitelist has such a field, its namespace fails closed, because the
    /// field may forbid something.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Rule about one kind of command, which may run or must never run. The rule describes the form of the request and the
/// command that Writ executes for it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-kubernetes-preserve-unknown-fields" = true,
    "x-kubernetes-validations" = [{
        "rule": "has(self.run) || (has(self.effect) && self.effect == 'Deny')",
        "message": "a rule must say in `run` what is executed (only one with effect Deny may leave it out)",
    }]
))]
pub struct WhitelistRule {
    /// Name of the rule, unique in its Whitelist. Writ records the name in each execution that the rule allowed. Lower
    /// case letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Purpose of the rule, for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Effect of the rule on the commands that it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,

    /// Kind of action, as a word that you choose. Default `custom`. If a request has `spec.actionType`, only rules with
    /// the same action type can allow it. Lower case letters, digits, `-` and `_`, at most 63 characters. A Deny
    /// without an action type applies to every action type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"))]
    pub action_type: Option<String>,

    /// Text of `spec.command` that requests this rule. Writ compares it byte for byte (no trimming, no globbing).
    /// `{name}` stands for a value of the parameter `name`. `{{` and `}}` stand for single braces. Default: the words
    /// of `run`, joined with one space each. At most 4096 printable ASCII characters.
    ///
    /// Writ must be able to read each text in only one way. Put text between two parameters. If text follows a
    /// parameter, the values of the parameter must not contain a space or the first character of that text. A parameter
    /// at the end of `match` has no such limit.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[ -~]+$"))]
    pub match_text: Option<String>,

    /// Command: an argument vector of 1 to 64 words, never a shell line. The first word is the program: a constant
    /// absolute path without `..` and `//`. Each word has at most 4096 printable ASCII characters, also `'`, `!` and
    /// `\`.
    ///
    /// The program receives each word unchanged, with two exceptions. `{name}` stands for the value of the parameter
    /// `name` (alone, or inside a word: `--since={day}`). `{{` and `}}` stand for single braces.
    ///
    /// A parameter with a `pattern` must not be in a word that the program uses as a program, code, a configuration or
    /// a library. If Writ knows the program, it refuses such a rule. `writ lint` warns about other programs. A
    /// parameter with listed values (`enum`, `integer`) may be in such a word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = r"^[ -~]*$")))]
    pub run: Vec<String>,

    /// Parameters by name, at most 16. `run` must use each of them. Names: letters, digits and `_`, at most 63
    /// characters, the first character not a digit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub parameters: BTreeMap<String, Parameter>,

    /// Selector for the Machines to which the rule applies, by label. If absent, the rule applies to every Machine of
    /// the namespace. Anyone who may label Machines can change which commands may run on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_selector: Option<MachineSelector>,

    /// Requesters to whom the rule applies, 1 to 64 entries. One matching entry is enough. If absent, the rule applies
    /// to everybody who may create CommandExecutions in the namespace. The requester is the user that the API server
    /// authenticated (`spec.requestedBy`). As long as Writ cannot verify that the API server records the requester, an
    /// Allow rule with subjects allows nobody. A Deny with subjects then applies to everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub subjects: Option<Vec<Subject>>,

    /// User that runs the command, by `sudo -n` on the machine. sudoers must allow exactly this command to the login
    /// user. The name has the form of `spec.user` of a Machine (`Deploy`, `svc.deploy`, `CORP\deploy`,
    /// `deploy@corp.example`), at most 64 characters. If absent, the login user runs the command. A Deny with `runAs`
    /// applies only to commands that would run as this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = USER_NAME))]
    pub run_as: Option<String>,

    /// Working directory of the command: a constant absolute path without `..` and `//`. The login user must be able to
    /// enter it, even if `runAs` is set. If the login user cannot enter it, nothing runs and the execution has exit
    /// code 126. If absent, the login directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[ -~]*$"))]
    pub working_directory: Option<String>,

    /// Environment variables that a requester may set (`spec.environment`), with their values, at most 16. A variable
    /// with a `default` is always set. Writ refuses names that control a loader, a shell or an interpreter (PATH, LD_*,
    /// BASH_ENV, PYTHON* and similar). Some programs take programs, options or configurations from a variable
    /// (GEM_PATH, RCLONE_* and similar). Such a variable needs listed values. With `runAs`, sudoers must keep the
    /// variables (`env_keep`; see docs/guides/run-as.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub environment: BTreeMap<String, Parameter>,

    /// Limits on the timeout of the command, in seconds from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<TimeoutLimits>,

    /// Permission for interactive sessions: a terminal and standard input for this command, through the exec endpoint
    /// of the gateway. Default false. No rule matches the input that a person types, and Writ does not check it. If
    /// `run` gives a shell, the person can therefore run anything. Other requests for the rule run without input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,

    /// Content of the input in the recording of a session. Default false: the recording then has only the time and the
    /// size of each input. With true, the recording also has each byte that a person types, and therefore passwords.
    /// `writ lint` warns about it. Needs `interactive: true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_input: bool,

    /// Statement of the author that this interactive program is meant to give a shell. Default false. `writ lint` warns
    /// about an interactive program that gives a shell, unless this field is true. Decisions ignore it. Needs
    /// `interactive: true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive_shell: bool,

    /// Limits on the size of the output, and on the wait for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputLimits>,

    /// Patterns for output that must not be stored: up to 8 regular expressions of at most 256 characters. Writ
    /// replaces each match within a line of stdout or stderr by `***` before it stores, shows or digests the output.
    ///
    /// Writ replaces a whole text if it cannot search the text:
    ///
    /// - a line of more than 64 KiB
    /// - the rest of a line with very many matches
    /// - a last line that was cut off
    ///
    /// In Durable mode the unredacted output stays on the machine until the result is stored. The login user can read
    /// it (docs/guides/machine-users.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 256), regex(pattern = r"^[ -~]+$")))]
    pub redact: Vec<String>,

    /// Minimum retention of an execution that this rule allows, in seconds from its end, 0 to 31536000 (365 days).
    /// During this time, neither its TTL nor a user deletes the execution. If absent: `writ serve
    /// --minimum-retention-seconds` (default one day). A shorter time is useful if a pipeline has to delete the
    /// execution before it creates the next one. With 0 the pipeline can delete it at once. With 0 and `generateName`
    /// no receipt stays, so a requester can remove the record of their own command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Allow (default): the described command may run. Deny: the described command must not run, even if other rules allow
/// it.
///
/// A Deny matches a request in two cases:
///
/// - Its `match` describes the text of the request.
/// - All words of its `run` match the words of the command.
///
/// A Deny with `runAs` applies only to commands that would run as that user. A Deny without `match`, `run` and `runAs`
/// matches every request for its machines and of its subjects.
///
/// `run` and `runAs` of a Deny also apply to a command that a launching program starts (`timeout 5 systemctl ...`,
/// `sudo -n -u app ...`; docs/guides/whitelist.md). /bin, /sbin, /usr/bin and /usr/sbin count as one directory. A
/// program without a directory matches in each of these directories. A Deny does not match other orders of the words,
/// or further options. `writ lint` warns about a Deny that matches nothing.
///
/// The patterns of a Deny may be as wide as you like. Of the other fields a Deny may have `parameters`, `actionType`,
/// `machineSelector` and `subjects`. If a Deny is invalid, the namespace fails closed: nothing runs there until
/// somebody fixes the Deny.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// The command may run, unless a Deny matches it.
    #[default]
    Allow,
    /// The command must not run, even if other rules allow it.
    Deny,
}

/// Values that a parameter or an environment variable may have. Set exactly one of `enum`, `integer` and `pattern`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Parameter {
    /// List of the allowed values: 1 to 256 values of 1 to 256 printable ASCII characters. Writ compares them byte for
    /// byte.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 256)))]
    pub one_of: Option<Vec<String>>,

    /// Range of whole numbers. A value is decimal, without sign, leading zeros and spaces. A Deny ignores leading
    /// zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<IntegerRange>,

    /// Regular expression that the whole value must match, at most 1024 characters. `^` and `$` are not needed and not
    /// allowed. The syntax is that of Rust's regex crate, without look-around and back references, so that matching
    /// takes linear time.
    ///
    /// The expression must list the characters that it admits, so `.` and `[^...]` are not allowed. These characters
    /// must be printable ASCII without `'`, `!` and `\`. The expression must not admit an empty value. If the parameter
    /// is at the beginning of a word of `run` without a `--` before it, the expression must not admit values that begin
    /// with `-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,

    /// Permission for values of `pattern` that lead to a parent directory. Default false. Without this permission, a
    /// rule is out of force if its pattern admits `..` as a segment of a path in `run` or in a variable (`..`, `../x`,
    /// `x/../y`, `--file=..`). For example, `[A-Za-z0-9_][A-Za-z0-9._-]*` does not admit `..`, because the first
    /// character cannot be a dot. Only with `pattern`. Ignored on a Deny, whose patterns may be as wide as you like.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_parent_directory: bool,

    /// Maximum length of a value, in characters, 1 to 4096. Default 256. This limit applies in addition to `enum`,
    /// `integer` or `pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_length: Option<u32>,

    /// Value of the parameter if the request sets no value. The parameter must admit this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,

    /// Meaning of the parameter, for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Range of whole numbers from `minimum` to `maximum`, both included.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct IntegerRange {
    /// Smallest number, at least 0. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub minimum: i64,

    /// Largest number, at least 0.
    #[schemars(range(min = 0))]
    pub maximum: i64,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Requester to whom a rule applies, in the form of a subject in RBAC.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Subject {
    /// Kind of the subject: User, Group or ServiceAccount.
    pub kind: SubjectKind,

    /// Name of the subject, at most 256 characters. Writ compares it byte for byte, without wildcards.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// Namespace of a ServiceAccount. Default: the namespace of the Whitelist. Not allowed with the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Kind of a subject.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SubjectKind {
    /// A user by name.
    User,
    /// All members of a group.
    Group,
    /// A ServiceAccount.
    ServiceAccount,
}

/// Limits on the timeout of a command, in seconds from its start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct TimeoutLimits {
    /// Timeout if the request sets no timeout, in seconds, 1 to 86400. Default 30, or `maximum` if `maximum` is
    /// smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub default: Option<u32>,

    /// Longest timeout that a request may set, in seconds, 1 to 86400. Default 3600, or `default` if `default` is
    /// greater. A request with a longer timeout is Rejected. Writ never shortens a timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub maximum: Option<u32>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Limits on the output: its size in the status, its total size, and the wait for its end.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct OutputLimits {
    /// Maximum size of each stream in the status, in bytes of its JSON form, 0 to 16384. Default 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: Option<u32>,

    /// Maximum size of the output, in bytes of both streams together, 1024 to 1099511627776. Default 67108864 (64 MiB).
    /// Writ stops a command that writes more. The execution is then Failed, reason OutputLimitExceeded. The record
    /// holds the bytes up to this limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_i64))]
    pub maximum_bytes: Option<i64>,

    /// Maximum time that Writ waits for more output after the command's exit, while other processes still hold the
    /// output open. In seconds, 0 to 60. Default 2.
    ///
    /// After the wait the status has `output.incomplete: true`, `output.incompleteReason: StillOpen` and, except in
    /// Direct mode, the processes that hold the output open (`output.heldBy`). Writ discards output that they write
    /// later, so it does not fill the disk. With 0 Writ does not wait, and records the output up to the exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: Option<u32>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// State of the rules of a Whitelist.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhitelistStatus {
    /// The `metadata.generation` for which Writ wrote this status; -1 until Writ has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Number of rules that are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rule_count: Option<i64>,

    /// Number of warnings of `writ lint` about the rules. Warnings do not change what is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub warning_count: Option<i64>,

    /// Conditions of the Whitelist:
    ///
    /// - Ready: every rule is in force.
    /// - Stalled: at least one rule is not in force. The message names the rules and their faults.
    /// - HasWarnings: a rule may allow more than its author means. The message names the rule.
    /// - RequesterKnown (only if a rule has `subjects`): the API server records requesters. While it is False, rules
    ///   with `subjects` allow nobody. While it is Unknown, executions that depend on `subjects` stay Pending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
