//! Which of the objects that are to be looked at is next, so that no namespace keeps the others waiting.
//!
//! kube's runtime looks at what is due in no order, and polls all that it has begun at each wake-up. So nothing waits in
//! there: an object whose turn it is not is put down here, and its look ends at once. When a place is free for it, the object
//! comes again by the queue, with that place kept for it.

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

/// For kube's runtime: it starts whatever is due, as what has no place ends at once.
pub(super) const UNBOUNDED: u16 = 0;

/// What comes of a look.
type Looked = Result<Action, ClusterError>;

/// Namespace and name of an object.
type Key = (String, String);

/// Who is being looked at, and who waits. A clone is the same one.
#[derive(Clone)]
pub(super) struct Fair {
    state: Arc<Mutex<State>>,
    /// A place is kept for somebody.
    news: Arc<Notify>,
}

struct State {
    turns: Turns<Key>,
    /// Those in `turns` that wait: each once, however often it is asked for.
    waiting: HashSet<Key>,
    /// Those that a place is kept for, and whether they are on their way here by the queue. At most as many as there are
    /// places.
    kept: HashMap<Key, bool>,
}

/// Leave to look at one object; the next one has it when this is dropped.
pub(super) struct Turn {
    fair: Fair,
    namespace: String,
}

impl Fair {
    /// Nobody is looked at.
    pub fn new(size: Size) -> Self {
        let state = State { turns: Turns::new(size), waiting: HashSet::new(), kept: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), news: Arc::default() }
    }

    /// The objects whose turn has come, for the queue.
    pub fn come_again<K>(&self) -> impl Stream<Item = ObjectRef<K>> + Send + use<K>
    where
        K: Resource<DynamicType = ()> + 'static,
    {
        stream::unfold(self.clone(), |fair| async move {
            loop {
                let called = fair.state().call_one();
                if let Some((namespace, name)) = called {
                    return Some((ObjectRef::<K>::new(&name).within(&namespace), fair));
                }
                fair.news.notified().await;
            }
        })
    }

    /// Whether it is the turn of this object. If not, it comes again by the queue when it is.
    pub fn turn(&self, namespace: &str, name: &str) -> Option<Turn> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state();
        if !state.kept.contains_key(&key) && state.waiting.insert(key.clone()) {
            state.turns.wait(namespace, key.clone());
            state.keep_places();
        }
        let is_its_turn = state.kept.remove(&key).is_some();
        drop(state);
        self.news.notify_one();
        is_its_turn.then(|| Turn { fair: self.clone(), namespace: namespace.to_owned() })
    }

    /// The look at an object where it is its turn; else nothing is done now.
    pub fn look<K, F>(&self, object: &ObjectRef<K>, look: impl FnOnce() -> F) -> BoxFuture<'static, Looked>
    where
        K: Resource<DynamicType = ()> + 'static,
        F: Future<Output = Looked> + Send + 'static,
    {
        let Some(turn) = self.turn(object.namespace.as_deref().unwrap_or_default(), &object.name) else {
            return std::future::ready(Ok(Action::await_change())).boxed();
        };
        let looking = look();
        async move {
            let result = looking.await;
            drop(turn);
            result
        }
        .boxed()
    }

    /// There is no such object any more: a place that is kept for it is free.
    pub fn gone(&self, object: &ObjectRef<DynamicObject>) {
        let key = (object.namespace.clone().unwrap_or_default(), object.name.clone());
        let is_kept = self.state().kept.remove(&key).is_some();
        if is_kept {
            self.give_back(&key.0);
        }
    }

    fn give_back(&self, namespace: &str) {
        let mut state = self.state();
        state.turns.give_back(namespace);
        state.keep_places();
        drop(state);
        self.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps each free place for one who waits.
    fn keep_places(&mut self) {
        while let Some(key) = self.turns.next() {
            self.waiting.remove(&key);
            self.kept.insert(key, false);
        }
    }

    /// One that a place is kept for and that is not on its way: from now on it is.
    fn call_one(&mut self) -> Option<Key> {
        let (key, is_called) = self.kept.iter_mut().find(|(_, is_called)| !**is_called)?;
        *is_called = true;
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

    type Watched = PartialObjectMeta<Machine>;

    #[tokio::test]
    async fn an_object_that_waits_comes_again_once_when_its_turn_has_come() {
        let fair = Fair::new(Size { places: 2, share: 1 });
        let mut again = Box::pin(fair.come_again::<Watched>());
        let first = fair.turn("greedy", "a").expect("there is a place");
        for _ in 0..3 {
            assert!(fair.turn("greedy", "b").is_none() && fair.turn("greedy", "c").is_none());
        }
        let other = fair.turn("other", "x").expect("the other namespace has its share");
        assert!(futures::poll!(again.next()).is_pending(), "nobody comes while there is no place");
        drop((first, other));
        let called = again.next().await.expect("one comes");
        assert_eq!(called.name, "b");
        assert!(futures::poll!(again.next()).is_pending(), "it comes once");
        let second = fair.turn("greedy", "b").expect("a place was kept for it");
        assert!(fair.turn("greedy", "c").is_none(), "it waits as before");
        drop(second);
        assert_eq!(again.next().await.expect("the next one").name, "c");
        // It was deleted meanwhile.
        assert!(fair.turn("greedy", "d").is_none());
        fair.gone(&ObjectRef::<Watched>::new("c").within("greedy").erase());
        assert_eq!(again.next().await.expect("the one behind it").name, "d");
        drop(fair.turn("greedy", "d").expect("its place"));
        assert!(fair.state().turns.is_idle() && fair.state().waiting.is_empty() && fair.state().kept.is_empty());
    }

    #[tokio::test]
    async fn an_object_that_has_a_place_at_once_does_not_come_again() {
        let fair = Fair::new(Size { places: 2, share: 2 });
        let mut again = Box::pin(fair.come_again::<Watched>());
        drop(fair.turn("a", "x").expect("a place"));
        assert!(futures::poll!(again.next()).is_pending());
    }
}
