//! A value of a manifest as kubectl reads it, with the line of each part.

use serde_json::{Map, Number, Value};

use super::scalars;

/// A value of a manifest, with its line.
#[derive(Clone, Debug)]
pub struct Node {
    /// Line in the file, from 1.
    pub line: usize,
    /// The value.
    pub content: Content,
}

/// Value as kubectl reads it. Booleans and numbers also hold their source text.
#[derive(Clone, Debug)]
pub enum Content {
    /// Null.
    Null,
    /// True or false, from any of the YAML 1.1 words (`yes`, `off`, ...).
    Bool(bool, String),
    /// A number.
    Number(Number, String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map. It can contain the same key twice.
    Map(Vec<Entry>),
}

/// A key of a map, with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Source text of the key, if kubectl does not read the key as a string.
    pub bare: Option<String>,
    /// Line of the key.
    pub line: usize,
    /// True if the entry comes from a merge key (`<<`).
    pub is_merged: bool,
    /// The value.
    pub node: Node,
}

/// Error in a document.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Line in the file, from 1.
    pub line: usize,
    /// The problem.
    pub message: String,
}

impl Node {
    /// Converts a JSON value. All parts of the value get the same line.
    pub(super) fn on_one_line(value: Value, line: usize) -> Self {
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

    /// Returns the value that kubectl would send.
    pub fn value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value, _) => Value::Bool(*value),
            Content::Number(number, _) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            // If a key occurs twice, the last entry counts.
            Content::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Returns true for null.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// Returns the text if the value is a string.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of a list. Returns no items for other values.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the entries of a map. Returns no entries for other values.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the value of a field. Returns `None` if the field is missing or null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rfind(|entry| entry.key == key)
    }

    /// Returns the line of a path, for example `parameters.unit.pattern` or `run[2]`. If a step of the path does not
    /// exist, returns the line of the step before it.
    pub fn line_of(&self, path: &str) -> usize {
        self.follow(path).0
    }

    /// Returns the same line as [`Self::line_of`], or `None` if the first step of the path does not exist.
    pub fn line_within(&self, path: &str) -> Option<usize> {
        Some(self.follow(path)).filter(|(_, steps)| *steps > 0).map(|(line, _)| line)
    }

    /// Returns the line of the last existing step of a path, and the number of existing steps.
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

    /// Returns the number of values in this value, including this value and the keys of maps.
    pub(super) fn size(&self) -> usize {
        let inner: usize = match &self.content {
            Content::List(items) => items.iter().map(Node::size).sum(),
            Content::Map(entries) => entries.iter().map(|entry| 1 + entry.node.size()).sum(),
            _ => 0,
        };
        1 + inner
    }
}
