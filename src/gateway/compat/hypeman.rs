//! Hypeman: interactive sessions.

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::path::PathOf;
use crate::gateway::routes::exec::{ExecRequest, SessionTarget, open_session};
use crate::gateway::routes::machines::MachineQuery;
use crate::gateway::routes::read_errors::ReadErrors;
use crate::gateway::state::Gateway;
use crate::gateway::stream::SocketRequest;

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(hypeman_exec))
}

/// Hypeman: opens an interactive session over a WebSocket.
///
/// As `/api/v1/machines/{id}/exec`, without the first message of the server: an `ExecRequest` first, then binary
/// messages both ways, and last `{"exitCode":0}`.
#[utoipa::path(
    get,
    path = "/instances/{id}/exec",
    tag = "compatibility",
    params(("id" = String, Path, description = "Name or UID of the Machine"), MachineQuery),
    request_body = ExecRequest,
    responses(
        (status = 101, description = "The WebSocket is open"),
        ReadErrors,
        (status = 404, description = "No such Machine", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket", body = ErrorBody),
    )
)]
async fn hypeman_exec(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: SocketRequest,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Response, ApiError> {
    open_session(gateway, caller, request, SessionTarget { id, query, names_execution: false }).await
}
