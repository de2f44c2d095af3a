//! Builds a [`Node`] from the events of a YAML parser. Scalars, tags, aliases and merge keys follow the rules of
//! go-yaml v2.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag};
use serde_json::Value;

use super::node::{Content, Entry, Fault, Node};
use super::scalars::{self, Scalar};

/// Maximum number of nodes in one document, with all aliases expanded. Even in a small file, an alias of a list of
/// aliases can expand to any number of nodes.
const MAXIMUM_NODES: usize = 1_000_000;
/// Maximum nesting depth of lists and maps. A Whitelist has 8 levels.
const MAXIMUM_DEPTH: usize = 100;

type Events<'a> = Box<dyn Iterator<Item = Result<(Event<'a>, Span), granit_parser::ScanError>> + 'a>;

/// Document that was read from a text.
pub(super) struct Composed {
    /// Root node of the document, or `None` if the document is empty.
    pub root: Option<Node>,
    /// First and last line of the text of each block scalar (`|` or `>`).
    pub blocks: Vec<(usize, usize)>,
}

struct Composer<'a> {
    text: &'a str,
    events: Events<'a>,
    blocks: Vec<(usize, usize)>,
    /// Number of flow collections (`[]` or `{}`) that contain the next node.
    flow: usize,
    first_line: usize,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// Reads the document of a text. `first_line` is the line of the file on which the text starts. A second document is an
