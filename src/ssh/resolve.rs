//! From a name to addresses. The system's resolver blocks a thread for as long as its servers are silent, and cannot be told
//! to stop: so there is one lookup at a time for each name, shared by all who ask, and a bound on how many there are.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

/// Lookups at a time: each holds a thread of tokio's 512 for blocking work, which others need too.
const LOOKUPS: usize = 32;
/// Of a name's addresses, so many are used: who owns the name chooses how many there are.
const ADDRESSES: usize = 16;

type Answer = Option<Result<Vec<IpAddr>, String>>;

/// All lookups of this process.
static LOOKUPS_NOW: LazyLock<Arc<Lookups>> = LazyLock::new(|| Arc::new(Lookups::new(LOOKUPS)));

/// The addresses of a name, in the order in which they are to be tried. Waits as long as it takes, and may be dropped. An
/// address is its own; nobody is asked then.
pub(super) async fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    LOOKUPS_NOW.addresses(name, ask_system).await
}

async fn ask_system(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

struct Lookups {
    under_way: Mutex<HashMap<String, watch::Receiver<Answer>>>,
    places: Arc<Semaphore>,
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
    fn new(places: usize) -> Self {
        Self { under_way: Mutex::default(), places: Arc::new(Semaphore::new(places)) }
    }

    async fn addresses<F>(
        self: &Arc<Self>,
        name: &str,
        ask: impl FnOnce(String) -> F + Send,
    ) -> Result<Vec<IpAddr>, String>
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        let mut answer = match self.shared(name) {
            Some(answer) => answer,
            None => self.start(name, ask).await?,
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
        ask: impl FnOnce(String) -> F + Send,
    ) -> Result<watch::Receiver<Answer>, String>
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|error| error.to_string())?;
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(name) {
            return Ok(answer.clone());
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
        Ok(receiver)
    }
}

/// Each address once, in the order of the resolver, and not too many.
fn usable(found: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
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

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn an_address_is_its_own() {
        assert_eq!(addresses("192.0.2.1").await, Ok(ips(&["192.0.2.1"])));
        assert_eq!(addresses("::1").await, Ok(ips(&["::1"])));
    }

    #[test]
    fn addresses_are_tried_once_each_in_the_order_of_the_resolver() {
        assert_eq!(usable(ips(&["::2", "10.0.0.1", "::2", "10.0.0.2"])), Ok(ips(&["::2", "10.0.0.1", "10.0.0.2"])));
        let many: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert_eq!(usable(many).unwrap().len(), ADDRESSES);
        assert!(usable(Vec::new()).is_err());
    }

    #[tokio::test]
    async fn who_asks_for_a_name_that_is_being_looked_up_shares_that_lookup() {
        let (lookups, asked, release) = (Arc::new(Lookups::new(4)), AtomicUsize::new(0), Arc::new(Notify::new()));
        let ask = |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            let release = Arc::clone(&release);
            async move {
                release.notified().await;
                Ok(ips(&["192.0.2.1"]))
            }
        };
        // One who gives up leaves the lookup to those who come after.
        assert!(timeout(Duration::from_millis(10), lookups.addresses("web-1", ask)).await.is_err());
        let (one, two, ()) = tokio::join!(lookups.addresses("web-1", ask), lookups.addresses("web-1", ask), async {
            release.notify_one()
        });
        assert_eq!((one, two), (Ok(ips(&["192.0.2.1"])), Ok(ips(&["192.0.2.1"]))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        release.notify_one();
        assert!(lookups.addresses("web-1", ask).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(lookups.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_does_not_pile_up_lookups() {
        let (lookups, asked) = (Arc::new(Lookups::new(2)), AtomicUsize::new(0));
        let ask = |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        };
        for name in ["a", "b", "c", "a", "d"] {
            assert!(timeout(Duration::from_millis(5), lookups.addresses(name, ask)).await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_lookup_whose_runtime_went_away_stands_in_nobodys_way() {
        let lookups = Arc::new(Lookups::new(1));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime().block_on(async {
            let hanging = lookups.addresses("a", |_| std::future::pending());
            assert!(timeout(Duration::from_millis(5), hanging).await.is_err());
        });
        let answer = runtime().block_on(lookups.addresses("a", |_| async { Ok(ips(&["::1"])) }));
        assert_eq!(answer, Ok(ips(&["::1"])));
    }
}
