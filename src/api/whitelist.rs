//! Whitelist: the only source of permission.
//!
//! Every type keeps the fields that this version does not know (`unknown_fields`), and the API server does not drop
//! them. A field of a later version may narrow a rule. After a rollback the rule must then be out of force: dropping
//! the field would widen it. See `docs/design/20261121-unknown-rule-fields.md`.

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
    /// Rejected, even if other rules allow it. If several rules allow it with the same outcome, Writ uses the first of
    /// them (Whitelists by name, rules in this order). If their outcomes differ, the request is Rejected, reason
    /// Ambiguous.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<WhitelistRule>,

    /// Fields that this version does not know. If a Whitelist has any, its namespace fails closed, because such a field
    /// may forbid something.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// One kind of command that may run, or that may never run: the form of the request, and the command that it executes.
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
    /// Name of the rule, unique in its Whitelist. Writ records it with each execution that the rule allowed. Lower case
    /// letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Purpose of the rule, for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Effect of the rule on the commands that it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,

    /// Kind of action, as one word of your own. Default `custom`. A request with `spec.actionType` is only allowed by
    /// rules with this action type. Lower case letters, digits, `-` and `_`, at most 63 characters. A Deny without it
    /// applies to every action type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"))]
    pub action_type: Option<String>,

    /// Text of `spec.command` that requests this rule, compared byte for byte (no trimming, no globbing). `{name}`
    /// stands for a value of that parameter, `{{` and `}}` for the braces themselves. The text must be readable in one
    /// way only: there must be text between two parameters, and a parameter that is not at the end must admit neither a
    /// space nor the character after it. Default: the words of `run`, joined with one space each. At most 4096
    /// printable ASCII characters.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[ -~]+$"))]
    pub match_text: Option<String>,

    /// Command: an argument vector of 1 to 64 words, never a shell line. The first word is the program, a constant
    /// absolute path without `..` and `//`. The program receives each word as it is, except that `{name}` stands for
    /// the value of that parameter (alone, or inside a word: `--since={day}`), and `{{` and `}}` stand for the braces
    /// themselves. At most 4096 printable ASCII characters each, also `'`, `!` and `\`. A parameter with a `pattern`
    /// must not be in a word that the program uses as a program, code, a configuration or a library, as far as Writ
    /// knows the program (`writ lint` warns about others). Listed values (`enum`, `integer`) may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = r"^[ -~]*$")))]
    pub run: Vec<String>,

    /// Parameters by name, at most 16. Each must be used in `run`. Names: letters, digits and `_`, at most 63
    /// characters, the first not a digit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub parameters: BTreeMap<String, Parameter>,

    /// Selector for the Machines to which the rule applies, by their labels. Absent: every Machine of the namespace.
    /// Anyone who may label Machines can thereby change which commands may run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_selector: Option<MachineSelector>,

    /// Requesters to whom the rule applies, 1 to 64; one match is enough. Absent: everybody who may create
    /// CommandExecutions in the namespace. The requester is the user that the API server authenticated
    /// (`spec.requestedBy`). As long as Writ cannot verify that the API server records the requester, a rule with
    /// subjects allows nobody, and a Deny with subjects applies to everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub subjects: Option<Vec<Subject>>,

    /// User that runs the command, by `sudo -n` on the machine. sudoers must allow exactly this command to the login
    /// user. The name has the form of `spec.user` of a Machine (`Deploy`, `svc.deploy`, `CORP\deploy`,
    /// `deploy@corp.example`), at most 64 characters. Absent: the login user. On a Deny: the rule applies only to
    /// commands that would run as this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = USER_NAME))]
    pub run_as: Option<String>,

    /// Working directory of the command: a constant absolute path without `..` and `//`. The login user must be able to
    /// enter it, also with `runAs`. If that fails, nothing runs and the execution has exit code 126. Absent: the login
    /// directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[ -~]*$"))]
    pub working_directory: Option<String>,

    /// Environment variables that a requester may set (`spec.environment`), with their values, at most 16. A variable
    /// with a `default` is always set. Names that steer a loader, a shell or an interpreter (PATH, LD_*, BASH_ENV,
    /// PYTHON* and similar) are refused. Names from which programs take programs, options or configurations (GEM_PATH,
    /// RCLONE_* and similar) need listed values. With `runAs`, sudoers must keep them (`env_keep`; see
    /// docs/guides/run-as.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub environment: BTreeMap<String, Parameter>,

    /// Timeout of the command, in seconds from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<TimeoutLimits>,

    /// Permission for a terminal and standard input. Default false. It is decided and recorded, but requests for a
    /// terminal are not supported yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,

    /// Limits on the output, and on the wait for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputLimits>,

    /// Patterns for output that must not be stored: up to 8 regular expressions of at most 256 characters. Writ
    /// replaces each match within a line of stdout or stderr by `***` before it stores, shows or digests anything. Text
    /// that Writ cannot search is replaced as a whole: a line of more than 64 KiB, the rest of a line with very many
    /// matches, and a last line that was cut off. In Durable mode the unredacted output stays on the machine, readable
    /// for the login user, until the result is stored (docs/guides/machine-users.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 256), regex(pattern = r"^[ -~]+$")))]
    pub redact: Vec<String>,

    /// Minimum retention of the record of an execution that this rule allows, in seconds from its end, 0 to 31536000
    /// (365 days). Before that, neither its TTL nor a user removes it. Absent: `writ serve --minimum-retention-seconds`
    /// (a day). A shorter time is useful if a pipeline has to delete the execution before it creates the next one; 0
    /// lets it do so at once. With 0 and `generateName` a requester can remove the record of their own command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,

    /// Fields that this version does not know. With any of them the rule is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Allow (default): the described command may run. Deny: it may not run, even if other rules allow it.
