//! Shares the permits for reconciles among the namespaces, so that no namespace delays the others. Within a namespace,
//! the oldest object goes first.
//!
//! There are two lanes. Reconciles that can wait have few permits of their own ([`Lane::Deferrable`]). A burst of them
//! therefore keeps few requests to the API server in progress, and delays other reconciles only little.
//!
//! kube's runtime polls all unfinished reconciles at each wake-up, so many waiting reconciles would use much CPU time.
//! A reconcile therefore never waits for its permit. If an object must wait:
//!
//! 1. [`Fair::try_turn`] remembers the object, and the reconcile returns at once.
//! 2. When a permit becomes free, this module reserves the permit for the object.
//! 3. [`Fair::requeued`] queues the object again. The next reconcile of the object uses the permit.

use std::collections::HashMap;
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
use crate::fairness::{Size, Ticket, Turns};

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
    prompt: Turns<Key>,
    deferrable: Turns<Key>,
    /// Objects that wait, with their places. An object that becomes due again gets no second place.
    waiting: HashMap<Key, (Lane, Ticket)>,
    /// Objects with a reserved permit, at most one object for each permit.
    reserved: HashMap<Key, Reservation>,
}

/// The permits that a reconcile uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    /// The usual lane.
    Prompt,
    /// Lane of reconciles that can wait, with few permits.
    Deferrable,
}

/// Numbers of permits: in total, and per namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permits {
    pub prompt: Size,
    pub deferrable: Size,
}

/// An object that needs a permit.
pub(super) struct Due<K: Resource> {
    pub object: ObjectRef<K>,
    /// Creation time of the object, in Unix seconds. The oldest object goes first.
    pub created: i64,
    pub lane: Lane,
}

/// Permit that is reserved for an object.
struct Reservation {
    lane: Lane,
    /// True if [`Fair::requeued`] has already queued the object again.
    is_queued: bool,
}

/// Permit to reconcile one object. When the value is dropped, the permit becomes free.
pub(super) struct Turn {
    fair: Fair,
    namespace: String,
    lane: Lane,
}

