//! Splits a file into documents as kubectl does: consecutive JSON values, or YAML documents between lines of `---`.

use serde_json::Value;

use super::composer;
use super::node::{Fault, Node};

/// Returns the documents of a text in their order, each as a value or an error.
pub(super) fn documents(text: &str) -> Vec<Result<Node, Fault>> {
    if text.trim_start().starts_with('{') {
        return json_documents(text);
    }
    let mut found = Vec::new();
    for part in parts(text) {
        let read = part.and_then(|(text, line)| {
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            check_characters(text, line)?;
            let composed = composer::compose(text, line)?;
            check_tabs(text, line, &composed.blocks)?;
            Ok(composed.root)
        });
        match read {
            Ok(Some(node)) if node.is_null() => {}
            Ok(Some(node)) => found.push(Ok(node)),
            Ok(None) => {}
            Err(fault) => found.push(Err(fault)),
        }
    }
    found
}

fn lines_in(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Reads consecutive JSON values.
fn json_documents(text: &str) -> Vec<Result<Node, Fault>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let (mut found, mut consumed) = (Vec::new(), 0);
    loop {
        let value = values.next();
        let before = text.get(consumed..).unwrap_or_default();
        let line = 1 + lines_in(text.get(..consumed).unwrap_or_default());
        let first = line + lines_in(before.get(..before.len() - before.trim_start().len()).unwrap_or_default());
        match value {
            None => return found,
            Some(Err(error)) => {
                // `error.line()` counts from the start of the text.
                let message = format!(
                    "not JSON, but kubectl reads a file that starts with {{ as JSON: {error}; if it is YAML, start it with a line ---"
                );
                found.push(Err(Fault { line: error.line().max(1), message }));
                return found;
            }
            Some(Ok(value)) => {
                let end = values.byte_offset();
                let written = text.get(consumed..end).unwrap_or_default();
                // JSON is also YAML, so the YAML reader can give the line of each part. If its result differs from the
                // JSON reader's result, all parts get the line of the JSON value.
                let composed = composer::compose(written, line).ok().and_then(|composed| composed.root);
                let plain = Node::on_one_line(value, first);
                found.push(Ok(composed.filter(|node| node.value() == plain.value()).unwrap_or(plain)));
                consumed = end;
            }
        }
    }
}

/// Returns the texts between lines of `---`, each with its first line number. After `---`, a line may contain only a
/// comment.
fn parts(text: &str) -> Vec<Result<(String, usize), Fault>> {
    let mut parts = Vec::new();
    let (mut part, mut begin) = (String::new(), 1);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // Every line gets a line break below. kubectl also adds a line break to the last line, if it has none.
        let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        let number = 1 + index;
        let Some(behind) = line.strip_prefix("---") else {
            part.push_str(line);
            part.push('\n');
            continue;
        };
        parts.push(Ok((std::mem::take(&mut part), begin)));
        begin = number + 1;
        let behind = behind.trim();
        if !behind.is_empty() && !behind.starts_with('#') {
            let message = "only a comment may follow ---: kubectl refuses the file".to_owned();
            parts.push(Err(Fault { line: number, message }));
        }
    }
    parts.push(Ok((part, begin)));
    parts
}

/// Refuses tabs in the indentation, as kubectl's parser does. In a block scalar, the first line with content determines
/// the indentation, and tabs after this indentation are text. `blocks` contains the first and last line of each block
/// scalar.
fn check_tabs(text: &str, first_line: usize, blocks: &[(usize, usize)]) -> Result<(), Fault> {
    // Indentation of the current block scalar. `None` until its first line with content was read.
    let mut indentation = None;
    for (index, line) in text.lines().enumerate() {
        let number = first_line + index;
        let spaces = line.len() - line.trim_start_matches(' ').len();
        let is_tab = if blocks.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
            if blocks.iter().any(|(first, _)| *first == number) {
                indentation = None;
            }
            let begins_with_tab = line.get(spaces..).is_some_and(|rest| rest.starts_with('\t'));
            let is_within = indentation.is_none_or(|indentation| spaces < indentation);
            if indentation.is_none() && spaces < line.len() {
                indentation = Some(spaces);
            }
            begins_with_tab && is_within
        } else {
            is_indented_by_a_tab(line)
        };
        if is_tab {
            let message = "neither YAML nor JSON: a tab in the indentation; use spaces".to_owned();
            return Err(Fault { line: number, message });
        }
    }
    Ok(())
}

/// Returns true if a line has a tab in front of its first word, for example after the `-` of a list.
fn is_indented_by_a_tab(line: &str) -> bool {
    let mut rest = line.trim_start_matches(' ');
    while let Some(behind) = rest.strip_prefix(['-', '?', ':']).filter(|behind| behind.starts_with([' ', '\t'])) {
        rest = behind.trim_start_matches(' ');
    }
    rest.starts_with('\t')
}

/// Refuses control characters, as libyaml does. Also refuses line breaks that exist only in YAML 1.1.
fn check_characters(text: &str, first_line: usize) -> Result<(), Fault> {
    let is_refused = |character: char| {
        matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}')
            || matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    match text.char_indices().find(|(_, character)| is_refused(*character)) {
        None => Ok(()),
        Some((position, character)) => Err(Fault {
            line: first_line + lines_in(text.get(..position).unwrap_or_default()),
            message: format!(
                "neither YAML nor JSON: contains the control character U+{:04X}; remove it",
                u32::from(character)
            ),
        }),
    }
}
