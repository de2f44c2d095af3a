//! Notifies calls that wait for the end of an execution.
//!
//! The watch of unfinished executions reports an execution as deleted when its phase is final. This happens at each end,
//! for example a rejection, and also if another process runs the execution.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt as _;
use tokio::sync::Notify;

use crate::api::CommandExecution;
use crate::cluster::{Removal, SharedWatch, Slim};

/// Namespace and name.
type Name = (String, String);

/// Waiting calls by the name of their execution. The number of calls is limited by the number of connections.
#[derive(Default)]
struct Waiting {
    calls: HashMap<Name, Vec<Weak<Notify>>>,
}

/// Notifications about ended executions.
pub struct Ends {
    waiting: Arc<Mutex<Waiting>>,
}

/// Notification of one call. Removes itself when it is dropped.
pub struct EndNotice {
    name: Name,
    notify: Arc<Notify>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Ends {
    /// Returns the notifications, and a future that reads the watch.
    pub fn new(unfinished: &SharedWatch<Slim<CommandExecution>>) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let waiting = Arc::<Mutex<Waiting>>::default();
        let removals = unfinished.removals();
        let ends = Self { waiting: Arc::clone(&waiting) };
        let follow = async move {
            let mut removals = std::pin::pin!(removals);
            while let Some(removal) = removals.next().await {
                match removal {
                    Removal::One(namespace, name) => lock(&waiting).notify(&(namespace, name)),
                    // The watch was perhaps interrupted, so each call reads its execution.
                    Removal::Any => lock(&waiting).notify_all(),
                }
            }
        };
        (ends, follow)
    }

    /// Registers a call that waits for the end of an execution. Register before the execution is created.
    pub fn expect(&self, namespace: &str, name: &str) -> EndNotice {
        let (name, notify) = ((namespace.to_owned(), name.to_owned()), Arc::<Notify>::default());
        lock(&self.waiting).calls.entry(name.clone()).or_default().push(Arc::downgrade(&notify));
        EndNotice { name, notify, waiting: Arc::clone(&self.waiting) }
    }
}

impl EndNotice {
    /// Waits until the execution has perhaps ended. The caller then reads it.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        if let Some(calls) = waiting.calls.get_mut(&self.name) {
            let own = Arc::downgrade(&self.notify);
            calls.retain(|call| !call.ptr_eq(&own));
            if calls.is_empty() {
                waiting.calls.remove(&self.name);
            }
        }
    }
}

impl Waiting {
    fn notify(&self, name: &Name) {
        for notify in self.calls.get(name).into_iter().flatten().filter_map(Weak::upgrade) {
            notify.notify_one();
        }
    }

    fn notify_all(&self) {
        self.calls.keys().for_each(|name| self.notify(name));
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
