//! CommandExecution: a request to run one command on one Machine, at most once.

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
/// Default timeout of a command, in seconds, if neither `spec.timeoutSeconds` nor the rule sets a timeout.
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 30;

/// One command on one Machine, run at most once. Create the object and read its status. After the creation only
/// `cancelRequested` may change. After the execution has finished, nothing may change.
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
    doc = "One command on one Machine: matched against the Whitelists of the namespace, run at most once, with the result in its status.",
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
        description = "The decided command (status.commandLine); before the decision, or if it is rejected, the request."
    ),
    printcolumn(
        name = "Rule",
        type_ = "string",
        priority = 1,
        json_path = ".*['decision', 'rule']['rule', 'name']",
        description = "The rule that allowed it (status.decision.rule), else the requested one (spec.rule.name)."
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
    /// Machine to run the command on, in this namespace. If the Machine does not exist, Writ waits 10 seconds for it,
    /// so that one `kubectl apply` can create the Machine and the execution. After that time the execution is Rejected,
    /// reason MachineNotFound. With a starting deadline of 0 Writ does not wait. Cannot be changed.
    pub machine_ref: NameReference,

    /// The request as text. The text must equal the `match` of a rule byte for byte, with values for its parameters.
    /// Writ only compares this text and never gives it to a shell: the command is the `run` of the rule. 1 to 4096
    /// printable ASCII characters. Set exactly one of `command`, `argv` and `rule`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = [
        {"rule": r"!self.contains('\n')", "message": r"spec.command has a line break, and must be one line: write it behind `command:` on the same line, and not below `command: |`"},
        {"rule": r"self.contains('\n') || self.matches('^[ -~]+$')", "message": "spec.command must be printable ASCII: replace tabs, typographic quotes, non-breaking blanks and accented letters"},
    ]))]
    pub command: Option<String>,

    /// The request as an argument vector. The vector must equal the `run` of a rule word for word, with values for its
    /// parameters. 1 to 64 words of at most 4096 printable ASCII characters. Set exactly one of `command`, `argv` and
    /// `rule`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub argv: Option<Vec<String>>,

    /// The request as the name of a rule and values for its parameters. Set exactly one of `command`, `argv` and
    /// `rule`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRequest>,

    /// Kind of action. If it is set, only rules with this `actionType` may allow the execution. If it is absent, any
    /// rule may allow the execution, and Writ records the `actionType` of that rule. Lower case letters, digits, `-`
    /// and `_`, at most 63 characters. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$')", "message": "spec.actionType must be a word as rules have it: lower case letters, digits, - and _, with a letter or digit first and last; or leave it out"},
    ]))]
    pub action_type: Option<String>,

    /// Environment variables for the command, at most 16. Each name has at most 63 characters, and each value at most
    /// 4096 printable ASCII characters. The rule lists the allowed names and values. An execution with any other name
    /// or value is Rejected, reason NotPermitted. Cannot be changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations" = [
            {"rule": "self.all(name, size(name) <= 63)", "message": "a name must have at most 63 characters"},
        ]
    ))]
    pub environment: BTreeMap<String, String>,

    /// Reason for the request, for readers of the record. At most 1024 characters. Writ does not interpret it. Cannot
    /// be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,

    /// Timeout of the command, in seconds from its start, 1 to 86400. The rule sets the default and the maximum. If the
    /// rule sets no limits, the default is 30 and the maximum 3600. An execution with a timeout above the maximum is
    /// Rejected, reason NotPermitted. When the timeout expires, Writ asks the machine to stop the command, and the
    /// execution ends as TimedOut. The status reports if the command may still run. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,

    /// Starting deadline, in seconds from the creation of the execution, 0 to 604800 (7 days). Default 300. The wait
    /// for a free slot and the wait for an unreachable machine both count. With 0, Writ makes one attempt to connect,
    /// at once. If the command has not started at the deadline, nothing runs. The execution is then Expired, or
    /// LaunchFailed if it was already claimed. Cannot be changed.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub starting_deadline_seconds: u32,

    /// Consequence if the machine is offline or suspended: Wait or Fail. Default Wait. With both values, the execution
    /// waits for a free slot of a busy machine until the starting deadline. Ignored if `startingDeadlineSeconds` is 0,
    /// because Writ then makes one attempt in any case. Cannot be changed.
    #[serde(default)]
    pub when_offline: WhenOffline,

    /// Interactive session: a client of the gateway that types input and reads output while the command runs. Only the
    /// gateway may set it, for the exec endpoint. The API server refuses it from everybody else. Only a rule with
    /// `interactive: true` can allow such an execution. The command runs in Direct mode. If no client is connected 30
    /// seconds after the gateway created the execution, nothing runs (LaunchFailed, reason NoSession). If absent, the
    /// command has no terminal and no input. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRequest>,

    /// TTL of a finished execution, in seconds from `status.completionTime`, 0 to 31536000 (365 days). Default: `writ
    /// serve --default-ttl-seconds`. If neither is set, the object stays until somebody deletes it. Cannot be changed.
    ///
    /// When the TTL expires, Writ deletes the object and its stored output, and leaves an ExecutionReceipt. If the same
    /// name and spec is applied again, as GitOps does, the command does not run again (reason AlreadyExecuted). If the
    /// API server or Argo CD generated the name (`metadata.generateName`), Writ leaves no receipt, because a generated
    /// name is not used again.
    ///
    /// The TTL cannot be shorter than the minimum retention, which is:
    ///
    /// - `minimumRetentionSeconds` of the rule that allowed the execution
    /// - if the rule sets none, `writ serve --minimum-retention-seconds` (default one day)
    /// - if no rule allowed the execution, the `writ serve` value, but at most 5 minutes
    ///
    /// After the minimum retention, anyone who may delete finished executions may delete the object before its TTL
    /// expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Cancellation. Set it to true to cancel the execution. If the command has not started yet, it does not start. If
    /// the command is running, Writ asks the machine to stop it, and the status reports if the command may still run.
    /// Default false. Only this field may change, only from false to true, and only until the execution has finished.
    #[serde(default)]
    pub cancel_requested: bool,

    /// Creator of the execution, as authenticated by the API server. The admission policies of the API server write
    /// this field (see `deploy/`), and replace or refuse a value from the caller. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// User who set `cancelRequested`, as authenticated by the API server. The admission policies write this field too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Canceller>,
}

