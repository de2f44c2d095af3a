//! CommandExecution: somebody asks for one command on one Machine, once.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::execution_status::Claim;
use super::{CommandExecutionStatus, NameReference};

/// Default of `spec.startingDeadlineSeconds`, in seconds.
pub const DEFAULT_STARTING_DEADLINE_SECONDS: u32 = 300;
/// What an execution may take where it does not say `spec.timeoutSeconds`, in seconds.
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 30;

/// One command on one Machine, run at most once. Create it and read its status; nothing in it can be changed
/// afterwards but `cancelRequested`, and nothing at all once it has finished.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "CommandExecution",
    plural = "commandexecutions",
    shortname = "cmdexec",
    category = "writ",
    namespaced,
    status = "CommandExecutionStatus",
    derive = "PartialEq",
    doc = "One command on one Machine, held against the Whitelists of the namespace, run at most once, with what happened in its status.",
    selectable = ".status.phase",
    selectable = ".spec.machineRef.name",
    printcolumn(name = "Machine", type_ = "string", json_path = ".spec.machineRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode"),
    printcolumn(name = "Duration-ms", type_ = "integer", json_path = ".status.durationMs"),
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requestedBy.username"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Command",
        type_ = "string",
        priority = 1,
        json_path = ".*['commandLine', 'command', 'argv']",
        description = "What is executed, once that is decided (status.commandLine); before, and where it is rejected, what was asked for."
    ),
    printcolumn(
        name = "Rule",
        type_ = "string",
        priority = 1,
        json_path = ".*['decision', 'rule']['rule', 'name']",
        description = "The rule that allowed it (status.decision.rule), else the one that was asked for (spec.rule.name)."
    ),
    printcolumn(name = "Started", type_ = "string", json_path = ".status.startTime", priority = 1),
    printcolumn(name = "Request-Reason", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.command) ? 1 : 0) + (has(self.argv) ? 1 : 0) + (has(self.rule) ? 1 : 0) == 1")
    .message("say what to run in exactly one way: spec.command, spec.argv or spec.rule"))]
#[x_kube(validation = Rule::new("!has(self.cancelledBy) || self.cancelRequested")
    .message("spec.cancelledBy says who set spec.cancelRequested; it is written by the API server's admission"))]
pub struct CommandExecutionSpec {
    /// The Machine to run on, in this namespace. One that does not exist is waited for 10 seconds (so that one
    /// `kubectl apply` may bring both; not with a starting deadline of 0); after that the execution is Rejected, reason MachineNotFound.
    pub machine_ref: NameReference,

    /// What to run, as text: it must equal the `match` of a rule byte for byte, with values for its parameters. It is
    /// only compared, never given to a shell; what runs is the rule's `run`. 1 to 4096 printable ASCII characters.
    /// Exactly one of `command`, `argv` and `rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = [
        {"rule": r"!self.contains('\n')", "message": r"spec.command has a line break, and must be one line: write it behind `command:` on the same line, and not below `command: |`"},
        {"rule": r"self.contains('\n') || self.matches('^[ -~]+$')", "message": "spec.command must be printable ASCII: replace tabs, typographic quotes, non-breaking blanks and accented letters"},
    ]))]
    pub command: Option<String>,

    /// What to run, as an argument vector: it must equal the `run` of a rule, word for word, with values for its
    /// parameters. 1 to 64 words of at most 4096 printable ASCII characters. Exactly one of `command`, `argv`, `rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub argv: Option<Vec<String>>,

    /// What to run, by the name of a rule and values for its parameters. Exactly one of `command`, `argv` and `rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRequest>,

    /// The kind of action, where only rules with this `actionType` may allow it. Absent: any rule may, and the rule's
    /// own is recorded. At most 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$')", "message": "spec.actionType must be a word as rules have it: lower case letters, digits, - and _, with a letter or digit first and last; or leave it out"},
    ]))]
    pub action_type: Option<String>,

    /// Environment variables for the command, at most 16, each with a name of at most 63 characters and a value of at most 4096 printable ASCII characters.
    /// The rule says which names and values may be set; any other is Rejected, reason NotPermitted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations" = [
            {"rule": "self.all(name, size(name) <= 63)", "message": "a name must have at most 63 characters"},
        ]
    ))]
    pub environment: BTreeMap<String, String>,

    /// Why, for those who read the record later. At most 1024 characters. Writ does not interpret it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,

    /// How long the command may take, in seconds from its start, 1 to 86400. Default and maximum are the rule's (30 and
    /// 3600 where it does not say); over the maximum the execution is Rejected, reason NotPermitted. When the time is
    /// over, Writ asks the machine to stop it and the execution ends as TimedOut; the status says whether it may still
    /// run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,

    /// How long the execution may wait to start, in seconds from its creation, 0 to 604800 (7 days). Default 300.
    /// Waiting for a free slot and for a machine that does not answer both count. 0: one attempt to connect, now.
    /// When it is over, the execution is Expired (or LaunchFailed, where it had just been claimed) and nothing was run.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub starting_deadline_seconds: u32,

    /// How long the object is kept once it has finished, in seconds from `status.completionTime`, 0 to 31536000 (365
    /// days); then Writ deletes it, with its stored output, and leaves an ExecutionReceipt: when the same name and spec is
    /// applied again, as GitOps does, it is not run again (reason AlreadyExecuted). Where the name was made up by the API
    /// server or by Argo CD (`metadata.generateName`) there is no receipt, as that name does not come again. Absent:
    /// `writ serve --default-ttl-seconds`, else it is kept until somebody deletes it. It cannot be changed afterwards. A
    /// shorter time counts as the minimum retention: `minimumRetentionSeconds` of the rule that allowed it, else
    /// `writ serve --minimum-retention-seconds` (a day). What no rule allowed is kept for that long too, but for 5 minutes at
    /// most. Once the minimum is over, somebody who may delete finished executions may do so earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Set it to true to cancel: before the command has started it will not start; while it runs, Writ asks the
    /// machine to stop it, and the status says whether it may still run. The only field that may change, and only
    /// from false to true while the execution has not finished.
    #[serde(default)]
    pub cancel_requested: bool,

    /// Who created it, as the API server authenticated them. Written by the API server's admission policies (see
    /// `deploy/`), never by the caller: what a caller writes here is replaced, or refused. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// Who set `cancelRequested`, written in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Canceller>,
}

