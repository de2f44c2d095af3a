//! One request, from flags or from a JSON line.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::{CommandExecutionSpec, SessionRequest};

/// Parses `NAME=VALUE` from a repeatable flag.
pub(in crate::cli) fn parse_key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// One request, from a JSON line or from flags. The fields are fields of a CommandExecution's spec, except
/// `machine_labels`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::cli) struct RequestInput {
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub argv: Option<Vec<String>>,
    #[serde(default)]
    pub rule: Option<RuleRequest>,
    #[serde(default)]
    pub action_type: Option<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// Interactive session, as the gateway requests it.
    #[serde(default)]
    pub session: Option<SessionRequest>,
    /// Labels of the Machine. If absent, Writ uses the labels of the Machine in the cluster or of the flags.
    #[serde(default)]
    pub machine_labels: Option<BTreeMap<String, String>>,
    /// Requester. If absent, Writ uses the requester of the flags, else the default of the policy's source.
    #[serde(default)]
    pub requested_by: Option<Requester>,
}

impl RequestInput {
    /// Returns the spec of a CommandExecution with this request.
    pub fn spec(&self) -> CommandExecutionSpec {
        CommandExecutionSpec {
            command: self.command.clone(),
            argv: self.argv.clone(),
            rule: self.rule.clone(),
            action_type: self.action_type.clone(),
            environment: self.environment.clone(),
            timeout_seconds: self.timeout_seconds,
            session: self.session,
            ..CommandExecutionSpec::on_machine("explained")
        }
    }

    /// Returns the request in the spec of an existing execution.
    pub fn from_spec(spec: &CommandExecutionSpec) -> Self {
        Self {
            command: spec.command.clone(),
            argv: spec.argv.clone(),
            rule: spec.rule.clone(),
            action_type: spec.action_type.clone(),
            environment: spec.environment.clone(),
            timeout_seconds: spec.timeout_seconds,
            session: spec.session,
            machine_labels: None,
            requested_by: spec.requested_by.clone(),
        }
    }
}
