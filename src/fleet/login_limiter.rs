//! Limit of concurrent logins to one host, for all Machines with this host together. Namespaces take turns.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::fairness::{Place, Pool, Size};

use super::lock::lock;
use super::resolved_machine::ResolvedMachine;

/// Maximum number of concurrent logins to one host: 5, at most 4 of them for the same namespace. sshd drops some
/// connections if more than 10 connections are not logged in yet (MaxStartups 10:30:100). The limit leaves connections
/// for other clients.
const MAX_CONCURRENT_LOGINS: Size = Size { places: 5, share: 4 };

/// Hosts to which logins are running. Other hosts have no entry.
#[derive(Default)]
pub(crate) struct LoginLimiter {
    hosts: Mutex<HashMap<String, Pool>>,
}

impl LoginLimiter {
    /// Waits for a permit for one login. The wait is limited, because each earlier login has a deadline.
    pub async fn acquire(&self, resolved: &ResolvedMachine) -> Place {
        let spec = &resolved.machine.spec;
        // The key contains the jump hosts, because the same address behind another jump host can be another host.
        let way = resolved.hops.iter().map(ResolvedMachine::name).collect::<Vec<_>>().join("/");
        // A host behind jump hosts has one limit for each namespace, because a jump host belongs to one namespace. All
        // other hosts have one limit for all namespaces.
        let namespace = resolved.machine.metadata.namespace.as_deref().unwrap_or_default();
        let owner = if way.is_empty() { "" } else { namespace };
        let host = format!("{owner}/{way}/{}:{}", spec.address, spec.port);
        let places = {
            let mut hosts = lock(&self.hosts);
            hosts.retain(|_, places| places.is_in_use());
            hosts.entry(host).or_insert_with(|| Pool::new(MAX_CONCURRENT_LOGINS)).clone()
        };
        places.place(namespace).await
    }
}
