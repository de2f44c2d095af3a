//! Compiles the `redact` patterns of a rule, and replaces their matches in lines of output.
//!
//! # Guarantees
//! **Every match of a pattern within a line is replaced**, whatever else is replaced in the line: each pattern is
//! matched with the original line, so no pattern hides a match of another one. Compiling refuses a pattern that could
//! not keep this: one that matches the empty text, needs a newline, or is too large to search for.
//!
//! Patterns match bytes, because output may contain any bytes: `.` and `\S` match any byte. `^` and `$` mean the ends
//! of the line. A match is the leftmost one, by the first alternative that matches (`foo|foobar` leaves `bar`). A
//! search takes linear time and bounded memory. If a line would need more, its whole rest is replaced.

use std::ops::Range;

use regex_automata::meta::{BuildError, Cache, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_automata::{Input, Span};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::unprintable;

/// Maximum number of patterns of a rule.
pub const MAXIMUM_PATTERNS: usize = 8;
/// Maximum length of a pattern, in bytes.
pub const MAXIMUM_PATTERN_BYTES: usize = 256;
/// Replacement of every redacted part, whatever its length.
pub const REDACTED: &[u8] = b"***";

/// Maximum size of a pattern as an automaton, in bytes: enough for over 100 repetitions of a class, and small enough
/// that the slowest search keeps up with the output of a machine.
const AUTOMATON_BYTES: usize = 16 << 10;
/// Maximum depth of nested groups: functions walk through a pattern by recursion.
const NESTING: u32 = 32;
/// Maximum size of the cache of a search, in bytes, for each direction. A search that needs more evicts entries.
const SEARCH_BYTES: usize = 128 << 10;
/// Maximum number of matches of one pattern in one line.
const MATCHES: usize = 256;
/// Maximum number of bytes that the searches in one line read, for all patterns together, without the first search of
/// each pattern. A search may read up to the end of the line for a match at the beginning, so the work for a hostile
/// line would grow with the square of its length. The bound is 4 times the longest line: other work of the process
/// waits, with the worst patterns and a hostile line for about 0.16 s.
const MAX_SEARCH_BYTES: usize = 256 << 10;

/// Compiled patterns of a rule. Without patterns, nothing is replaced.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    patterns: Vec<Regex>,
}

/// Problem of a list of patterns.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedactionError {
    /// Number of patterns over the bound.
    #[error("redact must have at most {MAXIMUM_PATTERNS} patterns; join some of them with `|`")]
    TooManyPatterns,
    /// One invalid pattern.
    #[error("redact[{position}] {problem}")]
    Pattern {
        /// Position of the pattern, counted from 0.
        position: usize,
        /// Problem of the pattern.
        problem: PatternError,
    },
}

/// Problem of a pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// Empty, or longer than the bound.
    #[error("must have 1 to {MAXIMUM_PATTERN_BYTES} characters")]
    Length,
    /// Byte that a reader may mistake or not see.
    #[error("must be printable ASCII, but has byte 0x{byte:02x} at {position}; write it as \\x{byte:02x}")]
    Unprintable {
        /// Position of the byte, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// No regular expression.
    #[error("is not a regular expression as Rust's regex crate takes it: {problem}")]
    Syntax {
        /// Problem of the syntax, with its position.
        problem: String,
    },
    /// Pattern for characters, although output is matched as bytes.
    #[error("asks for Unicode, but output is matched as bytes; remove (?u), \\p and the like")]
    Unicode,
    /// Match everywhere.
    #[error("admits the empty text, which is found everywhere; let it take at least one character (`+` for `*`)")]
    MatchesEmpty,
    /// A part that matches nowhere.
    #[error("has a part that can match no text; correct it")]
    MatchesNothing,
    /// Match nowhere, because lines are matched one by one.
    #[error("has a newline, but each line is matched by itself, without its newline; describe each line by itself")]
    SpansLines,
    /// Too large to search for.
    #[error("is too large as an automaton; repeat less (`{{16,}}` for `{{1000}}`), or split it into several patterns")]
    TooLarge,
}

