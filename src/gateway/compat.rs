//! Compatibility routes: paths and field names of earlier systems, for their clients (`writ serve --compat-routes`).
//!
//! The routes call the functions of the gateway's own routes. So the same callers, rights, rules, limits and records
//! apply. They only translate names.
//!
//! | system | file | routes |
//! |---|---|---|
//! | Ogent | `compat::ogent` | `/api/execute`, `/api/executions/{executionId}` |
//! | RemoteShell | `compat::remote_shell`, `compat::devices` | `/api/command/{id}`, `/api/commands`, `/api/devices` |
//! | Hypeman | `compat::hypeman` | `/instances/{id}/exec` |
//! | Ogent and RemoteShell | `compat::command` | `POST /api/command`: the body decides |
//!
//! A further system is a file of its own, with its routes merged below and the tag `compatibility`.

mod command;
mod create_errors;
mod devices;
mod hypeman;
mod ogent;
mod remote_command;
mod remote_shell;

use utoipa_axum::router::OpenApiRouter;

use super::state::Gateway;

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .merge(command::routes())
        .merge(ogent::routes())
        .merge(hypeman::routes())
        .merge(remote_shell::routes())
        .merge(devices::routes())
}
