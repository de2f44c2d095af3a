//! Machines: their list, and one Machine.

use axum::Json;
use axum::extract::State;
use futures::stream::{self, StreamExt as _};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::cluster::{Cluster, ClusterError};
use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::list_query::{decode_token, encode_token, page_limit};
use crate::gateway::machine_view::MachineView;
use crate::gateway::path::PathOf;
use crate::gateway::read_limit::{OBJECTS_PER_READ, SCAN_READS};
use crate::gateway::rights::{GET_MACHINE, LIST, LIST_MACHINES};
use crate::gateway::state::{Gateway, MachineName};

use super::read_errors::ReadErrors;
use super::scope;

/// Maximum number of concurrent reads of a list. The client permits 64 requests for all callers.
const CONCURRENT_READS: usize = 8;
/// Size of the labels of a page, in bytes, after which the page ends. Labels usually take less than 1 KiB.
const MAX_LABEL_BYTES: usize = 4 * 1024 * 1024;

/// Parameters of the list of Machines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachinesQuery {
    /// Namespace. Default: the namespace of the gateway.
    namespace: Option<String>,
    /// Maximum number of Machines in the page, 1 to 500. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Value of `continue` in the page before.
    #[serde(rename = "continue")]
    after: Option<String>,
}

/// Parameters of calls for one Machine.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachineQuery {
    /// Namespace of the Machine. Default: the namespace of the gateway. Not needed with a UID.
    pub namespace: Option<String>,
}

/// Part of the list of Machines, sorted by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct MachinePage {
    /// Machines. A page can have fewer Machines than the limit.
    pub items: Vec<MachineView>,
    /// Value for `continue` in the next call. Absent at the end of the list.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Position in the list of Machines.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MachinePosition {
    #[serde(rename = "n")]
    name: String,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(list_machines)).routes(routes!(get_machine))
}

/// Lists the Machines of a namespace, sorted by name. Needs the right to list Machines there.
#[utoipa::path(
    get,
    path = "/api/v1/machines",
    tag = "machines",
    params(MachinesQuery),
    responses((status = 200, description = "The Machines.", body = MachinePage), ReadErrors)
)]
async fn list_machines(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachinesQuery>,
) -> Result<Json<MachinePage>, ApiError> {
    list(&gateway, &caller, &query).await.map(Json)
}

/// Lists Machines that the caller may list.
///
/// # Errors
/// 422 that names the parameter, 403 if the caller lacks the right, or the API server did not answer.
pub async fn list(gateway: &Gateway, caller: &Caller, query: &MachinesQuery) -> Result<MachinePage, ApiError> {
    let limit = page_limit(query.limit)?;
    let after = query.after.as_deref().map(decode_token::<MachinePosition>).transpose()?;
    let namespace = scope::namespace(gateway, caller, query.namespace.as_deref(), LIST_MACHINES).await?;
    let after = after.map(|position| position.name).unwrap_or_default();
    // One more than the limit, so that the page reports if the list continues.
    let names = names_after(gateway, &namespace, &after, limit + 1);
    gateway.count_reads(caller, names.len() / OBJECTS_PER_READ)?;
    read_page(gateway.cluster(), &namespace, names, limit).await
}

/// Returns the first names of Machines after a name. The watch has all names in memory, and can be a moment late.
fn names_after(gateway: &Gateway, namespace: &str, after: &str, limit: usize) -> Vec<String> {
    let all = gateway.machines().store().state();
    let is_here = |namespace_: Option<String>| namespace_.as_deref() == Some(namespace);
    let here = all.iter().filter(|machine| is_here(machine.namespace())).map(|machine| machine.name_any());
    let mut names: Vec<String> = here.filter(|name| name.as_str() > after).collect();
    names.sort_unstable();
    names.truncate(limit);
    names
}

async fn read_page(
    cluster: &Cluster,
    namespace: &str,
    names: Vec<String>,
    limit: usize,
) -> Result<MachinePage, ApiError> {
    let count = names.len();
    let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
    let mut reads = stream::iter(names.into_iter().take(limit))
        .map(move |name| read(cluster.clone(), namespace.clone(), name))
        .buffered(CONCURRENT_READS);
    let (mut items, mut read, mut bytes) = (Vec::new(), 0, 0);
    let mut last = None;
    while bytes < MAX_LABEL_BYTES {
        let Some(result) = reads.next().await else { break };
        let (name, view) = result?;
        read += 1;
        last = Some(name);
        if let Some(view) = view {
            bytes += view.metadata.label_bytes();
            items.push(view);
        }
    }
    let next = last.filter(|_| count > read).map(|name| encode_token(&MachinePosition { name }));
    Ok(MachinePage { items, next })
}

/// Reads a Machine of a list. Returns no view if it was deleted meanwhile.
async fn read(
    cluster: Cluster,
    namespace: String,
    name: String,
) -> Result<(String, Option<MachineView>), ClusterError> {
    match cluster.machine(&namespace, &name).await {
        Ok(machine) => Ok((name, Some(MachineView::of(&machine)))),
        Err(ClusterError::NotFound { .. }) => Ok((name, None)),
        Err(error @ ClusterError::Undecodable { .. }) => {
            tracing::warn!(%error, "machine listed without its content");
            let view = MachineView::unreadable(&namespace, &name);
            Ok((name, Some(view)))
        }
        Err(error) => Err(error),
    }
}

/// Returns one Machine. Needs the right to get Machines in its namespace.
///
/// `total_commands` also needs the right to list executions there.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}",
    tag = "machines",
    params(("id" = String, Path, description = "Name or UID of the Machine."), MachineQuery),
    responses(
        (status = 200, description = "The Machine.", body = MachineView),
        (status = 404, description = "There is no such Machine.", body = ErrorBody),
        ReadErrors
    )
)]
async fn get_machine(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Json<MachineView>, ApiError> {
    get(&gateway, &caller, &id, query.namespace.as_deref()).await.map(Json)
}

/// Reads a Machine that the caller may get.
///
/// # Errors
/// 422, 403 or 404, as [`Gateway::machine_for`], or the API server did not answer.
pub async fn get(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
    namespace: Option<&str>,
) -> Result<MachineView, ApiError> {
    let name = gateway.machine_for(caller, id, namespace, GET_MACHINE).await?;
    let machine = scope::read_machine(gateway, &name).await?;
    let total_commands = count_commands(gateway, caller, &name).await?;
    Ok(MachineView { total_commands, ..MachineView::of(&machine) })
}

/// Returns the number of executions of a Machine, if the caller may list executions and they can be counted now.
async fn count_commands(gateway: &Gateway, caller: &Caller, machine: &MachineName) -> Result<Option<u64>, ApiError> {
    if !gateway.rights().has(caller, LIST, &machine.namespace).await? {
        return Ok(None);
    }
    gateway.count_reads(caller, SCAN_READS)?;
    // The Machine itself is worth an answer, also if its executions cannot be counted.
    Ok(gateway.executions().count(&machine.namespace, &machine.name).await.unwrap_or_default())
}
