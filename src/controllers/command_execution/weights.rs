//! How much is looked at a time, by size: many large executions must not fill the memory, and small ones must not wait for
//! a few of them.

use tokio::sync::{Semaphore, SemaphorePermit};

/// KiB that may be in memory at a time of what is looked at.
const ROOM: u32 = 65_536;
/// How much more an object may take in memory than as text: its text twice, and what is decoded of it.
const IN_MEMORY: usize = 4;

/// Hands out room in memory.
pub(super) struct Weights(Semaphore);

impl Default for Weights {
    fn default() -> Self {
        Self(Semaphore::new(ROOM as usize))
    }
}

impl Weights {
    /// Room for an object of so many bytes, until it is dropped.
    pub async fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kibibytes = u32::try_from(bytes.saturating_mul(IN_MEMORY) / 1024).unwrap_or(ROOM);
        // The semaphore is never closed; if it were, there would be no bound.
        self.0.acquire_many(kibibytes.clamp(1, ROOM)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_few_large_ones_fill_the_room_and_the_largest_is_let_in() {
        let weights = Weights::default();
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(weights.take(1_572_864).await);
        }
        let mut one_more = Box::pin(weights.take(1_572_864));
        assert!(futures::poll!(one_more.as_mut()).is_pending());
        held.clear();
        assert!(one_more.await.is_some());
        assert!(weights.take(usize::MAX).await.is_some());
    }
}
