//! Queue of one machine, as plain data. Three rules decide which execution comes next:
//!
//! 1. Executions that must not be delayed (`startingDeadlineSeconds: 0`) come first.
//! 2. Requesters take turns.
//! 3. Of the executions of one requester, the oldest comes first.
//!
//! The caller can limit the choice to executions that accept no long wait, for example while the machine is offline.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::cluster::ExecutionKey;
use crate::execution::AllowedWait;

use super::queued_execution::QueuedExecution;

/// Maximum number of requesters with a stored last turn. At this limit, the queue deletes all stored turns. A requester
/// then loses at most one turn.
const MAX_REMEMBERED: usize = 1_000;

/// Position of an execution among the executions of one requester.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct QueueKey {
    /// False for an execution that must not be delayed. False sorts before true, so this execution comes first.
    can_wait: bool,
    created: Timestamp,
    pub key: ExecutionKey,
}

impl QueueKey {
    pub fn of(work: &QueuedExecution) -> Self {
        Self { can_wait: work.wait > AllowedWait::Nothing, created: work.created, key: work.key.clone() }
    }
}

/// Queued executions of one machine.
#[derive(Default)]
pub(super) struct FairQueue {
    /// Executions by requester. A requester without executions has no entry.
    by_requester: BTreeMap<String, BTreeMap<QueueKey, QueuedExecution>>,
    /// Number of the turn in which each requester was served last.
    last_served: HashMap<String, u64>,
    turns: u64,
    /// Number of executions that do not wait for the machine. If it is 0, [`Self::peek`] need not search for them.
    impatient: usize,
}

fn is_impatient(queued: &QueuedExecution) -> bool {
    queued.wait < AllowedWait::Machine
}

impl FairQueue {
    pub fn len(&self) -> usize {
        self.by_requester.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_requester.is_empty()
    }

    pub fn push(&mut self, work: QueuedExecution) {
        self.impatient += usize::from(is_impatient(&work));
        self.by_requester.entry(work.requester.clone()).or_default().insert(QueueKey::of(&work), work);
    }

    /// Removes one execution of a requester, and returns it.
    pub fn remove(&mut self, requester: &str, turn: &QueueKey) -> Option<QueuedExecution> {
        let queue = self.by_requester.get_mut(requester)?;
        let work = queue.remove(turn);
        if queue.is_empty() {
            self.by_requester.remove(requester);
        }
        self.forget(work.as_ref());
        work
    }

    /// Subtracts removed executions from the count of impatient executions.
    fn forget<'a>(&mut self, removed: impl IntoIterator<Item = &'a QueuedExecution>) {
        let impatient = removed.into_iter().filter(|queued| is_impatient(queued)).count();
        self.impatient = self.impatient.saturating_sub(impatient);
    }

    /// Returns the requester and the position of the next execution that accepts at most the wait `longest`. Among
    /// equally urgent executions, the requester whose last turn is longest ago comes first.
    pub fn peek(&self, longest: AllowedWait) -> Option<(String, QueueKey)> {
        if longest < AllowedWait::Machine && self.impatient == 0 {
            return None;
        }
        let heads = self.by_requester.iter().filter_map(|(requester, queue)| {
            let (turn, _) = queue.iter().find(|(_, queued)| queued.wait <= longest)?;
            Some((requester, turn))
        });
        let served = |requester: &String| self.last_served.get(requester).copied().unwrap_or(0);
        let first = heads.min_by_key(|(requester, turn)| (turn.can_wait, served(requester), *turn))?;
        Some((first.0.clone(), first.1.clone()))
    }

    /// Removes the next execution, and records the turn of its requester.
    pub fn pop(&mut self, requester: &str, turn: &QueueKey) -> Option<QueuedExecution> {
        let work = self.remove(requester, turn)?;
        self.turns += 1;
        if self.last_served.len() >= MAX_REMEMBERED {
            self.last_served.clear();
        }
        self.last_served.insert(requester.to_owned(), self.turns);
        Some(work)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ExecutionKey> {
        self.by_requester.values().flat_map(BTreeMap::keys).map(|turn| &turn.key)
    }

    /// Removes the executions for which `is_taken` returns true, and returns them.
    pub fn take_where(&mut self, mut is_taken: impl FnMut(&QueuedExecution) -> bool) -> Vec<QueuedExecution> {
        let mut taken = Vec::new();
        self.by_requester.retain(|_, queue| {
            taken.extend(queue.extract_if(.., |_, queued| is_taken(queued)).map(|(_, queued)| queued));
            !queue.is_empty()
        });
        self.forget(&taken);
        taken
    }
}
