//! How many logins to one host are in the making, whichever Machines they are for: by turns between namespaces.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::fairness::{Place, Pool, Size};

use super::lock::lock;
use super::resolved_machine::ResolvedMachine;

/// sshd drops some of those that come at once over 10 (MaxStartups 10:30:100), and there may be other clients. One is always left
/// to another namespace that has the same host.
const MAX_CONCURRENT_LOGINS: Size = Size { places: 5, share: 4 };

/// The hosts that are being logged in to. Who is not is not kept.
#[derive(Default)]
pub(crate) struct LoginLimiter {
    hosts: Mutex<HashMap<String, Pool>>,
}

impl LoginLimiter {
    /// Waits for a place. Those before have deadlines.
    pub async fn acquire(&self, resolved: &ResolvedMachine) -> Place {
        let spec = &resolved.machine.spec;
        // The same name behind another host is another host.
        let way = resolved.hops.iter().map(ResolvedMachine::name).collect::<Vec<_>>().join("/");
        // So is, behind one, the same name in another namespace; a host that is reached directly is the same for all.
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
