//! Whose turn it is, as plain data: no time, no waiting.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Size;

/// Names one who waits, in the order in which they came.
pub(crate) type Ticket = u64;

/// Who holds how many places, and who waits. `W` is what is told to one whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    free: usize,
    share: usize,
    /// Those who hold a place or wait.
    namespaces: HashMap<String, Namespace<W>>,
    /// Those who wait, each once, in the order of their turns.
    turns: VecDeque<String>,
    issued: Ticket,
}

#[derive(Debug)]
struct Namespace<W> {
    held: usize,
    /// By ticket, so that the first is the one who came first, and whoever leaves is found at once.
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

    /// Waits behind those of the same namespace.
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

    /// Whether one who waited was taken out; false where it has a place, or never waited.
    pub fn leave(&mut self, namespace: &str, ticket: Ticket) -> bool {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return false };
        let is_taken_out = entry.waiting.remove(&ticket).is_some();
        if is_taken_out && entry.waiting.is_empty() {
            self.turns.retain(|each| each != namespace);
        }
        self.forget_if_idle(namespace);
        is_taken_out
    }

    /// The next one to have a place, which it has from now on; None where there is no place, or nobody who may have it.
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

    /// A place of this namespace is free again.
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
