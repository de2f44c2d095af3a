//! What must not be stored of a command's output: the `redact` patterns of a rule, compiled, and held against a line.
//!
//! The promise kept here: **whatever a pattern matches within a line is replaced**, whatever else is replaced beside it:
//! all patterns are held against the line as it was written, so that none hides a match of another. A pattern that
//! could not keep it (it admits the empty text, it needs a newline, it is too large to be searched for) is refused
//! before it can be relied on.
//!
//! Patterns take bytes, not characters, as a line of output may be anything: `.` and `\S` take any byte. `^` and `$`
//! mean the line's ends. A match is the leftmost one, by the first alternative that fits (`foo|foobar` leaves `bar`).
//! Searching takes linear time and bounded memory; a line that would need more is replaced from
//! there on.

use std::ops::Range;

use regex_automata::meta::{BuildError, Cache, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_automata::{Input, Span};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::unprintable;

/// The most patterns of a rule.
pub const MAXIMUM_PATTERNS: usize = 8;
/// The longest pattern, in bytes.
pub const MAXIMUM_PATTERN_BYTES: usize = 256;
/// What stands for whatever was taken out, however long it was.
pub const REDACTED: &[u8] = b"***";

/// How large a pattern may become as an automaton: enough for a hundred and more repetitions of a class, and small enough
/// for the slowest search to keep up with a machine.
const AUTOMATON_BYTES: usize = 16 << 10;
/// How deep groups may be nested in each other; what walks through a pattern does it by recursion.
const NESTING: u32 = 32;
/// What a search may remember of a pattern, for each direction of it, to be quick. It forgets rather than takes more.
const SEARCH_BYTES: usize = 128 << 10;
/// The most matches of one pattern in one line.
const MATCHES: usize = 256;
/// The most bytes of one line that searches beyond the first of each pattern may have before them, all patterns taken
/// together. Each may have to go to the end of the line for a match at its beginning, so a hostile line could take the
/// square of its length. This is 4 times the longest line: about a sixth of a second for the worst patterns and a line that
/// was made for them, as other work of the process waits for it.
const SEARCHED_BYTES: usize = 256 << 10;

/// The patterns of a rule. Without any, nothing is taken out.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    patterns: Vec<Regex>,
}

