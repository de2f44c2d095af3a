//! A slot of a Machine, for as long as one execution has it.

use super::attempt::AttemptEnd;
use super::{Runner, Work};

/// Gives the slot back when the task ends, also when it ends by a panic.
pub(super) struct SlotGuard {
    pub runner: Runner,
    pub work: Work,
    /// Whether its connection is no longer counted as one in the making.
    pub connected: bool,
    pub settled: bool,
}

impl SlotGuard {
    /// Gives it back now.
    pub async fn settle(mut self, end: AttemptEnd) {
        self.settled = true;
        let runner = self.runner.clone();
        runner.settle(self.work.clone(), end).await;
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if !self.settled {
            tracing::error!(execution = %self.work.key, "the task of an execution ended by a panic");
            let runner = self.runner.clone();
            let work = self.work.clone();
            let end = if self.connected { AttemptEnd::Done } else { AttemptEnd::Obsolete };
            tokio::spawn(async move { runner.settle(work, end).await });
        }
    }
}