/// Consequence for a queued execution if its machine is offline or suspended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WhenOffline {
    /// The execution waits for the machine until the starting deadline.
    #[default]
    Wait,
    /// Writ makes one attempt to reach the machine as soon as a slot is free, even if the machine did not answer a
    /// moment ago. If the attempt fails, the execution is Expired, reason MachineOffline. If somebody must fix the
    /// machine, the execution is LaunchFailed. A failed attempt of another execution counts too, if it began after this
    /// execution entered the queue. If the machine is suspended, the execution is Expired at once, reason
    /// MachineSuspended.
    Fail,
}

/// Terminal of an interactive session.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRequest {
    /// Request for a terminal. Default false: the command then has pipes, and its standard error stays separate from
    /// its standard output.
    #[serde(default)]
    pub tty: bool,

    /// Width of the terminal at the start, in columns, 1 to 1000, default 80. Ignored without `tty`.
    #[serde(default = "default_columns")]
    #[schemars(range(min = 1, max = 1000))]
    pub columns: u16,

    /// Height of the terminal at the start, in rows, 1 to 1000, default 24. Ignored without `tty`.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 1000))]
    pub rows: u16,
}

impl Default for SessionRequest {
    /// Returns a session without a terminal. Its size is 80 columns and 24 rows.
    fn default() -> Self {
        Self { tty: false, columns: default_columns(), rows: default_rows() }
    }
}

/// Returns the default of `session.columns`: the width of a VT100.
fn default_columns() -> u16 {
    80
}

/// Returns the default of `session.rows`: the height of a VT100.
fn default_rows() -> u16 {
    24
}

/// Request by the name of a rule, with values for its parameters.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRequest {
    /// Name of the rule.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "message": "spec.rule.name must be the name of a rule: lower case letters, digits and -, with a letter or digit first and last; it is not the text of a command (that is spec.command)"},
    ]))]
    pub name: String,

    /// Values for the parameters of the rule, by parameter name. At most 16 values, names of at most 63 characters,
    /// values of at most 4096 printable ASCII characters. A parameter without a value here has its default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations" = [
            {"rule": "self.all(name, size(name) <= 63)", "message": "a name must have at most 63 characters"},
        ]
    ))]
    pub parameters: BTreeMap<String, String>,

    /// Name of the Whitelist with the rule. You may leave it out in two cases: only one Whitelist of the namespace has
    /// a rule of this name, or all rules of this name would execute the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub whitelist: Option<String>,
}

/// Requester, as authenticated by the API server.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// User name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// User ID from the authenticator. Empty if the authenticator provides none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,

    /// Groups of the user, at most 512.
    #[serde(default)]
    #[schemars(length(max = 512), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<String>,
}

/// User who cancelled, as authenticated by the API server.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Canceller {
    /// User name.
    #[schemars(length(max = 1024))]
    pub username: String,

    /// User ID from the authenticator. Empty if the authenticator provides none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub uid: String,
}

fn default_starting_deadline_seconds() -> u32 {
    DEFAULT_STARTING_DEADLINE_SECONDS
}

impl CommandExecution {
    /// Returns true if the execution was cancelled or is being deleted. The command then must not start, or must stop
    /// if it runs.
    pub fn is_cancelled_or_deleted(&self) -> bool {
        self.spec.cancel_requested || self.metadata.deletion_timestamp.is_some()
    }

    /// Returns true if a process has claimed the execution, according to the phase or to the recorded claim. From the
    /// claim on, no other process may start the command.
    pub fn is_claimed(&self) -> bool {
        self.phase().is_claimed() || self.claim().is_some()
    }

    /// Returns the claim: the process that is responsible for starting the command.
    pub fn claim(&self) -> Option<&Claim> {
        self.status.as_ref()?.claim.as_ref()
    }

    /// Returns the age at `now`, or `None` if the object has no creation time. If `now` is before the creation time,
    /// the age is 0.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        let created = self.metadata.creation_timestamp.as_ref()?.0;
        Some(Duration::try_from(now.duration_since(created)).unwrap_or(Duration::ZERO))
    }

    /// Returns true if the object has Writ's finalizer. The object then cannot disappear while its command runs.
    pub fn has_audit_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == super::AUDIT_FINALIZER)
    }

    /// Returns the phase in the status, or Pending if there is no status yet.
    pub fn phase(&self) -> super::Phase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }
}

impl CommandExecutionSpec {
    /// Returns a spec for a Machine with defaults for all other fields. The spec does not request a command yet.
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
            when_offline: WhenOffline::default(),
            session: None,
            ttl_seconds_after_finished: None,
            cancel_requested: false,
            requested_by: None,
            cancelled_by: None,
        }
    }
}

#[cfg(test)]
impl CommandExecutionSpec {
    /// Returns a spec for tests that requests `command` on the Machine `web-1`, with defaults for all other fields.
    pub(crate) fn with_command(command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..Self::on_machine("web-1") }
    }
}