impl Fair {
    /// Creates permits, all of them free.
    pub fn new(permits: Permits) -> Self {
        let state = FairState {
            prompt: Turns::new(permits.prompt),
            deferrable: Turns::new(permits.deferrable),
            waiting: HashMap::new(),
            reserved: HashMap::new(),
        };
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
    pub fn try_turn<K>(&self, due: &Due<K>) -> Option<Turn>
    where
        K: Resource<DynamicType = ()> + 'static,
    {
        let namespace = due.object.namespace.as_deref().unwrap_or_default();
        let key = (namespace.to_owned(), due.object.name.clone());
        let mut state = self.state();
        if !state.reserved.contains_key(&key) {
            state.wait(key.clone(), due.created, due.lane);
            state.reserve_places();
        }
        let reserved = state.reserved.remove(&key);
        drop(state);
        self.news.notify_one();
        reserved.map(|Reservation { lane, .. }| Turn { fair: self.clone(), namespace: namespace.to_owned(), lane })
    }

    /// Reconciles an object if it gets a permit. If the object must wait, returns at once, and [`Fair::requeued`]
    /// returns the object later.
    pub fn in_turn<K, F>(&self, due: &Due<K>, reconcile: impl FnOnce() -> F) -> BoxFuture<'static, Reconciled>
    where
        K: Resource<DynamicType = ()> + 'static,
        F: Future<Output = Reconciled> + Send + 'static,
    {
        let Some(turn) = self.try_turn(due) else {
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
        let reserved = self.state().reserved.remove(&key);
        if let Some(Reservation { lane, .. }) = reserved {
            self.give_back(&key.0, lane);
        }
    }

    fn give_back(&self, namespace: &str, lane: Lane) {
        let mut state = self.state();
        state.lane(lane).give_back(namespace);
        state.reserve_places();
        drop(state);
        self.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, FairState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FairState {
    fn lane(&mut self, lane: Lane) -> &mut Turns<Key> {
        match lane {
            Lane::Prompt => &mut self.prompt,
            Lane::Deferrable => &mut self.deferrable,
        }
    }

    /// Adds an object that waits. If the object already waits in the lane of the objects that can wait, it can change to
    /// the other lane.
    fn wait(&mut self, key: Key, created: i64, lane: Lane) {
        match self.waiting.get(&key).copied() {
            Some((Lane::Deferrable, ticket)) if lane == Lane::Prompt => {
                self.deferrable.leave(&key.0, ticket);
            }
            Some(_) => return,
            None => {}
        }
        let ticket = self.lane(lane).wait(&key.0, created, key.clone());
        self.waiting.insert(key, (lane, ticket));
    }

    /// Reserves each free permit for a waiting object.
    fn reserve_places(&mut self) {
        for lane in [Lane::Prompt, Lane::Deferrable] {
            while let Some(key) = self.lane(lane).next() {
                self.waiting.remove(&key);
                self.reserved.insert(key, Reservation { lane, is_queued: false });
            }
        }
    }

    /// Returns an object that has a reserved permit and was not queued again yet.
    fn next_to_queue(&mut self) -> Option<Key> {
        let (key, reservation) = self.reserved.iter_mut().find(|(_, reservation)| !reservation.is_queued)?;
        reservation.is_queued = true;
        Some(key.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.fair.give_back(&self.namespace, self.lane);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use kube::core::PartialObjectMeta;

    use super::*;
    use crate::api::Machine;

    type MachineMeta = PartialObjectMeta<Machine>;

    fn permits(places: usize, share: usize) -> Permits {
        Permits { prompt: Size { places, share }, deferrable: Size { places: 1, share: 1 } }
    }

    fn due_in(lane: Lane, namespace: &str, name: &str, created: i64) -> Due<MachineMeta> {
        Due { object: ObjectRef::new(name).within(namespace), created, lane }
    }

    fn try_turn(fair: &Fair, namespace: &str, name: &str) -> Option<Turn> {
        fair.try_turn(&due_in(Lane::Prompt, namespace, name, 0))
    }

    fn is_idle(fair: &Fair) -> bool {
        let state = fair.state();
        let has_no_holder = state.prompt.is_idle() && state.deferrable.is_idle();
        has_no_holder && state.waiting.is_empty() && state.reserved.is_empty()
    }

    #[tokio::test]
    async fn waiting_object_is_queued_again_once_when_it_has_a_place() {
        let fair = Fair::new(permits(2, 1));
        let mut again = Box::pin(fair.requeued::<MachineMeta>());
        let first = try_turn(&fair, "greedy", "a").expect("there is a place");
        for _ in 0..3 {
            assert!(try_turn(&fair, "greedy", "b").is_none() && try_turn(&fair, "greedy", "c").is_none());
        }
        let other = try_turn(&fair, "other", "x").expect("the other namespace has its share");
        assert!(futures::poll!(again.next()).is_pending(), "no place is free");
        drop((first, other));
        let next = again.next().await.expect("one is queued");
        assert_eq!(next.name, "b");
        assert!(futures::poll!(again.next()).is_pending(), "it is queued once");
        let second = try_turn(&fair, "greedy", "b").expect("a place was reserved for it");
        assert!(try_turn(&fair, "greedy", "c").is_none(), "it still waits");
        drop(second);
        assert_eq!(again.next().await.expect("the next one").name, "c");
        // Object c is deleted. Its reserved permit must go to object d.
        assert!(try_turn(&fair, "greedy", "d").is_none());
        fair.forget(&ObjectRef::<MachineMeta>::new("c").within("greedy").erase());
        assert_eq!(again.next().await.expect("the one behind it").name, "d");
        drop(try_turn(&fair, "greedy", "d").expect("its place"));
        assert!(is_idle(&fair));
    }

    #[tokio::test]
    async fn object_with_a_free_place_is_not_queued_again() {
        let fair = Fair::new(permits(2, 2));
        let mut again = Box::pin(fair.requeued::<MachineMeta>());
        drop(try_turn(&fair, "a", "x").expect("a place"));
        assert!(futures::poll!(again.next()).is_pending());
    }

    #[tokio::test]
    async fn oldest_object_goes_first_and_what_can_wait_takes_no_place_of_the_others() {
        let fair = Fair::new(permits(1, 1));
        let mut again = Box::pin(fair.requeued::<MachineMeta>());
        let held = fair.try_turn(&due_in(Lane::Deferrable, "a", "waits", 1)).expect("a place");
        assert!(fair.try_turn(&due_in(Lane::Deferrable, "a", "waits-too", 2)).is_none());
        let first = fair.try_turn(&due_in(Lane::Prompt, "a", "new", 9)).expect("the other lane is free");
        for (name, created) in [("young", 30), ("old", 10), ("middle", 20)] {
            assert!(fair.try_turn(&due_in(Lane::Prompt, "a", name, created)).is_none());
        }
        let mut turn = first;
        for expected in ["old", "middle", "young"] {
            drop(turn);
            assert_eq!(again.next().await.expect("one is queued").name, expected);
            turn = try_turn(&fair, "a", expected).expect("its place");
        }
        assert!(futures::poll!(again.next()).is_pending(), "the place of the other lane is still held");
        // This object can no longer wait, so it changes to the other lane.
        assert!(fair.try_turn(&due_in(Lane::Deferrable, "a", "urgent-now", 3)).is_none());
        assert!(try_turn(&fair, "a", "urgent-now").is_none());
        drop(turn);
        assert_eq!(again.next().await.expect("one is queued").name, "urgent-now");
        drop((try_turn(&fair, "a", "urgent-now").expect("its place"), held));
        assert_eq!(again.next().await.expect("one is queued").name, "waits-too");
        // The object uses the permit that is reserved for it in its former lane.
        drop(try_turn(&fair, "a", "waits-too").expect("its place"));
        assert!(is_idle(&fair));
    }
}
