//! How many large objects are looked at a time: they must not fill the memory, small ones must not wait for them, and no
//! namespace's must keep another one's waiting.

use crate::fairness::{Place, Pool, Size};

/// Objects up to this size, as text, need no room of their own: all that are looked at together take a few MiB.
const SMALL: usize = 65_536;
/// Large ones at a time. One takes up to four times 1.5 MiB: its text twice, and what is decoded of it.
const LARGE: Size = Size { places: 10, share: 5 };

/// Hands out room in memory.
pub(super) struct Weights(Pool);

impl Default for Weights {
    fn default() -> Self {
        Self(Pool::new(LARGE))
    }
}

impl Weights {
    /// Room for an object of so many bytes, until it is dropped. None for a small one, which needs none.
    pub async fn take(&self, namespace: &str, bytes: usize) -> Option<Place> {
        if bytes <= SMALL { None } else { Some(self.0.place(namespace).await) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_ones_of_one_namespace_leave_room_to_others_and_small_ones_never_wait() {
        let weights = Weights::default();
        let mut held = Vec::new();
        for _ in 0..LARGE.share {
            held.push(weights.take("a", 1_572_864).await);
        }
        let mut one_more = Box::pin(weights.take("a", SMALL + 1));
        assert!(futures::poll!(one_more.as_mut()).is_pending());
        assert!(weights.take("b", usize::MAX).await.is_some());
        assert!(weights.take("a", SMALL).await.is_none());
        held.clear();
        assert!(one_more.await.is_some());
    }
}
