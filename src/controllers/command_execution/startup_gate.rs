//! Startup gate: no command starts before every unfinished execution was reconciled once, or 5 s have passed. The gate
//! is needed because lists have no order, but the oldest execution must start first.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;

use crate::runner::Runner;

use super::execution_meta::ExecutionMeta;

/// Maximum time for which the gate stays closed. If the API server answers some reads late, a prompt start is more
/// important than the order.
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

    /// Sets the executions of the first list. Calls for later lists do nothing.
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
