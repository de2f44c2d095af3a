//! Manifests as kubectl reads them, with the line of each value.
//!
//! The promise kept here: what is read is what kubectl sends to the API server, or it is an error. `docs/design/20261130-reads-as-kubectl.md`
//! says why this is not left to a YAML library for serde.

mod composer;
mod scalars;
mod stream;

use serde_json::{Map, Number, Value};

/// A value of a manifest, and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The line of its file, from 1.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a value is for kubectl. What is no string has besides what was written.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nothing.
    Null,
    /// `true`, and the other words for it.
    Bool(bool, String),
    /// A number.
    Number(Number, String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, with keys that are there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What was written for the key, if kubectl makes something else of it.
    pub bare: Option<String>,
    /// The line of the key.
    pub line: usize,
    /// Whether it comes from a merge key.
    pub is_merged: bool,
    /// The value.
    pub node: Node,
}

/// Why a document cannot be read.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The line of its file, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// The documents of a file. One that cannot be read does not hide the others.
///
/// # Errors
/// The bytes are no text.
pub fn read(bytes: &[u8]) -> Result<Vec<Result<Node, Fault>>, Fault> {
    let text = decode(bytes)?;
    Ok(stream::documents(&text))
}

/// UTF-8, and what a byte order mark says, as kubectl does.
fn decode(bytes: &[u8]) -> Result<String, Fault> {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(read)).collect();
        String::from_utf16_lossy(&units)
    };
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return Ok(utf16(rest, u16::from_le_bytes));
    }
    if let Some(rest) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return Ok(utf16(rest, u16::from_be_bytes));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let before = bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Fault { line, message: "it is neither YAML nor JSON: it is not encoded in UTF-8".to_owned() }
    })
}

impl Node {
    /// A value that has one line, of whatever depth.
    fn on_one_line(value: Value, line: usize) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(value, value.to_string()),
            Value::Number(number) => {
                let is_float = !number.is_i64() && !number.is_u64();
                let whole = number.as_f64().filter(|_| is_float).and_then(scalars::whole_or_not);
                Content::Number(whole.unwrap_or_else(|| number.clone()), number.to_string())
            }
            Value::String(text) => Content::Text(text),
            Value::Array(items) => Content::List(items.into_iter().map(|item| Self::on_one_line(item, line)).collect()),
            Value::Object(fields) => {
                let entry = |(key, value)| Entry {
                    key,
                    bare: None,
                    line,
                    is_merged: false,
                    node: Self::on_one_line(value, line),
                };
                Content::Map(fields.into_iter().map(entry).collect())
            }
        };
        Self { line, content }
    }

    /// What kubectl sends.
    pub fn value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value, _) => Value::Bool(*value),
            Content::Number(number, _) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            // Of two with one key the last one counts.
            Content::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none where it is something else.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a map; none where it is something else.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a field, unless that is nothing.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rfind(|entry| entry.key == key)
    }

    /// The line of what a path like `parameters.unit.pattern` or `run[2]` leads to, or of the last step of it that is there.
    pub fn line_of(&self, path: &str) -> usize {
        self.follow(path).0
    }

    /// The same, if at least the first step is there.
    pub fn line_within(&self, path: &str) -> Option<usize> {
        Some(self.follow(path)).filter(|(_, steps)| *steps > 0).map(|(line, _)| line)
    }

    /// The line, and how many steps led there.
    fn follow(&self, path: &str) -> (usize, usize) {
        let (mut node, mut line, mut steps) = (self, self.line, 0);
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = match step.parse::<usize>() {
                Ok(index) if !node.items().is_empty() => node.items().get(index).map(|item| (item.line, item)),
                _ => node.entry(step).map(|entry| (entry.line, &entry.node)),
            };
            let Some((of_next, next)) = next else { break };
            (line, node) = (of_next, next);
            steps += 1;
        }
        (line, steps)
    }

    /// How many values it has, itself among them.
    fn size(&self) -> usize {
        let inner: usize = match &self.content {
            Content::List(items) => items.iter().map(Node::size).sum(),
            Content::Map(entries) => entries.iter().map(|entry| 1 + entry.node.size()).sum(),
            _ => 0,
        };
        1 + inner
    }
}

#[cfg(test)]
mod tests;
