//! Shares one call among all tasks that need the same result at about the same time. The tasks that wait for the next
//! call share its result.
//!
//! # Guarantees
//! - A task gets the result of a call that starts after the task's request. The result therefore includes every change
//!   that was committed before the request.
//! - A task that is dropped or not polled delays no other task, because each call is a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tracing::Instrument as _;

use super::ClusterError;

/// Result that tasks share.
pub(super) trait Sharable: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Sharable for T {}

/// Shared calls of one kind, by key. A key takes memory only while a task uses it, so no result is kept.
pub(super) struct KeyedCoalescer<T: Sharable> {
    max_concurrent: usize,
    in_use: Mutex<HashMap<String, InUse<T>>>,
}

/// Shared calls of one key, and the number of tasks that use them.
struct InUse<T: Sharable> {
    users: usize,
    calls: Arc<Coalescer<T>>,
}

impl<T: Sharable> KeyedCoalescer<T> {
    /// Returns a value without calls. `max_concurrent` is the maximum number of concurrent calls of one key. With only
    /// one call, a new task would wait for the running call and then for its own call. With more concurrent calls, the
    /// task's own call starts sooner, but fewer tasks share a call.
    pub fn new(max_concurrent: usize) -> Self {
        Self { max_concurrent, in_use: Mutex::default() }
    }

    /// Returns the result of an API call that starts after this function was called. Only tasks with the same key share
    /// a call. `make` makes the API call, which must have a deadline.
    pub async fn call<F>(&self, key: &str, make: impl FnOnce() -> F + Send + 'static) -> Result<T, ClusterError>
    where
        F: Future<Output = Result<T, ClusterError>> + Send + 'static,
    {
        let user = self.user(key);
        user.calls.join_next(make).await
    }

    fn user<'a>(&'a self, key: &'a str) -> User<'a, T> {
        let mut in_use = self.in_use();
        let entry = in_use
            .entry(key.to_owned())
            .or_insert_with(|| InUse { users: 0, calls: Arc::new(Coalescer::new(self.max_concurrent)) });
        entry.users += 1;
        User { owner: self, key, calls: Arc::clone(&entry.calls) }
    }

    /// Locks the map. The caller must not await anything while it holds the lock.
    fn in_use(&self) -> MutexGuard<'_, HashMap<String, InUse<T>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task that uses the calls of a key. When the last value of a key is dropped, the key leaves the map.
struct User<'a, T: Sharable> {
    owner: &'a KeyedCoalescer<T>,
    key: &'a str,
    calls: Arc<Coalescer<T>>,
}

impl<T: Sharable> Drop for User<'_, T> {
    fn drop(&mut self) {
        let mut in_use = self.owner.in_use();
        let Some(entry) = in_use.get_mut(self.key) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users == 0 {
            in_use.remove(self.key);
        }
    }
}

/// Shared calls of one kind and key.
struct Coalescer<T: Sharable> {
    turns: Arc<Semaphore>,
    /// The next call, which has not started. New tasks share it.
    next: Mutex<Option<Call<T>>>,
}

type Call<T> = Shared<BoxFuture<'static, Result<T, ClusterError>>>;

impl<T: Sharable> Coalescer<T> {
    fn new(max_concurrent: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(max_concurrent)), next: Mutex::default() }
    }

    /// Returns the next call. `make` makes the API call, unless another task has already requested the next call.
    fn join_next<F>(self: &Arc<Self>, make: impl FnOnce() -> F + Send + 'static) -> Call<T>
    where
        F: Future<Output = Result<T, ClusterError>> + Send + 'static,
    {
        let mut next = self.next();
        if let Some(call) = &*next {
            return call.clone();
        }
        let (turns, coalescer) = (Arc::clone(&self.turns), Arc::downgrade(self));
        let call = async move {
            // The error is ignored, because the semaphore is never closed.
            let _turn = turns.acquire_owned().await;
            // From now on, new tasks share a later call.
            let started = coalescer.upgrade().and_then(|coalescer| coalescer.next().take());
            drop(started);
            make().await
        };
        let call = tokio::spawn(call.in_current_span()).map(|ended| {
            let failed = |error: JoinError| ClusterError::Unavailable {
                target: "a shared read".to_owned(),
                message: error.to_string(),
            };
            ended.unwrap_or_else(|error| Err(failed(error)))
        });
        let call = call.boxed().shared();
        *next = Some(call.clone());
        call
    }

    /// Locks the next call. The caller must not await anything while it holds the lock.
    fn next(&self) -> MutexGuard<'_, Option<Call<T>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Number of calls, and the value that was committed last.
    #[derive(Default)]
    struct Server {
        calls: AtomicUsize,
        committed: AtomicUsize,
    }

    /// Makes a call that returns the value of `committed` at the start of the call.
    async fn ask(shared: &KeyedCoalescer<usize>, key: &str, server: &Arc<Server>) -> usize {
        let server = Arc::clone(server);
        let make = move || async move {
            server.calls.fetch_add(1, Ordering::SeqCst);
            let seen = server.committed.load(Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            Ok(seen)
        };
        shared.call(key, make).await.unwrap()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_a_call_that_began_later() {
        let (shared, server) = (KeyedCoalescer::new(4), Arc::<Server>::default());
        let one = async |number: u64| {
            sleep(Duration::from_micros(100 * number)).await;
            let before = server.committed.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(ask(&shared, "a", &server).await >= before, "it was told what was so before it asked");
        };
        join_all((0..400).map(one)).await;
        let calls = server.calls.load(Ordering::SeqCst);
        assert!(calls < 100, "{calls} calls for 400 who ask");
        assert!(shared.in_use().is_empty());
    }

    #[tokio::test]
    async fn a_call_whose_first_task_is_dropped_or_not_polled_is_made_for_those_who_wait() {
        let (shared, server) = (KeyedCoalescer::new(1), Arc::<Server>::default());
        server.committed.store(7, Ordering::SeqCst);
        let mut running = Box::pin(ask(&shared, "a", &server));
        assert!(futures::poll!(running.as_mut()).is_pending());
        while server.calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // Only one call may run. The task that requested it is not polled any more.
        let mut dropped = Box::pin(ask(&shared, "a", &server));
        let mut idle = Box::pin(ask(&shared, "a", &server));
        assert!(futures::poll!(dropped.as_mut()).is_pending() && futures::poll!(idle.as_mut()).is_pending());
        drop((running, dropped));
        assert_eq!(timeout(Duration::from_secs(10), ask(&shared, "a", &server)).await, Ok(7));
        assert_eq!(idle.await, 7);
        assert_eq!(server.calls.load(Ordering::SeqCst), 2);
        assert!(shared.in_use().is_empty());
    }

    #[tokio::test]
    async fn a_key_leaves_the_map_with_its_last_task_and_keys_share_nothing() {
        let (shared, server) = (KeyedCoalescer::new(1), Arc::<Server>::default());
        join_all(["a", "b", "a", "a"].map(|key| ask(&shared, key, &server))).await;
        let calls = server.calls.load(Ordering::SeqCst);
        assert!((2..=3).contains(&calls), "{calls} calls");
        let mut dropped = Box::pin(ask(&shared, "a", &server));
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        assert_eq!(shared.in_use().len(), 1);
        drop(dropped);
        assert!(shared.in_use().is_empty());
    }
}
