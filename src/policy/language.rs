//! Analyses the words that a rule admits. The analysis is exact: it covers all values of the patterns, not only
//! examples.
//!
//! A [`Scanner`] is a small automaton that finds a feature in a word, for example a segment `..` or a dash at the
//! beginning. [`Words`] applies a scanner to all words of a template, and returns a short word that has the feature.
//! For a parameter, the search visits pairs of states: one state of the scanner, and one state of the pattern's
//! automaton (the product of the automata).
//!
//! # Guarantees
//! - A product is searched at most once for each parameter and each state in which the scanner reaches the parameter.
//! - The number of pairs is at most the number of the pattern's states times the number of the scanner's states.
//!   `COMPILED_BYTES` in `pattern.rs` limits the size of the pattern's automaton.
//!
//! # Caveats
//! If a parameter occurs twice in a word, the search chooses the two values independently.

pub(super) mod paths;
pub(super) mod scanner;

use std::collections::BTreeMap;
use std::rc::Rc;

use regex_automata::nfa::thompson::{NFA, State};

use super::template::{ParameterSpec, Piece, Template};
use super::values::ValueSpec;
use super::{MAXIMUM_TEXT_BYTES, RuleError};
use scanner::{Class, Scanner, ScannerState};

/// Search with one scanner in all words of the templates of one rule.
pub(super) struct Words<'r> {
    parameters: &'r [ParameterSpec],
    scanner: &'r Scanner,
    /// Function that returns true if the requester chooses the values of a parameter.
    is_free: fn(&ValueSpec) -> bool,
    automata: BTreeMap<usize, Rc<Automaton>>,
    outcomes: BTreeMap<(usize, ScannerState), Rc<[Outcome]>>,
}

/// Word that a rule admits and that has a feature for which the scanner searches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Example {
    /// Whole word.
    pub word: String,
    /// Values in the word, by the index of the parameter.
    pub values: BTreeMap<usize, String>,
}

/// State of the scanner after a value, and the shortest value that leads to this state.
#[derive(Clone, Debug)]
struct Outcome {
    state: ScannerState,
    value: Rc<str>,
}

/// Step to a state: the state before a piece of the template, and the value of the piece. The value is `None` if the
/// piece is constant text.
type Step = (ScannerState, Option<Rc<str>>);

impl<'r> Words<'r> {
    pub fn new(parameters: &'r [ParameterSpec], scanner: &'r Scanner, is_free: fn(&ValueSpec) -> bool) -> Self {
        Self { parameters, scanner, is_free, automata: BTreeMap::new(), outcomes: BTreeMap::new() }
    }

