//! RemoteShell: devices, which are Machines.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::machine_view::MachineView;
use crate::gateway::path::PathOf;
use crate::gateway::routes::machine_history::{HistoryQuery, MachineStatistics, history, statistics};
use crate::gateway::routes::machines::{self, MachinePage, MachineQuery, MachinesQuery};
use crate::gateway::routes::read_errors::ReadErrors;
use crate::gateway::state::Gateway;

use super::remote_command::RemoteCommandPage;

/// One device: a Machine, whose name is the `device_id`.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Device {
    /// Name of the Machine.
    device_id: String,
    #[serde(flatten)]
    machine: MachineView,
}

/// Part of the list of devices, sorted by name.
#[derive(Debug, Serialize, ToSchema)]
struct DevicePage {
    /// Devices. A page can have fewer devices than the limit.
    items: Vec<Device>,
    /// Value for `continue` in the next call. Absent at the end of the list.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<MachineView> for Device {
    fn from(machine: MachineView) -> Self {
        Self { device_id: machine.name.clone(), machine }
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list_devices))
        .routes(routes!(get_device))
        .routes(routes!(device_history))
        .routes(routes!(device_statistics))
}

/// RemoteShell: lists the devices of a namespace, sorted by name.
#[utoipa::path(
    get,
    path = "/api/devices",
    tag = "compatibility",
    params(MachinesQuery),
    responses((status = 200, description = "The devices", body = DevicePage), ReadErrors)
)]
async fn list_devices(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachinesQuery>,
) -> Result<Json<DevicePage>, ApiError> {
    let MachinePage { items, next } = machines::list(&gateway, &caller, &query).await?;
    Ok(Json(DevicePage { items: items.into_iter().map(Device::from).collect(), next }))
}

/// RemoteShell: reads a device.
#[utoipa::path(
    get,
    path = "/api/devices/{id}",
    tag = "compatibility",
    params(("id" = String, Path, description = "Name or UID of the Machine"), MachineQuery),
    responses(
        (status = 200, description = "The device", body = Device),
        ReadErrors,
        (status = 404, description = "No such device", body = ErrorBody),
    )
)]
async fn get_device(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Json<Device>, ApiError> {
    let machine = machines::get(&gateway, &caller, &id, query.namespace.as_deref()).await?;
    Ok(Json(machine.into()))
}

/// RemoteShell: lists the commands of a device that still exist, the newest first.
#[utoipa::path(
    get,
    path = "/api/devices/{id}/history",
    tag = "compatibility",
    params(("id" = String, Path, description = "Name or UID of the Machine"), HistoryQuery),
    responses(
        (status = 200, description = "The commands", body = RemoteCommandPage),
        ReadErrors,
        (status = 404, description = "No such device", body = ErrorBody),
    )
)]
async fn device_history(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> Result<Json<RemoteCommandPage>, ApiError> {
    let page = history(&gateway, &caller, &id, &query).await?;
    Ok(Json(RemoteCommandPage::of(&page)))
}

/// RemoteShell: returns statistics over the commands of a device that still exist.
#[utoipa::path(
    get,
    path = "/api/devices/{id}/statistics",
    tag = "compatibility",
    params(("id" = String, Path, description = "Name or UID of the Machine"), MachineQuery),
    responses(
        (status = 200, description = "The statistics", body = MachineStatistics),
        ReadErrors,
        (status = 404, description = "No such device", body = ErrorBody),
    )
)]
async fn device_statistics(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Json<MachineStatistics>, ApiError> {
    statistics(&gateway, &caller, &id, query.namespace.as_deref()).await.map(Json)
}
