//! The order in which tasks get places, as plain data without time and waiting.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The number of places, and the share of one namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Number of places; at least 1.
    pub places: usize,
    /// Maximum number of places that one namespace holds; at least 1.
    pub share: usize,
}

/// Number of a waiting task, in the order of arrival.
pub(crate) type Ticket = u64;

/// The held places and the waiting tasks of each namespace. `W` is the value that a task gets back with its place.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    free: usize,
    share: usize,
    /// Namespaces that hold a place or wait for one.
    namespaces: HashMap<String, Namespace<W>>,
    /// Waiting namespaces, each once, in the order of their turns.
    turns: VecDeque<String>,
    issued: Ticket,
}

#[derive(Debug)]
struct Namespace<W> {
    held: usize,
    /// Waiting tasks by ticket: the first entry arrived first, and a task that leaves is found without a search.
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

    /// Adds a waiting task behind the others of its namespace.
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

    /// Removes a waiting task. Returns false if the task has a place already, or never waited.
    pub fn leave(&mut self, namespace: &str, ticket: Ticket) -> bool {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return false };
        let is_taken_out = entry.waiting.remove(&ticket).is_some();
        if is_taken_out && entry.waiting.is_empty() {
            self.turns.retain(|each| each != namespace);
        }
        self.forget_if_idle(namespace);
        is_taken_out
    }

    /// Gives a place to the next task, and returns the task's value. `None` if no place is free, or if no waiting
    /// namespace is below its share.
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

    /// Takes a place back from this namespace.
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
