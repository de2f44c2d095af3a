//! Searches a stream for lines that match a pattern, in bounded time and memory. Pure: the caller decides when the time
//! is over.

use std::collections::VecDeque;

use regex_automata::meta::{Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::stream::unfinished_length;

/// Maximum length of a pattern, in bytes, as in rules.
const MAX_PATTERN: usize = 1024;
/// Maximum size of the automaton of a pattern, in bytes. A class such as `\w` takes about 30 KiB.
const AUTOMATON_BYTES: usize = 256 << 10;
/// Maximum size of the cache of a search, in bytes.
const SEARCH_BYTES: usize = 512 << 10;
/// Maximum depth of groups in a pattern, as in rules.
const NESTING: u32 = 32;
/// Maximum length of a line for the search, in bytes. A longer line is searched in parts of this length. The largest
/// automaton needs about 1 s for a line of this length.
const MAX_LINE: usize = 16 << 10;
/// Maximum length of a line in the answer, in bytes.
const MAX_SHOWN: usize = 4 << 10;
/// Maximum size of all lines of an answer, in bytes.
const MAX_ANSWER: usize = 512 << 10;
/// Maximum number of matches in an answer.
pub const MAX_MATCHES: usize = 1000;
/// Maximum number of lines before and after a match. All of them together take at most 200 KiB for one match.
pub const MAX_CONTEXT: usize = 50;

/// A line that matches.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
pub struct Match {
    /// Offset of the first byte of the line in the stream.
    pub offset: u64,
    /// Offset of the first byte that matches the pattern. `line` does not contain this byte if the line is long.
    pub match_offset: u64,
    /// The line without its line break, at most its first 4096 bytes. U+FFFD replaces bytes that are not UTF-8.
    pub line: String,
    /// Lines before it, in the same form.
    pub before: Vec<String>,
    /// Lines after it, in the same form.
    pub after: Vec<String>,
}

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Number of lines to show before each match.
    pub before: usize,
    /// Number of lines to show after each match.
    pub after: usize,
    /// Maximum number of matches.
    pub limit: usize,
}

/// A search in progress.
pub struct Search {
    regex: Regex,
    bounds: Bounds,
    /// Begin of the current line, shorter than [`MAX_LINE`].
    line: Vec<u8>,
    /// Offset of the current line.
    line_offset: u64,
    /// Lines before the current line.
    before: VecDeque<String>,
    matches: Vec<Match>,
    /// Number of matches at the front of `matches` that have all their lines.
    complete: usize,
    /// Size of all lines of the answer.
    used: usize,
    searched: u64,
    is_full: bool,
    /// True if the caller stopped the search within the current line.
    is_stopped: bool,
}

/// Compiles a pattern.
///
/// # Errors
/// 422 if the pattern is too long, too large or not valid.
pub fn compile(pattern: &str) -> Result<Regex, ApiError> {
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(ApiError::malformed(format!("grep must be a pattern of 1 to {MAX_PATTERN} bytes")));
    }
    let config = Config::new()
        .utf8_empty(false)
        .which_captures(WhichCaptures::Implicit)
        .nfa_size_limit(Some(AUTOMATON_BYTES))
        .hybrid(true)
        .hybrid_cache_capacity(SEARCH_BYTES)
        .dfa(false)
        .onepass(false)
        .backtrack(false);
    let syntax = syntax::Config::new().utf8(false).nest_limit(NESTING);
    Regex::builder().configure(config).syntax(syntax).build(pattern).map_err(|error| match error.size_limit() {
        Some(_) => ApiError::malformed("grep is too large: use fewer or smaller repetitions"),
        None => {
            let problem = match error.syntax_error() {
                Some(regex_syntax::Error::Parse(error)) => error.kind().to_string(),
                Some(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
                _ => "it cannot be read".to_owned(),
            };
            ApiError::malformed(format!("grep is not a valid pattern: {problem}"))
        }
    })
}

impl Search {
    /// Starts a search at an offset of the stream.
    pub fn new(regex: Regex, bounds: Bounds, offset: u64) -> Self {
        Self {
            regex,
            bounds,
            line: Vec::new(),
            line_offset: offset,
            before: VecDeque::new(),
            matches: Vec::new(),
            complete: 0,
            used: 0,
            searched: 0,
            is_full: false,
            is_stopped: false,
        }
    }

    /// Searches the next bytes, until the answer is full or `is_late` returns true. Calls `is_late` for each line.
    pub fn push(&mut self, mut bytes: &[u8], is_late: impl Fn() -> bool) {
        while !bytes.is_empty() && !self.is_full {
            if is_late() {
                self.is_stopped = true;
                return;
            }
            let window = bytes.get(..MAX_LINE - self.line.len()).unwrap_or(bytes);
            let length = window.iter().position(|byte| *byte == b'\n').map_or(window.len(), |index| index + 1);
            let (part, rest) = bytes.split_at(length);
            self.line.extend_from_slice(part);
            self.searched += length as u64;
            if part.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.end_line();
            }
            bytes = rest;
        }
    }

    /// Continues behind bytes that are missing. The lines on both sides of them are incomplete.
    pub fn skip_to(&mut self, offset: u64) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.before.clear();
        self.complete = self.matches.len();
        self.line_offset = offset;
    }

    /// Returns true if the search found as much as an answer may contain.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Ends the search. Returns the matches, and the number of searched bytes.
    pub fn finish(mut self) -> (Vec<Match>, u64) {
        if !self.line.is_empty() && !self.is_full && !self.is_stopped {
            self.end_line();
        }
        (self.matches, self.searched)
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        for found in self.matches.iter_mut().skip(self.complete) {
            let shown = shown(text);
            self.used += shown.len();
            found.after.push(shown);
        }
        while self.matches.get(self.complete).is_some_and(|found| found.after.len() >= self.bounds.after) {
            self.complete += 1;
        }
        if self.matches.len() < self.bounds.limit
            && let Some(hit) = self.regex.find(text)
        {
            self.add_match(self.line_offset + hit.start() as u64, text);
        }
        self.is_full =
            self.used >= MAX_ANSWER || (self.matches.len() >= self.bounds.limit && self.complete == self.matches.len());
        if self.bounds.before > 0 {
            if self.before.len() >= self.bounds.before {
                self.before.pop_front();
            }
            self.before.push_back(shown(text));
        }
        self.line_offset += line.len() as u64;
        // The next line uses the same allocation.
        self.line = line;
        self.line.clear();
    }

    fn add_match(&mut self, match_offset: u64, text: &[u8]) {
        let (line, before) = (shown(text), self.before.iter().cloned().collect::<Vec<_>>());
        self.used += line.len() + before.iter().map(String::len).sum::<usize>();
        self.matches.push(Match { offset: self.line_offset, match_offset, line, before, after: Vec::new() });
        if self.bounds.after == 0 {
            self.complete = self.matches.len();
        }
    }
}

/// Returns a line for the answer.
fn shown(line: &[u8]) -> String {
    let cut = line.get(..MAX_SHOWN).unwrap_or(line);
    // An unfinished character at the end of the cut is left out.
    let unfinished = if cut.len() < line.len() { unfinished_length(cut) } else { 0 };
    String::from_utf8_lossy(cut.get(..cut.len() - unfinished).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
