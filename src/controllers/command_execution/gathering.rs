//! What waits when this process starts, or when it is back: all of it is looked at before any of it starts, as the oldest is
//! to go first, and what is read comes in no order.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::runner::Runner;

use super::Execution;

/// How long that may take. Where the API server answers some of it late, order is worth less than time.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is still to be looked at; None before the list is there, and once all of it was.
pub(super) struct Gathering {
    left: Mutex<Option<HashSet<ObjectRef<Execution>>>>,
    runner: Runner,
}

impl Gathering {
    pub fn new(runner: Runner) -> Self {
        Self { left: Mutex::default(), runner }
    }

    /// The list is there.
    pub fn begin(self: &Arc<Self>, all: impl Iterator<Item = ObjectRef<Execution>>) {
        if self.runner.is_started() {
            return;
        }
        let all: HashSet<_> = all.collect();
        if all.is_empty() {
            self.runner.start();
            return;
        }
        self.with(|left| *left = Some(all));
        let gathering = Arc::clone(self);
        // Ends by itself.
        tokio::spawn(async move {
            tokio::time::sleep(DEADLINE).await;
            gathering.end();
        });
    }

    /// One was looked at, whatever came of it.
    pub fn seen(&self, execution: &ObjectRef<Execution>) {
        let is_last = self.with(|left| {
            left.as_mut().is_some_and(|left| {
                left.remove(execution);
                left.is_empty()
            })
        });
        if is_last {
            self.end();
        }
    }

    fn end(&self) {
        if self.with(Option::take).is_some() {
            self.runner.start();
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Option<HashSet<ObjectRef<Execution>>>) -> T) -> T {
        change(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