/// A request by name: the rule, and values for its parameters.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRequest {
    /// Name of the rule.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "message": "spec.rule.name must be the name of a rule: lower case letters, digits and -, with a letter or digit first and last; it is not the text of a command (that is spec.command)"},
    ]))]
    pub name: String,

    /// Values for its parameters, by their names of at most 63 characters. One that is left out has the rule's default. At most 16, of at most
    /// 4096 printable ASCII characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations" = [
            {"rule": "self.all(name, size(name) <= 63)", "message": "a name must have at most 63 characters"},
        ]
    ))]
    pub parameters: BTreeMap<String, String>,

    /// Name of the Whitelist that the rule is in. May be left out where only one Whitelist of the namespace has a rule
    /// of this name, or all of them would do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub whitelist: Option<String>,
}

/// Who asked, as authenticated.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The user name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// The authenticator's own identifier of the user; empty where there is none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,

    /// The groups, at most 512.
    #[serde(default)]
    #[schemars(length(max = 512), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<String>,
}

/// Who cancelled, as authenticated.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Canceller {
    /// The user name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// The authenticator's own identifier of the user; empty where there is none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,
}

fn default_starting_deadline_seconds() -> u32 {
    DEFAULT_STARTING_DEADLINE_SECONDS
}

impl CommandExecution {
    /// Whether somebody wants it not to run: it was cancelled, or is being deleted.
    pub fn is_cancelled_or_deleted(&self) -> bool {
        self.spec.cancel_requested || self.metadata.deletion_timestamp.is_some()
    }

    /// Whether somebody has taken responsibility for starting it, whatever the phase says: from then on nobody else may.
    pub fn is_claimed(&self) -> bool {
        self.phase().is_claimed() || self.claim().is_some()
    }

    /// Who has taken responsibility for starting it.
    pub fn claim(&self) -> Option<&Claim> {
        self.status.as_ref()?.claim.as_ref()
    }

    /// How old it is at `now`; None without a creation time, which the API server always gives. Its creation is by the
    /// API server's clock, so a clock that is behind gives 0.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        let created = self.metadata.creation_timestamp.as_ref()?.0;
        Some(Duration::try_from(now.duration_since(created)).unwrap_or(Duration::ZERO))
    }

    /// Whether Writ's finalizer holds it: it cannot vanish while it runs.
    pub fn has_audit_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == super::AUDIT_FINALIZER)
    }

    /// The phase in the status; Pending where there is no status yet.
    pub fn phase(&self) -> super::Phase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }
}

impl CommandExecutionSpec {
    /// For a Machine, all else left to the defaults: it asks for nothing yet.
    pub fn on_machine(name: &str) -> Self {
        Self {
            machine_ref: NameReference::new(name),
            command: None,
            argv: None,
            rule: None,
            action_type: None,
            environment: BTreeMap::new(),
            reason: None,
            timeout_seconds: None,
            starting_deadline_seconds: DEFAULT_STARTING_DEADLINE_SECONDS,
            ttl_seconds_after_finished: None,
            cancel_requested: false,
            requested_by: None,
            cancelled_by: None,
        }
    }
}

#[cfg(test)]
impl CommandExecutionSpec {
    /// For tests: asks for `command` on the Machine `web-1`, and leaves all else to the defaults.
    pub(crate) fn with_command(command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..Self::on_machine("web-1") }
    }
}
