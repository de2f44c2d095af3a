//! Result of matching a request against the rules: the decision, or the denial with its near miss.

use std::collections::BTreeMap;

use crate::api::Reason;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

/// Result of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The request may run, exactly as decided.
    Allow(Box<Decision>),
    /// The request may not run.
    Deny(Denial),
}

/// The command and its limits, fixed before anything is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Whitelist of the rule that allowed the request.
    pub whitelist: ObjectRecord,
    /// Name of the rule.
    pub rule: String,
    /// Action type of the rule.
    pub action_type: String,
    /// Argument vector.
    pub argv: Vec<String>,
    /// User to run as, by sudo; `None` for the login user.
    pub run_as: Option<String>,
    /// Working directory; `None` for the login directory.
    pub working_directory: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Maximum run time, in seconds.
    pub timeout_seconds: u32,
    /// True if the command may get a terminal and standard input.
    pub interactive: bool,
    /// Bounds of the stored and the allowed output.
    pub output: OutputBounds,
    /// Patterns whose matches are redacted in the output.
    pub redact: Vec<String>,
    /// Minimum time to keep the record, in seconds; `None` for the default of the installation.
    pub minimum_retention_seconds: Option<u32>,
}

/// Reason why a request may not run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// NoMatchingRule, NotPermitted, Denied, Ambiguous or PolicyBroken.
    pub reason: Reason,
    /// Cause and remedy for the requester, who may have no right to read the policy. Names rules and parameters, but
    /// shows no texts, no patterns, and no length of a matching beginning.
    pub message: String,
    /// Near miss, in full: the closest rule, and why it did not match. Only for readers of the policy.
    pub nearest: Option<NearMiss>,
}

/// Rule that came closest to a denied request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NearMiss {
    /// Name of the Whitelist.
    pub whitelist: String,
    /// Name of the rule; empty if the Whitelist as a whole is at fault.
    pub rule: String,
    /// Reason why the rule did not match, with the values that it admits.
    pub why: String,
}
