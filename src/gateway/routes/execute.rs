//! Synchronous execution: runs a command and answers with its result.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::command_execution::WhenOffline;
use crate::api::{CommandExecution, CommandExecutionSpec};

use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::create::{Created, NewExecution, idempotency_key};
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::outcome::refusal;
use crate::gateway::path::PathOf;
use crate::gateway::rights::CREATE;
use crate::gateway::spec::{Fields, spec_for};
use crate::gateway::state::Gateway;
use crate::gateway::view::ExecuteResult;

use super::execution_headers::with_execution;
use super::machines::MachineQuery;

/// Default of `timeout`, in seconds.
pub const DEFAULT_TIMEOUT: u32 = 30;
/// Maximum of `timeout`, in seconds. Many proxies end an answer that takes longer.
const MAX_TIMEOUT: u32 = 120;

/// Command to run now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest {
    /// The command, byte for byte as the `match` of a rule with values for its parameters.
    #[schema(min_length = 1, max_length = 4096, examples("systemctl restart nginx.service"))]
    pub command: String,
    /// Action type. Only rules with this action type may allow the command.
    #[schema(min_length = 1, max_length = 63, examples("restart"))]
    pub action_type: String,
    /// Time from the request to the answer, in seconds. Also the timeout of the command.
    #[schema(minimum = 1, maximum = 120, default = 30)]
    pub timeout: Option<u32>,
    /// Reason for the request, for readers of the record.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(execute_command))
}

/// Runs a command and waits for its result.
///
/// Status 200 means that the command ended by itself, with any exit code. Send an Idempotency-Key always: a proxy
/// perhaps repeats a call, and the key prevents a second start.
#[utoipa::path(
    post,
    path = "/api/v1/machines/{id}/commands/execute",
    tag = "commands",
    params(
        ("id" = String, Path, description = "Name or UID of the Machine"),
        MachineQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters"),
    ),
    request_body = ExecuteRequest,
    responses(
        (status = 200, description = "The command ended by itself", body = ExecuteResult, headers(
            ("Writ-Execution" = String, description = "Namespace and name of the execution, as `namespace/name`"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier call with the key created it"))),
        (status = 400, description = "No rule describes the command", body = ErrorBody),
        (status = 401, description = "No valid credential", body = ErrorBody),
        (status = 403, description = "The caller may not run commands here, or no rule permits this one", body = ErrorBody),
        (status = 404, description = "No such Machine", body = ErrorBody),
        (status = 408, description = "The command or the wait timed out", body = ErrorBody),
        (status = 409, description = "Cancelled, or the Idempotency-Key belongs to another request", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "The request is malformed. The message names the field", body = ErrorBody),
        (status = 429, description = "Too many commands or requests", body = ErrorBody),
        (status = 500, description = "The machine could not be used, or the outcome is unknown", body = ErrorBody),
        (status = 503, description = "Nothing was run: repeat the call", body = ErrorBody),
    )
)]
async fn execute_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecuteRequest>,
) -> Result<Response, ApiError> {
    let seconds = timeout(request.timeout)?;
    let key = idempotency_key(&headers)?;
    let spec = spec_for(&Fields {
        command: &request.command,
        action_type: Some(&request.action_type),
        timeout: request.timeout,
        reason: request.reason.as_deref(),
    })?;
    let run = RunNow { machine: &id, namespace: query.namespace.as_deref(), spec, seconds, key: key.as_deref() };
    let ran = run.wait_for_result(&gateway, &caller).await?;
    Ok(ran.into_answer(|result| result, |error| error))
}

/// Command to run now, whose caller waits for the result.
pub struct RunNow<'a> {
    /// Name or UID of the Machine.
    pub machine: &'a str,
    /// Namespace of the Machine, if the request names one.
    pub namespace: Option<&'a str>,
    /// The command. The run sets Machine and starting deadline.
    pub spec: CommandExecutionSpec,
    /// Time from the request to the answer, in seconds.
    pub seconds: u32,
    /// Key of an idempotent call.
    pub key: Option<&'a str>,
}

/// Execution that has ended, or whose caller waits no longer.
pub struct Ran {
    execution: CommandExecution,
    namespace: String,
    seconds: u32,
    is_replay: bool,
}

impl RunNow<'_> {
    /// Runs the command as the caller, and waits for its end.
    ///
    /// # Errors
    /// The execution was not created, or its end could not be read.
    pub async fn wait_for_result(self, gateway: &Gateway, caller: &Caller) -> Result<Ran, ApiError> {
        let Self { machine, namespace, mut spec, seconds, key } = self;
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
        bound_start(&mut spec, seconds);
        let machine = gateway.machine_for(caller, machine, namespace, CREATE).await?;
        spec.machine_ref.name.clone_from(&machine.name);
        let _places = gateway.caller_sockets().take(caller.name(), 1)?;
        let new = NewExecution { caller, machine: &machine, spec, key };
        let Created { execution, end, is_replay, .. } = gateway.create_execution(new).await?;
        let execution = match execution.phase().is_finished() {
            true => execution,
            false => gateway.wait_for_end(&machine.namespace, &execution.name_any(), end, deadline).await?,
        };
        Ok(Ran { execution, namespace: machine.namespace, seconds, is_replay })
    }
}

impl Ran {
    /// Returns the answer. `show` makes its body from a result, and `refuse` changes an error.
    pub fn into_answer<T: Serialize>(
        self,
        show: impl FnOnce(ExecuteResult) -> T,
        refuse: impl FnOnce(ApiError) -> ApiError,
    ) -> Response {
        let name = self.execution.name_any();
        let response = match answer(&self.execution, self.seconds) {
            Ok(result) => Json(show(result)).into_response(),
            Err(error) => refuse(error.about(&self.namespace, &name)).into_response(),
        };
        with_execution(response, &self.namespace, &name, self.is_replay)
    }
}

/// Checks `timeout`.
fn timeout(given: Option<u32>) -> Result<u32, ApiError> {
    let seconds = given.unwrap_or(DEFAULT_TIMEOUT);
    if (1..=MAX_TIMEOUT).contains(&seconds) {
        return Ok(seconds);
    }
    Err(ApiError::malformed(format!(
        "timeout must be 1 to {MAX_TIMEOUT} seconds; for a longer command use POST /api/v1/commands, which does not wait"
    )))
}

/// Makes an execution fail instead of waiting longer than its caller.
fn bound_start(spec: &mut CommandExecutionSpec, seconds: u32) {
    // Shorter than the wait, so that the wait usually shows if the command started.
    spec.starting_deadline_seconds = seconds.saturating_sub(1).max(1);
    spec.when_offline = WhenOffline::Fail;
}

fn answer(execution: &CommandExecution, seconds: u32) -> Result<ExecuteResult, ApiError> {
    let status = execution.status.clone().unwrap_or_default();
    match refusal(&status, u64::from(seconds)) {
        Some(refusal) => Err(refusal),
        None => Ok(ExecuteResult::of(execution)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_bounded_and_an_error_names_the_alternative() {
        assert_eq!((timeout(None).unwrap(), timeout(Some(1)).unwrap(), timeout(Some(120)).unwrap()), (30, 1, 120));
        for seconds in [0, 121, u32::MAX] {
            let error = timeout(Some(seconds)).unwrap_err();
            assert!(error.status.as_u16() == 422 && error.body.message.contains("POST /api/v1/commands"), "{error:?}");
        }
    }
}