///
/// A Deny matches a request if its `match` describes the text, or if all words of its `run` match the words of the
/// command; one of the two is enough. With `runAs` it applies only to commands that would run as that user. Without
/// `match`, `run` and `runAs` it matches every request for its machines and of its subjects. `run` and `runAs` also
/// apply to a command that a launching program starts (`timeout 5 systemctl ...`, `sudo -n -u app ...`;
/// docs/guides/whitelist.md). /bin, /sbin, /usr/bin and /usr/sbin count as one directory, and a program without a
/// directory matches in each. A Deny does not consider other orders of words and further options: `writ lint` warns
/// about a Deny that matches nothing. Its patterns may be as wide as you like. Of the other fields a Deny may have
/// `parameters`, `actionType`, `machineSelector` and `subjects`. If a Deny is invalid, the namespace fails closed:
/// nothing runs there until the Deny is fixed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// The command may run, unless a Deny matches it.
    #[default]
    Allow,
    /// The command may not run, even if other rules allow it.
    Deny,
}

/// Values for `{name}`, or for an environment variable. Set exactly one of `enum`, `integer` and `pattern`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Parameter {
    /// List of the values, compared byte for byte: 1 to 256 values of 1 to 256 printable ASCII characters.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 256)))]
    pub one_of: Option<Vec<String>>,

    /// Range of whole numbers in decimal, without sign, leading zeros and blanks. On a Deny, leading zeros are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<IntegerRange>,

    /// Regular expression (the syntax of Rust's regex crate, without look-around and back references, so that it takes
    /// linear time), compared with the whole value: `^` and `$` are not needed and not allowed. It must list the
    /// characters that it admits, only printable ASCII without `'`, `!` and `\`; so no `.` and no `[^...]`. It must not
    /// admit an empty value. It must not admit a value that begins with `-` if the parameter is at the beginning of a
    /// word of `run` and no `--` comes before it. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,

    /// Permission for values of `pattern` that lead to a parent directory. Default false: the rule is out of force if
    /// the pattern makes `..` possible as a segment of a path in `run` or in a variable (`..`, `../x`, `x/../y`,
    /// `--file=..`). A pattern whose segments begin with a letter, a digit or `_` does not:
    /// `[A-Za-z0-9_][A-Za-z0-9._-]*`. Only with `pattern`. Ignored on a Deny, whose patterns may be as wide as you
    /// like.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_parent_directory: bool,

    /// Maximum length of a value, in characters, 1 to 4096. Default 256. It applies in addition to `enum`, `integer` or
    /// `pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_length: Option<u32>,

    /// Value if the request sets none. The parameter must admit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,

    /// Meaning of the parameter, for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Fields that this version does not know. With any of them the rule is out of force.
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

    /// Fields that this version does not know. With any of them the rule is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Requester to whom a rule applies, as in RBAC.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Subject {
    /// Kind of the subject: User, Group or ServiceAccount.
    pub kind: SubjectKind,

    /// Name of the subject, compared byte for byte, without wildcards. At most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// Namespace of a ServiceAccount. Default: the namespace of the Whitelist. Not allowed with the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// Fields that this version does not know. With any of them the rule is out of force.
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

/// Timeout of a command, in seconds from its start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct TimeoutLimits {
    /// Timeout if the request sets none, in seconds, 1 to 86400. Default 30, or `maximum` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub default: Option<u32>,

    /// Longest timeout that a request may set, in seconds, 1 to 86400. Default 3600, or `default` if that is more. A
    /// request above it is Rejected, never shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub maximum: Option<u32>,

    /// Fields that this version does not know. With any of them the rule is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Limits on the output: its size in the status, its total size, and the wait for its end.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct OutputLimits {
    /// Maximum size of each stream in the status, in bytes as encoded in JSON, 0 to 16384. Default 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: Option<u32>,

    /// Maximum output of the command, in bytes of both streams together, 1024 to 1099511627776. Default 67108864 (64
    /// MiB). Writ stops a command that writes more, and the execution is Failed, reason OutputLimitExceeded. The record
    /// holds the bytes up to this limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_i64))]
    pub maximum_bytes: Option<i64>,

    /// Wait for output after the command's exit, while other processes still hold it open, in seconds, 0 to 60. Default
    /// 2. After the wait the status has `output.incomplete: true`, `output.incompleteReason: StillOpen` and, except in
    /// Direct mode, the processes that hold the output open (`output.heldBy`). Writ discards output that they write
    /// later, and it does not fill the disk. With 0 Writ records the output until the exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: Option<u32>,

    /// Fields that this version does not know. With any of them the rule is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// State of the rules of a Whitelist.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhitelistStatus {
    /// The `metadata.generation` for which this status was written; -1 until Writ has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Number of rules that are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rule_count: Option<i64>,

    /// Number of warnings of `writ lint` for the rules. Warnings do not change what is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub warning_count: Option<i64>,

    /// Conditions: Ready (every rule is in force), Stalled (at least one rule is not; the message names the rules and
    /// their faults), HasWarnings (a rule may do more than its author means; the message names it) and, if a rule has
    /// `subjects`, RequesterKnown (the API server records requesters; while it is False, such rules allow nobody).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
