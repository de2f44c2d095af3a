//! Namespace and Machine of a read, with the checks in their order: form, right, Machine.

use crate::api::Machine;
use crate::cluster::{ClusterError, Right};
use crate::gateway::caller::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::names::check_namespace;
use crate::gateway::state::{Gateway, MachineName};

/// Returns the namespace of a list: the parameter `namespace`, or the gateway's own namespace.
///
/// # Errors
/// 422 if the parameter is no name of a namespace, 403 if the caller lacks the right.
pub async fn namespace(
    gateway: &Gateway,
    caller: &Caller,
    namespace: Option<&str>,
    right: Right,
) -> Result<String, ApiError> {
    namespace.map_or(Ok(()), check_namespace)?;
    let namespace = namespace.unwrap_or_else(|| gateway.cluster().own_namespace()).to_owned();
    gateway.rights().require(caller, right, &namespace).await?;
    Ok(namespace)
}

/// Reads a Machine.
///
/// # Errors
/// 404 if it was deleted meanwhile, or the API server did not answer.
pub async fn read_machine(gateway: &Gateway, machine: &MachineName) -> Result<Machine, ApiError> {
    match gateway.cluster().machine(&machine.namespace, &machine.name).await {
        Err(ClusterError::NotFound { .. }) => Err(ApiError::machine_not_found(&machine.name, &machine.namespace)),
        result => Ok(result?),
    }
}
