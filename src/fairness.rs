//! Permits for limited resources, shared by all namespaces. Each namespace has a maximum share, so that one namespace
//! cannot delay the others.
//!
//! # Guarantees
//! 1. No namespace holds more permits than its share.
//! 2. Namespaces get free permits in turn. If namespace `a` waits and holds less than its share, namespace `b` gets at
//!    most one permit before `a` gets a permit.
//! 3. Within a namespace, tasks get permits in the order of their requests. Reconciles have a rank, which comes first.
//! 4. A namespace that holds no permit and waits for no permit takes no memory.
//!
//! Each kind of work has its own [`Pool`], for example logins and probes. The callers limit the number of waiting
//! tasks: one task for each object of a watch, or for each slot of a Machine.

mod turns;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub use turns::Size;
pub(crate) use turns::{Ticket, Turns};

/// Pool of permits that namespaces share. Clones of a pool share its permits.
#[derive(Clone, Debug)]
pub struct Pool {
    turns: Arc<Mutex<Turns<oneshot::Sender<()>>>>,
}

/// Permit of a task. When the value is dropped, the permit returns to the pool.
#[derive(Debug)]
pub struct Place {
    pool: Pool,
    namespace: String,
}

impl Pool {
    /// Returns a pool in which all permits are free.
    pub fn new(size: Size) -> Self {
        Self { turns: Arc::new(Mutex::new(Turns::new(size))) }
    }

    /// Waits for a permit. If the caller drops the future before it ends, this task gets no permit, and the next task
    /// can get it.
    pub async fn place(&self, namespace: &str) -> Place {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut turns = self.turns();
            let ticket = turns.wait(namespace, 0, sender);
            grant(&mut turns);
            ticket
        };
        let mut waiting = Waiting { pool: self, namespace, ticket, receiver, is_over: false };
        // The receive cannot fail, because `turns` keeps the sender until this task gets its permit.
        let _ = (&mut waiting.receiver).await;
        waiting.is_over = true;
        Place { pool: self.clone(), namespace: namespace.to_owned() }
    }

    /// Returns true if a task holds a permit, waits for a permit, or has a clone of this pool.
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

/// Gives the free permits to the next tasks in `turns`. A task that stops waiting has removed itself from `turns`.
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

/// Task that waits for a permit. If this value is dropped before the task takes its permit, the task leaves the pool.
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
            // The pool has given a permit to this task, but the task never took the permit.
            self.pool.give_back(self.namespace);
        }
    }
}
