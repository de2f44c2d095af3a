//! Address policy of `writ serve`, and the task that keeps the API server's addresses in it current.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use writ::cli::machine::AddressArgs;
use writ::cluster::Cluster;
use writ::ssh::AddressPolicy;

/// How often the addresses of the API server are looked up: it may be moved, and get further replicas.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub struct Reaching {
    #[command(flatten)]
    addresses: AddressArgs,
}

impl Reaching {
    /// Where may be connected to. The API server's addresses are looked up again until `stop`.
    pub async fn network(&self, cluster: &Cluster, stop: &CancellationToken) -> AddressPolicy {
        if self.addresses.allow_any() {
            tracing::info!(
                "Machines may have every address that is not refused; name the ranges that they are in with --allow-cidr"
            );
        }
        let network = self.addresses.policy(cluster.addresses().await);
        let (kept, cluster, stop) = (network.clone(), cluster.clone(), stop.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_some() {
                kept.servers_are(cluster.addresses().await);
            }
        });
        network
    }
}
