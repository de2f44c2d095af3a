//! Places that all namespaces share, so that no namespace delays the others.
//!
//! # Guarantees
//! 1. No namespace holds more places than its share.
//! 2. A free place goes to the namespaces in turn. While a namespace waits and holds less than its share, each other
//!    namespace gets at most one place before it.
//! 3. Within a namespace, places go out in the order of the requests.
//! 4. A namespace that holds no place and waits for none takes no memory.
//!
//! There is one [`Pool`] for each kind of work that uses something all namespaces share: a core, a thread, a socket, a
//! call. The callers bound the number of waiting tasks: at most one for each object of a watch, or for each slot of a
//! Machine.

mod turns;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub use turns::Size;
use turns::Ticket;
pub(crate) use turns::Turns;

/// Places that namespaces share. Clones share the places.
#[derive(Clone, Debug)]
pub struct Pool {
    turns: Arc<Mutex<Turns<oneshot::Sender<()>>>>,
}

/// A place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    pool: Pool,
    namespace: String,
}

impl Pool {
    /// Returns a pool in which all places are free.
    pub fn new(size: Size) -> Self {
        Self { turns: Arc::new(Mutex::new(Turns::new(size))) }
    }

    /// Waits for a place. A caller may drop the future at any time: the place then goes to the next task.
    pub async fn place(&self, namespace: &str) -> Place {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut turns = self.turns();
            let ticket = turns.wait(namespace, sender);
            grant(&mut turns);
            ticket
        };
        let mut waiting = Waiting { pool: self, namespace, ticket, receiver, is_over: false };
        // `turns` keeps the sender until it has sent.
        let _ = (&mut waiting.receiver).await;
        waiting.is_over = true;
        Place { pool: self.clone(), namespace: namespace.to_owned() }
    }

    /// Returns true if a task holds a place or waits for one, or has a clone of this pool.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.turns) > 1 || !self.turns().is_idle()
    }

    fn turns(&self) -> MutexGuard<'_, Turns<oneshot::Sender<()>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, namespace: &str) {
        let mut turns = self.turns();
        turns.give_back(namespace);
        grant(&mut turns);
    }
}

/// Gives the free places to the tasks whose turn it is. A task that stopped waiting has left `turns` under the same
/// lock.
fn grant(turns: &mut Turns<oneshot::Sender<()>>) {
    while let Some(sender) = turns.next() {
        let _ = sender.send(());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.give_back(&self.namespace);
    }
}

/// A task that waits for a place. It leaves the pool if it is dropped before it has one.
struct Waiting<'a> {
    pool: &'a Pool,
    namespace: &'a str,
    ticket: Ticket,
    receiver: oneshot::Receiver<()>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let is_taken_out = self.pool.turns().leave(self.namespace, self.ticket);
        if !is_taken_out {
            // The pool gave a place to this task, and the task never took it.
            self.pool.give_back(self.namespace);
        }
    }
}
