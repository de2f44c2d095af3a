//! Trust on first use: Writ pins the first key of a machine in the Machine's status before Writ sends credentials.
//!
//! # Guarantees
//! Only one key is pinned, once. Each write requires the resourceVersion that was read. If several tasks or processes
//! write at the same time, only the first write succeeds. The other tasks then require the pinned key.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::machine_status::{KeyTrust, ObservedHostKey};
use crate::api::{Machine, MachineStatus};
use crate::cluster::{Cluster, ClusterError};

use super::connect_failure::{ConnectFailure, RETRY_AFTER_CHANGE};

/// Maximum number of tries to write the pinned key. Other writers can change the status between the read and the write.
const TRIES: u32 = 5;

/// Returns the pinned keys of a machine, as algorithm and fingerprint. Excludes keys from certificates, because an
/// authority may replace such keys at any time.
pub(crate) fn pinned_keys(machine: &Machine) -> Vec<(String, String)> {
    let keys = machine.status.as_ref().map(|status| status.host_keys.as_slice()).unwrap_or_default();
    let kept = keys.iter().filter(|key| key.trust != KeyTrust::Authority);
    kept.map(|key| (key.algorithm.clone(), key.fingerprint.clone())).collect()
}

/// Pins a key, unless a key is already pinned.
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
            // Another writer was faster, or the answer was lost. The next try reads the status again.
            Err(error) if error.is_ambiguous() || matches!(error, ClusterError::Conflict { .. }) => {}
            Err(error) => return Err(ConnectFailure::from_read(&error)),
        }
    }
    Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE))
}
