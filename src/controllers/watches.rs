//! Metadata that all controllers share: one watch of each kind.

use std::sync::Arc;

use crate::api::{CommandExecution, Machine, Phase, Whitelist};
use crate::cluster::{Cluster, DeliveredExecutions, SharedWatch, Slim};
use crate::telemetry::Watch;

/// One watch of each kind, in the served namespaces. Clones share the watches.
#[derive(Clone)]
pub struct Watches {
    /// Unfinished CommandExecutions. There can be 100 times as many finished CommandExecutions, which only `retention`
    /// watches.
    pub unfinished_executions: SharedWatch<Slim<CommandExecution>>,
    /// Texts of unfinished executions that the watch has just delivered.
    pub delivered: Arc<DeliveredExecutions>,
    /// All Machines.
    pub machines: SharedWatch<Slim<Machine>>,
    /// All Whitelists.
    pub whitelists: SharedWatch<Slim<Whitelist>>,
}

impl Watches {
    /// Returns the watches, and the future that keeps them up to date. The future ends only if one of the watches ends,
    /// which is a bug. Drop the future to end the watches.
    pub fn new(cluster: &Cluster) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (unfinished_executions, delivered, follow_executions) =
            cluster.execution_watch(Watch::Executions, &unfinished_selector());
        let (machines, follow_machines) = cluster.shared_watch(Watch::Machines, None);
        let (whitelists, follow_whitelists) = cluster.shared_watch(Watch::Whitelists, None);
        let watches = Self { unfinished_executions, delivered, machines, whitelists };
        let follow_all = async {
            tokio::select! {
                () = follow_executions => {}
                () = follow_machines => {}
                () = follow_whitelists => {}
            }
        };
        (watches, follow_all)
    }
}

fn unfinished_selector() -> String {
    let finished = Phase::ALL.iter().filter(|phase| phase.is_finished());
    finished.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}
