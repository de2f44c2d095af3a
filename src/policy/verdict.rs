//! Result of matching a request against the rules: the decision, or the denial with its near miss.

use std::collections::BTreeMap;

use crate::api::Reason;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

use super::subjects::Identity;

/// Result for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The request is allowed. Writ runs exactly this decision.
    Allow(Box<Decision>),
    /// The request is denied.
    Deny(Denial),
}

/// Command to run, and its limits. Writ fixes them before it sends anything to the machine.
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
    /// User to run the command as, with sudo. `None` for the login user.
    pub run_as: Option<String>,
    /// Working directory. `None` for the login directory.
    pub working_directory: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Maximum duration of the run, in seconds.
    pub timeout_seconds: u32,
    /// True if the command may get a terminal and standard input.
    pub interactive: bool,
    /// True if the recording of a session contains the input.
    pub record_input: bool,
    /// Limits on the output: its size in the status, its total size, and the wait for more output after the command's
    /// exit.
    pub output: OutputBounds,
    /// Patterns whose matches are redacted in the output.
    pub redact: Vec<String>,
    /// Minimum time to keep the execution, in seconds. `None` for the default of the installation.
    pub minimum_retention_seconds: Option<u32>,
}

/// Reason why a request is denied, with the near miss: the rule that is nearest to the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// NoMatchingRule, NotPermitted, Denied, Ambiguous or PolicyBroken.
    pub reason: Reason,
    /// Cause and remedy, for a requester who perhaps has no permission to read the policy. Contains names of rules and
    /// parameters, but no texts, no patterns, and no length of a matching prefix.
    pub message: String,
    /// Complete near miss, only for readers of the policy: the nearest rule, and the reason why it did not match.
    pub nearest: Option<NearMiss>,
}

impl Denial {
    /// Returns true if the denial is not final: the denial can depend on the requester, and the requester is not
    /// verified yet.
    pub fn awaits_identity(&self, identity: Identity<'_>) -> bool {
        identity == Identity::Undecided && matches!(self.reason, Reason::NotPermitted | Reason::Denied)
    }
}

/// Rule that is nearest to a denied request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NearMiss {
    /// Name of the Whitelist.
    pub whitelist: String,
    /// Name of the rule. Empty if the problem concerns the whole Whitelist.
    pub rule: String,
    /// Reason why the rule did not match, with the values that the rule admits.
    pub why: String,
}
