//! The caller: who the gateway considers the caller to be, and where the caller has rights.

use std::collections::BTreeSet;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::ResourceExt as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::caller::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::rights::{CREATE, GET, LIST};
use crate::gateway::state::Gateway;

use super::read_errors::ReadErrors;

/// Maximum number of namespaces that are checked. Each check takes up to three calls of the API server.
const MAX_NAMESPACES: usize = 200;
/// Maximum number of namespaces that are checked concurrently.
const CONCURRENT_CHECKS: usize = 8;
/// Number of checked namespaces that count as one additional read.
const NAMESPACES_PER_READ: usize = 4;

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// User name.
    #[schema(examples("jane"))]
    user: String,
    /// User ID. Empty if the authenticator provides none.
    uid: String,
    /// Groups.
    groups: Vec<String>,
    /// Kind of the credential: `api_key`, `session` or `token`.
    #[schema(examples("api_key"))]
    credential: &'static str,
    /// Name of the API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// Namespaces with Machines in which the caller may create, get or list executions, sorted.
    namespaces: Vec<String>,
    /// False if there are more than 200 namespaces with Machines. The first ones by name are checked.
    is_complete: bool,
    /// Limit for commands.
    rate: RateView,
}

/// Limit for the commands of a caller.
#[derive(Debug, Serialize, ToSchema)]
struct RateView {
    /// Maximum number of commands in any 60 s.
    limit: u32,
    /// Number of commands that the caller can create now.
    remaining: usize,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(me))
}

/// Returns user, groups and rate of the caller, and the namespaces in which the caller has rights.
#[utoipa::path(
    get,
    path = "/api/v1/me",
    tag = "me",
    responses((status = 200, description = "The caller.", body = Me), ReadErrors)
)]
async fn me(State(gateway): State<Gateway>, caller: Caller) -> Result<Json<Me>, ApiError> {
    let all: BTreeSet<String> =
        gateway.machines().store().state().iter().filter_map(|machine| machine.namespace()).collect();
    let is_complete = all.len() <= MAX_NAMESPACES;
    gateway.count_reads(&caller, all.len().min(MAX_NAMESPACES).div_ceil(NAMESPACES_PER_READ))?;
    let namespaces: Vec<String> = stream::iter(all.into_iter().take(MAX_NAMESPACES))
        .map(|namespace| has_rights(gateway.clone(), caller.clone(), namespace))
        .buffered(CONCURRENT_CHECKS)
        .try_filter_map(|namespace| std::future::ready(Ok(namespace)))
        .try_collect()
        .await?;
    let limit = gateway.limit_for(&caller);
    let allowed = usize::try_from(limit).unwrap_or(usize::MAX);
    let remaining = gateway.rate().remaining(&caller.rate_key(), allowed, Instant::now());
    Ok(Json(Me {
        user: caller.name().to_owned(),
        uid: caller.user.uid.clone().unwrap_or_default(),
        groups: caller.user.groups.clone().unwrap_or_default(),
        credential: match (&caller.api_key, caller.is_session) {
            (Some(_), _) => "api_key",
            (None, true) => "session",
            (None, false) => "token",
        },
        api_key: caller.api_key_name,
        namespaces,
        is_complete,
        rate: RateView { limit, remaining },
    }))
}

/// Returns the namespace if the caller has one of the rights in it.
async fn has_rights(gateway: Gateway, caller: Caller, namespace: String) -> Result<Option<String>, ApiError> {
    for right in [CREATE, LIST, GET] {
        if gateway.rights().has(&caller, right, &namespace).await? {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}
