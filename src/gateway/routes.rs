//! Routes of the API. Each file has the routes of one subject, with their documentation.

mod changes;
mod commands;
mod docs;
mod exec;
mod execute;
mod execution_headers;
mod existing_commands;
mod explain;
mod machine_history;
mod machines;
mod me;
mod output;
mod raw_output;
mod read_errors;
mod recording;
mod rules;
mod scope;
mod streams;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::error::ApiError;
use super::state::Gateway;

/// Returns the documented routes.
pub fn api() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(docs::base())
        .merge(execute::routes())
        .merge(commands::routes())
        .merge(existing_commands::routes())
        .merge(machines::routes())
        .merge(machine_history::routes())
        .merge(rules::routes())
        .merge(explain::routes())
        .merge(me::routes())
        .merge(streams::routes())
        .merge(exec::routes())
        .merge(output::routes())
        .merge(raw_output::routes())
        .merge(recording::routes())
        .merge(changes::routes())
}

/// Returns all routes: the documented ones, and their documentation. Other paths and methods are errors as JSON.
pub fn router(gateway: Gateway) -> Router {
    let (router, document) = api().split_for_parts();
    router
        .merge(docs::router(&document))
        .fallback(|| std::future::ready(ApiError::route_not_found()))
        .method_not_allowed_fallback(|| std::future::ready(ApiError::method_not_allowed()))
        .with_state(gateway)
}

/// Returns the OpenAPI document, with a line break at its end.
///
/// # Errors
/// The document could not be serialized.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    document_text(api().get_openapi())
}

fn document_text(document: &OpenApi) -> Result<String, serde_json::Error> {
    document.to_pretty_json().map(|text| text + "\n")
}
