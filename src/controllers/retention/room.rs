//! How many receipts a namespace may have. They are never removed by time, so that what may pile up is bounded here: where
//! the bound is reached, executions stay instead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::cluster::{Cluster, ClusterError};

/// How long a count is believed, with what was taken since. Receipts that others delete make room after that.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long it is believed that there is no room: thousands that wait must not have it counted each by itself.
const FULL_BELIEVED: Duration = Duration::from_secs(10);

/// Hands out room for receipts.
pub(super) struct Room {
    limit: u64,
    /// By namespace; what is no longer believed is thrown away, so these are the namespaces of the last minute.
    tallies: Mutex<HashMap<String, Tally>>,
}

struct Tally {
    count: u64,
    counted: Instant,
}

impl Tally {
    fn is_believed(&self, limit: u64) -> bool {
        self.counted.elapsed() < if self.count < limit { BELIEVED } else { FULL_BELIEVED }
    }
}

impl Room {
    pub fn new(limit: u64) -> Self {
        Self { limit, tallies: Mutex::default() }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes room for one receipt, where there is any. Those that look at the same time wait for one another, so that the
    /// last room is not given away twice.
    pub async fn take(&self, cluster: &Cluster, namespace: &str) -> Result<bool, ClusterError> {
        let mut tallies = self.tallies.lock().await;
        tallies.retain(|_, tally| tally.is_believed(self.limit));
        if !tallies.contains_key(namespace) {
            let tally = Tally { count: cluster.count_receipts(namespace).await?, counted: Instant::now() };
            tallies.insert(namespace.to_owned(), tally);
        }
        Ok(tallies.get_mut(namespace).is_some_and(|tally| {
            let has_room = tally.count < self.limit;
            tally.count += u64::from(has_room);
            has_room
        }))
    }

    /// Gives room back that was taken and not used.
    pub async fn give_back(&self, namespace: &str) {
        if let Some(tally) = self.tallies.lock().await.get_mut(namespace) {
            tally.count = tally.count.saturating_sub(1);
        }
    }
}
