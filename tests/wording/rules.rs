//! The rules, each on one block of prose.

use super::phrases::REFUSED;
use super::text::Block;

/// Maximum length of a line, in characters. rustfmt uses the same for code, and does not check comments.
const MAX_LINE: usize = 120;

/// First words that a doc comment must not have.
const REFUSED_STARTS: [&str; 5] = ["What", "Whether", "Where", "Who", "How"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Length,
    Phrase,
    Start,
}

/// A violation of a rule.
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub kind: Kind,
    /// The refused phrase of a finding of this kind.
    pub phrase: Option<&'static str>,
    message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Returns the violations in one block.
pub fn check(path: &str, block: &Block) -> Vec<Finding> {
    let finding = |line: usize, kind: Kind, phrase: Option<&'static str>, message: String| Finding {
        path: path.to_owned(),
        line,
        kind,
        phrase,
        message,
    };
    let mut findings = Vec::new();
    for (line, text, length) in &block.lines {
        let Some(length) = length.filter(|length| *length > MAX_LINE) else { continue };
        if !text.contains("://") {
            let message = format!("{length} characters; at most {MAX_LINE} in comments and Markdown");
            findings.push(finding(*line, Kind::Length, None, message));
        }
    }
    if block.is_doc
        && let Some((line, text, _)) = block.lines.first()
        && let Some(start) = first_word(text).filter(|word| REFUSED_STARTS.contains(word))
    {
        let message = format!("the doc comment starts with {start}; start with a noun, or with \"Returns ...\"");
        findings.push(finding(*line, Kind::Start, None, message));
    }
    if !block.is_quoted {
        for (line, phrase, replacement) in refused(block) {
            let message = format!("\"{phrase}\"; write: {replacement}");
            findings.push(finding(line, Kind::Phrase, Some(phrase), message));
        }
    }
    findings
}

fn first_word(text: &str) -> Option<&str> {
    text.trim_start().split(|character: char| !character.is_alphanumeric()).next()
}

/// Returns the refused phrases of a block: line, phrase, replacement.
fn refused(block: &Block) -> Vec<(usize, &'static str, &'static str)> {
    let words = words(block);
    let mut found = Vec::new();
    for (phrase, replacement) in REFUSED {
        let parts: Vec<&str> = phrase.split(' ').collect();
        for window in words.windows(parts.len()) {
            let is_same = window.iter().zip(&parts).all(|((_, word, _), part)| word == part);
            let is_one_sentence = window.iter().skip(1).all(|(_, _, is_after_break)| !is_after_break);
            if is_same
                && is_one_sentence
                && let Some((line, _, _)) = window.first()
            {
                found.push((*line, *phrase, *replacement));
            }
        }
    }
    found
}

/// Returns the words of a block in lower case, with their line, and true if punctuation is before the word. A hyphen
/// joins two words into one, so that `go on` does not match in `let-go on`.
fn words(block: &Block) -> Vec<(usize, String, bool)> {
    let mut words = Vec::new();
    for (line, text, _) in &block.lines {
        let mut is_after_break = false;
        let mut word = String::new();
        for character in text.chars().chain([' ']) {
            if character.is_alphanumeric() || ['_', '-', '\''].contains(&character) {
                word.extend(character.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                words.push((*line, std::mem::take(&mut word), is_after_break));
                is_after_break = false;
            }
            is_after_break |= !character.is_whitespace() && character != '*';
        }
    }
    words
}
