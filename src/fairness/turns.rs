//! Order in which waiting tasks get permits. Plain data: this module neither blocks nor reads a clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Size of a pool: the number of permits, and the share of one namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Number of permits, at least 1.
    pub places: usize,
    /// Maximum number of permits that one namespace may hold, at least 1.
    pub share: usize,
}

/// Position of a waiting task within its namespace. The smallest ticket is the next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket {
    /// Rank that the caller chose. A smaller rank goes first.
    rank: i64,
    /// Increasing number, in the order of the requests.
    number: u64,
}

/// Held permits and waiting tasks of each namespace. `W` is the type of a waiting task, which [`Turns::next`] returns
/// when the task gets a permit.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    free: usize,
    share: usize,
    /// Namespaces that hold a permit or wait for a permit.
    namespaces: HashMap<String, Namespace<W>>,
    /// Namespaces with waiting tasks, in the order of their turns. The list has no duplicates.
    turns: VecDeque<String>,
    /// Number of tickets so far.
    issued: u64,
}

#[derive(Debug)]
struct Namespace<W> {
    held: usize,
    /// Waiting tasks by ticket.
    waiting: BTreeMap<Ticket, W>,
}

impl<W> Turns<W> {
    pub fn new(size: Size) -> Self {
        Self {
            free: size.places.max(1),
            share: size.share.max(1),
            namespaces: HashMap::new(),
            turns: VecDeque::new(),
            issued: 0,
        }
    }

    /// Adds a waiting task after the waiting tasks of its namespace with the same or a smaller rank. Returns the ticket
    /// of the new task.
    pub fn wait(&mut self, namespace: &str, rank: i64, waiting: W) -> Ticket {
        self.issued += 1;
        let ticket = Ticket { rank, number: self.issued };
        let entry = self
            .namespaces
            .entry(namespace.to_owned())
            .or_insert_with(|| Namespace { held: 0, waiting: BTreeMap::new() });
        if entry.waiting.is_empty() {
            self.turns.push_back(namespace.to_owned());
        }
        entry.waiting.insert(ticket, waiting);
        ticket
    }

    /// Removes a waiting task. Returns false if the task already has a permit, or never waited.
    pub fn leave(&mut self, namespace: &str, ticket: Ticket) -> bool {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return false };
        let is_taken_out = entry.waiting.remove(&ticket).is_some();
        if is_taken_out && entry.waiting.is_empty() {
            self.turns.retain(|each| each != namespace);
        }
        self.forget_if_idle(namespace);
        is_taken_out
    }

    /// Gives a permit to the next task and returns the value of this task. Returns `None` if no permit is free, no task
    /// waits, or every waiting namespace already holds its share.
    pub fn next(&mut self) -> Option<W> {
        if self.free == 0 {
            return None;
        }
        let may_have = |name: &String| self.namespaces.get(name).is_some_and(|entry| entry.held < self.share);
        let turn = self.turns.iter().position(may_have)?;
        let name = self.turns.remove(turn)?;
        let entry = self.namespaces.get_mut(&name)?;
        let (_, waiting) = entry.waiting.pop_first()?;
        entry.held += 1;
        self.free -= 1;
        if !entry.waiting.is_empty() {
            self.turns.push_back(name);
        }
        Some(waiting)
    }

    /// Releases a permit that this namespace holds.
    pub fn give_back(&mut self, namespace: &str) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        entry.held = entry.held.saturating_sub(1);
        self.free += 1;
        self.forget_if_idle(namespace);
    }

    pub fn is_idle(&self) -> bool {
        self.namespaces.is_empty()
    }

    fn forget_if_idle(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(|entry| entry.held == 0 && entry.waiting.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }
}
