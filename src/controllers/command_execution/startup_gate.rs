//! Delays the first command until every unfinished execution was reconciled once, or until 5 s after the first list.
//! Without this delay, the oldest execution would perhaps not start first, because lists have no order.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::runner::Runner;

use super::execution_meta::ExecutionMeta;

/// Maximum time from the first list of executions until the gate opens, even if some executions are not reconciled yet.
const DEADLINE: Duration = Duration::from_secs(5);

/// The startup gate. When the gate opens, it starts the runner.
pub(super) struct StartupGate {
    /// Executions of the first list that were not reconciled yet. `None` before the first list, and after the gate has
    /// opened.
    remaining: Mutex<Option<HashSet<ObjectRef<ExecutionMeta>>>>,
    runner: Runner,
}

impl StartupGate {
    /// Returns a closed gate.
    pub fn new(runner: Runner) -> Self {
        Self { remaining: Mutex::default(), runner }
    }

    /// Sets the listed executions, which must be reconciled before the gate opens. Does nothing if the gate is already
    /// open.
    pub fn expect(self: &Arc<Self>, all: impl Iterator<Item = ObjectRef<ExecutionMeta>>) {
        if self.runner.is_started() {
            return;
        }
        let all: HashSet<_> = all.collect();
        if all.is_empty() {
            self.runner.start();
            return;
        }
        self.with(|remaining| *remaining = Some(all));
        let gate = Arc::clone(self);
        // Opens the gate after the deadline, even if executions remain.
        tokio::spawn(async move {
            tokio::time::sleep(DEADLINE).await;
            gate.open();
        });
    }

    /// Records that an execution was reconciled, with or without success. Also called if the execution no longer
    /// exists.
    pub fn mark_reconciled(&self, execution: &ObjectRef<ExecutionMeta>) {
        let is_last = self.with(|remaining| {
            remaining.as_mut().is_some_and(|remaining| {
                remaining.remove(execution);
                remaining.is_empty()
            })
        });
        if is_last {
            self.open();
        }
    }

    fn open(&self) {
        if self.with(Option::take).is_some() {
            self.runner.start();
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Option<HashSet<ObjectRef<ExecutionMeta>>>) -> T) -> T {
        change(&mut self.remaining.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
