//! Maximum number of receipts per namespace. The number needs a limit, because receipts never expire. At the limit,
//! Writ keeps expired executions instead of deleting them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::cluster::{Cluster, ClusterError};

/// Time for which a count is used. This process adds its new receipts to the count. If others delete receipts, the
/// count stays too high until this time has passed.
const CACHE_TTL: Duration = Duration::from_secs(60);
/// Time for which a count at the limit is used. If this time were 0, Writ would count the receipts again for each of
/// thousands of expired executions.
const FULL_CACHE_TTL: Duration = Duration::from_secs(10);

/// Reserves receipts up to the limit.
pub(super) struct ReceiptQuota {
    limit: u64,
    /// Counts by namespace. Expired counts are removed, so the map contains only the namespaces of the last minute.
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
