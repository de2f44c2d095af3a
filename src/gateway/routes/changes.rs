//! The changes of executions.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::read_errors::ReadErrors;
use super::scope;
use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::caller_sockets::FEED_PLACES;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::rights::LIST;
use crate::gateway::state::Gateway;
use crate::gateway::stream::{ChangeFeed, OptionalSocket, answer_lines};

/// Parameters of the stream of changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChangesQuery {
    /// Namespace. Default: the namespace of the gateway.
    namespace: Option<String>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(watch_commands))
}

/// Sends the changes of the executions of a namespace, over a WebSocket or as NDJSON.
///
/// The first message is `{"type":"listed","commands","is_complete"}` with unfinished executions. Then each changed or
/// ended execution follows as `{"type":"changed","command"}`, in its latest state, or as
/// `{"type":"deleted","command_id"}`. `{"type":"gap","reason"}` means that changes are perhaps missing.
#[utoipa::path(
    get,
    path = "/api/v1/commands/watch",
    tag = "commands",
    params(ChangesQuery),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 200, description = "One message in each line", body = String, content_type = "application/x-ndjson"),
        ReadErrors,
        (status = 426, description = "The request for a WebSocket is malformed", body = ErrorBody),
    )
)]
async fn watch_commands(
    State(gateway): State<Gateway>,
    caller: Caller,
    OptionalSocket(request): OptionalSocket,
    QueryOf(query): QueryOf<ChangesQuery>,
) -> Result<Response, ApiError> {
    let namespace = scope::namespace(&gateway, &caller, query.namespace.as_deref(), LIST).await?;
    let access_lost = gateway.clone().access_lost(caller.clone(), LIST, namespace.clone());
    let socket = gateway.caller_sockets().enter(caller.name(), FEED_PLACES, gateway.sockets(), access_lost)?;
    let feed = ChangeFeed::new(&gateway, namespace);
    Ok(match request {
        Some(request) => request.serve(socket, feed),
        None => answer_lines(socket, feed),
    })
}
