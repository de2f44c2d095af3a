//! Whitelist: the only source of permission.
//!
//! Everything in it keeps what it does not understand (`unknown_fields`) instead of having the API server drop it: a
//! field that narrows a rule (written for a later version and then rolled back) must close the rule, never be forgotten
//! and so widen it. See `docs/design/20261121-unknown-rule-fields.md`.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::USER_NAME;
use super::selector::MachineSelector;

/// Fields that this version does not know, by name.
pub type UnknownFields = BTreeMap<String, serde_json::Value>;

/// What may run on the Machines of this namespace. Nothing runs that no rule lists.
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
    doc = "What may run on the Machines of this namespace. Default deny: nothing runs that no rule lists.",
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
    /// The rules, 1 to 256, each with a name of its own. A request that a Deny rule of the namespace matches is
    /// Rejected, whatever allows it. One that several rules allow with the same outcome runs by the first of them
    /// (Whitelists by name, rules in this order); with different outcomes it is Rejected, reason Ambiguous.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<WhitelistRule>,

    /// Fields that this version does not know. A Whitelist that has any closes its namespace: it may forbid something.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// One thing that may run, or that may never run: how a caller may ask for it, and what is executed then.
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
    /// Name of the rule, unique in its Whitelist; it is recorded with each execution that it allowed. Lower case
    /// letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// What the rule is for, in a sentence for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// What the rule does with what it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,

    /// What kind of action this is, in one word of your own; default `custom`. A caller who names one in
    /// `spec.actionType` is allowed only by rules that have it. Lower case letters, digits, `-` and `_`, at most 63
    /// characters. A Deny that has none holds against every action type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"))]
    pub action_type: Option<String>,

    /// The text that a caller may write in `spec.command` to ask for this rule, compared byte for byte (no trimming,
    /// no globbing), but for `{name}`, which stands for a value of that parameter. `{{` and `}}` stand for the braces
    /// themselves. It must be readable in one way only: between two parameters there must be text, and a parameter that
    /// is not at the end must admit neither a space nor the character after it. Default: the words of `run`, joined
    /// with one space each. At most 4096 printable ASCII characters.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[ -~]+$"))]
    pub match_text: Option<String>,

    /// What is executed: an argument vector of 1 to 64 words, never a shell line. The first is the program, a constant
    /// absolute path without `..` and `//`. Each word is passed to the program as it stands, but for `{name}`, which
    /// stands for the value of that parameter (alone, or inside a word: `--since={day}`); `{{` and `}}` stand for the
    /// braces themselves. At most 4096 printable ASCII characters each, also `'`, `!` and `\`. A parameter with a `pattern`
    /// must not be there if the program takes that word as a program, code, a configuration or a library, as far as Writ
    /// knows the program (`writ lint` warns of others). Listed values (`enum`, `integer`) may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = r"^[ -~]*$")))]
    pub run: Vec<String>,

    /// The parameters by name, at most 16; each must be used in `run`. Names: letters, digits and `_`, at most 63
    /// characters, not beginning with a digit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub parameters: BTreeMap<String, Parameter>,

    /// The Machines that the rule holds for, by their labels. Absent: every Machine of the namespace. Whoever may
    /// label Machines decides with it what runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_selector: Option<MachineSelector>,

    /// Who may ask, 1 to 64 of them; one that fits is enough. Absent: everybody who may create CommandExecutions in the
    /// namespace. Who asks is what the API server authenticated (`spec.requestedBy`). While Writ cannot be sure of
    /// that, a rule with subjects allows nobody, and a Deny with subjects holds against everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub subjects: Option<Vec<Subject>>,

    /// The user to run as, by `sudo -n` on the machine, where sudoers must allow it to the login user for just this
    /// command. Absent: the login user. On a Deny: hold only against what would run as this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// Its name has the form of `spec.user` of a Machine (`Deploy`, `svc.deploy`, `CORP\deploy`, `deploy@corp.example`).
    #[schemars(length(min = 1, max = 64), regex(pattern = USER_NAME))]
    pub run_as: Option<String>,

    /// The folder to run in, an absolute path without `..` and `//`, constant. The login user must be able to enter it,
    /// also with `runAs`. Where it cannot be entered nothing runs, and the execution has exit code 126. Absent: the
    /// login directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[ -~]*$"))]
    pub working_directory: Option<String>,

    /// The environment variables that a caller may set (`spec.environment`), and the values that each may have, at
    /// most 16. One with a `default` is always set. Names that steer a loader, a shell or an interpreter (PATH, LD_*,
    /// BASH_ENV, PYTHON* and their like) are refused. Names from which programs take programs, options or
    /// configurations (GEM_PATH, RCLONE_* and their like) need listed values. With `runAs`, sudoers must let them pass
    /// (`env_keep`; see docs/guides/run-as.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub environment: BTreeMap<String, Parameter>,

    /// How long the command may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<TimeoutLimits>,

    /// Whether the command may be given a terminal and standard input. Default false. It is decided and recorded; there
    /// is no way yet to ask for a terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,

    /// Limits on the output: how much is kept, how much there may be, and how long Writ waits for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputLimits>,

    /// What must not be stored of the output: up to 8 regular expressions of at most 256 characters. Whatever one
    /// matches within a line of stdout or stderr is replaced by `***` before anything is stored, shown or digested. What
    /// could not be searched is replaced as a whole: a line of more than 64 KiB, the rest of a line with very many matches,
    /// and a last line that was cut off. In Durable mode the output lies on the machine as it was written until the result is
    /// stored, readable for the login user (docs/guides/machine-users.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 256), regex(pattern = r"^[ -~]+$")))]
    pub redact: Vec<String>,

    /// Seconds after its end for which the record of an execution that this rule allows is kept at least, 0 to 31536000
    /// (365 days). Before that neither `ttlSecondsAfterFinished` nor a person removes it. Absent: what the installation says
    /// (`writ serve --minimum-retention-seconds`, a day). Less than that is right if a pipeline has to delete the
    /// execution before it creates the next one, and 0 lets it do so at once. With 0 and `generateName` a requester can
    /// remove the record of what they ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_retention_seconds: Option<u32>,

    /// Fields that this version does not know. A rule that has any is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Allow (default): what the rule describes may run. Deny: it may not, whatever other rules say. A Deny is held
