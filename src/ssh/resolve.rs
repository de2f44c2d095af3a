//! From a name to addresses. The system's resolver blocks a thread for as long as its servers are silent, and cannot be told
//! to stop: so there is one lookup at a time for each name, shared by all who ask, and a bound on how many there are, of which
//! each namespace has its share.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::watch;

use crate::fairness::{Pool, Size};

/// Lookups at a time: each holds a thread of tokio's 512 for blocking work, which others need too. A namespace whose names are
/// in a zone that does not answer has 16 of them, for the half minute that the resolver waits.
const LOOKUPS: Size = Size { places: 64, share: 16 };
/// Of a name's addresses, so many are used: who owns the name chooses how many there are.
const ADDRESSES: usize = 16;

type Answer = Option<Result<Vec<SocketAddr>, String>>;

/// All lookups of this process.
static LOOKUPS_NOW: LazyLock<Arc<Lookups>> = LazyLock::new(|| Arc::new(Lookups::new(LOOKUPS)));

/// The addresses of a name, with port 0, in the order in which they are to be tried. Waits as long as it takes, and may be
/// dropped. An address is its own; nobody is asked then. One with a zone (`fe80::1%eth0`) keeps it.
pub(super) async fn addresses(name: &str, namespace: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, 0)]);
    }
    let found = LOOKUPS_NOW.addresses(name, namespace, ask_system).await;
    match zone_of(name) {
        Some(zone) => found.map_err(|error| format!("{error}; is there a network interface {zone} where writ runs?")),
        None => found,
    }
}

/// The zone of an IPv6 address that has one.
pub(super) fn zone_of(name: &str) -> Option<&str> {
    let (address, zone) = name.split_once('%')?;
    address.parse::<Ipv6Addr>().is_ok().then_some(zone)
}

/// The system knows the zones of its interfaces, too.
async fn ask_system(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

struct Lookups {
    under_way: Mutex<HashMap<String, watch::Receiver<Answer>>>,
    places: Pool,
}

/// A lookup that is under way; takes itself from the list, however it ends (a runtime may go away under it).
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
        answered.ok().and_then(|answer| answer.clone()).unwrap_or_else(|| Err("the lookup was given up".to_owned()))
    }

    fn shared(&self, name: &str) -> Option<watch::Receiver<Answer>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Starts a lookup, or joins one that was started while a place was waited for.
    async fn start<F>(
        self: &Arc<Self>,
        name: &str,
        namespace: &str,
        ask: impl FnOnce(String) -> F + Send,
    ) -> watch::Receiver<Answer>
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
            // First off the list: who asks from now on asks anew.
            drop(lookup);
            drop(place);
            sender.send_replace(Some(found.map_err(|error| error.to_string()).and_then(usable)));
        });
        receiver
    }
}

/// Each address once, in the order of the resolver, and not too many.
fn usable(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.len() < ADDRESSES && !addresses.contains(&address) {
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
        // Every host has this one.
        let found = addresses("fe80::1%lo", "team").await.unwrap();
        let [SocketAddr::V6(only)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((only.ip().to_string(), only.scope_id()), ("fe80::1".to_owned(), 1));
        let unknown = addresses("fe80::1%no-such-zone", "team").await.unwrap_err();
        assert!(unknown.contains("network interface no-such-zone"), "{unknown}");
    }

    #[test]
    fn addresses_are_tried_once_each_in_the_order_of_the_resolver() {
        assert_eq!(usable(ips(&["::2", "10.0.0.1", "::2", "10.0.0.2"])), Ok(ips(&["::2", "10.0.0.1", "10.0.0.2"])));
        let many: Vec<SocketAddr> = (0..100).map(|last| SocketAddr::from(([10, 0, 0, last], 0))).collect();
        assert_eq!(usable(many).unwrap().len(), ADDRESSES);
        assert!(usable(Vec::new()).is_err());
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
        // One who gives up leaves the lookup to those who come after.
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
        // Nobody else waits for the zone that does not answer.
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
