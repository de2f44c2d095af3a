//! Shares one call among all tasks that need the same result at about the same time. The tasks that wait for the next
//! call share its result.
//!
//! # Guarantees
//! A task gets the result of a call that starts after the task's request. The result therefore includes every change
//! that was committed before the request.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use super::ClusterError;

/// Maximum number of concurrent calls. With only one call, a new task would wait for the running call and then for its
/// own call. With four concurrent calls, the task's own call starts sooner. A burst of 300 tasks makes a few dozen
/// calls.
const MAX_CONCURRENT_CALLS: usize = 4;

/// Shared calls of one kind.
pub(super) struct Coalescer<T> {
    turns: Semaphore,
    /// The next call, which has not started. New tasks share it.
    next: Mutex<Arc<Call<T>>>,
}

type Call<T> = OnceCell<Result<T, ClusterError>>;

impl<T> Default for Coalescer<T> {
    fn default() -> Self {
        Self { turns: Semaphore::new(MAX_CONCURRENT_CALLS), next: Mutex::default() }
    }
}

impl<T: Clone> Coalescer<T> {
    /// Returns the result of an API call that starts after this function was called. `make` makes the API call, which
    /// must have a deadline.
    pub async fn call(&self, make: impl AsyncFnOnce() -> Result<T, ClusterError>) -> Result<T, ClusterError> {
        let call = Arc::clone(&self.next.lock().unwrap_or_else(PoisonError::into_inner));
        // One of the waiting tasks makes the call. If this task is dropped, another waiting task makes the call.
        let answer = call.get_or_init(async || {
            // The error is ignored, because the semaphore is never closed.
            let _turn = self.turns.acquire().await;
            self.seal(&call);
            make().await
        });
        answer.await.clone()
    }

    /// Prevents further tasks from sharing this call.
    fn seal(&self, call: &Arc<Call<T>>) {
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

    /// Makes a call that returns the value of `committed` at the start of the call.
    async fn ask(shared: &Coalescer<usize>, committed: &AtomicUsize, calls: &AtomicUsize) -> usize {
        let make = async || {
            calls.fetch_add(1, Ordering::SeqCst);
            let seen = committed.load(Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            Ok(seen)
        };
        shared.call(make).await.unwrap()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_a_call_that_began_later() {
        let (shared, committed, calls) = (Coalescer::default(), AtomicUsize::new(0), AtomicUsize::new(0));
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
        let (shared, committed, calls) = (Coalescer::default(), AtomicUsize::new(7), AtomicUsize::new(0));
        let mut first = Box::pin(ask(&shared, &committed, &calls));
        // All permits are taken, so both tasks wait.
        let turns = shared.turns.acquire_many(4).await.unwrap();
        assert!(futures::poll!(first.as_mut()).is_pending());
        let mut second = Box::pin(ask(&shared, &committed, &calls));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop((first, turns));
        assert_eq!(second.await, 7);
        assert_eq!(calls.into_inner(), 1);
    }
}
