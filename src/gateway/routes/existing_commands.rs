//! Commands that exist: list them, read one, cancel one.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kube::ResourceExt as _;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecution;
use crate::cluster::ClusterError;
use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::list_query::{TimeRange, decode_token, machine_name, page_limit, status_word};
use crate::gateway::names::CommandId;
use crate::gateway::page::CommandPage;
use crate::gateway::path::PathOf;
use crate::gateway::read_limit::{OBJECTS_PER_READ, SCAN_READS};
use crate::gateway::reader::{ListFilter, Page};
use crate::gateway::rights::{CANCEL_OTHERS, CANCEL_OWN, GET, LIST};
use crate::gateway::state::Gateway;
use crate::gateway::view::CommandView;

use super::read_errors::ReadErrors;
use super::scope;

/// Filters of the list of commands. All of them must match.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Namespace. Default: the namespace of the gateway.
    pub namespace: Option<String>,
    /// Name of the Machine.
    pub machine: Option<String>,
    /// `pending`, `sent`, `executing`, `completed`, `timeout`, `cancelled` or `failed`.
    pub status: Option<String>,
    /// User name of the requester.
    pub requester: Option<String>,
    /// Earliest time of creation: a time (RFC 3339), or a date in UTC.
    pub start_date: Option<String>,
    /// Latest time of creation: a time, or a date, which includes its whole day.
    pub end_date: Option<String>,
    /// Maximum number of commands in the page, 1 to 500. Default 50.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// Value of `continue` in the page before.
    #[serde(rename = "continue")]
    pub after: Option<String>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(list_commands)).routes(routes!(read_command, cancel_command))
}

/// Lists the commands of a namespace that still exist, the newest first. Needs the right to list executions.
#[utoipa::path(
    get,
    path = "/api/v1/commands",
    tag = "commands",
    params(ListQuery),
    responses((status = 200, description = "The commands.", body = CommandPage), ReadErrors)
)]
async fn list_commands(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<CommandPage>, ApiError> {
    let page = list(&gateway, &caller, query, "machine").await?;
    Ok(Json(CommandPage::of(&page)))
}

/// Lists executions that the caller may list. `machine` is the name of the parameter with the Machine.
///
/// # Errors
/// 422 that names the parameter, 403 if the caller lacks the right, or the API server did not answer.
pub async fn list(gateway: &Gateway, caller: &Caller, query: ListQuery, machine: &str) -> Result<Page, ApiError> {
    let limit = page_limit(query.limit)?;
    let filter = ListFilter {
        namespace: String::new(),
        machine: query.machine.as_deref().map(|name| machine_name(machine, name)).transpose()?,
        status: query.status.as_deref().map(status_word).transpose()?,
        requester: query.requester,
        times: TimeRange::parse(query.start_date.as_deref(), query.end_date.as_deref())?,
        limit,
        after: query.after.as_deref().map(decode_token).transpose()?,
    };
    let namespace = scope::namespace(gateway, caller, query.namespace.as_deref(), LIST).await?;
    gateway.count_reads(caller, SCAN_READS + limit / OBJECTS_PER_READ)?;
    gateway.executions().list(&ListFilter { namespace, ..filter }).await
}

/// Reads a command.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}",
    tag = "commands",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID")),
    responses(
        (status = 200, description = "The command", body = CommandView),
        (status = 401, description = "No valid credential", body = ErrorBody),
        (status = 403, description = "The caller may not read commands here", body = ErrorBody),
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 422, description = "The id is malformed", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 500, description = "The gateway failed", body = ErrorBody),
        (status = 503, description = "The API server did not answer", body = ErrorBody),
    )
)]
async fn read_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
) -> Result<Json<CommandView>, ApiError> {
    let execution = read(&gateway, &caller, &id).await?;
    Ok(Json(CommandView::of(&execution)))
}

/// Cancels a command. If it has not started, it does not start. If it runs, Writ stops it.
#[utoipa::path(
    delete,
    path = "/api/v1/commands/{id}",
    tag = "commands",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID")),
    responses(
        (status = 202, description = "The cancellation is recorded. Read the command for its end", body = CommandView),
        (status = 200, description = "The command has ended already", body = CommandView),
        (status = 401, description = "No valid credential", body = ErrorBody),
        (status = 403, description = "The caller may not cancel this command", body = ErrorBody),
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 422, description = "The id is malformed", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 500, description = "The gateway failed", body = ErrorBody),
        (status = 503, description = "The API server did not answer", body = ErrorBody),
    )
)]
async fn cancel_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
) -> Result<Response, ApiError> {
    let (status, execution) = cancel(&gateway, &caller, &id).await?;
    Ok((status, Json(CommandView::of(&execution))).into_response())
}

/// Cancels an execution that the caller may cancel. Returns 202, or 200 if it has ended or was cancelled before.
///
/// # Errors
/// 404 or 403 if the caller may not read or cancel it, or the API server did not answer.
pub async fn cancel(gateway: &Gateway, caller: &Caller, id: &str) -> Result<(StatusCode, CommandExecution), ApiError> {
    let execution = read(gateway, caller, id).await?;
    let (namespace, name) = (execution.namespace().unwrap_or_default(), execution.name_any());
    if execution.phase().is_finished() || execution.spec.cancel_requested {
        return Ok((StatusCode::OK, execution));
    }
    let requester = execution.spec.requested_by.as_ref().map(|requester| requester.username.as_str());
    gateway.rights().require(caller, CANCEL_OWN, &namespace).await?;
    if requester != Some(caller.name()) {
        gateway.rights().require(caller, CANCEL_OTHERS, &namespace).await?;
    }
    let acting = gateway.acting().for_caller(&caller.user).await?;
    let patch = json!({"metadata": {"uid": execution.uid()}, "spec": {"cancelRequested": true}});
    let cancelled: CommandExecution = acting
        .merge(&namespace, &name, &patch)
        .await
        .map_err(|error| ApiError::from(error).about(&namespace, &name))?;
    Ok((StatusCode::ACCEPTED, cancelled))
}

/// Reads an execution that the caller may read.
///
/// # Errors
/// 422 if the id is malformed, 403 or 404 if the caller may not read the execution, 404 if there is none.
pub async fn read(gateway: &Gateway, caller: &Caller, id: &str) -> Result<CommandExecution, ApiError> {
    let not_found = || ApiError::command_not_found(id);
    let (namespace, name, uid) = match CommandId::parse(id)? {
        CommandId::Name { namespace, name } => {
            gateway.rights().require(caller, GET, &namespace).await?;
            (namespace, name, None)
        }
        CommandId::Uid(uid) => {
            let (namespace, name) = gateway.find_execution_uid(&uid).ok_or_else(not_found)?;
            // The namespace of a UID is not known to the caller, so a missing right is a 404.
            if !gateway.rights().has(caller, GET, &namespace).await? {
                return Err(not_found());
            }
            (namespace, name, Some(uid))
        }
    };
    match gateway.cluster().execution(&namespace, &name).await {
        Ok(execution) if uid.is_none() || execution.uid() == uid => Ok(execution),
        Ok(_) | Err(ClusterError::NotFound { .. }) => Err(not_found()),
        Err(error) => Err(error.into()),
    }
}
