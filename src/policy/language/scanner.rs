//! Finds features in words with scanners, which are small automata. [`Scanner::new`] computes the transition table of a
//! scanner from a function that returns the next state.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Number that identifies a state.
pub(in crate::policy) type ScannerState = u16;
/// Number that identifies a class of bytes. A scanner does not distinguish the bytes of one class.
pub(in crate::policy) type Class = u8;

/// Transition table of a scanner.
pub(in crate::policy) struct Scanner {
    /// Next state for each state, each class of the byte, and each value of a flag. The flag is true if the requester
    /// chose the byte.
    next: Vec<ScannerState>,
    /// Class of each byte.
    classes: Vec<Option<Class>>,
    class_count: usize,
    found: Vec<Option<usize>>,
}

impl Scanner {
    /// Builds the table. `step` receives a state, a byte, and `true` if the requester chose the byte. `found` receives
    /// the state at the end of a word and returns the number of the feature that the word has.
    pub fn new<S: Clone + Ord>(
        start: S,
        step: impl Fn(&S, u8, bool) -> S,
        found: impl Fn(&S) -> Option<usize>,
    ) -> Self {
        let bytes: Vec<u8> = (b' '..=b'~').collect();
        let mut numbers = BTreeMap::from([(start.clone(), 0)]);
        let mut states = vec![start];
        let mut rows: Vec<Vec<ScannerState>> = Vec::new();
        while let Some(state) = states.get(rows.len()).cloned() {
            let mut row = Vec::with_capacity(bytes.len() * 2);
            for is_free in [false, true] {
                for byte in &bytes {
                    let next = step(&state, *byte, is_free);
                    let number = *numbers.entry(next.clone()).or_insert_with(|| {
                        states.push(next);
                        states.len() - 1
                    });
                    row.push(ScannerState::try_from(number).unwrap_or(ScannerState::MAX));
                }
            }
            rows.push(row);
        }
        // Two bytes are in the same class if, from every state, both bytes lead to the same next state.
        let cell = |row: &Vec<ScannerState>, index: usize| row.get(index).copied().unwrap_or_default();
        let (mut columns, mut classes) = (BTreeMap::new(), vec![None; 256]);
        for (index, byte) in bytes.iter().enumerate() {
            let column: Vec<_> =
                rows.iter().flat_map(|row| [cell(row, index), cell(row, index + bytes.len())]).collect();
            let known = columns.len();
            let (class, _) = *columns.entry(column).or_insert((known, index));
            if let Some(known) = classes.get_mut(usize::from(*byte)) {
                *known = Class::try_from(class).ok();
            }
        }
        let mut representatives: Vec<(usize, usize)> = columns.into_values().collect();
        representatives.sort_unstable();
        let class_count = representatives.len();
        let mut next = Vec::with_capacity(rows.len() * 2 * class_count);
        for row in &rows {
            for half in [0, bytes.len()] {
                next.extend(representatives.iter().map(|(_, index)| cell(row, half + index)));
            }
        }
        Self { next, classes, class_count, found: states.iter().map(found).collect() }
    }

    pub fn start(&self) -> ScannerState {
        0
    }

    pub fn states(&self) -> usize {
        self.found.len()
    }

    /// Returns the class of a byte. Returns `None` if the byte is not printable ASCII, because no word contains such a
    /// byte.
    pub fn class(&self, byte: u8) -> Option<Class> {
        self.classes.get(usize::from(byte)).copied().flatten()
    }

    pub fn step(&self, state: ScannerState, class: Class, is_free: bool) -> ScannerState {
        let row = usize::from(state) * 2 + usize::from(is_free);
        self.next.get(row * self.class_count + usize::from(class)).copied().unwrap_or_default()
    }

    pub fn read(&self, state: ScannerState, text: &str, is_free: bool) -> ScannerState {
        let classes = text.bytes().filter_map(|byte| self.class(byte));
        classes.fold(state, |state, class| self.step(state, class, is_free))
    }

    /// Returns the number of the feature that a word has if it ends in this state.
    pub fn found(&self, state: ScannerState) -> Option<usize> {
        self.found.get(usize::from(state)).copied().flatten()
    }
}

/// Returns true for a byte that ends a file name inside a word: `/`, or a separator such as `=`, `:`, `,`, `@` or a
/// space. All other bytes are usual in file names and in revision ranges of git (`v1..v2`, `HEAD~3`).
pub(in crate::policy) fn is_edge(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && !b"._-+~%^".contains(&byte)
}

