//! Who waits for one machine, and whose turn it is: what may not wait first, then in turn between those who asked, and of
//! each of them the oldest. Plain data.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::cluster::ExecutionKey;

use super::Work;

/// Of how many who have nothing waiting it is remembered when they were served last. Beyond it all are forgotten, which
/// costs nothing but a turn.
const MOST_REMEMBERED: usize = 1_000;

/// The place among what one person asked for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Turn {
    /// False sorts first.
    pub patient: bool,
    created: Timestamp,
    pub key: ExecutionKey,
}

impl Turn {
    pub fn of(work: &Work) -> Self {
        Self { patient: !work.urgent, created: work.created, key: work.key.clone() }
    }
}

/// What waits for one machine.
#[derive(Default)]
pub(super) struct Waiting {
    /// By who asked; an empty one is taken out.
    lines: BTreeMap<String, BTreeMap<Turn, Work>>,
    /// When each was served last, in turns.
    served: HashMap<String, u64>,
    turns: u64,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.lines.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn add(&mut self, work: Work) {
        self.lines.entry(work.requester.clone()).or_default().insert(Turn::of(&work), work);
    }

    /// Takes one out, whose it is and which.
    pub fn remove(&mut self, requester: &str, turn: &Turn) -> Option<Work> {
        let line = self.lines.get_mut(requester)?;
        let work = line.remove(turn);
        if line.is_empty() {
            self.lines.remove(requester);
        }
        work
    }

    /// Whose turn it is. Who was served longest ago comes first.
    pub fn first(&self) -> Option<(String, Turn)> {
        let heads = self.lines.iter().filter_map(|(requester, line)| Some((requester, line.keys().next()?)));
        let served = |requester: &String| self.served.get(requester).copied().unwrap_or(0);
        let first = heads.min_by_key(|(requester, turn)| (turn.patient, served(requester), *turn))?;
        Some((first.0.clone(), first.1.clone()))
    }

    /// Takes out whose turn it is, which counts as served.
    pub fn take(&mut self, requester: &str, turn: &Turn) -> Option<Work> {
        let work = self.remove(requester, turn)?;
        self.turns += 1;
        if self.served.len() >= MOST_REMEMBERED {
            self.served.clear();
        }
        self.served.insert(requester.to_owned(), self.turns);
        Some(work)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ExecutionKey> {
        self.lines.values().flat_map(BTreeMap::keys).map(|turn| &turn.key)
    }
}
