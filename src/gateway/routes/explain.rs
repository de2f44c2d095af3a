//! Explains the decision about a request. Runs nothing.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecutionSpec;
use crate::api::command_execution::RuleRequest;
use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::read_limit::SCAN_READS;
use crate::gateway::rights::{CREATE, GET_WHITELIST};
use crate::gateway::stamp::Stamp;
use crate::gateway::state::Gateway;
use crate::policy::{self, Decision, Denial, Identity, Request, RuleSet, Verdict};

use super::machines::MachineQuery;
use super::read_errors::ReadErrors;
use super::scope;

/// Request to explain. Exactly one of `command`, `argv` and `rule` is needed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    /// Name or UID of the Machine.
    #[schema(examples("web-1"))]
    machine: String,
    /// Request as text.
    #[schema(examples("systemctl restart nginx.service"))]
    command: Option<String>,
    /// Request as argument vector.
    argv: Option<Vec<String>>,
    /// Request by the name of a rule.
    rule: Option<ExplainRule>,
    /// Action type that the rule must have.
    action_type: Option<String>,
    /// Environment variables to set.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Timeout of the command, in seconds, 1 to 86400.
    #[schema(minimum = 1, maximum = 86400)]
    timeout: Option<u32>,
}

/// Rule, and values for its parameters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExplainRule {
    /// Name of the rule.
    name: String,
    /// Values of the parameters.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// Name of the Whitelist. Needed only if several Whitelists have a rule of this name.
    whitelist: Option<String>,
}

/// Decision about a request.
#[derive(Debug, Serialize, ToSchema)]
struct Explanation {
    /// True if the command would run.
    allowed: bool,
    /// Reason of a denial, as in the status of an execution. `Undecided` if the requester cannot be verified now.
    #[schema(examples("NoMatchingRule"))]
    reason: Option<String>,
    /// Cause and remedy, for people.
    message: String,
    /// Nearest rule. Only for callers who may get Whitelists.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<NearestRule>,
    /// Rule that would match but is out of force, and its fault. Only for callers who may get Whitelists.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_force: Option<String>,
    /// Command that would run. Only for callers who may get Whitelists.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionView>,
}

/// Rule that is nearest to a denied request.
#[derive(Debug, Serialize, ToSchema)]
struct NearestRule {
    /// Name of the Whitelist.
    whitelist: String,
    /// Name of the rule. Empty if the whole Whitelist is at fault.
    rule: String,
    /// Difference between rule and request.
    why: String,
}

/// Command that would run, and its limits.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionView {
    /// Name of the Whitelist.
    whitelist: String,
    /// Name of the rule.
    rule: String,
    /// Action type.
    action_type: String,
    /// Argument vector.
    argv: Vec<String>,
    /// User that runs the command. Absent for the login user.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as: Option<String>,
    /// Working directory. Absent for the login directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    working_directory: Option<String>,
    /// Environment variables.
    environment: BTreeMap<String, String>,
    /// Timeout of the command, in seconds.
    timeout_seconds: u32,
    /// True if the rule permits a terminal and standard input.
    interactive: bool,
    /// True if the recording of a session contains the input.
    record_input: bool,
    /// Patterns of output that is redacted.
    redact: Vec<String>,
    /// Minimum retention of the execution, in seconds. Absent for the default of the installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_retention_seconds: Option<u32>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(explain_command))
}