    /// Returns a short word for each feature that the scanner finds in the words that `template` admits.
    ///
    /// # Errors
    /// PatternTooLarge if the automaton of a pattern is too large. The rule is then out of force.
    pub fn find_all(&mut self, template: &Template) -> Result<Vec<(usize, Example)>, RuleError> {
        let mut steps: Vec<BTreeMap<ScannerState, Step>> = Vec::new();
        let mut states = vec![self.scanner.start()];
        for piece in template.pieces() {
            let mut next: BTreeMap<ScannerState, Step> = BTreeMap::new();
            for state in states {
                match piece {
                    Piece::Text(text) => {
                        next.entry(self.scanner.read(state, text, false)).or_insert((state, None));
                    }
                    Piece::Placeholder(place) => {
                        for outcome in self.outcomes(place, state)?.iter() {
                            let value = Some(outcome.value.clone());
                            next.entry(outcome.state).or_insert((state, value));
                        }
                    }
                }
            }
            states = next.keys().copied().collect();
            steps.push(next);
        }
        let mut found: BTreeMap<usize, Example> = BTreeMap::new();
        for state in states {
            if let Some(what) = self.scanner.found(state) {
                let example = self.example(template, &steps, state);
                let is_as_short = |known: &Example| known.word.len() <= example.word.len();
                if !found.get(&what).is_some_and(is_as_short) {
                    found.insert(what, example);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Returns the first result of [`Self::find_all`].
    ///
    /// # Errors
    /// The errors of [`Self::find_all`].
    pub fn find(&mut self, template: &Template) -> Result<Option<Example>, RuleError> {
        Ok(self.find_all(template)?.into_iter().next().map(|(_, example)| example))
    }

    /// Builds the example that ends in the state `last`. Follows the steps from the end to the beginning.
    fn example(&self, template: &Template, steps: &[BTreeMap<ScannerState, Step>], last: ScannerState) -> Example {
        let (mut state, mut chosen) = (last, Vec::new());
        let pieces: Vec<_> = template.pieces().collect();
        for (piece, step) in pieces.iter().zip(steps).rev() {
            let Some((before, value)) = step.get(&state) else { break };
            if let (Piece::Placeholder(place), Some(value)) = (piece, value) {
                chosen.push((*place, value.clone()));
            }
            state = *before;
        }
        let mut values: BTreeMap<usize, String> = BTreeMap::new();
        for (place, value) in &chosen {
            values.insert(*place, value.to_string());
        }
        // If a parameter occurs twice, the search perhaps chose two different values. Both placeholders get the value
        // with which the scanner finds its feature.
        if !self.finds(template, &values) {
            let with = |(place, value): &(usize, Rc<str>)| {
                let one = [(*place, value.to_string())];
                values.clone().into_iter().chain(one).collect::<BTreeMap<_, _>>()
            };
            values = chosen.iter().map(with).find(|values| self.finds(template, values)).unwrap_or(values.clone());
        }
        let word = template.pieces().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Placeholder(place) => values.get(&place).map(String::as_str).unwrap_or_default(),
        });
        Example { word: word.collect(), values }
    }

    /// Fills the placeholders of the template with these values. Returns true if the scanner finds its feature in the
    /// resulting word.
    fn finds(&self, template: &Template, values: &BTreeMap<usize, String>) -> bool {
        let read = |state, piece| match piece {
            Piece::Text(text) => self.scanner.read(state, text, false),
            Piece::Placeholder(place) => {
                let is_free = self.parameters.get(place).is_some_and(|parameter| (self.is_free)(&parameter.values));
                let value = values.get(&place).map(String::as_str).unwrap_or_default();
                self.scanner.read(state, value, is_free)
            }
        };
        self.scanner.found(template.pieces().fold(self.scanner.start(), read)).is_some()
    }

    fn outcomes(&mut self, place: usize, from: ScannerState) -> Result<Rc<[Outcome]>, RuleError> {
        if let Some(known) = self.outcomes.get(&(place, from)) {
            return Ok(known.clone());
        }
        let Some(parameter) = self.parameters.get(place) else { return Ok(Rc::from([])) };
        let values = &parameter.values;
        let is_free = (self.is_free)(values);
        let outcomes: Rc<[Outcome]> = if values.pattern().is_some() {
            let automaton = self.automaton(place, parameter)?;
            automaton.outcomes(self.scanner, from, is_free, values.maximum_bytes().unwrap_or(MAXIMUM_TEXT_BYTES)).into()
        } else {
            let mut known: BTreeMap<ScannerState, Rc<str>> = BTreeMap::new();
            let mut values = values.samples();
            values.sort_by_key(String::len);
            for value in values {
                known.entry(self.scanner.read(from, &value, is_free)).or_insert_with(|| value.into());
            }
            known.into_iter().map(|(state, value)| Outcome { state, value }).collect()
        };
        self.outcomes.insert((place, from), outcomes.clone());
        Ok(outcomes)
    }

    fn automaton(&mut self, place: usize, parameter: &ParameterSpec) -> Result<Rc<Automaton>, RuleError> {
        if let Some(known) = self.automata.get(&place) {
            return Ok(known.clone());
        }
        let nfa = parameter.values.pattern().and_then(super::pattern::Pattern::automaton);
        let too_large = || RuleError::PatternTooLarge { field: format!("parameters.{}", parameter.name) };
        let automaton = Rc::new(Automaton::new(&nfa.ok_or_else(too_large)?, self.scanner));
        self.automata.insert(place, automaton.clone());
        Ok(automaton)
    }
}

/// Automaton of a pattern. Each byte in the automaton stands for a class: all bytes that the scanner does not
/// distinguish.
struct Automaton {
    nodes: Vec<Node>,
    start: usize,
}

#[derive(Default)]
struct Node {
    /// Nodes that are reached without reading a byte.
    empty: Vec<usize>,
    /// Nodes that are reached by reading a byte, each with the byte and its class.
    moves: Vec<(u8, Class, usize)>,
    is_end: bool,
}

/// Reached node of the automaton, with the state of the scanner there and the step that led to the node.
struct Reached {
    node: usize,
    state: ScannerState,
    before: usize,
    byte: Option<u8>,
}

impl Automaton {
    fn new(nfa: &NFA, scanner: &Scanner) -> Self {
        let nodes = nfa.states().iter().map(|state| Node::new(state, scanner)).collect();
        Self { nodes, start: nfa.start_anchored().as_usize() }
    }

    /// Returns the possible states of the scanner after a value of the pattern, each with its shortest value. Shorter
    /// values come first, because the search is breadth first.
    fn outcomes(&self, scanner: &Scanner, from: ScannerState, is_free: bool, longest: usize) -> Vec<Outcome> {
        let width = scanner.states();
        let mut seen = vec![false; self.nodes.len() * width];
        let mut ended = vec![false; width];
        let (mut all, mut outcomes): (Vec<Reached>, Vec<Outcome>) = (Vec::new(), Vec::new());
        let mut reach = |all: &mut Vec<Reached>, reached: Reached| {
            match seen.get_mut(reached.node * width + usize::from(reached.state)) {
                Some(seen) if !*seen => *seen = true,
                _ => return,
            }
            all.push(reached);
        };
        reach(&mut all, Reached { node: self.start, state: from, before: usize::MAX, byte: None });
        let mut level = 0;
        for length in 0..=longest {
            // `all` grows while the loop reads it: the loop appends every node that an empty transition reaches.
            let mut index = level;
            while let Some(&Reached { node, state, .. }) = all.get(index) {
                let Some(here) = self.nodes.get(node) else { break };
                if here.is_end && !ended.get(usize::from(state)).copied().unwrap_or(true) {
                    ended.iter_mut().skip(usize::from(state)).take(1).for_each(|ended| *ended = true);
                    outcomes.push(Outcome { state, value: spell(&all, index).into() });
                }
                for next in &here.empty {
                    reach(&mut all, Reached { node: *next, state, before: index, byte: None });
                }
                index += 1;
            }
            let end = all.len();
            if length == longest || end == level {
                break;
            }
            for index in level..end {
                let Some(&Reached { node, state, .. }) = all.get(index) else { break };
                for (byte, class, next) in self.nodes.get(node).map(|node| node.moves.as_slice()).unwrap_or_default() {
                    let state = scanner.step(state, *class, is_free);
                    reach(&mut all, Reached { node: *next, state, before: index, byte: Some(*byte) });
                }
            }
            level = end;
        }
        outcomes
    }
}

/// Returns the bytes that were read on the way to a state.
fn spell(all: &[Reached], mut index: usize) -> String {
    let mut bytes = Vec::new();
    while let Some(reached) = all.get(index) {
        bytes.extend(reached.byte.map(char::from));
        index = reached.before;
    }
    bytes.iter().rev().collect()
}

impl Node {
    fn new(state: &State, scanner: &Scanner) -> Self {
        let mut node = Self::default();
        match state {
            State::ByteRange { trans } => node.add(trans.start, trans.end, trans.next.as_usize(), scanner),
            State::Sparse(sparse) => {
                for trans in &sparse.transitions {
                    node.add(trans.start, trans.end, trans.next.as_usize(), scanner);
                }
            }
            State::Dense(dense) => {
                for byte in 0..=u8::MAX {
                    if let Some(next) = dense.matches_byte(byte) {
                        node.add(byte, byte, next.as_usize(), scanner);
                    }
                }
            }
            State::Look { next, .. } | State::Capture { next, .. } => node.empty.push(next.as_usize()),
            State::Union { alternates } => node.empty.extend(alternates.iter().map(|next| next.as_usize())),
            State::BinaryUnion { alt1, alt2 } => node.empty.extend([alt1.as_usize(), alt2.as_usize()]),
            State::Fail => {}
            State::Match { .. } => node.is_end = true,
        }
        node
    }

    /// Adds transitions from this node to the node `next`, with one byte for each class. Prefers lower-case letters, so
    /// that examples are easy to read.
    fn add(&mut self, first: u8, last: u8, next: usize, scanner: &Scanner) {
        let rank = |byte: u8| (!byte.is_ascii_lowercase(), !byte.is_ascii_alphanumeric());
        for byte in first..=last {
            let Some(class) = scanner.class(byte) else { continue };
            match self.moves.iter_mut().find(|(_, known, to)| (*known, *to) == (class, next)) {
                Some((known, _, _)) if rank(byte) < rank(*known) => *known = byte,
                Some(_) => {}
                None => self.moves.push((byte, class, next)),
            }
        }
    }
}
