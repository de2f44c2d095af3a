//! Who waits for one machine, and whose turn it is: what may not wait first, then in turn between those who asked, and of
//! each of them the oldest. Plain data.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::cluster::ExecutionKey;

use super::queued_execution::QueuedExecution;

/// Of how many who have nothing waiting it is remembered when they were served last. Beyond it all are forgotten, which
/// costs nothing but a turn.
const MAX_REMEMBERED: usize = 1_000;

/// The place among what one person asked for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct QueueKey {
    /// False sorts first.
    pub can_wait: bool,
    created: Timestamp,
    pub key: ExecutionKey,
}

impl QueueKey {
    pub fn of(work: &QueuedExecution) -> Self {
        Self { can_wait: !work.urgent, created: work.created, key: work.key.clone() }
    }
}

/// What waits for one machine.
#[derive(Default)]
pub(super) struct FairQueue {
    /// By who asked; an empty one is taken out.
    by_requester: BTreeMap<String, BTreeMap<QueueKey, QueuedExecution>>,
    /// When each was served last, in turns.
    last_served: HashMap<String, u64>,
    turns: u64,
}

impl FairQueue {
    pub fn len(&self) -> usize {
        self.by_requester.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_requester.is_empty()
    }

    pub fn push(&mut self, work: QueuedExecution) {
        self.by_requester.entry(work.requester.clone()).or_default().insert(QueueKey::of(&work), work);
    }

    /// Takes one out, whose it is and which.
    pub fn remove(&mut self, requester: &str, turn: &QueueKey) -> Option<QueuedExecution> {
        let queue = self.by_requester.get_mut(requester)?;
        let work = queue.remove(turn);
        if queue.is_empty() {
            self.by_requester.remove(requester);
        }
        work
    }

    /// Whose turn it is. Who was served longest ago comes first.
    pub fn peek(&self) -> Option<(String, QueueKey)> {
        let heads = self.by_requester.iter().filter_map(|(requester, queue)| Some((requester, queue.keys().next()?)));
        let served = |requester: &String| self.last_served.get(requester).copied().unwrap_or(0);
        let first = heads.min_by_key(|(requester, turn)| (turn.can_wait, served(requester), *turn))?;
        Some((first.0.clone(), first.1.clone()))
    }

    /// Takes out whose turn it is, which counts as served.
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

    /// Takes out the executions for which this is true.
    pub fn take_where(&mut self, mut is_taken: impl FnMut(&QueuedExecution) -> bool) -> Vec<QueuedExecution> {
        let mut taken = Vec::new();
        self.by_requester.retain(|_, queue| {
            taken.extend(queue.extract_if(.., |_, queued| is_taken(queued)).map(|(_, queued)| queued));
            !queue.is_empty()
        });
        taken
    }
}
