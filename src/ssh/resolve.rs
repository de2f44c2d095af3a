//! Resolves names to addresses. A lookup blocks a thread and cannot be cancelled. All callers therefore share one
//! lookup for each name. The number of lookups is bounded, in total and for each namespace.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::watch;

use crate::fairness::{Pool, Size};

/// Maximum number of concurrent lookups: 64 in total, 16 for each namespace. Each lookup blocks one of tokio's 512
/// threads for blocking work, for half a minute if no DNS server answers.
const LOOKUPS: Size = Size { places: 64, share: 16 };
/// Maximum number of addresses used for each name. The owner of a DNS name could return any number.
const MAX_ADDRESSES: usize = 16;

type LookupResult = Option<Result<Vec<SocketAddr>, String>>;

/// All lookups of this process.
static IN_FLIGHT_LOOKUPS: LazyLock<Arc<Lookups>> = LazyLock::new(|| Arc::new(Lookups::new(LOOKUPS)));

/// Returns the addresses of a name, with port 0, in the order in which they are tried. An IP address is returned
/// without a lookup. Keeps the zone of an address like `fe80::1%eth0`. Has no deadline. A caller may drop the future at
/// any time.
pub(super) async fn addresses(name: &str, namespace: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, 0)]);
    }
    let found = IN_FLIGHT_LOOKUPS.addresses(name, namespace, resolve_blocking).await;
    match zone_of(name) {
        Some(zone) => {
            found.map_err(|error| format!("{error}; check that the host of writ has the network interface {zone}"))
        }
        None => found,
    }
}

/// Returns the zone of an IPv6 address. Returns `None` if `name` is not an IPv6 address with a zone.
pub(super) fn zone_of(name: &str) -> Option<&str> {
    let (address, zone) = name.split_once('%')?;
    address.parse::<Ipv6Addr>().is_ok().then_some(zone)
}

