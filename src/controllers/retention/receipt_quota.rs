//! Limits the number of receipts per namespace, because receipts never expire. At the limit, Writ keeps expired
//! executions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::cluster::{Cluster, ClusterError};

/// Time for which a count of receipts is used. During this time, the count still contains deleted receipts.
const CACHE_TTL: Duration = Duration::from_secs(60);
/// Time for which a count at the limit is used. The time is short, so that Writ soon notices deleted receipts.
const FULL_CACHE_TTL: Duration = Duration::from_secs(10);

/// Reserves receipts up to the limit.
pub(super) struct ReceiptQuota {
    limit: u64,
    /// Recent counts of receipts, by namespace. A count is removed after [`CACHE_TTL`], or after [`FULL_CACHE_TTL`] if
    /// the count is at the limit.
    counts: Mutex<HashMap<String, CachedCount>>,
}

struct CachedCount {
    count: u64,
    counted: Instant,
}

impl CachedCount {
    fn is_valid(&self, limit: u64) -> bool {
        self.counted.elapsed() < if self.count < limit { CACHE_TTL } else { FULL_CACHE_TTL }
    }
}

impl ReceiptQuota {
    pub fn new(limit: u64) -> Self {
        Self { limit, counts: Mutex::default() }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Reserves one receipt. Returns false if the namespace has reached its limit. Concurrent callers wait for each
    /// other, so that the last receipt is not reserved twice.
    ///
    /// # Errors
    /// The receipts could not be counted.
    pub async fn try_reserve(&self, cluster: &Cluster, namespace: &str) -> Result<bool, ClusterError> {
        let mut counts = self.counts.lock().await;
        counts.retain(|_, cached| cached.is_valid(self.limit));
        if !counts.contains_key(namespace) {
            let cached = CachedCount { count: cluster.count_receipts(namespace).await?, counted: Instant::now() };
            counts.insert(namespace.to_owned(), cached);
        }
        Ok(counts.get_mut(namespace).is_some_and(|cached| {
            let is_below = cached.count < self.limit;
            cached.count += u64::from(is_below);
            is_below
        }))
    }

    /// Cancels a reservation that was not used.
    pub async fn release(&self, namespace: &str) {
        if let Some(cached) = self.counts.lock().await.get_mut(namespace) {
            cached.count = cached.count.saturating_sub(1);
        }
    }
}
