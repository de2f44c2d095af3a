//! RemoteShell: queue commands on devices, read them, and cancel them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::path::PathOf;
use crate::gateway::routes::commands::{BulkAnswer, QueueCall, Queued};
use crate::gateway::routes::existing_commands::{self, ListQuery};
use crate::gateway::routes::machines::MachineQuery;
use crate::gateway::routes::read_errors::ReadErrors;
use crate::gateway::state::Gateway;

use super::create_errors::CreateErrors;
use super::remote_command::{RemoteCommand, RemoteCommandPage};

/// Command to queue on a device.
#[derive(Debug)]
pub struct RemoteRequest {
    /// Name or UID of the Machine.
    pub device_id: String,
    /// The command.
    pub command: String,
    /// Timeout of the command, in seconds.
    pub timeout: Option<u32>,
}

/// Command to queue on several devices.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RemoteBulkRequest {
    /// Names or UIDs of the Machines, 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    device_ids: Vec<String>,
    /// The command, byte for byte as the `match` of a rule with values for its parameters.
    #[schema(min_length = 1, max_length = 4096)]
    command: String,
    /// Timeout of the command in seconds, 1 to 86400. Default: the timeout of the rule.
    #[schema(minimum = 1, maximum = 86400)]
    timeout: Option<u32>,
}

/// Answer for one device of a bulk call.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct RemoteBulkAnswer {
    /// Name or UID of the Machine, as in the request.
    device_id: String,
    /// Id of the command. Absent if it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<String>,
    /// `pending`, or `failed` if the command was refused.
    status: &'static str,
    /// Sentence for people.
    message: String,
    /// Error, as the answer to a single call would have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Reason of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Filters of the list of commands. All of them must match.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoteListQuery {
    /// Namespace. Default: the namespace of the gateway.
    namespace: Option<String>,
    /// Name of the Machine.
    device_id: Option<String>,
    /// `pending`, `sent`, `executing`, `completed`, `timeout`, `cancelled` or `failed`.
    status: Option<String>,
    /// Maximum number of commands in the page, 1 to 500. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Earliest time of creation: a time (ISO 8601), or a date in UTC.
    start_date: Option<String>,
    /// Latest time of creation: a time, or a date, which includes its whole day.
    end_date: Option<String>,
    /// Value of `continue` in the page before.
    #[serde(rename = "continue")]
    after: Option<String>,
}

impl From<BulkAnswer> for RemoteBulkAnswer {
    fn from(answer: BulkAnswer) -> Self {
        let BulkAnswer { machine, command_id, status, message, error, reason } = answer;
        Self { device_id: machine, command_id, status, message, error, reason }
    }
}

impl From<RemoteListQuery> for ListQuery {
    fn from(query: RemoteListQuery) -> Self {
        let RemoteListQuery { namespace, device_id, status, limit, start_date, end_date, after } = query;
        Self { namespace, machine: device_id, status, requester: None, start_date, end_date, limit, after }
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(remote_command, remote_cancel))
        .routes(routes!(remote_bulk))
        .routes(routes!(remote_commands))
}

/// Queues a command on a device.
///
/// # Errors
/// As [`QueueCall::on_one`].
pub async fn queue(
    gateway: &Gateway,
    caller: &Caller,
    namespace: Option<&str>,
    headers: &HeaderMap,
    request: RemoteRequest,
) -> Result<Response, ApiError> {
    let RemoteRequest { device_id, command, timeout } = request;
    let queued = Queued { command, timeout, ..Queued::default() };
    QueueCall::new(gateway, caller, namespace, headers, &queued)?.on_one(&device_id).await
}

/// RemoteShell: queues a command on several devices. The answer has one entry for each, in the order of the request.
#[utoipa::path(
    post,
    path = "/api/commands/bulk",
    tag = "compatibility",
    params(MachineQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    request_body = RemoteBulkRequest,
    responses((status = 202, description = "One answer for each device", body = Vec<RemoteBulkAnswer>), CreateErrors)
)]
async fn remote_bulk(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<RemoteBulkRequest>,
) -> Result<Response, ApiError> {
    let RemoteBulkRequest { device_ids, command, timeout } = request;
    let queued = Queued { command, timeout, ..Queued::default() };
    let call = QueueCall::new(&gateway, &caller, query.namespace.as_deref(), &headers, &queued)?;
    let answers = call.on_many("device_ids", device_ids).await?;
    let answers: Vec<RemoteBulkAnswer> = answers.into_iter().map(RemoteBulkAnswer::from).collect();
    Ok((StatusCode::ACCEPTED, Json(answers)).into_response())
}

/// RemoteShell: reads a command.
#[utoipa::path(
    get,
    path = "/api/command/{id}",
    tag = "compatibility",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID")),
    responses(
        (status = 200, description = "The command", body = RemoteCommand),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
    )
)]
async fn remote_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
) -> Result<Json<RemoteCommand>, ApiError> {
    let execution = existing_commands::read(&gateway, &caller, &id).await?;
    Ok(Json(RemoteCommand::of(&execution)))
}

/// RemoteShell: cancels a command. If it has not started, it does not start. If it runs, Writ stops it.
#[utoipa::path(
    delete,
    path = "/api/command/{id}",
    tag = "compatibility",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID")),
    responses(
        (status = 202, description = "The cancellation is recorded. The command ends soon", body = RemoteCommand),
        (status = 200, description = "The command has ended already", body = RemoteCommand),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
    )
)]
async fn remote_cancel(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
) -> Result<Response, ApiError> {
    let (status, execution) = existing_commands::cancel(&gateway, &caller, &id).await?;
    Ok((status, Json(RemoteCommand::of(&execution))).into_response())
}

/// RemoteShell: lists the commands of a namespace that still exist, the newest first.
#[utoipa::path(
    get,
    path = "/api/commands",
    tag = "compatibility",
    params(RemoteListQuery),
    responses((status = 200, description = "The commands", body = RemoteCommandPage), ReadErrors)
)]
async fn remote_commands(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<RemoteListQuery>,
) -> Result<Json<RemoteCommandPage>, ApiError> {
    let page = existing_commands::list(&gateway, &caller, query.into(), "device_id").await?;
    Ok(Json(RemoteCommandPage::of(&page)))
}