/// Why a list of patterns cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedactionError {
    /// More than the bound.
    #[error("redact must have at most {MAXIMUM_PATTERNS} patterns; join some of them with `|`")]
    TooManyPatterns,
    /// One of them cannot be used.
    #[error("redact[{position}] {problem}")]
    Pattern {
        /// Which, counted from 0.
        position: usize,
        /// Why.
        problem: PatternProblem,
    },
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternProblem {
    /// Nothing, or more than the bound.
    #[error("must have 1 to {MAXIMUM_PATTERN_BYTES} characters")]
    Length,
    /// A byte that may look like another one, or like nothing.
    #[error("must be printable ASCII, but has byte 0x{byte:02x} at {position}; write it as \\x{byte:02x}")]
    Unprintable {
        /// Where, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// It is no regular expression.
    #[error("is not a regular expression as Rust's regex crate takes it: {problem}")]
    Syntax {
        /// What is wrong, and where.
        problem: String,
    },
    /// It asks for characters, where output is bytes.
    #[error("asks for Unicode, but output is matched as bytes; remove (?u), \\p and the like")]
    Unicode,
    /// It is found everywhere.
    #[error("admits the empty text, which is found everywhere; let it take at least one character (`+` for `*`)")]
    AdmitsNothing,
    /// It, or a part of it, is found nowhere.
    #[error("has a part that can match no text; correct it")]
    MatchesNothing,
    /// It is found nowhere, as lines are matched one by one.
    #[error("has a newline, but is held against one line at a time, without its newline; describe each line alone")]
    SpansLines,
    /// It is too large to be searched for.
    #[error("is too large as an automaton; repeat less (`{{16,}}` for `{{1000}}`), or split it into several patterns")]
    TooLarge,
}

impl Redaction {
    /// Compiles the `redact` patterns of a rule.
    ///
    /// # Errors
    /// One of them cannot be used; the first of them is told.
    pub fn compile(patterns: &[String]) -> Result<Self, RedactionError> {
        if patterns.len() > MAXIMUM_PATTERNS {
            return Err(RedactionError::TooManyPatterns);
        }
        let compiled = patterns.iter().enumerate().map(|(position, pattern)| {
            compile_pattern(pattern).map_err(|problem| RedactionError::Pattern { position, problem })
        });
        Ok(Self { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What takes out of lines, one after the other, what the patterns match.
    pub fn line_redactor(&self) -> LineRedactor {
        let searches = self.patterns.iter().map(|pattern| (pattern.clone(), pattern.create_cache())).collect();
        LineRedactor { searches, found: Vec::new() }
    }
}

/// Takes out of lines what the patterns match. Holds what a search remembers: at most about 300 KiB for each pattern,
/// a few KiB as a rule.
#[derive(Clone, Debug)]
pub struct LineRedactor {
    searches: Vec<(Regex, Cache)>,
    /// What was found in the line at hand; kept for its room.
    found: Vec<Range<usize>>,
}

impl LineRedactor {
    /// Appends a line, which is without its newline, to `output`; each part that is matched, or that several matches
    /// make together by overlapping or touching, is [`REDACTED`] there.
    pub fn redact(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let ends = line.iter().rev().take_while(|byte| **byte == b'\r').count();
        // Terminals and Windows end a line with `\r\n`: that is its end too, for `$` as for the eye.
        let (content, end) = line.split_at(line.len() - ends);
        self.found.clear();
        let mut budget = SEARCHED_BYTES;
        for (pattern, cache) in &mut self.searches {
            find(pattern, cache, content, &mut budget, &mut self.found);
        }
        self.found.sort_unstable_by_key(|range| range.start);
        let mut done = 0;
        for range in &self.found {
            // Up to here is replaced already, and `***` stands for what touches it too.
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

/// Finds what a pattern matches in a line, from left to right. Where the bounds of the work are reached, all the rest of
/// the line counts as found.
fn find(pattern: &Regex, cache: &mut Cache, line: &[u8], budget: &mut usize, found: &mut Vec<Range<usize>>) {
    let (mut at, mut matches) = (0, 0);
    while at < line.len() {
        let ahead = line.len() - at;
        // The first search is always made: only then is it known that nothing matches.
        if matches == MATCHES || (matches > 0 && ahead > *budget) {
            found.push(at..line.len());
            return;
        }
        if matches > 0 {
            *budget -= ahead;
        }
        // The whole line stays in sight, for `^` and `\b`.
        let input = Input::new(line).span(Span { start: at, end: line.len() });
        let Some(hit) = pattern.search_with(cache, &input) else { return };
        found.push(hit.range());
        matches += 1;
        at = hit.end();
    }
}

fn compile_pattern(pattern: &str) -> Result<Regex, PatternProblem> {
    if pattern.is_empty() || pattern.len() > MAXIMUM_PATTERN_BYTES {
        return Err(PatternProblem::Length);
    }
    if let Some((position, byte)) = unprintable(pattern) {
        return Err(PatternProblem::Unprintable { position, byte });
    }
    let bytes = syntax::Config::new().unicode(false).utf8(false).nest_limit(NESTING);
    let parsed = syntax::parse_with(pattern, &bytes).map_err(|error| problem_of(&error))?;
    let properties = parsed.properties();
    match properties.minimum_len() {
        None => return Err(PatternProblem::MatchesNothing),
        Some(0) => return Err(PatternProblem::AdmitsNothing),
        Some(_) => {}
    }
    if properties.look_set().contains_word_unicode() {
        return Err(PatternProblem::Unicode);
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
        Some(_) => PatternProblem::TooLarge,
        None => PatternProblem::Syntax { problem: error.to_string() },
    })
}

/// A problem of a part of a pattern, at any depth.
fn part_problem(part: &Hir) -> Option<PatternProblem> {
    match part.kind() {
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Some(PatternProblem::SpansLines),
        HirKind::Class(Class::Unicode(_)) => Some(PatternProblem::Unicode),
        kind => kind.subs().iter().find_map(part_problem),
    }
}

/// In one line; the library's own words draw the pattern with an arrow below it.
fn problem_of(error: &regex_syntax::Error) -> PatternProblem {
    let problem = match error {
        regex_syntax::Error::Parse(error) => format!("{} at {}", error.kind(), error.span().start.offset),
        // Everything that is right by itself and still not taken has to do with characters.
        regex_syntax::Error::Translate(_) => return PatternProblem::Unicode,
        other => other.to_string(),
    };
    PatternProblem::Syntax { problem }
}

#[cfg(test)]
mod tests;
