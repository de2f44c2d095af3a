//! Executions of a Machine: the newest ones, and statistics over all that still exist.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::list_query::{decode_token, page_limit};
use crate::gateway::page::CommandPage;
use crate::gateway::path::PathOf;
use crate::gateway::read_limit::{OBJECTS_PER_READ, SCAN_READS};
use crate::gateway::reader::{ListFilter, Page};
use crate::gateway::rights::LIST;
use crate::gateway::state::Gateway;
use crate::gateway::view::seconds;

use super::machines::MachineQuery;
use super::read_errors::ReadErrors;

/// Parameters of the history of a Machine.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Namespace of the Machine. Default: the namespace of the gateway. Not needed with a UID.
    namespace: Option<String>,
    /// Maximum number of executions in the page, 1 to 500. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Value of `continue` in the page before.
    #[serde(rename = "continue")]
    after: Option<String>,
}

/// Statistics over the executions of a Machine that still exist.
#[derive(Debug, Serialize, ToSchema)]
pub struct MachineStatistics {
    /// Number of executions.
    total_commands: u64,
    /// Commands that ended by themselves.
    completed: u64,
    /// Executions that did not run, or whose end is not known.
    failed: u64,
    /// Executions for which nothing was sent yet.
    pending: u64,
    /// Executions that a process has claimed.
    sent: u64,
    /// Running commands.
    executing: u64,
    /// Commands that did not end within their timeout.
    timeout: u64,
    /// Cancelled executions.
    cancelled: u64,
    /// Average duration of the commands that have one, in seconds.
    avg_execution_time: Option<f64>,
    /// False if there are more executions than the gateway reads (10000, or 10 s of reading). The numbers are then
    /// those of the first ones by name.
    is_complete: bool,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(machine_history)).routes(routes!(machine_statistics))
}

/// Lists the executions of a Machine that still exist, the newest first. Needs the right to list executions.
///
/// Executions of an earlier Machine with the same name are listed too. Continue until there is no `continue`.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}/history",
    tag = "machines",
    params(("id" = String, Path, description = "Name or UID of the Machine."), HistoryQuery),
    responses(
        (status = 200, description = "The executions.", body = CommandPage),
        (status = 404, description = "There is no such Machine.", body = ErrorBody),
        ReadErrors
    )
)]
async fn machine_history(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> Result<Json<CommandPage>, ApiError> {
    let page = history(&gateway, &caller, &id, &query).await?;
    Ok(Json(CommandPage::of(&page)))
}

/// Lists executions of a Machine for a caller who may list executions.
///
/// # Errors
/// 422, 403 or 404, as [`Gateway::machine_for`], or the API server did not answer.
pub async fn history(gateway: &Gateway, caller: &Caller, id: &str, query: &HistoryQuery) -> Result<Page, ApiError> {
    let limit = page_limit(query.limit)?;
    let after = query.after.as_deref().map(decode_token).transpose()?;
    let machine = gateway.machine_for(caller, id, query.namespace.as_deref(), LIST).await?;
    gateway.count_reads(caller, SCAN_READS + limit / OBJECTS_PER_READ)?;
    let filter =
        ListFilter { namespace: machine.namespace, machine: Some(machine.name), limit, after, ..ListFilter::default() };
    gateway.executions().list(&filter).await
}

/// Returns statistics over the executions of a Machine that still exist. Needs the right to list executions.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}/statistics",
    tag = "machines",
    params(("id" = String, Path, description = "Name or UID of the Machine."), MachineQuery),
    responses(
        (status = 200, description = "The statistics.", body = MachineStatistics),
        (status = 404, description = "There is no such Machine.", body = ErrorBody),
        ReadErrors
    )
)]
async fn machine_statistics(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Json<MachineStatistics>, ApiError> {
    statistics(&gateway, &caller, &id, query.namespace.as_deref()).await.map(Json)
}

/// Returns the statistics of a Machine for a caller who may list executions.
///
/// # Errors
/// 422, 403 or 404, as [`Gateway::machine_for`], or the API server did not answer.
pub async fn statistics(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
    namespace: Option<&str>,
) -> Result<MachineStatistics, ApiError> {
    let machine = gateway.machine_for(caller, id, namespace, LIST).await?;
    gateway.count_reads(caller, SCAN_READS)?;
    let (statistics, is_complete) = gateway.executions().statistics(&machine.namespace, &machine.name).await?;
    Ok(MachineStatistics {
        total_commands: statistics.total,
        completed: statistics.completed,
        failed: statistics.failed,
        pending: statistics.pending,
        sent: statistics.sent,
        executing: statistics.executing,
        timeout: statistics.timeout,
        cancelled: statistics.cancelled,
        avg_execution_time: statistics.average_ms().map(seconds),
        is_complete,
    })
}
