//! Blocks of prose from Rust: comments, and the string literals of `src`, which are messages and help.

use super::text::{Block, without_code};

/// A part of the source: its first line, its kind, its text.
struct Token {
    line: usize,
    kind: Kind,
    text: String,
    /// True if nothing precedes it on its line.
    is_whole_line: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Comment,
    Doc,
    String,
}

/// Returns the comments of a source file, and its string literals if `with_strings`.
pub fn blocks(source: &str, with_strings: bool) -> Vec<Block> {
    let lengths: Vec<usize> = source.lines().map(|line| line.chars().count()).collect();
    let mut blocks: Vec<Block> = Vec::new();
    let mut last: Option<(usize, Kind)> = None;
    let mut is_code = false;
    for token in tokens(source) {
        if token.kind == Kind::String {
            if with_strings {
                let line = (token.line, without_code(&token.text), None);
                blocks.push(Block { lines: vec![line], ..Block::default() });
            }
            last = None;
            continue;
        }
        let text = token.text.trim();
        let is_continued = token.is_whole_line && last == Some((token.line - 1, token.kind));
        is_code = is_continued && is_code;
        let is_fence = text.starts_with("```");
        is_code ^= is_fence;
        let is_apart = !is_continued || text.is_empty() || text.starts_with("- ") || text.starts_with('|');
        if is_apart || blocks.is_empty() {
            blocks.push(Block { is_doc: token.kind == Kind::Doc && !is_continued, ..Block::default() });
        }
        let has_limit = !text.starts_with('|') && !is_code && !is_fence;
        let length = lengths.get(token.line - 1).copied().filter(|_| has_limit);
        let text = if is_code || is_fence { String::new() } else { without_code(text) };
        if let Some(block) = blocks.last_mut() {
            block.lines.push((token.line, text, length));
        }
        last = token.is_whole_line.then_some((token.line, token.kind));
    }
    blocks.retain(|block| !block.lines.is_empty());
    blocks
}

/// The source, and the position in it.
struct Scanner<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    /// True until the line has something besides blanks.
    is_line_start: bool,
}

/// Returns the comments and string literals of a source file in their order.
fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { source, at: 0, line: 1, is_line_start: true };
    let mut tokens = Vec::new();
    while let Some(next) = scanner.rest().chars().next() {
        let (line, is_whole_line) = (scanner.line, scanner.is_line_start);
        let rest = scanner.rest();
        if rest.starts_with("//") {
            let comment = rest.split('\n').next().unwrap_or(rest);
            let is_doc = (comment.starts_with("///") && !comment.starts_with("////")) || comment.starts_with("//!");
            let kind = if is_doc { Kind::Doc } else { Kind::Comment };
            let text = comment.trim_start_matches(['/', '!']).to_owned();
            scanner.skip(comment.len());
            tokens.push(Token { line, kind, text, is_whole_line });
        } else if let Some((opening, closing)) = raw_string(rest).filter(|_| !scanner.is_in_word()) {
            let body = &rest[opening..];
            let length = body.find(&closing).unwrap_or(body.len());
            tokens.push(Token { line, kind: Kind::String, text: body[..length].to_owned(), is_whole_line });
            scanner.skip(opening + length + closing.len());
        } else if next == '"' {
            let (text, length) = string(rest);
            scanner.skip(length);
            tokens.push(Token { line, kind: Kind::String, text, is_whole_line });
        } else {
            scanner.skip(char_literal(rest).unwrap_or(next.len_utf8()));
        }
    }
    tokens
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Returns true if the character before is a part of a word, so that an `r` here starts no raw string.
    fn is_in_word(&self) -> bool {
        self.source[..self.at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_')
    }

    fn skip(&mut self, length: usize) {
        let end = (self.at + length).min(self.source.len());
        for skipped in self.source[self.at..end].chars() {
            self.line += usize::from(skipped == '\n');
            self.is_line_start = skipped == '\n' || (self.is_line_start && skipped.is_whitespace());
        }
        self.at = end;
    }
}

/// Returns the length of the opening of a raw string, and its closing.
fn raw_string(rest: &str) -> Option<(usize, String)> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..]
        .starts_with('"')
        .then(|| (rest.len() - after.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// Returns the text of a string literal, its escapes as blanks, and its length with the quotes.
fn string(rest: &str) -> (String, usize) {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, at + 1),
            '\\' => {
                characters.next();
                text.push(' ');
            }
            other => text.push(other),
        }
    }
    (text, rest.len())
}

/// Returns the length of a character literal; `None` for a lifetime and everything else.
fn char_literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    if first == '\\' {
        let escape = body.get(2..)?;
        return escape.find('\'').map(|end| end + 4);
    }
    body[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}
