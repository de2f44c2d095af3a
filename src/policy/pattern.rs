//! Regular expressions for values. Matching takes linear time, the size is bounded, and the admitted bytes are known
//! before the first use.
//!
//! # Guarantees
//! A pattern matches the **whole** value. The pattern is parsed separately, then its syntax tree is put between two
//! anchors. Nothing in its text (`a|b`, `(?m)`, an open comment) can therefore affect the anchors.

use regex_automata::meta;
use regex_automata::nfa::thompson::{NFA, WhichCaptures};
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use regex_syntax::{ParserBuilder, hir};

use super::RuleError;

/// Maximum size of one compiled pattern, in bytes. A character class repeated 256 times takes about 30 KiB.
const COMPILED_BYTES: usize = 64 * 1024;
/// Maximum size of the cache of one search, in bytes. A search that needs more cache evicts entries. If eviction is not
/// enough, the search continues without a cache and is 30 times slower.
const SEARCH_BYTES: usize = 128 * 1024;
/// Maximum depth of nested groups. Functions traverse the syntax tree of a pattern recursively, so this depth limits
/// the recursion.
const NESTING: u32 = 32;
/// Maximum length of a pattern, in bytes.
const PATTERN_BYTES: usize = 1024;

/// Set of bytes.
#[derive(Clone, Debug)]
pub(super) struct ByteSet([bool; 256]);

/// Compiled pattern, and the bytes that it admits.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: meta::Regex,
    /// Text of the pattern.
    pub text: String,
    /// One value that the pattern matches. `None` if the example would be too long or would not be UTF-8.
    pub example: Option<String>,
    /// Bytes that a value can contain.
    pub bytes: ByteSet,
    /// Bytes with which a value can begin.
    pub first: ByteSet,
    /// True if the pattern matches the empty value.
    pub empty: bool,
}

impl Default for ByteSet {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl ByteSet {
    pub fn add(&mut self, byte: u8) {
        self.add_range(byte, byte);
    }

    fn add_range(&mut self, first: u8, last: u8) {
        let (first, last) = (usize::from(first), usize::from(last));
        self.0.iter_mut().take(last + 1).skip(first).for_each(|member| *member = true);
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(member, also)| *member |= also);
    }

    pub fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or_default()
    }

    /// Returns the smallest member for which `is_so` is true.
    pub fn find(&self, is_so: impl Fn(u8) -> bool) -> Option<u8> {
        (0..=u8::MAX).find(|byte| self.contains(*byte) && is_so(*byte))
    }
}

impl Pattern {
    /// Parses and compiles a pattern of the field `field` of a rule.
    ///
    /// # Errors
    /// PatternSyntax, PatternAnchor, PatternTooLarge, PatternNeverMatches.
    pub fn compile(field: &str, text: &str) -> Result<Self, RuleError> {
        let field = || field.to_owned();
        if text.len() > PATTERN_BYTES {
            return Err(RuleError::PatternTooLarge { field: field() });
        }
        let tree = parse(text).map_err(|error| {
            let message = match &error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "it cannot be read".to_owned(),
            };
            RuleError::PatternSyntax { field: field(), message }
        })?;
        if !tree.properties().look_set().is_empty() {
            return Err(RuleError::PatternAnchor { field: field() });
        }
        let Some(least) = tree.properties().minimum_len() else {
            return Err(RuleError::PatternNeverMatches { field: field() });
        };
        let (mut bytes, mut first) = (ByteSet::default(), ByteSet::default());
        collect_bytes(&tree, &mut bytes);
        collect_first(&tree, &mut first);
        let whole = Hir::concat(vec![Hir::look(Look::Start), tree.clone(), Hir::look(Look::End)]);
        let config = meta::Config::new()
            .nfa_size_limit(Some(COMPILED_BYTES))
            .onepass_size_limit(Some(COMPILED_BYTES))
            .hybrid(true)
            .hybrid_cache_capacity(SEARCH_BYTES)
            .dfa(false)
            .backtrack(false)
            .utf8_empty(false);
        let regex = meta::Builder::new()
            .configure(config)
            .build_from_hir(&whole)
            .map_err(|_| RuleError::PatternTooLarge { field: field() })?;
        // The example repeats parts of the pattern, for example billions of times for `(a?){4294967295}`. The size is
        // therefore checked first.
        let mut example = Vec::new();
        if least <= PATTERN_BYTES {
            write_example(&tree, &mut example);
        }
        // If all values are too long, `example` is empty. The filter then removes the example, because the pattern does
        // not match the empty text.
        let example = String::from_utf8(example).ok().filter(|example| regex.is_match(example.as_bytes()));
        Ok(Self { regex, text: text.to_owned(), example, bytes, first, empty: least == 0 })
    }

    /// Returns true if the pattern matches the whole value.
    pub fn matches_whole(&self, value: &str) -> bool {
        self.regex.is_match(value.as_bytes())
    }

    /// Builds the automaton of the pattern. Returns `None` if the automaton exceeds the maximum size. The automaton is
    /// not stored, because only the checks of a rule use it.
    pub fn automaton(&self) -> Option<NFA> {
        let tree = parse(&self.text).ok()?;
        let config = NFA::config().utf8(false).which_captures(WhichCaptures::None);
        NFA::compiler().configure(config.nfa_size_limit(Some(COMPILED_BYTES))).build_from_hir(&tree).ok()
    }

    /// Returns the memory of the forward automaton, in bytes: half of the memory of `regex`. The other half is an
    /// unused backward automaton. The cache of each search (at most [`SEARCH_BYTES`]) is not included.
    pub fn memory(&self) -> usize {
        self.regex.memory_usage() / 2
    }
}