/// Resolves a name with the system's resolver, which also resolves zones to the network interfaces of this host.
async fn resolve_blocking(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

struct Lookups {
    under_way: Mutex<HashMap<String, watch::Receiver<LookupResult>>>,
    places: Pool,
}

/// A lookup in flight. Dropping this value removes the lookup from the map, even if the lookup's runtime is shut down.
struct Lookup {
    lookups: Arc<Lookups>,
    name: String,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.lookups.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Lookups {
    fn new(size: Size) -> Self {
        Self { under_way: Mutex::default(), places: Pool::new(size) }
    }

    async fn addresses<F>(
        self: &Arc<Self>,
        name: &str,
        namespace: &str,
        ask: impl FnOnce(String) -> F + Send,
    ) -> Result<Vec<SocketAddr>, String>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut answer = match self.shared(name) {
            Some(answer) => answer,
            None => self.start(name, namespace, ask).await,
        };
        let answered = answer.wait_for(Option::is_some).await;
        answered.ok().and_then(|answer| answer.clone()).unwrap_or_else(|| Err("the lookup was aborted".to_owned()))
    }

    fn shared(&self, name: &str) -> Option<watch::Receiver<LookupResult>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Starts a lookup. If another caller has started a lookup of the same name meanwhile, joins that lookup.
    async fn start<F>(
        self: &Arc<Self>,
        name: &str,
        namespace: &str,
        ask: impl FnOnce(String) -> F + Send,
    ) -> watch::Receiver<LookupResult>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let place = self.places.place(namespace).await;
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(name) {
            return answer.clone();
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(name.to_owned(), receiver.clone());
        let lookup = Lookup { lookups: Arc::clone(self), name: name.to_owned() };
        let asking = ask(name.to_owned());
        tokio::spawn(async move {
            let found = asking.await;
            // The lookup leaves the map before its result is published, so that later callers start a new lookup.
            drop(lookup);
            drop(place);
            sender.send_replace(Some(found.map_err(|error| error.to_string()).and_then(dedup_and_limit)));
        });
        receiver
    }
}

/// Removes duplicates. Keeps the first [`MAX_ADDRESSES`] addresses, in the order of the resolver.
fn dedup_and_limit(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    const FOUR: Size = Size { places: 4, share: 4 };

    fn ips(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[tokio::test]
    async fn an_address_is_its_own() {
        assert_eq!(addresses("192.0.2.1", "team").await, Ok(ips(&["192.0.2.1"])));
        assert_eq!(addresses("::1", "team").await, Ok(ips(&["::1"])));
    }

    #[tokio::test]
    async fn an_address_keeps_its_zone() {
        // Every Linux host has the interface `lo`, with index 1.
        let found = addresses("fe80::1%lo", "team").await.unwrap();
        let [SocketAddr::V6(only)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((only.ip().to_string(), only.scope_id()), ("fe80::1".to_owned(), 1));
        let unknown = addresses("fe80::1%no-such-zone", "team").await.unwrap_err();
        assert!(unknown.contains("network interface no-such-zone"), "{unknown}");
    }

    #[test]
    fn addresses_are_tried_once_each_in_the_order_of_the_resolver() {
        assert_eq!(
            dedup_and_limit(ips(&["::2", "10.0.0.1", "::2", "10.0.0.2"])),
            Ok(ips(&["::2", "10.0.0.1", "10.0.0.2"]))
        );
        let many: Vec<SocketAddr> = (0..100).map(|last| SocketAddr::from(([10, 0, 0, last], 0))).collect();
        assert_eq!(dedup_and_limit(many).unwrap().len(), MAX_ADDRESSES);
        assert!(dedup_and_limit(Vec::new()).is_err());
    }

    #[tokio::test]
    async fn who_asks_for_a_name_that_is_being_looked_up_shares_that_lookup() {
        let (lookups, asked, release) = (Arc::new(Lookups::new(FOUR)), AtomicUsize::new(0), Arc::new(Notify::new()));
        let ask = |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            let release = Arc::clone(&release);
            async move {
                release.notified().await;
                Ok(ips(&["192.0.2.1"]))
            }
        };
        // The first caller gives up. Its lookup continues, and later callers share it.
        assert!(timeout(Duration::from_millis(10), lookups.addresses("web-1", "team", ask)).await.is_err());
        let (one, two, ()) =
            tokio::join!(lookups.addresses("web-1", "team", ask), lookups.addresses("web-1", "team", ask), async {
                release.notify_one()
            });
        assert_eq!((one, two), (Ok(ips(&["192.0.2.1"])), Ok(ips(&["192.0.2.1"]))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        release.notify_one();
        assert!(lookups.addresses("web-1", "team", ask).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(lookups.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_does_not_pile_up_lookups() {
        let (lookups, asked) = (Arc::new(Lookups::new(Size { places: 3, share: 2 })), AtomicUsize::new(0));
        let ask = |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        };
        for name in ["a", "b", "c", "a", "d"] {
            assert!(timeout(Duration::from_millis(5), lookups.addresses(name, "silent", ask)).await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        // A silent DNS zone of one namespace does not delay other namespaces.
        let answer = lookups.addresses("e", "other", |_| async { Ok(ips(&["::1"])) }).await;
        assert_eq!(answer, Ok(ips(&["::1"])));
    }

    #[test]
    fn a_lookup_whose_runtime_went_away_stands_in_nobodys_way() {
        let lookups = Arc::new(Lookups::new(Size { places: 1, share: 1 }));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime().block_on(async {
            let hanging = lookups.addresses("a", "team", |_| std::future::pending());
            assert!(timeout(Duration::from_millis(5), hanging).await.is_err());
        });
        let answer = runtime().block_on(lookups.addresses("a", "team", |_| async { Ok(ips(&["::1"])) }));
        assert_eq!(answer, Ok(ips(&["::1"])));
    }
}
