//! One call for all who ask for the same at about the same time.
//!
//! The promise kept here: whoever asks is answered by a call that began after he asked, so what was committed before counts.
//! Those who come while calls are under way wait for the next one together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use super::ClusterError;

/// Calls under way at a time. Lists wait for the API server's cache, up to 0.1 s each, so with one at a time whoever comes would
/// wait for two of them; with four the next one begins after a quarter of that, and a burst of 300 makes some dozens of calls.
const AT_A_TIME: usize = 4;

/// Calls of one kind that are shared.
pub(super) struct Shared<T> {
    turns: Semaphore,
    /// The call that has not begun: who comes now shares it.
    next: Mutex<Arc<Call<T>>>,
}

type Call<T> = OnceCell<Result<T, ClusterError>>;

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_A_TIME), next: Mutex::default() }
    }
}

impl<T: Clone> Shared<T> {
    /// What a call says that begins from now on; `make` makes one. It has to have a deadline.
    pub async fn ask(&self, make: impl AsyncFnOnce() -> Result<T, ClusterError>) -> Result<T, ClusterError> {
        let call = Arc::clone(&self.next.lock().unwrap_or_else(PoisonError::into_inner));
        // One of those who wait makes it; where he is dropped meanwhile, another one does.
        let answer = call.get_or_init(async || {
            // The semaphore is never closed; if it were, more calls at a time would be all.
            let _turn = self.turns.acquire().await;
            self.begin(&call);
            make().await
        });
        answer.await.clone()
    }

    /// From here on nobody joins those who wait for this one.
    fn begin(&self, call: &Arc<Call<T>>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&next, call) {
            *next = Arc::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// A call tells what the count was when it began.
    async fn ask(shared: &Shared<usize>, committed: &AtomicUsize, calls: &AtomicUsize) -> usize {
        let make = async || {
            calls.fetch_add(1, Ordering::SeqCst);
            let seen = committed.load(Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            Ok(seen)
        };
        shared.ask(make).await.unwrap()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_a_call_that_began_later() {
        let (shared, committed, calls) = (Shared::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let one = async |number: u64| {
            sleep(Duration::from_micros(100 * number)).await;
            let before = committed.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(ask(&shared, &committed, &calls).await >= before, "it was told what was so before it asked");
        };
        join_all((0..400).map(one)).await;
        let calls = calls.into_inner();
        assert!(calls < 100, "{calls} calls for 400 who ask");
    }

    #[tokio::test]
    async fn a_call_whose_maker_is_dropped_is_made_by_another_who_waits() {
        let (shared, committed, calls) = (Shared::default(), AtomicUsize::new(7), AtomicUsize::new(0));
        let mut first = Box::pin(ask(&shared, &committed, &calls));
        // It waits for its turn as all turns are taken, and so does who joins it.
        let turns = shared.turns.acquire_many(4).await.unwrap();
        assert!(futures::poll!(first.as_mut()).is_pending());
        let mut second = Box::pin(ask(&shared, &committed, &calls));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop((first, turns));
        assert_eq!(second.await, 7);
        assert_eq!(calls.into_inner(), 1);
    }
}
