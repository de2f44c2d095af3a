//! Shares the permits for reconciles among the namespaces, so that no namespace delays the others.
//!
//! kube's runtime polls all unfinished reconciles at each wake-up, so many waiting reconciles would use much CPU time.
//! A reconcile therefore never waits for its permit. If an object must wait:
//!
//! 1. [`Fair::try_turn`] remembers the object, and the reconcile returns at once.
//! 2. When a permit becomes free, this module reserves the permit for the object.
//! 3. [`Fair::requeued`] queues the object again. The next reconcile of the object uses the permit.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, Stream};
use kube::Resource;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

use crate::cluster::ClusterError;
use crate::fairness::{Size, Turns};

/// Concurrency limit for kube's runtime. 0 means unlimited, because [`Fair`] limits the reconciles.
pub(super) const UNBOUNDED: u16 = 0;

type Reconciled = Result<Action, ClusterError>;

/// Namespace and name of an object.
type Key = (String, String);

/// Permits for reconciles, and the objects that wait for a permit. Clones share the permits.
#[derive(Clone)]
pub(super) struct Fair {
    state: Arc<Mutex<FairState>>,
    /// Notified after each change that perhaps reserved a permit.
    news: Arc<Notify>,
}

struct FairState {
    turns: Turns<Key>,
    /// Waiting objects in `turns`. An object that becomes due again gets no second entry in `turns`.
    waiting: HashSet<Key>,
    /// Objects with a reserved permit, at most one object for each permit. The value is true if [`Fair::requeued`] has
    /// already queued the object again.
    reserved: HashMap<Key, bool>,
}

/// Permit to reconcile one object. When the value is dropped, the permit becomes free.
pub(super) struct Turn {
    fair: Fair,
    namespace: String,
}

impl Fair {
    /// Creates permits, all of them free. `size` is the number of permits: in total, and per namespace.
    pub fn new(size: Size) -> Self {
        let state = FairState { turns: Turns::new(size), waiting: HashSet::new(), reserved: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), news: Arc::default() }
    }

    /// Returns a stream of the objects that must be queued again, because a permit is now reserved for them.
    pub fn requeued<K>(&self) -> impl Stream<Item = ObjectRef<K>> + Send + use<K>
    where
        K: Resource<DynamicType = ()> + 'static,
    {
        stream::unfold(self.clone(), |fair| async move {
            loop {
                let next = fair.state().next_to_queue();
                if let Some((namespace, name)) = next {
                    return Some((ObjectRef::<K>::new(&name).within(&namespace), fair));
                }
                fair.news.notified().await;
            }
        })
    }

    /// Returns the permit to reconcile this object. Returns `None` if the object must wait. [`Fair::requeued`] then
    /// returns the object later.
    pub fn try_turn(&self, namespace: &str, name: &str) -> Option<Turn> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state();
        if !state.reserved.contains_key(&key) && state.waiting.insert(key.clone()) {
            state.turns.wait(namespace, key.clone());
            state.reserve_places();
        }
        let has_place = state.reserved.remove(&key).is_some();
        drop(state);
        self.news.notify_one();
        has_place.then(|| Turn { fair: self.clone(), namespace: namespace.to_owned() })
    }

    /// Reconciles an object if it gets a permit. If the object must wait, returns at once, and [`Fair::requeued`]
    /// returns the object later.
    pub fn in_turn<K, F>(&self, object: &ObjectRef<K>, reconcile: impl FnOnce() -> F) -> BoxFuture<'static, Reconciled>
    where
        K: Resource<DynamicType = ()> + 'static,
        F: Future<Output = Reconciled> + Send + 'static,
    {
        let Some(turn) = self.try_turn(object.namespace.as_deref().unwrap_or_default(), &object.name) else {
            return std::future::ready(Ok(Action::await_change())).boxed();
        };
        let reconcile = reconcile();
        async move {
            let result = reconcile.await;
            drop(turn);
            result
        }
        .boxed()
    }

    /// Frees the permit that is reserved for an object that no longer exists.
    pub fn forget(&self, object: &ObjectRef<DynamicObject>) {
        let key = (object.namespace.clone().unwrap_or_default(), object.name.clone());
        let is_reserved = self.state().reserved.remove(&key).is_some();
        if is_reserved {
            self.give_back(&key.0);
        }
    }

    fn give_back(&self, namespace: &str) {
        let mut state = self.state();
        state.turns.give_back(namespace);
        state.reserve_places();
        drop(state);
        self.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, FairState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FairState {
    /// Reserves each free permit for a waiting object.
    fn reserve_places(&mut self) {
        while let Some(key) = self.turns.next() {
            self.waiting.remove(&key);
            self.reserved.insert(key, false);
        }
    }

    /// Returns an object that has a reserved permit and was not queued again yet.
    fn next_to_queue(&mut self) -> Option<Key> {
        let (key, is_queued) = self.reserved.iter_mut().find(|(_, is_queued)| !**is_queued)?;
        *is_queued = true;
        Some(key.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.fair.give_back(&self.namespace);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use kube::core::PartialObjectMeta;

    use super::*;
    use crate::api::Machine;

    type MachineMeta = PartialObjectMeta<Machine>;

    #[tokio::test]
    async fn waiting_object_is_queued_again_once_when_it_has_a_place() {
        let fair = Fair::new(Size { places: 2, share: 1 });
        let mut again = Box::pin(fair.requeued::<MachineMeta>());
        let first = fair.try_turn("greedy", "a").expect("there is a place");
        for _ in 0..3 {
            assert!(fair.try_turn("greedy", "b").is_none() && fair.try_turn("greedy", "c").is_none());
        }
        let other = fair.try_turn("other", "x").expect("the other namespace has its share");
        assert!(futures::poll!(again.next()).is_pending(), "no place is free");
        drop((first, other));
        let next = again.next().await.expect("one is queued");
        assert_eq!(next.name, "b");
        assert!(futures::poll!(again.next()).is_pending(), "it is queued once");
        let second = fair.try_turn("greedy", "b").expect("a place was reserved for it");
        assert!(fair.try_turn("greedy", "c").is_none(), "it still waits");
        drop(second);
        assert_eq!(again.next().await.expect("the next one").name, "c");
        // Object c is deleted. Its reserved permit must go to object d.
        assert!(fair.try_turn("greedy", "d").is_none());
        fair.forget(&ObjectRef::<MachineMeta>::new("c").within("greedy").erase());
        assert_eq!(again.next().await.expect("the one behind it").name, "d");
        drop(fair.try_turn("greedy", "d").expect("its place"));
        assert!(fair.state().turns.is_idle() && fair.state().waiting.is_empty() && fair.state().reserved.is_empty());
    }

    #[tokio::test]
    async fn object_with_a_free_place_is_not_queued_again() {
        let fair = Fair::new(Size { places: 2, share: 2 });
        let mut again = Box::pin(fair.requeued::<MachineMeta>());
        drop(fair.try_turn("a", "x").expect("a place"));
        assert!(futures::poll!(again.next()).is_pending());
    }
}
