//! Compiles the `redact` patterns of a rule, and replaces their matches in lines of output.
//!
//! # Guarantees
//! **Every match of a pattern within a line is replaced.** Each pattern is matched with the original line, so no
//! pattern hides a match of another pattern. Compiling refuses patterns that would break this guarantee:
//!
//! - Patterns that match the empty text.
//! - Patterns that need a newline.
//! - Patterns that are too large to search for.
//!
//! # Matching
//! - Patterns match bytes. `.` and `\S` also match bytes that are not ASCII. `^` and `$` match the ends of the line.
//! - A pattern matches at the leftmost position, with the first alternative that matches there. For example,
//!   `foo|foobar` leaves `bar` of `foobar`.
//! - A search takes linear time and bounded memory. If a line needs more searches than the maximum, the whole rest of
//!   the line is replaced.

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
/// Replacement of every redacted part. Its length does not depend on the part.
pub const REDACTED: &[u8] = b"***";

/// Maximum size of the automaton of a pattern, in bytes. This size is enough for over 100 repetitions of a class. At
/// this size, even the slowest search is as fast as a machine sends output.
const AUTOMATON_BYTES: usize = 16 << 10;
/// Maximum depth of nested groups. Functions traverse a pattern recursively, so this depth limits the recursion.
const NESTING: u32 = 32;
/// Maximum size of the cache of a search, in bytes, for each search direction. A search that needs more cache evicts
/// entries.
const SEARCH_BYTES: usize = 128 << 10;
/// Maximum number of matches of one pattern in one line.
const MATCHES: usize = 256;
/// Maximum number of bytes that the searches in one line read, for all patterns together: 4 times the longest line. The
/// first search of each pattern does not count.
///
/// Without this maximum, the work for a hostile line would grow with the square of its length, because each search can
/// read to the end of the line. With the worst patterns, a hostile line delays other work of the process by about
/// 0.16 s.
const MAX_SEARCH_BYTES: usize = 256 << 10;

/// Compiled patterns of a rule. Without patterns, nothing is replaced.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    patterns: Vec<Regex>,
}

/// Problem of a list of patterns.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedactionError {
    /// There are more patterns than the maximum.
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
    /// The pattern is empty or too long.
    #[error("must have 1 to {MAXIMUM_PATTERN_BYTES} characters")]
    Length,
    /// The pattern contains a byte that is not printable ASCII, so a reader could misread the pattern.
    #[error("must be printable ASCII, but has byte 0x{byte:02x} at {position}; write it as \\x{byte:02x}")]
    Unprintable {
        /// Position of the byte, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// The pattern is not a regular expression.
    #[error("is not a regular expression as Rust's regex crate takes it: {problem}")]
    Syntax {
        /// Problem of the syntax, with its position.
        problem: String,
    },
    /// The pattern requests Unicode characters, but output is matched as bytes.
    #[error("asks for Unicode, but output is matched as bytes; remove (?u), \\p and the like")]
    Unicode,
    /// The pattern matches the empty text, which occurs at every position.
    #[error("admits the empty text, which is found everywhere; let it take at least one character (`+` for `*`)")]
    MatchesEmpty,
    /// The pattern has a part that cannot match any text.
    #[error("has a part that can match no text; correct it")]
    MatchesNothing,
    /// The pattern contains a newline, but lines are matched without their newlines. The pattern would match nowhere.
    #[error("has a newline, but each line is matched by itself, without its newline; describe each line by itself")]
    SpansLines,
    /// The automaton of the pattern is too large to search with.
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

    /// Returns true if there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns a redactor that redacts one line after another.
    pub fn line_redactor(&self) -> LineRedactor {
        let searches = self.patterns.iter().map(|pattern| (pattern.clone(), pattern.create_cache())).collect();
        LineRedactor { searches, found: Vec::new() }
    }
}

/// Redactor of lines. Its caches use at most about 300 KiB for each pattern, but usually a few KiB.
#[derive(Clone, Debug)]
pub struct LineRedactor {
    searches: Vec<(Regex, Cache)>,
    /// Matches in the current line. They are in a field, so that the next line reuses their memory.
    found: Vec<Range<usize>>,
}

impl LineRedactor {
    /// Appends a line, without its newline, to `output`. [`REDACTED`] replaces each match. If matches overlap or touch,
    /// one [`REDACTED`] replaces all of them.
    pub fn redact(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let ends = line.iter().rev().take_while(|byte| **byte == b'\r').count();
        // Terminals and Windows end a line with `\r\n`. `$` must therefore match before the `\r`.
        let (content, end) = line.split_at(line.len() - ends);
        self.found.clear();
        let mut budget = MAX_SEARCH_BYTES;
        for (pattern, cache) in &mut self.searches {
            find(pattern, cache, content, &mut budget, &mut self.found);
        }
        self.found.sort_unstable_by_key(|range| range.start);
        let mut done = 0;
        for range in &self.found {
            // A match that touches or overlaps the previous match gets no second replacement.
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

/// Finds the matches of a pattern in a line, from left to right. If the maximum number of matches or of read bytes is
/// reached, the whole rest of the line counts as a match.
fn find(pattern: &Regex, cache: &mut Cache, line: &[u8], budget: &mut usize, found: &mut Vec<Range<usize>>) {
    let (mut at, mut matches) = (0, 0);
    while at < line.len() {
        let ahead = line.len() - at;
        // The first search is always done, because only a search can show that a line has no match.
        if matches == MATCHES || (matches > 0 && ahead > *budget) {
            found.push(at..line.len());
            return;
        }
        if matches > 0 {
            *budget -= ahead;
        }
        // The input is the whole line, because `^` and `\b` need the text before the span.
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

/// Returns the problem of the first invalid part of a pattern, at any depth.
fn part_problem(part: &Hir) -> Option<PatternError> {
    match part.kind() {
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Some(PatternError::SpansLines),
        HirKind::Class(Class::Unicode(_)) => Some(PatternError::Unicode),
        kind => kind.subs().iter().find_map(part_problem),
    }
}

/// Returns the problem of a pattern, with a message of one line. The message of the library has several lines: the
/// pattern with an arrow below it.
fn problem_of(error: &regex_syntax::Error) -> PatternError {
    let problem = match error {
        regex_syntax::Error::Parse(error) => format!("{} at {}", error.kind(), error.span().start.offset),
        // If a pattern can be parsed but not translated, it needs Unicode characters.
        regex_syntax::Error::Translate(_) => return PatternError::Unicode,
        other => other.to_string(),
    };
    PatternError::Syntax { problem }
}

#[cfg(test)]
mod tests;
