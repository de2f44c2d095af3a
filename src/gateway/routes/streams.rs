//! Streams of one execution: run a command and follow it, or view any execution.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use kube::ResourceExt as _;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecutionSpec;
use crate::cluster::Right;
use crate::output::StreamOffsets;

use super::existing_commands::read;
use super::machines::MachineQuery;
use super::read_errors::ReadErrors;
use crate::gateway::body::{QueryOf, parse};
use crate::gateway::caller::Caller;
use crate::gateway::caller_sockets::CallerSocket;
use crate::gateway::create::{Created, NewExecution, check_key};
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::path::PathOf;
use crate::gateway::rights::{CREATE, GET};
use crate::gateway::spec::{Fields, spec_for};
use crate::gateway::state::{Gateway, MachineName};
use crate::gateway::stream::{ExecutionFeed, SocketRequest, answer_lines};

/// Maximum of `timeout`, in seconds, as `spec.timeoutSeconds`.
const MAX_TIMEOUT: u32 = 86_400;

/// First message of a client that runs a command.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    /// The command, byte for byte as the `match` of a rule with values for its parameters.
    #[schema(min_length = 1, max_length = 4096, examples("systemctl restart nginx.service"))]
    pub command: String,
    /// Action type. Only rules with this action type may allow the command.
    #[schema(min_length = 1, max_length = 63, examples("restart"))]
    pub action_type: String,
    /// Timeout of the command in seconds, 1 to 86400. Default: the timeout of the rule.
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout: Option<u32>,
    /// Reason for the request, for readers of the record.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
    /// Key of the request. A later request with the same key joins this one and starts nothing.
    #[schema(min_length = 1, max_length = 128)]
    pub idempotency_key: Option<String>,
}

/// Offsets from which a viewer receives the streams.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OffsetQuery {
    /// Offset of the first byte of standard output. Default 0.
    pub stdout_offset: Option<u64>,
    /// Offset of the first byte of standard error. Default 0.
    pub stderr_offset: Option<u64>,
    /// Other name of `stdout_offset`.
    pub offset: Option<u64>,
}

impl OffsetQuery {
    /// Returns the offsets.
    ///
    /// # Errors
    /// 422 if standard output has two offsets.
    pub(super) fn offsets(&self) -> Result<StreamOffsets, ApiError> {
        if self.offset.is_some() && self.stdout_offset.is_some() {
            return Err(ApiError::malformed("offset and stdout_offset are the same: send one of them"));
        }
        Ok(StreamOffsets {
            stdout: self.stdout_offset.or(self.offset).unwrap_or_default(),
            stderr: self.stderr_offset.unwrap_or_default(),
        })
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(run_stream)).routes(routes!(watch_command)).routes(routes!(read_events))
}

/// Runs a command over a WebSocket and sends its output as it is produced.
///
/// The first message of the client is a `StreamRequest`, within 10 s. The first message of the server is
/// `{"type":"execution","command_id"}`. Then come `{"type":"stdout"|"stderr","data","offset"}`,
/// `{"type":"progress","data":{percent,label}}` and `{"type":"gap","stream","offset","length","reason"}`, and last
/// `{"type":"exit","data":CODE}`, or an error. `data_base64` replaces `data` for bytes that are not UTF-8. If
/// the client leaves, the command continues.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}/commands/stream",
    tag = "commands",
    params(("id" = String, Path, description = "Name or UID of the Machine"), MachineQuery),
    request_body = StreamRequest,
    responses(
        (status = 101, description = "The WebSocket is open"),
        ReadErrors,
        (status = 404, description = "No such Machine", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket", body = ErrorBody),
    )
)]
async fn run_stream(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: SocketRequest,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Response, ApiError> {
    let machine = gateway.machine_for(&caller, &id, query.namespace.as_deref(), CREATE).await?;
    let socket = open(&gateway, &caller, CREATE, &machine.namespace)?;
    Ok(request.serve_request(socket, move |message| start(gateway, caller, machine, message)))
}

/// Checks the timeout of a command that runs over a socket.
///
/// # Errors
/// The timeout is 0 or too long.
pub(super) fn check_timeout(timeout: Option<u32>) -> Result<(), ApiError> {
    if timeout.is_some_and(|seconds| !(1..=MAX_TIMEOUT).contains(&seconds)) {
        return Err(ApiError::malformed(format!("timeout must be 1 to {MAX_TIMEOUT} seconds")));
    }
    Ok(())
}

/// Opens a socket that ends when the caller loses a right.
pub(super) fn open(
    gateway: &Gateway,
    caller: &Caller,
    right: Right,
    namespace: &str,
) -> Result<CallerSocket, ApiError> {
    let access_lost = gateway.clone().access_lost(caller.clone(), right, namespace.to_owned());
    gateway.caller_sockets().enter(caller.name(), 1, gateway.sockets(), access_lost)
}

async fn start(
    gateway: Gateway,
    caller: Caller,
    machine: MachineName,
    message: Bytes,
) -> Result<ExecutionFeed, ApiError> {
    let (spec, key) = requested(&message, &machine)?;
    let new = NewExecution { caller: &caller, machine: &machine, spec, key: key.as_deref() };
    let Created { execution, end, is_replay, .. } = gateway.create_execution(new).await?;
    let feed = ExecutionFeed::for_run(&gateway, execution, is_replay);
    // Until the feed has subscribed, this subscription keeps the bytes of a command that ends at once.
    drop(end);
    Ok(feed)
}

/// Returns the spec and the idempotency key of a first message.
fn requested(message: &[u8], machine: &MachineName) -> Result<(CommandExecutionSpec, Option<String>), ApiError> {
    let request: StreamRequest = parse(message)?;
    check_timeout(request.timeout)?;
    request.idempotency_key.as_deref().map_or(Ok(()), |key| check_key("idempotency_key", key))?;
    let mut spec = spec_for(&Fields {
        command: &request.command,
        action_type: Some(&request.action_type),
        timeout: request.timeout,
        reason: request.reason.as_deref(),
    })?;
    spec.machine_ref.name.clone_from(&machine.name);
    Ok((spec, request.idempotency_key))
}

/// Sends the output of an execution over a WebSocket, from the first byte or from offsets on.
///
/// The messages also have `executionId`, `output` and `status`. The last message is
/// `{"type":"end","executionId","status":"completed","exitCode","execTime"}`, with the duration in milliseconds.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/stream",
    tag = "commands",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID"), OffsetQuery),
    responses(
        (status = 101, description = "The WebSocket is open"),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket", body = ErrorBody),
    )
)]
async fn watch_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: SocketRequest,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<OffsetQuery>,
) -> Result<Response, ApiError> {
    watch(&gateway, &caller, request, &id, &query).await
}

