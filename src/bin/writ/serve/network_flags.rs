//! Flags of `writ serve` for the addresses that Machines may have.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use writ::cli::machine::AddressArgs;
use writ::cluster::Cluster;
use writ::ssh::AddressPolicy;

/// Interval between lookups of the API server's addresses. The addresses change if the API server moves or gets more
/// replicas.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub struct NetworkFlags {
    #[command(flatten)]
    addresses: AddressArgs,
}

impl NetworkFlags {
    /// Returns the policy for addresses. Until `stop` is cancelled, a task looks up the API server's addresses
    /// regularly and updates the policy.
    pub async fn network(&self, cluster: &Cluster, stop: &CancellationToken) -> AddressPolicy {
        if self.addresses.allow_any() {
            tracing::info!(
                "Machines may have any address that is not refused; set --allow-cidr to the ranges of your machines"
            );
        }
        let network = self.addresses.policy(cluster.addresses().await);
        let (kept, cluster, stop) = (network.clone(), cluster.clone(), stop.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(LOOKUP_INTERVAL)).await.is_some() {
                kept.servers_are(cluster.addresses().await);
            }
        });
        network
    }
}
