//! Places that all namespaces share, so that none of them keeps the others waiting.
//!
//! The promises kept here: no namespace holds more places than its share. A free place goes to the namespace whose turn it is:
//! while one waits and holds less than its share, each other one gets at most one place before it. Within a namespace whoever
//! came first goes first. Nothing is kept of a namespace that neither holds a place nor waits.
//!
//! One [`Pool`] for each kind of work that costs something which all namespaces share: a core, a thread, a socket, a call.
//! Who waits is bounded by those who ask: there is at most one for each object of a watch, or for each slot of a Machine.

mod turns;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use turns::Ticket;
pub(crate) use turns::Turns;

/// How many places there are, and how many of them one namespace may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// All of them; at least 1.
    pub places: usize,
    /// The most that one namespace holds; at least 1.
    pub share: usize,
}

/// Places that namespaces share. A clone is the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    turns: Arc<Mutex<Turns<oneshot::Sender<()>>>>,
}

/// A place. It is given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    pool: Pool,
    namespace: String,
}

impl Pool {
    /// Places of which nobody holds one.
    pub fn new(size: Size) -> Self {
        Self { turns: Arc::new(Mutex::new(Turns::new(size))) }
    }

    /// Waits for a place. Whoever stops waiting leaves nothing behind.
    pub async fn place(&self, namespace: &str) -> Place {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut turns = self.turns();
            let ticket = turns.wait(namespace, sender);
            grant(&mut turns);
            ticket
        };
        let mut waiting = Waiting { pool: self, namespace, ticket, receiver, is_over: false };
        // The sender is with those who wait until it has sent.
        let _ = (&mut waiting.receiver).await;
        waiting.is_over = true;
        Place { pool: self.clone(), namespace: namespace.to_owned() }
    }

    /// Whether somebody holds a place or waits, or is about to.
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

/// Tells those whose turn it is. One who does not wait any more has taken himself out, under the same lock.
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

/// Somebody who waits; takes himself out where he is dropped before he has a place.
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
            // It was given a place meanwhile, which nobody has taken.
            self.pool.give_back(self.namespace);
        }
    }
}