/// Explains if a command would run, and why. Runs nothing. Needs the right to create executions.
///
/// The rate of commands does not count this call. The rate of reads counts it twice.
#[utoipa::path(
    post,
    path = "/api/v1/commands/explain",
    tag = "commands",
    params(MachineQuery),
    request_body = ExplainRequest,
    responses(
        (status = 200, description = "The decision.", body = Explanation),
        (status = 404, description = "There is no such Machine.", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time.", body = ErrorBody),
        (status = 413, description = "The body is too large.", body = ErrorBody),
        ReadErrors
    )
)]
async fn explain_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    JsonBody(body): JsonBody<ExplainRequest>,
) -> Result<Json<Explanation>, ApiError> {
    let id = body.machine.clone();
    let request = Request::parse(&spec(body)).map_err(|error| malformed(&error.to_string()))?;
    let name = gateway.machine_for(&caller, &id, query.namespace.as_deref(), CREATE).await?;
    gateway.count_reads(&caller, 1 + SCAN_READS)?;
    let machine = scope::read_machine(&gateway, &name).await?;
    let is_policy_reader = gateway.rights().has(&caller, GET_WHITELIST, &name.namespace).await?;
    let rules = gateway.policies().listed(&name.namespace).await?;
    let stamp = Stamp::of(&gateway, &caller, &name.namespace).await;
    let labels = machine.metadata.labels.unwrap_or_default();
    let explanation = explain(&rules, &request, &labels, stamp.identity());
    Ok(Json(if is_policy_reader { explanation } else { explanation.without_policy() }))
}

/// Returns the spec of the execution that would be created.
fn spec(body: ExplainRequest) -> CommandExecutionSpec {
    CommandExecutionSpec {
        command: body.command,
        argv: body.argv,
        rule: body.rule.map(|rule| RuleRequest {
            name: rule.name,
            parameters: rule.parameters,
            whitelist: rule.whitelist,
        }),
        action_type: body.action_type,
        environment: body.environment,
        timeout_seconds: body.timeout,
        ..CommandExecutionSpec::on_machine(&body.machine)
    }
}

/// Returns the error for a request that no execution could have. The message names the fields of this API.
fn malformed(message: &str) -> ApiError {
    let renamed = message.replace("spec.timeoutSeconds", "timeout").replace("spec.actionType", "action_type");
    ApiError::malformed(renamed.replace("spec.", ""))
}

fn explain(
    rules: &RuleSet,
    request: &Request,
    labels: &BTreeMap<String, String>,
    identity: Identity<'_>,
) -> Explanation {
    match policy::decide(rules, request, labels, identity) {
        Verdict::Allow(decision) => Explanation {
            allowed: true,
            reason: None,
            message: format!("allowed by the rule {}/{}", decision.whitelist.name, decision.rule),
            nearest: None,
            out_of_force: None,
            decision: Some(DecisionView::of(*decision)),
        },
        Verdict::Deny(denial) if denial.awaits_identity(identity) => Explanation::denied(
            "Undecided",
            "the decision depends on subjects, and Writ could not check yet if the API server records requesters; \
             repeat the call in a few seconds"
                .to_owned(),
        ),
        Verdict::Deny(Denial { reason, message, nearest }) => Explanation {
            nearest: nearest.map(|near| NearestRule { whitelist: near.whitelist, rule: near.rule, why: near.why }),
            out_of_force: policy::matching_out_of_force(rules, request)
                .map(|(whitelist, broken)| format!("{whitelist}/{}: {}", broken.rule, broken.problem)),
            ..Explanation::denied(&format!("{reason:?}"), message)
        },
    }
}

impl Explanation {
    fn denied(reason: &str, message: String) -> Self {
        let reason = Some(reason.to_owned());
        Self { allowed: false, reason, message, nearest: None, out_of_force: None, decision: None }
    }

    /// Returns the verdict only, for callers who may not read the policy.
    fn without_policy(self) -> Self {
        Self { nearest: None, out_of_force: None, decision: None, ..self }
    }
}

impl DecisionView {
    fn of(decision: Decision) -> Self {
        Self {
            whitelist: decision.whitelist.name,
            rule: decision.rule,
            action_type: decision.action_type,
            argv: decision.argv,
            run_as: decision.run_as,
            working_directory: decision.working_directory,
            environment: decision.environment,
            timeout_seconds: decision.timeout_seconds,
            interactive: decision.interactive,
            record_input: decision.record_input,
            redact: decision.redact,
            minimum_retention_seconds: decision.minimum_retention_seconds,
        }
    }
}

#[cfg(test)]
mod tests;