/// against the text by its `match` or, all words of them, against what would be executed by its `run` (one of the two is
/// enough); with `runAs` only against what would run as that user. One with none of the three holds against everything on
/// its machines and of its subjects. `run` and `runAs` also hold against what a launcher starts (`timeout 5 systemctl
/// ...`, `sudo -n -u app ...`; docs/guides/whitelist.md). /bin, /sbin, /usr/bin and /usr/sbin count as one directory, and a
/// program without a directory holds in each. Order of words and further options are not seen through: `writ lint` warns
/// about a Deny that holds against nothing. Its patterns may be as wide as you like. Of the other fields a Deny may have `parameters`, `actionType`, `machineSelector`
/// and `subjects`. A Deny that is broken closes the namespace: nothing runs there until it is mended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// It may run, unless a Deny holds against it.
    #[default]
    Allow,
    /// It may not run, whatever allows it.
    Deny,
}

/// The values that may stand for `{name}`, or that an environment variable may have. Exactly one of `enum`, `integer`
/// and `pattern`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Parameter {
    /// One of these, byte for byte: 1 to 256 values of 1 to 256 printable ASCII characters.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 256)))]
    pub one_of: Option<Vec<String>>,

    /// A whole number in decimal: no sign, no leading zero, no blank. On a Deny, leading zeros are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<IntegerRange>,

    /// A regular expression (the syntax of Rust's regex crate, without look-around and back references, so that it
    /// takes linear time), held against the whole value: `^` and `$` are not needed and not allowed. It must say which
    /// characters it admits: none but printable ASCII, and not `'`, `!`, `\`; so no `.` and no `[^...]`. It must not
    /// admit an empty value, nor one that begins with `-` where the parameter stands at the beginning of a word of `run`
    /// and no `--` before it. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,

    /// True: the values of `pattern` may lead to a parent directory. False, which is the default: the rule is out of force
    /// if the pattern makes `..` possible as a segment of a path in `run` or in a variable (`..`, `../x`, `x/../y`,
    /// `--file=..`). A pattern whose segments begin with a letter, a digit or `_` does not:
    /// `[A-Za-z0-9_][A-Za-z0-9._-]*`. Only with `pattern`, and not on a Deny, whose patterns may be as wide as you like.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_parent_directory: bool,

    /// The longest value, in characters, 1 to 4096. Default 256. Holds beside each of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_length: Option<u32>,

    /// The value where the caller gives none. It must be one that the parameter admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,

    /// What it is, in a sentence for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Fields that this version does not know. They put the rule out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Whole numbers from `minimum` to `maximum`, both included.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct IntegerRange {
    /// The least, at least 0. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub minimum: i64,

    /// The greatest.
    #[schemars(range(min = 0))]
    pub maximum: i64,

    /// Fields that this version does not know. They put the rule out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Somebody who may ask, as in RBAC.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Subject {
    /// User, Group or ServiceAccount.
    pub kind: SubjectKind,

    /// The name, compared byte for byte; no wildcards. At most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// The namespace of a ServiceAccount; default that of the Whitelist. Not with the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// Fields that this version does not know. They put the rule out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// The kind of a subject.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SubjectKind {
    /// A user by name.
    User,
    /// Everybody in a group.
    Group,
    /// A ServiceAccount.
    ServiceAccount,
}

/// How long a command may take, in seconds from its start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct TimeoutLimits {
    /// Where the caller does not say, 1 to 86400. Default 30, or `maximum` where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub default: Option<u32>,

    /// The most that a caller may ask for, 1 to 86400. Default 3600, or `default` where that is more. Over it an
    /// execution is Rejected, never shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub maximum: Option<u32>,

    /// Fields that this version does not know. They put the rule out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Limits on the output: how much the status shows, how much there may be, and how long Writ waits for its end.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct OutputLimits {
    /// How much of each stream the status shows, in bytes as encoded in JSON, 0 to 16384. Default 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub inline_bytes: Option<u32>,

    /// How much the command may write to both streams together, in bytes, 1024 to 1099511627776. Default 67108864 (64
    /// MiB). A command that writes more is stopped, and the execution is Failed, reason OutputLimitExceeded. The record
    /// holds the bytes up to this limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_i64))]
    pub maximum_bytes: Option<i64>,

    /// Seconds that Writ waits after the command's exit while other processes still hold its output open, 0 to 60.
    /// Default 2. After that the status has `output.incomplete: true`, `output.incompleteReason: StillOpen` and, except
    /// in Direct mode, the processes that hold the output open (`output.heldBy`). What such a process writes later is
    /// discarded and does not fill the disk. With 0 Writ takes what was written until the exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: Option<u32>,

    /// Fields that this version does not know. They put the rule out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// What Writ makes of a Whitelist.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhitelistStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How many of its rules are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rule_count: Option<i64>,

    /// Number of warnings that `writ lint` has for its rules. Warnings change nothing of what is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub warning_count: Option<i64>,

    /// Ready (every rule is in force), Stalled (it says which is not, and what is wrong with it), HasWarnings (a rule may do
    /// more than its author means; it says which), and, where a rule has `subjects`, RequesterKnown (whether Writ can be
    /// sure of who asks; while it is False, such rules allow nobody).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