/// Returns the syntax tree of a pattern. Returns `None` if the pattern is invalid.
pub(super) fn tree(text: &str) -> Option<Hir> {
    parse(text).ok()
}

// The error type is large, but every caller drops the error or converts it into a small error.
#[allow(clippy::result_large_err, reason = "it does not leave this file")]
fn parse(text: &str) -> Result<Hir, regex_syntax::Error> {
    // Unicode is off, because values are ASCII. `\w` is then only [0-9A-Za-z_].
    ParserBuilder::new().unicode(false).utf8(false).nest_limit(NESTING).build().parse(text)
}

/// Writes a short value that the tree matches.
fn write_example(tree: &Hir, into: &mut Vec<u8>) {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(hir::Literal(bytes)) => into.extend_from_slice(bytes),
        HirKind::Class(class) => {
            let mut members = ByteSet::default();
            add_class(class, &mut members);
            // An example with a letter is easier to read.
            into.extend(members.find(|byte| byte.is_ascii_lowercase()).or_else(|| members.find(|_| true)));
        }
        HirKind::Repetition(repetition) => {
            (0..repetition.min).for_each(|_| write_example(&repetition.sub, into));
        }
        HirKind::Capture(capture) => write_example(&capture.sub, into),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write_example(part, into)),
        HirKind::Alternation(parts) => parts.iter().take(1).for_each(|part| write_example(part, into)),
    }
}

/// Collects every byte that a match of the tree can contain.
fn collect_bytes(tree: &Hir, into: &mut ByteSet) {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(hir::Literal(bytes)) => bytes.iter().for_each(|byte| into.add(*byte)),
        HirKind::Class(class) => add_class(class, into),
        HirKind::Repetition(repetition) => collect_bytes(&repetition.sub, into),
        HirKind::Capture(capture) => collect_bytes(&capture.sub, into),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| collect_bytes(part, into));
        }
    }
}

/// Collects every byte with which a match of the tree can begin. Returns true if the tree can match the empty text.
fn collect_first(tree: &Hir, into: &mut ByteSet) -> bool {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => return true,
        HirKind::Literal(hir::Literal(bytes)) => bytes.iter().take(1).for_each(|byte| into.add(*byte)),
        HirKind::Class(class) => add_class(class, into),
        HirKind::Repetition(repetition) => return collect_first(&repetition.sub, into) || repetition.min == 0,
        HirKind::Capture(capture) => return collect_first(&capture.sub, into),
        HirKind::Concat(parts) => return parts.iter().all(|part| collect_first(part, into)),
        HirKind::Alternation(parts) => {
            let mut is_empty = false;
            for part in parts {
                is_empty |= collect_first(part, into);
            }
            return is_empty;
        }
    }
    false
}

fn add_class(class: &Class, into: &mut ByteSet) {
    match class {
        Class::Bytes(class) => class.iter().for_each(|range| into.add_range(range.start(), range.end())),
        Class::Unicode(class) => {
            let mut ascii = ByteSet::default();
            for range in class.iter() {
                let last = u8::try_from(range.end()).unwrap_or(u8::MAX);
                match u8::try_from(range.start()) {
                    Ok(first) => ascii.add_range(first, last),
                    Err(_) => ascii.add_range(0x80, u8::MAX),
                }
            }
            into.add_all(&ascii);
        }
    }
}
