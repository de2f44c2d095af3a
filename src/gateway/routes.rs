//! Routes of the API. Each file has the routes of one subject, with their documentation.

mod changes;
pub mod commands;
mod docs;
mod downloads;
pub mod exec;
pub mod execute;
mod execution_headers;
pub mod existing_commands;
mod explain;
pub mod machine_history;
pub mod machines;
mod me;
mod output;
mod raw_output;
pub mod read_errors;
mod recording;
mod rules;
mod scope;
pub mod streams;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::compat;
use super::error::ApiError;
use super::state::Gateway;

/// Returns the documented routes, with those of earlier systems.
pub fn api() -> OpenApiRouter<Gateway> {
    own_routes().merge(compat::routes())
}

/// Returns the documented routes that each gateway serves.
fn own_routes() -> OpenApiRouter<Gateway> {
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
        .merge(downloads::routes())
}

/// Returns all routes: the documented ones, and their documentation. Other paths and methods are errors as JSON.
///
/// The document also has the routes of earlier systems if the gateway does not serve them. So it is the same
/// everywhere, and it names the flag.
pub fn router(gateway: Gateway) -> Router {
    let (all, document) = api().split_for_parts();
    let router = if gateway.settings().has_compat_routes { all } else { own_routes().split_for_parts().0 };
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
