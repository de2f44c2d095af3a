//! Limits the number of large objects that are reconciled concurrently, so that large objects do not fill the memory.
//! Small objects never wait. One namespace can use half of the permits.

use crate::fairness::{Place, Pool, Size};

/// Maximum size of an object that needs no permit, in bytes of text. All concurrently reconciled objects of this size
/// together take a few MiB.
const SMALL: usize = 65_536;
/// Maximum number of large objects in memory: in total, and per namespace. A large object takes up to 6 MiB: two copies
/// of its text (up to 1.5 MiB each), and its decoded form.
const LARGE: Size = Size { places: 10, share: 5 };

/// Permits for large objects.
pub(super) struct Weights(Pool);

impl Default for Weights {
    fn default() -> Self {
        Self(Pool::new(LARGE))
    }
}

impl Weights {
    /// Waits for the permit that an object of this size needs. Returns `None` for a small object, which needs no
    /// permit.
    pub async fn take(&self, namespace: &str, bytes: usize) -> Option<Place> {
        if bytes <= SMALL { None } else { Some(self.0.place(namespace).await) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_objects_leave_permits_to_other_namespaces_and_small_ones_never_wait() {
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
