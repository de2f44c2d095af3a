//! Whether the holder of a claim is still there. Each process renews a Lease of its own; the Lease fences nothing (the
//! claim does), it only tells whether a claim has been left behind.
//!
//! Whether another's Lease is over is judged by watching it not change for its duration on one's own monotonic clock,
//! never by comparing wall clocks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use tokio::time::Instant;

use crate::execution::HolderFact;

use super::{Cluster, ClusterError};

/// The label by which Leases of this kind are found.
const LABEL: &str = "writ.dev/holder";
/// A Lease that did not change for so many durations is removed: its process is gone, and did not say goodbye.
const SWEEP_AFTER_DURATIONS: u32 = 4;

/// This process among the others.
pub struct Holders {
    cluster: Cluster,
    /// Where the Leases are; the same for all processes that serve the same executions.
    namespace: String,
    /// This process, as it stands in claims.
    own: String,
    duration: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When our own Lease was last renewed, by the time at which the renewal was sent.
    renewed: Option<Instant>,
    /// Of the others' Leases: the version that was seen, and since when it has been that.
    seen: HashMap<String, (String, Instant)>,
}

impl Holders {
    /// Announces this process as `own`. Others take it for gone after `duration` without a sign of life.
    ///
    /// # Errors
    /// The Lease cannot be written.
    pub async fn announce(
        cluster: &Cluster,
        namespace: &str,
        own: &str,
        duration: Duration,
    ) -> Result<Self, ClusterError> {
        let holders = Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            own: own.to_owned(),
            duration,
            state: Mutex::default(),
        };
        holders.renew().await?;
        Ok(holders)
    }

    /// The name of this process.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Renews the Lease and removes others' that are long over, until it is dropped.
    pub async fn keep(&self) {
        loop {
            // Three tries within the duration, so that one lost call is no lost Lease.
            tokio::time::sleep(self.duration / 3).await;
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "the Lease of this process could not be renewed");
            }
            if let Err(error) = self.sweep().await {
                tracing::debug!(%error, "Leases that are over could not be removed");
            }
        }
    }

    /// Takes the Lease back, so that others need not wait for its end.
    pub async fn leave(&self) {
        let api = self.api();
        let parameters = DeleteParams::default();
        if let Err(error) = self.cluster.call("the Lease of this process", api.delete(&self.own, &parameters)).await {
            tracing::warn!(%error, "the Lease of this process could not be removed");
        }
    }

    /// Whether the others still take this process for alive: while they may not, it must start nothing.
    pub fn is_current(&self) -> bool {
        let renewed = self.state.lock().unwrap_or_else(PoisonError::into_inner).renewed;
        renewed.is_some_and(|renewed| renewed.elapsed() < self.duration)
    }

    /// Whether the holder of a claim is there.
    ///
    /// # Errors
    /// Its Lease cannot be read: nothing is known.
    pub async fn fact(&self, holder: &str) -> Result<HolderFact, ClusterError> {
        if holder == self.own {
            return Ok(HolderFact::Myself);
        }
        let api = self.api();
        let version = match self.cluster.call(format!("the Lease {holder}"), api.get_metadata(holder)).await {
            Ok(lease) => lease.metadata.resource_version.unwrap_or_default(),
            Err(ClusterError::NotFound { .. }) => return Ok(HolderFact::Gone),
            Err(error) => return Err(error),
        };
        let unchanged = self.note(holder, version);
        Ok(if unchanged > self.duration { HolderFact::Gone } else { HolderFact::MayBeAlive })
    }

    /// Notes the version of a Lease, and says for how long it has been this one.
    fn note(&self, holder: &str, version: String) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = state.seen.entry(holder.to_owned()).or_insert_with(|| (version.clone(), Instant::now()));
        if seen.0 != version {
            *seen = (version, Instant::now());
        }
        seen.1.elapsed()
    }

    async fn renew(&self) -> Result<(), ClusterError> {
        let sent = Instant::now();
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.own.clone()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.own.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        let api = self.api();
        let parameters = PatchParams::apply("writ").force();
        self.cluster
            .call("the Lease of this process", api.patch(&self.own, &parameters, &Patch::Apply(&lease)))
            .await?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).renewed = Some(sent);
        Ok(())
    }

    async fn sweep(&self) -> Result<(), ClusterError> {
        let api = self.api();
        let selector = ListParams::default().labels(LABEL);
        let leases = self.cluster.call("the Leases of all processes", api.list_metadata(&selector)).await?;
        let mut present = Vec::new();
        for lease in leases.items {
            let name = lease.metadata.name.unwrap_or_default();
            let unchanged = self.note(&name, lease.metadata.resource_version.unwrap_or_default());
            if unchanged > self.duration.saturating_mul(SWEEP_AFTER_DURATIONS) && name != self.own {
                self.cluster.call(format!("the Lease {name}"), api.delete(&name, &DeleteParams::default())).await?;
            } else {
                present.push(name);
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen.retain(|name, _| present.contains(name));
        Ok(())
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }
}
