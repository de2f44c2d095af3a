//! Limits the concurrent logins to one host, over all Machines with that host. Namespaces take turns.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::fairness::{Place, Pool, Size};

use super::lock::lock;
use super::resolved_machine::ResolvedMachine;

/// Concurrent logins to one host. sshd drops some connections if more than 10 are not logged in yet (MaxStartups
/// 10:30:100), and other clients may connect, too. One place is always left for another namespace with the same host.
const MAX_CONCURRENT_LOGINS: Size = Size { places: 5, share: 4 };

/// Hosts to which logins are running. Other hosts have no entry.
#[derive(Default)]
pub(crate) struct LoginLimiter {
    hosts: Mutex<HashMap<String, Pool>>,
}

impl LoginLimiter {
    /// Waits for a place. Each login before it has a deadline.
    pub async fn acquire(&self, resolved: &ResolvedMachine) -> Place {
        let spec = &resolved.machine.spec;
        // The same address behind different jump hosts may be different hosts.
        let way = resolved.hops.iter().map(ResolvedMachine::name).collect::<Vec<_>>().join("/");
        // A jump host belongs to a namespace, so the host behind it does, too. A host without jump hosts is the same
        // for all namespaces.
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
