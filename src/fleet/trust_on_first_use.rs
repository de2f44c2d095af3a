//! Trust on first use: the key that a machine is seen with first is frozen in its status before anything is said to it.
//!
//! The promise kept here: one key, once. Whoever comes at the same time, in this process or another, finds what the first has
//! written (by the resourceVersion), and holds the machine to that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::machine_status::{KeyTrust, ObservedHostKey};
use crate::api::{Machine, MachineStatus};
use crate::cluster::{Cluster, ClusterError};

use super::connect_failure::{ConnectFailure, RETRY_AFTER_CHANGE};

/// How often somebody else may write the status at the same time.
const TRIES: u32 = 5;

/// What a machine was seen with, as algorithm and fingerprint. What an authority has vouched for may change by its word.
pub(crate) fn pinned_keys(machine: &Machine) -> Vec<(String, String)> {
    let keys = machine.status.as_ref().map(|status| status.host_keys.as_slice()).unwrap_or_default();
    let kept = keys.iter().filter(|key| key.trust != KeyTrust::Authority);
    kept.map(|key| (key.algorithm.clone(), key.fingerprint.clone())).collect()
}

/// Freezes a key, unless one is frozen already.
pub(crate) async fn pin(
    cluster: &Cluster,
    connected_by: &Machine,
    algorithm: &str,
    fingerprint: &str,
) -> Result<(), ConnectFailure> {
    let metadata = &connected_by.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    for _ in 0..TRIES {
        let live = cluster.machine(namespace, name).await.map_err(|error| ConnectFailure::from_read(&error))?;
        if (&live.metadata.uid, live.metadata.generation) != (&metadata.uid, metadata.generation) {
            return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
        }
        if !pinned_keys(&live).is_empty() {
            return Ok(());
        }
        let key = ObservedHostKey {
            algorithm: algorithm.to_owned(),
            fingerprint: fingerprint.to_owned(),
            trust: KeyTrust::FirstUse,
            first_seen_time: Time(cluster.now()),
        };
        let before = live.status.clone().unwrap_or_default();
        let status = MachineStatus { host_keys: vec![key], ..before };
        match cluster.replace_machine_status(&live, status).await {
            Ok(_) => {
                tracing::info!(
                    machine = name,
                    namespace,
                    algorithm,
                    fingerprint,
                    "a host key was seen first, and frozen"
                );
                return Ok(());
            }
            // Somebody was quicker, or the answer was lost: see what is there.
            Err(error) if error.is_ambiguous() || matches!(error, ClusterError::Conflict { .. }) => {}
            Err(error) => return Err(ConnectFailure::from_read(&error)),
        }
    }
    Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE))
}
