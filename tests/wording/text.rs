//! Blocks of prose from files that are not Rust.

/// A paragraph of one comment or document.
#[derive(Debug, Default)]
pub struct Block {
    /// Line number from 1, text without the comment marker, and length of the whole line in characters. The length is
    /// `None` if the limit does not apply: tables, code, strings.
    pub lines: Vec<(usize, String, Option<usize>)>,
    /// True for doc comments of Rust.
    pub is_doc: bool,
    /// True for quoted examples of refused phrases.
    pub is_quoted: bool,
}

/// Adds the block to the list, unless it is empty, and starts a new one.
fn flush(blocks: &mut Vec<Block>, block: &mut Block) {
    let block = std::mem::take(block);
    if !block.lines.is_empty() {
        blocks.push(block);
    }
}

/// Returns the text without code spans and targets of links. A code span that spans two lines stays.
pub fn without_code(line: &str) -> String {
    let mut kept = String::new();
    for (index, part) in line.split('`').enumerate() {
        // Another word in place of the code keeps the words around it apart.
        kept.push_str(if index % 2 == 0 { part } else { "`" });
    }
    let mut rest = kept.as_str();
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text
}

/// Returns the paragraphs, list items and table rows of a Markdown document, without its code blocks.
pub fn markdown(source: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let (mut is_code, mut is_quoted) = (false, false);
    for (index, line) in source.lines().enumerate() {
        let text = line.trim_start();
        let is_fence = text.starts_with("```");
        let is_marker = text.starts_with("<!--");
        let is_table = text.starts_with('|');
        let is_item = text.starts_with("- ") || text.starts_with('#') || text.split_once(". ").is_some_and(is_number);
        if is_fence || is_marker || is_table || is_item || text.is_empty() {
            flush(&mut blocks, &mut block);
        }
        if is_fence {
            is_code = !is_code;
        } else if is_marker {
            is_quoted = (is_quoted || text.contains("wording: quotes")) && !text.contains("wording: end");
        } else if !is_code && !text.is_empty() {
            block.is_quoted = is_quoted;
            block.lines.push((index + 1, without_code(text), (!is_table).then(|| line.chars().count())));
        }
    }
    flush(&mut blocks, &mut block);
    blocks
}

fn is_number((number, _): (&str, &str)) -> bool {
    !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
}

/// Returns the comments of a file whose comments start with `marker` and end with the line, and the messages that its
/// functions `say` and `fail` print.
pub fn hash_comments(source: &str, marker: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    for (index, line) in source.lines().enumerate() {
        let text = line.trim_start();
        let length = line.chars().count();
        if let Some(comment) = text.strip_prefix(marker).filter(|_| !text.starts_with("#!")) {
            block.lines.push((index + 1, without_code(comment), Some(length)));
            continue;
        }
        flush(&mut blocks, &mut block);
        let trailing = text.split_once(&format!(" {marker} ")).map(|(_, comment)| (comment, Some(length)));
        let message = text.strip_prefix("say ").or_else(|| text.strip_prefix("fail ")).map(|message| (message, None));
        for (found, length) in trailing.into_iter().chain(message) {
            block.lines.push((index + 1, without_code(found), length));
            flush(&mut blocks, &mut block);
        }
    }
    flush(&mut blocks, &mut block);
    blocks
}

/// Returns all lines of a file as prose, and the lengths of its comments.
pub fn whole(source: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    for (index, line) in source.lines().enumerate() {
        let comment = line.trim_start().strip_prefix('#');
        let text = without_code(comment.unwrap_or(line));
        if text.trim().is_empty() || line.trim_start().starts_with("- ") {
            flush(&mut blocks, &mut block);
        }
        block.lines.push((index + 1, text, comment.map(|_| line.chars().count())));
    }
    flush(&mut blocks, &mut block);
    blocks
}

/// Returns the strings of a JSON file, one line each.
pub fn json_strings(source: &str) -> Vec<Block> {
    let lines = source.lines().enumerate().filter(|(_, line)| line.contains('"'));
    lines.map(|(index, line)| Block { lines: vec![(index + 1, line.to_owned(), None)], ..Block::default() }).collect()
}
