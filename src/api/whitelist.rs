//! Whitelist: the only source of permission.
//!
//! A rule keeps what it does not understand (`unrecognized`) instead of having the API server drop it: a field that
//! narrows a rule (say `subjects`, written for a later version and then rolled back) must close the rule, never be
//! forgotten and so widen it. See `docs/design/20261121-unknown-rule-fields.md`.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may run on the Machines of this namespace. Nothing runs that no rule lists.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "Whitelist",
    plural = "whitelists",
    shortname = "wl",
    category = "writ",
    namespaced,
    derive = "PartialEq",
    doc = "What may run on the Machines of this namespace. Default deny: nothing runs that no rule lists.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WhitelistSpec {
    /// The rules, 1 to 256, each with a name of its own. A request that several rules of the namespace allow with
    /// the same argument vector runs by the first of them (Whitelists by name, rules in this order); with different
    /// ones it is Rejected, reason Ambiguous.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<WhitelistRule>,
}

/// One thing that may run: how a caller may ask for it, and what is executed then.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct WhitelistRule {
    /// Name of the rule, unique in its Whitelist; it is recorded with each execution that it allowed. Lower case
    /// letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// What the rule is for, in a sentence for people. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The text that a caller may write in `spec.command` to ask for this rule, compared byte for byte (no
    /// trimming, no globbing). Default: the words of `run`, joined with one space each. At most 4096 printable
    /// ASCII characters; `{` and `}` are kept for parameters, which this version does not have yet.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[ -z|~]+$"))]
    pub match_text: Option<String>,

    /// What is executed: an argument vector of 1 to 64 words, never a shell line. The first is the program, an
    /// absolute path without `..` and `//`. Each word is passed to the program as it stands. At most 4096 printable
    /// ASCII characters each, without `'`, `!` and `\` (login shells do not agree on them), `{` and `}`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = r#"^[ "-&(-\[\]-z|~]*$"#)))]
    pub run: Vec<String>,

    /// Fields that this version does not know. A rule that has any is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unrecognized: BTreeMap<String, serde_json::Value>,
}
