//! How kubectl parts a file into documents: JSON values one behind the other, or YAML between lines of `---`.

use serde_json::Value;

use super::{Fault, Node, composer};

/// The documents of a text, in order, each read or with what is wrong with it.
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

/// Reads JSON values, one behind the other.
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
                // The library counts from the beginning of the text.
                let message = format!(
                    "it is no JSON, which a file that begins with {{ is for kubectl: {error}; if it is YAML, put a line --- in front"
                );
                found.push(Err(Fault { line: error.line().max(1), message }));
                return found;
            }
            Some(Ok(value)) => {
                let end = values.byte_offset();
                let written = text.get(consumed..end).unwrap_or_default();
                // JSON is YAML; read as such each value has its line. A few escapes are JSON's alone.
                let composed = composer::compose(written, line).ok().and_then(|composed| composed.root);
                let plain = Node::on_one_line(value, first);
                found.push(Ok(composed.filter(|node| node.value() == plain.value()).unwrap_or(plain)));
                consumed = end;
            }
        }
    }
}

/// The text between lines of `---`, which may have blanks and a comment behind them and nothing else, and the line on which
/// each begins.
fn parts(text: &str) -> Vec<Result<(String, usize), Fault>> {
    let mut parts = Vec::new();
    let (mut part, mut begin) = (String::new(), 1);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // As the last line too: kubectl puts a line break there.
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
            let message = "behind --- there must be nothing but a comment: kubectl refuses the file".to_owned();
            parts.push(Err(Fault { line: number, message }));
        }
    }
    parts.push(Ok((part, begin)));
    parts
}

/// kubectl's parser takes no tab where a line is indented. In a block scalar that is so within the indentation of its first
/// line; `blocks` are the lines of their text, first and last.
fn check_tabs(text: &str, first_line: usize, blocks: &[(usize, usize)]) -> Result<(), Fault> {
    // The indentation of the block scalar that the line is in, where that is known already.
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
            let message = "it is neither YAML nor JSON: a tab stands where the line is indented; use spaces".to_owned();
            return Err(Fault { line: number, message });
        }
    }
    Ok(())
}

/// Whether a tab stands before the first word of a line, also behind the `-` of a list.
fn is_indented_by_a_tab(line: &str) -> bool {
    let mut rest = line.trim_start_matches(' ');
    while let Some(behind) = rest.strip_prefix(['-', '?', ':']).filter(|behind| behind.starts_with([' ', '\t'])) {
        rest = behind.trim_start_matches(' ');
    }
    rest.starts_with('\t')
}

/// libyaml takes no control characters, and takes for line breaks what YAML 1.2 does not.
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
                "it is neither YAML nor JSON: it has the control character U+{:04X}; remove it",
                u32::from(character)
            ),
        }),
    }
}