impl Redaction {
    /// Compiles the `redact` patterns of a rule.
    ///
    /// # Errors
    /// The first invalid pattern.
    pub fn compile(patterns: &[String]) -> Result<Self, RedactionError> {
        if patterns.len() > MAXIMUM_PATTERNS {
            return Err(RedactionError::TooManyPatterns);
        }
        let compiled = patterns.iter().enumerate().map(|(position, pattern)| {
            compile_pattern(pattern).map_err(|problem| RedactionError::Pattern { position, problem })
        });
        Ok(Self { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// Returns true if there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns a redactor, which redacts one line after the other.
    pub fn line_redactor(&self) -> LineRedactor {
        let searches = self.patterns.iter().map(|pattern| (pattern.clone(), pattern.create_cache())).collect();
        LineRedactor { searches, found: Vec::new() }
    }
}

/// Replaces matches in lines. Its caches take at most about 300 KiB for each pattern, usually a few KiB.
#[derive(Clone, Debug)]
pub struct LineRedactor {
    searches: Vec<(Regex, Cache)>,
    /// Matches in the current line. A field, so that its memory is reused.
    found: Vec<Range<usize>>,
}

impl LineRedactor {
    /// Appends a line, without its newline, to `output`. [`REDACTED`] replaces each match, and each group of matches
    /// that overlap or touch.
    pub fn redact(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let ends = line.iter().rev().take_while(|byte| **byte == b'\r').count();
        // Terminals and Windows end a line with `\r\n`, so `$` matches before the `\r` too.
        let (content, end) = line.split_at(line.len() - ends);
        self.found.clear();
        let mut budget = MAX_SEARCH_BYTES;
        for (pattern, cache) in &mut self.searches {
            find(pattern, cache, content, &mut budget, &mut self.found);
        }
        self.found.sort_unstable_by_key(|range| range.start);
        let mut done = 0;
        for range in &self.found {
            // A range that touches the one before it is a part of the same replacement.
            if range.start > done || done == 0 {
                output.extend_from_slice(content.get(done..range.start).unwrap_or_default());
                output.extend_from_slice(REDACTED);
            }
            done = done.max(range.end);
        }
        output.extend_from_slice(content.get(done..).unwrap_or_default());
        output.extend_from_slice(end);
    }
}

/// Finds the matches of a pattern in a line, from left to right. At the bounds of the work, the whole rest of the line
/// counts as a match.
fn find(pattern: &Regex, cache: &mut Cache, line: &[u8], budget: &mut usize, found: &mut Vec<Range<usize>>) {
    let (mut at, mut matches) = (0, 0);
    while at < line.len() {
        let ahead = line.len() - at;
        // The first search always runs: only a search can show that nothing matches.
        if matches == MATCHES || (matches > 0 && ahead > *budget) {
            found.push(at..line.len());
            return;
        }
        if matches > 0 {
            *budget -= ahead;
        }
        // The input is the whole line, for `^` and `\b`.
        let input = Input::new(line).span(Span { start: at, end: line.len() });
        let Some(hit) = pattern.search_with(cache, &input) else { return };
        found.push(hit.range());
        matches += 1;
        at = hit.end();
    }
}

fn compile_pattern(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.is_empty() || pattern.len() > MAXIMUM_PATTERN_BYTES {
        return Err(PatternError::Length);
    }
    if let Some((position, byte)) = unprintable(pattern) {
        return Err(PatternError::Unprintable { position, byte });
    }
    let bytes = syntax::Config::new().unicode(false).utf8(false).nest_limit(NESTING);
    let parsed = syntax::parse_with(pattern, &bytes).map_err(|error| problem_of(&error))?;
    let properties = parsed.properties();
    match properties.minimum_len() {
        None => return Err(PatternError::MatchesNothing),
        Some(0) => return Err(PatternError::MatchesEmpty),
        Some(_) => {}
    }
    if properties.look_set().contains_word_unicode() {
        return Err(PatternError::Unicode);
    }
    part_problem(&parsed).map_or(Ok(()), Err)?;
    let config = Config::new()
        .utf8_empty(false)
        .which_captures(WhichCaptures::Implicit)
        .nfa_size_limit(Some(AUTOMATON_BYTES))
        .hybrid(true)
        .hybrid_cache_capacity(SEARCH_BYTES)
        .dfa(false)
        .onepass(false)
        .backtrack(false);
    let regex = Regex::builder().configure(config).build_from_hir(&parsed);
    regex.map_err(|error: BuildError| match error.size_limit() {
        Some(_) => PatternError::TooLarge,
        None => PatternError::Syntax { problem: error.to_string() },
    })
}

/// Returns the problem of a part of a pattern, at any depth.
fn part_problem(part: &Hir) -> Option<PatternError> {
    match part.kind() {
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Some(PatternError::SpansLines),
        HirKind::Class(Class::Unicode(_)) => Some(PatternError::Unicode),
        kind => kind.subs().iter().find_map(part_problem),
    }
}

/// Returns a problem whose message is one line. The message of the library draws the pattern with an arrow below it.
fn problem_of(error: &regex_syntax::Error) -> PatternError {
    let problem = match error {
        regex_syntax::Error::Parse(error) => format!("{} at {}", error.kind(), error.span().start.offset),
        // A pattern that parses and still cannot be translated needs Unicode characters.
        regex_syntax::Error::Translate(_) => return PatternError::Unicode,
        other => other.to_string(),
    };
    PatternError::Syntax { problem }
}

#[cfg(test)]
mod tests;