/// Opens a WebSocket with the messages about an execution, for a caller who may read it.
///
/// # Errors
/// 422, 403 or 404, as the read of the execution, 429 if the caller has too many sockets, 503 if the execution has too
/// many viewers.
pub async fn watch(
    gateway: &Gateway,
    caller: &Caller,
    request: SocketRequest,
    id: &str,
    query: &OffsetQuery,
) -> Result<Response, ApiError> {
    let from = query.offsets()?;
    let execution = read(gateway, caller, id).await?;
    let socket = open(gateway, caller, GET, &execution.namespace().unwrap_or_default())?;
    let feed = ExecutionFeed::for_viewer(gateway, execution, from)?;
    Ok(request.serve(socket, feed))
}

/// Sends the output of an execution as NDJSON, for clients behind proxies that break WebSockets.
///
/// The lines are the messages of `/stream`. A silent stream sends `{"type":"ping"}` every 20 s.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/events",
    tag = "commands",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID"), OffsetQuery),
    responses(
        (status = 200, description = "One message in each line", body = String, content_type = "application/x-ndjson"),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
    )
)]
async fn read_events(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<OffsetQuery>,
) -> Result<Response, ApiError> {
    let from = query.offsets()?;
    let execution = read(&gateway, &caller, &id).await?;
    let socket = open(&gateway, &caller, GET, &execution.namespace().unwrap_or_default())?;
    let feed = ExecutionFeed::for_viewer(&gateway, execution, from)?;
    Ok(answer_lines(socket, feed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineName {
        MachineName { namespace: "ops".to_owned(), name: "web-1".to_owned() }
    }

    #[test]
    fn a_first_message_becomes_a_spec_for_the_machine_of_the_path() {
        let message = br#"{"command": "say hi", "action_type": "read", "timeout": 5, "idempotency_key": "k"}"#;
        let (spec, key) = requested(message, &machine()).unwrap();
        assert_eq!((spec.machine_ref.name.as_str(), spec.command.as_deref()), ("web-1", Some("say hi")));
        assert_eq!((spec.timeout_seconds, spec.starting_deadline_seconds, key.as_deref()), (Some(5), 300, Some("k")));
    }

    #[test]
    fn a_bad_first_message_names_the_field() {
        for (message, expected) in [
            (r#"{"command": "x"}"#, "action_type"),
            (r#"{"command": "", "action_type": "read"}"#, "command "),
            (r#"{"command": "x", "action_type": "read", "timeout": 0}"#, "timeout "),
            (r#"{"command": "x", "action_type": "read", "timeout": 86401}"#, "timeout "),
            (r#"{"command": "x", "action_type": "read", "idempotency_key": ""}"#, "idempotency_key "),
            (r#"{"command": "x", "action_type": "read", "machine": "db-1"}"#, "`machine`"),
            ("not json", "expected"),
            ("", "EOF"),
        ] {
            let error = requested(message.as_bytes(), &machine()).unwrap_err();
            assert_eq!(error.status.as_u16(), 422);
            assert!(error.body.message.contains(expected), "{message}: {}", error.body.message);
        }
    }

    #[test]
    fn offsets_have_two_names_for_stdout() {
        let both = OffsetQuery { offset: Some(1), stdout_offset: Some(1), stderr_offset: None };
        assert!(both.offsets().is_err());
        let one = OffsetQuery { offset: Some(3), ..OffsetQuery::default() };
        assert_eq!(one.offsets().unwrap(), StreamOffsets { stdout: 3, stderr: 0 });
    }
}
