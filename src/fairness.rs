//! Places that all namespaces share. The shares keep one namespace from delaying the others.
//!
//! # Guarantees
//! 1. No namespace holds more places than its share.
//! 2. Namespaces get free places in turn. While a namespace waits and holds fewer places than its share, each other
//!    namespace gets at most one place before it.
//! 3. Within a namespace, tasks get places in the order of their requests.
//! 4. A namespace that holds no place and waits for no place takes no memory.
//!
//! There is one [`Pool`] for each kind of work that uses a shared resource: a core, a thread, a socket or a call. The
//! callers limit the number of waiting tasks: at most one for each object of a watch, or for each slot of a Machine.

mod turns;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub use turns::Size;
use turns::Ticket;
pub(crate) use turns::Turns;

/// Pool of places that namespaces share. Clones of a pool share its places.
#[derive(Clone, Debug)]
pub struct Pool {
    turns: Arc<Mutex<Turns<oneshot::Sender<()>>>>,
}

/// Place of a task. Dropping the value returns the place to the pool.
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

    /// Waits for a place. A caller may drop the future at any time. The next task then gets the place.
    pub async fn place(&self, namespace: &str) -> Place {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut turns = self.turns();
            let ticket = turns.wait(namespace, sender);
            grant(&mut turns);
            ticket
        };
        let mut waiting = Waiting { pool: self, namespace, ticket, receiver, is_over: false };
        // The receive cannot fail, because `turns` keeps the sender until this task has its place.
        let _ = (&mut waiting.receiver).await;
        waiting.is_over = true;
        Place { pool: self.clone(), namespace: namespace.to_owned() }
    }

    /// Returns true if a task holds a place, waits for a place, or has a clone of this pool.
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

/// Gives the free places to the next tasks. All of these tasks still wait, because a task that stops waiting removes
/// itself from `turns` under the same lock.
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

/// Task that waits for a place. If this value is dropped before the task has a place, the task leaves the pool.
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
            // The pool gave a place to this task, but the task has not taken it.
            self.pool.give_back(self.namespace);
        }
    }
}
