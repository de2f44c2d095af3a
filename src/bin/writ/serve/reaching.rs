//! Flags that say where may be connected to, and what is kept up to date of it.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use writ::cluster::Cluster;
use writ::ssh::{Cidr, Network};

/// How often the addresses of the API server are looked up: it may be moved, and get further replicas.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub struct Reaching {
    /// A range of addresses that machines may have, like 10.0.0.0/8, or one address; may be given several times. Where it is
    /// given, only these are connected to. Loopback, link-local and cloud metadata addresses, those of the API server, and what
    /// --refuse-cidr names are refused unless a range names them as closely: 127.0.0.0/8 lets loopback in, 0.0.0.0/0 does
    /// not. An address that is refused for two causes (loopback, with the API server on this host too) needs a range as
    /// close as both: 127.0.0.1/32.
    /// What lies behind a jump host is that host's matter.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow_cidr: Vec<Cidr>,

    /// A range of addresses that is never connected to, whatever is allowed; may be given several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    deny_cidr: Vec<Cidr>,

    /// A range in which no machines are meant to be, like the cluster's own for Services and Pods; may be given several times.
    /// It is refused unless --allow-cidr names the same range or one within it.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    refuse_cidr: Vec<Cidr>,
}

impl Reaching {
    /// Where may be connected to. The API server's addresses are looked up again until `stop`.
    pub async fn network(&self, cluster: &Cluster, stop: &CancellationToken) -> Network {
        if self.allow_cidr.is_empty() {
            tracing::info!(
                "Machines may have every address that is not refused; name the ranges that they are in with --allow-cidr"
            );
        }
        let network = Network::new(self.allow_cidr.clone(), self.deny_cidr.clone(), cluster.addresses().await)
            .refusing(self.refuse_cidr.clone());
        let (kept, cluster, stop) = (network.clone(), cluster.clone(), stop.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_some() {
                kept.servers_are(cluster.addresses().await);
            }
        });
        network
    }
}