/// error, because kubectl ignores it.
pub(super) fn compose(text: &str, first_line: usize) -> Result<Composed, Fault> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let events = Box::new(Parser::new_from_str_with_options(text, options));
    let mut composer =
        Composer { text, events, blocks: Vec::new(), flow: 0, first_line, anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        let (event, span) = composer.next()?;
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(_, version) => {
                if root.is_some() {
                    let message =
                        "a further document starts here without a line --- before it: kubectl ignores it; write ---";
                    return Err(composer.fault(&span, message.to_owned()));
                }
                if version.is_some_and(|version| (version.major, version.minor) != (1, 1)) {
                    return Err(composer.fault(&span, "kubectl reads YAML 1.1; remove the line %YAML".to_owned()));
                }
            }
            Event::StreamEnd => return Ok(Composed { root, blocks: composer.blocks }),
            event => root = Some(composer.node(event, &span, 0)?),
        }
    }
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let line = self.first_line + error.marker().line().saturating_sub(1);
                Err(Fault { line, message: format!("neither YAML nor JSON: {}", error.info()) })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn line(&self, span: &Span) -> usize {
        self.first_line + span.start.line().saturating_sub(1)
    }

    fn fault(&self, span: &Span, message: String) -> Fault {
        Fault { line: self.line(span), message }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Fault> {
        self.nodes += nodes;
        let message = || format!("the document has more than {MAXIMUM_NODES} values, aliases expanded");
        if self.nodes > MAXIMUM_NODES { Err(self.fault(span, message())) } else { Ok(()) }
    }

    /// Reads the node that starts with `event`.
    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Fault> {
        if depth > MAXIMUM_DEPTH {
            return Err(self.fault(span, format!("lists and maps are nested more than {MAXIMUM_DEPTH} deep")));
        }
        self.count(1, span)?;
        let (anchor, content) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.fault(span, "the alias is used within its own value".to_owned()));
                };
                self.count(node.size(), span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), span)?),
            Event::SequenceStart(style, anchor, _) => {
                let is_flow = usize::from(matches!(style, StructureStyle::Flow));
                self.flow += is_flow;
                let list = self.list(depth)?;
                self.flow -= is_flow;
                (anchor, list)
            }
            Event::MappingStart(style, anchor, _) => {
                let is_flow = usize::from(matches!(style, StructureStyle::Flow));
                self.flow += is_flow;
                let map = self.map(depth)?;
                self.flow -= is_flow;
                (anchor, map)
            }
            _ => return Err(self.fault(span, "neither YAML nor JSON: a value is missing".to_owned())),
        };
        let node = Node { line: self.line(span), content };
        if anchor != 0 {
            self.count(node.size(), span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Content, Fault> {
        let is_plain = matches!(style, ScalarStyle::Plain);
        self.check_notation(text, style, span)?;
        let written = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
        let tag = match &written {
            // With a custom tag or with `!` alone, the value is a string.
            Some(tag) => Some(tag.strip_prefix("tag:yaml.org,2002:").unwrap_or("str")),
            None if is_plain => None,
            None => Some("str"),
        };
        if tag == Some("binary") {
            return Err(self.fault(span, "!!binary is not supported; write the text itself".to_owned()));
        }
        match scalars::resolve(text, tag) {
            Scalar::Value(Value::Null) => Ok(Content::Null),
            Scalar::Value(Value::Bool(value)) => Ok(Content::Bool(value, text.to_owned())),
            Scalar::Value(Value::Number(number)) => Ok(Content::Number(number, text.to_owned())),
            Scalar::Value(_) => Ok(Content::Text(text.to_owned())),
            Scalar::Unusable(why) => Err(self.fault(span, why)),
        }
    }

    /// Refuses notations that only YAML 1.2 has, or that YAML 1.1 and YAML 1.2 read differently.
    fn check_notation(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Result<(), Fault> {
        let source = self.text;
        let part = |from: Option<usize>, to: Option<usize>| source.get(from?..to?);
        let written = part(span.start.byte_offset(), span.end.byte_offset());
        match style {
            ScalarStyle::DoubleQuoted => {
                let mut characters = written.unwrap_or_default().chars();
                while let Some(character) = characters.next() {
                    let escaped = if character == '\\' { characters.next() } else { None };
                    let hex: String = characters.clone().take(4).collect();
                    let code = u32::from_str_radix(&hex, 16).unwrap_or_default();
                    let is_surrogate = escaped == Some('u') && (0xd800..0xe000).contains(&code);
                    if escaped == Some('/') || is_surrogate {
                        let message =
                            "kubectl reads \\/ and surrogates (\\ud83d) in JSON only; write the character itself";
                        return Err(self.fault(span, message.to_owned()));
                    }
                }
            }
            ScalarStyle::Plain if self.flow > 0 && !text.is_empty() => {
                let behind = part(span.end.byte_offset(), Some(source.len())).unwrap_or_default();
                let ends_in_colon = [":,", ":]", ":}"].iter().any(|end| behind.starts_with(end));
                if text.contains('?') || text.starts_with(':') || ends_in_colon {
                    let message = format!(
                        "kubectl reads {text} differently between brackets; quote it, and put a blank after the `:` of a key"
                    );
                    return Err(self.fault(span, message));
                }
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let last = self.first_line + span.end.line().saturating_sub(1);
                let last = if span.end.col() == 0 { last.saturating_sub(1) } else { last };
                // The parser reports a block scalar at its indicator (`|` or `>`), or at its text on the next line.
                let is_at_sign = written.is_some_and(|written| written.starts_with(['|', '>']));
                self.blocks.push((self.line(span) + usize::from(is_at_sign), last));
            }
            _ => {}
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Content::Map(entries)),
                next => next,
            };
            let is_merge = match &event {
                Event::Scalar(text, style, _, tag) => {
                    text == "<<" && matches!((style, tag), (ScalarStyle::Plain, None))
                }
                _ => false,
            };
            let key = self.node(event, &span, depth + 1)?;
            let (event, value_span) = self.next()?;
            let node = self.node(event, &value_span, depth + 1)?;
            if is_merge {
                self.merge(&mut entries, node, &span)?;
                continue;
            }
            let Some((key, bare)) = key_of(key.content) else {
                return Err(self.fault(&span, "a key must be a scalar, not a list, a map or null".to_owned()));
            };
            entries.push(Entry { key, bare, line: self.line(&span), is_merged: false, node });
        }
    }

    /// Adds the entries of merged maps. If a key occurs several times, the last entry counts, merged or not.
    fn merge(&self, entries: &mut Vec<Entry>, merged: Node, span: &Span) -> Result<(), Fault> {
        let maps = match merged.content {
            Content::List(items) => items.into_iter().rev().collect(),
            _ => vec![merged],
        };
        for map in maps {
            let Content::Map(merged) = map.content else {
                return Err(self.fault(span, "<< merges maps, or a list of maps".to_owned()));
            };
            for entry in merged {
                entries.retain(|before| before.key != entry.key);
                entries.push(Entry { is_merged: true, ..entry });
            }
        }
        Ok(())
    }
}

/// Returns a key as text, and its source text if kubectl does not read the key as a string. Returns `None` if the value
/// cannot be a key.
fn key_of(content: Content) -> Option<(String, Option<String>)> {
    match content {
        Content::Text(text) => Some((text, None)),
        Content::Bool(value, written) => Some((value.to_string(), Some(written))),
        Content::Number(number, written) if scalars::is_integer(&written) && number.is_i64() => {
            Some((number.to_string(), Some(written)))
        }
        _ => None,
    }
}
