//! How many logins to one host are in the making, whichever Machines they are for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::declared::Declared;
use super::lock;

/// sshd drops some of those that come at once over 10 (MaxStartups 10:30:100), and there may be other clients.
const AT_ONCE: usize = 4;

/// The hosts that are being logged in to. Who is not is not kept.
#[derive(Default)]
pub(super) struct Logins {
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Logins {
    /// Waits for a place. Those before have deadlines.
    #[expect(clippy::expect_used, reason = "the semaphore is never closed")]
    pub async fn place(&self, declared: &Declared) -> OwnedSemaphorePermit {
        let spec = &declared.machine.spec;
        // The same name behind another host is another host.
        let way = declared.hops.iter().map(Declared::name).collect::<Vec<_>>().join("/");
        // So is, behind one, the same name in another namespace; a host that is reached directly is the same for all.
        let namespace =
            if way.is_empty() { "" } else { declared.machine.metadata.namespace.as_deref().unwrap_or_default() };
        let host = format!("{namespace}/{way}/{}:{}", spec.address, spec.port);
        let places = {
            let mut hosts = lock(&self.hosts);
            hosts.retain(|_, places| Arc::strong_count(places) > 1 || places.available_permits() < AT_ONCE);
            Arc::clone(hosts.entry(host).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
        };
        places.acquire_owned().await.expect("a semaphore that nobody closes")
    }
}
