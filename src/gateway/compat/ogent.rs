//! Ogent: run a command and wait for it, and follow an execution.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecutionSpec;
use crate::api::command_execution::RuleRequest;
use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::create::idempotency_key;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::names::is_label;
use crate::gateway::path::PathOf;
use crate::gateway::routes::execute::{DEFAULT_TIMEOUT, RunNow};
use crate::gateway::routes::machines::MachineQuery;
use crate::gateway::routes::read_errors::ReadErrors;
use crate::gateway::routes::streams::{OffsetQuery, watch};
use crate::gateway::spec::{Fields, spec_for};
use crate::gateway::state::Gateway;
use crate::gateway::stream::SocketRequest;
use crate::gateway::view::ExecuteResult;
use crate::policy::Request;

use super::create_errors::CreateErrors;

/// Error of each command that is not run because of rights or rules.
const NOT_PERMITTED: &str = "Command not permitted";
/// Maximum length of the name of a parameter, in bytes, as in `spec.rule.parameters`.
const MAX_PARAMETER_NAME: usize = 63;

/// Command to run now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OgentRequest {
    /// The command, byte for byte as the `match` of a rule. If `params` is not empty: the name of a rule.
    #[schema(min_length = 1, max_length = 4096, examples("uptime"))]
    pub command: String,
    /// Values for the parameters of the rule.
    pub params: Option<BTreeMap<String, ParameterValue>>,
    /// Name or UID of the Machine.
    #[schema(examples("web-1"))]
    pub machine: String,
    /// Ignored. The credential decides who the caller is.
    #[serde(rename = "userId")]
    #[schema(value_type = Option<String>)]
    #[expect(dead_code, reason = "clients send it, and it means nothing")]
    pub user_id: Option<IgnoredAny>,
}

/// Value for a parameter. Rules compare it as text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string, an integer, or a boolean")]
pub enum ParameterValue {
    /// Text.
    Text(String),
    /// Integer, in decimal digits.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
}

/// Result of a command that ended by itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OgentResult {
    /// `completed`.
    status: &'static str,
    /// Exit code. `null` if a signal ended the command.
    exit_code: Option<i64>,
    /// Duration of the command, in milliseconds.
    exec_time: i64,
    /// Standard output, then standard error. Of a long stream, its head and its tail. U+FFFD replaces bytes that are
    /// not UTF-8.
    output: String,
    /// Id of the execution, for `/api/executions/{executionId}`.
    execution_id: String,
}

impl ParameterValue {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl OgentResult {
    /// Returns the result in the words of Ogent.
    fn of(result: ExecuteResult) -> Self {
        let stdout = text_of(result.stdout, result.stdout_encoding);
        let stderr = text_of(result.stderr, result.stderr_encoding);
        Self {
            status: "completed",
            exit_code: result.exit_code,
            exec_time: result.duration_ms,
            output: stdout + &stderr,
            execution_id: result.command_id,
        }
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(ogent_execute)).routes(routes!(ogent_execution))
}

/// Ogent: runs a command and waits for its result, for at most 30 s.
///
/// A command that no rule describes is 403, as a command that no rule permits.
#[utoipa::path(
    post,
    path = "/api/execute",
    tag = "compatibility",
    params(MachineQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    request_body = OgentRequest,
    responses((status = 200, description = "The command ended by itself", body = OgentResult), CreateErrors)
)]
async fn ogent_execute(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<OgentRequest>,
) -> Result<Response, ApiError> {
    run(&gateway, &caller, query.namespace.as_deref(), &headers, request).await
}

/// Ogent: sends the output of an execution over a WebSocket, from the first byte on.
///
/// The messages are those of `/api/v1/commands/{id}/stream`: `{executionId, output, status:"running"}`, last
/// `{executionId, status:"completed", exitCode, execTime}`, each with further fields.
#[utoipa::path(
    get,
    path = "/api/executions/{executionId}",
    tag = "compatibility",
    params(("executionId" = String, Path, description = "NAMESPACE:NAME, or the UID"), OffsetQuery),
    responses(
        (status = 101, description = "The WebSocket is open"),
        ReadErrors,
        (status = 404, description = "No such execution", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket", body = ErrorBody),
    )
)]
async fn ogent_execution(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: SocketRequest,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<OffsetQuery>,
) -> Result<Response, ApiError> {
    watch(&gateway, &caller, request, &id, &query).await
}

/// Runs a command, and answers in the words of Ogent.
///
/// # Errors
/// As [`RunNow::wait_for_result`], in the words of Ogent.
pub async fn run(
    gateway: &Gateway,
    caller: &Caller,
    namespace: Option<&str>,
    headers: &HeaderMap,
    request: OgentRequest,
) -> Result<Response, ApiError> {
    let OgentRequest { command, params, machine, .. } = request;
    let key = idempotency_key(headers)?;
    let spec = spec(command, params.unwrap_or_default())?;
    let run = RunNow { machine: &machine, namespace, spec, seconds: DEFAULT_TIMEOUT, key: key.as_deref() };
    let ran = run.wait_for_result(gateway, caller).await.map_err(in_ogents_words)?;
    Ok(ran.into_answer(OgentResult::of, in_ogents_words))
}

/// Returns the spec of the execution: a command as text, or a rule by its name.
fn spec(command: String, parameters: BTreeMap<String, ParameterValue>) -> Result<CommandExecutionSpec, ApiError> {
    if parameters.is_empty() {
        return spec_for(&Fields { command: &command, action_type: None, timeout: None, reason: None });
    }
    if !is_label(&command) {
        return Err(ApiError::malformed(
            "command must be the name of a rule if params is not empty: lower case letters, digits and `-`, with a \
             letter or digit first and last",
        ));
    }
    if parameters.keys().any(|name| name.len() > MAX_PARAMETER_NAME) {
        return Err(ApiError::malformed(format!("params must have names of at most {MAX_PARAMETER_NAME} characters")));
    }
    let parameters = parameters.into_iter().map(|(name, value)| (name, value.into_text())).collect();
    let rule = RuleRequest { name: command, parameters, whitelist: None };
    let spec = CommandExecutionSpec { rule: Some(rule), ..CommandExecutionSpec::on_machine("") };
    let checked = Request::parse(&spec);
    checked.map_err(|error| {
        let message = error.to_string();
        ApiError::malformed(message.replace("spec.rule.parameters", "params").replace("spec.rule.name", "command"))
    })?;
    Ok(spec)
}

/// Returns an error as Ogent has it: commands that are not listed, and commands that are not permitted, are the same.
fn in_ogents_words(mut error: ApiError) -> ApiError {
    if matches!(error.status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) {
        error.status = StatusCode::FORBIDDEN;
        NOT_PERMITTED.clone_into(&mut error.body.error);
    }
    error
}

/// Returns a stream as text.
fn text_of(stream: String, encoding: &str) -> String {
    if encoding != "base64" {
        return stream;
    }
    // The text is from Writ itself, so it can be decoded.
    let bytes = STANDARD.decode(&stream).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