/// State of the scanner for `..`. The `bool` of a variant is true if the requester chose a part of the segment.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Parents {
    /// At the beginning of the word.
    Start,
    /// After a dash at the beginning of the word. After the letters of the option, the state is `Cluster`. `..` can
    /// follow the letters directly: `-C..` also leads to a parent directory.
    Dash(bool),
    Cluster(bool),
    /// After a byte that ends a segment.
    Edge(bool),
    Dot(bool),
    DotDot(bool),
    Name,
    Found,
}

/// Finds a path segment `..` if the requester chose at least a part of the segment.
pub(in crate::policy) static PARENTS: LazyLock<Scanner> = LazyLock::new(|| {
    let step = |state: &Parents, byte: u8, is_free: bool| match (state, byte) {
        (Parents::Found, _) => Parents::Found,
        (Parents::DotDot(was_free), byte) if is_edge(byte) && (*was_free || is_free) => Parents::Found,
        (_, byte) if is_edge(byte) => Parents::Edge(is_free),
        (Parents::Start, b'.') => Parents::Dot(is_free),
        (Parents::Edge(was_free) | Parents::Cluster(was_free), b'.') => Parents::Dot(*was_free || is_free),
        (Parents::Dot(was_free), b'.') => Parents::DotDot(*was_free || is_free),
        (Parents::Start, b'-') => Parents::Dash(is_free),
        (Parents::Dash(was_free) | Parents::Cluster(was_free), byte) if byte.is_ascii_alphanumeric() => {
            Parents::Cluster(*was_free)
        }
        _ => Parents::Name,
    };
    Scanner::new(Parents::Start, step, |state| matches!(state, Parents::Found | Parents::DotDot(true)).then_some(0))
});

/// Finds an encoded dot of a URL (`%2e`) if the requester chose at least a part of it. Many programs read `%2e` as a
/// dot.
pub(in crate::policy) static ENCODED_DOT: LazyLock<Scanner> = LazyLock::new(|| {
    // The state is the number of characters of `%2e` read so far, and a flag: true if the requester chose one of them.
    let step = |(read, was_free): &(usize, bool), byte: u8, is_free: bool| match (read, byte.to_ascii_lowercase()) {
        (3, _) => (3, true),
        (1, b'2') => (2, *was_free || is_free),
        (2, b'e') if *was_free || is_free => (3, true),
        (_, b'%') => (1, is_free),
        _ => (0, false),
    };
    Scanner::new((0, false), step, |(read, _)| (*read == 3).then_some(0))
});

/// Finds a word that begins with the byte `wanted`.
pub(in crate::policy) fn beginning_with(wanted: u8) -> Scanner {
    let step = |state: &Option<bool>, byte: u8, _: bool| Some(state.unwrap_or(byte == wanted));
    Scanner::new(None, step, |state| (*state == Some(true)).then_some(0))
}

/// Finds a word that begins with a dash.
pub(in crate::policy) static DASH: LazyLock<Scanner> = LazyLock::new(|| beginning_with(b'-'));

/// Finds the byte `wanted` if the requester chose it.
pub(in crate::policy) fn containing(wanted: u8) -> Scanner {
    let step = |state: &bool, byte: u8, is_free: bool| *state || (is_free && byte == wanted);
    Scanner::new(false, step, |state| state.then_some(0))
}

/// Finds the byte `wanted` at the beginning of the word or of a value in the word (`--data={value}`), if the requester
/// chose the byte.
pub(in crate::policy) fn leading(wanted: u8) -> Scanner {
    #[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
    enum At {
        Edge,
        Dash,
        Inside,
        Found,
    }
    let step = move |state: &At, byte: u8, is_free: bool| match state {
        At::Found => At::Found,
        At::Edge | At::Dash if is_free && byte == wanted => At::Found,
        At::Edge if byte == b'-' => At::Dash,
        // In `-d@file`, a value begins directly after the letter of the option.
        At::Dash if byte.is_ascii_alphabetic() => At::Dash,
        _ if matches!(byte, b'=' | b':' | b',' | b' ') => At::Edge,
        _ => At::Inside,
    };
    Scanner::new(At::Edge, step, |state| matches!(state, At::Found).then_some(0))
}
