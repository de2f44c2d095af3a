//! Order in which waiting tasks get places. Plain data, without time and without waiting.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Size of a pool: the number of places, and the share of one namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Number of places, at least 1.
    pub places: usize,
    /// Maximum number of places that one namespace may hold, at least 1.
    pub share: usize,
}

/// Number of a waiting task. Tasks are numbered in the order of their arrival.
pub(crate) type Ticket = u64;

/// Held places and waiting tasks of each namespace. `W` is stored for a waiting task and returned when the task
/// receives a place.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    free: usize,
    share: usize,
    /// Namespaces that hold a place or wait for one.
    namespaces: HashMap<String, Namespace<W>>,
    /// Namespaces with waiting tasks, in the order of their turns. Each is in the list once.
    turns: VecDeque<String>,
    issued: Ticket,
}

#[derive(Debug)]
struct Namespace<W> {
    held: usize,
    /// Waiting tasks by ticket. The first entry arrived first. In a map, the removal of a task that leaves needs no
    /// search.
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

    /// Adds a waiting task after the other tasks of its namespace.
    pub fn wait(&mut self, namespace: &str, waiting: W) -> Ticket {
        self.issued += 1;
        let entry = self
            .namespaces
            .entry(namespace.to_owned())
            .or_insert_with(|| Namespace { held: 0, waiting: BTreeMap::new() });
        if entry.waiting.is_empty() {
            self.turns.push_back(namespace.to_owned());
        }
        entry.waiting.insert(self.issued, waiting);
        self.issued
    }

    /// Removes a waiting task. Returns false if the task already has a place, or never waited.
    pub fn leave(&mut self, namespace: &str, ticket: Ticket) -> bool {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return false };
        let is_taken_out = entry.waiting.remove(&ticket).is_some();
        if is_taken_out && entry.waiting.is_empty() {
            self.turns.retain(|each| each != namespace);
        }
        self.forget_if_idle(namespace);
        is_taken_out
    }

    /// Gives a place to the next task and returns the value of this task. Returns `None` if no place is free, or if
    /// every waiting namespace already holds its share.
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

    /// Releases one place that this namespace holds.
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
