//! Checks values against a schema: types, limits, patterns, required fields, unknown fields and CEL rules.

use std::collections::HashMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex_automata::meta::Regex;

use super::words;
use crate::cli::manifest::{Content, Entry, Node};

/// Problem for which the API server refuses a manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Path of the value, for example `spec.rules[2].run[0]`.
    pub path: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// The problem, and how to solve it.
    pub message: String,
    /// Class of the problem.
    pub kind: Kind,
}

/// Class of a problem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The value has a type that the field cannot hold.
    Type,
    /// The text does not match the pattern of the field.
    Pattern,
    /// Any other problem.
    Bound,
}

/// A CEL rule, written in Rust.
type Twin = fn(&Node) -> bool;

/// CEL rules of the Whitelist's CRD, each with the same rule in Rust.
pub(super) const TWINS: &[(&str, Twin)] = &[("has(self.run) || (has(self.effect) && self.effect == 'Deny')", |rule| {
    rule.get("run").is_some() || rule.get("effect").and_then(Node::text) == Some("Deny")
})];

/// Collects the problems of a manifest.
#[derive(Default)]
pub(super) struct Validator {
    pub found: Vec<Problem>,
    /// Compiled patterns of the schema. They are cached, because there are few patterns and many values.
    patterns: HashMap<String, Option<Regex>>,
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

impl Validator {
    pub fn say(&mut self, path: &str, line: usize, kind: Kind, message: impl Into<String>) {
        self.found.push(Problem { path: path.to_owned(), line, message: message.into(), kind });
    }

    fn value(&mut self, path: &str, node: &Node, schema: &JSONSchemaProps) {
        let is_of_its_type = match (schema.type_.as_deref(), &node.content) {
            (Some("object"), Content::Map(_))
            | (Some("array"), Content::List(_))
            | (Some("string"), Content::Text(_))
            | (Some("boolean"), Content::Bool(..))
            | (None, _) => true,
            (Some("integer"), Content::Number(number, _)) => number.is_i64(),
            _ => false,
        };
        if !is_of_its_type {
            let wanted = schema.type_.as_deref().unwrap_or_default();
            return self.say(path, node.line, Kind::Type, words::of_type(wanted, &node.content));
        }
        match &node.content {
            Content::Text(text) => self.text(path, node.line, text, schema),
            Content::Number(number, _) => self.number(path, node.line, number.as_f64().unwrap_or_default(), schema),
            Content::List(items) => self.list(path, node.line, items, schema),
            Content::Map(_) => self.fields(path, node, schema, &[]),
            Content::Null | Content::Bool(..) => {}
        }
    }

    fn text(&mut self, path: &str, line: usize, text: &str, schema: &JSONSchemaProps) {
        let allowed: Vec<&str> = schema.enum_.iter().flatten().filter_map(|value| value.0.as_str()).collect();
        if !allowed.is_empty() && !allowed.contains(&text) {
            let message = format!("must be one of {}, but is {text:?}", allowed.join(", "));
            return self.say(path, line, Kind::Type, message);
        }
        let length = text.chars().count();
        if let Some(message) = words::outside(length, schema.min_length, schema.max_length, "characters") {
            self.say(path, line, Kind::Bound, message);
        }
        let Some(pattern) = &schema.pattern else { return };
        let regex = self.patterns.entry(pattern.clone()).or_insert_with(|| Regex::new(pattern).ok());
        if !regex.as_ref().is_some_and(|regex| regex.is_match(text)) {
            self.say(path, line, Kind::Pattern, words::of_pattern(pattern, text));
        }
    }

    fn number(&mut self, path: &str, line: usize, number: f64, schema: &JSONSchemaProps) {
        let (least, most) = (schema.minimum, schema.maximum);
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let bounds = match (least, most) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (_, most) => format!("at most {}", most.unwrap_or_default()),
            };
            self.say(path, line, Kind::Bound, format!("must be {bounds}, but is {number}"));
        }
    }

    fn list(&mut self, path: &str, line: usize, items: &[Node], schema: &JSONSchemaProps) {
        if let Some(message) = words::outside(items.len(), schema.min_items, schema.max_items, "entries") {
            self.say(path, line, Kind::Bound, message);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(of_items)) = &schema.items {
            for (index, item) in items.iter().enumerate() {
                self.value(&format!("{path}[{index}]"), item, of_items);
            }
        }
        for key in schema.x_kubernetes_list_map_keys.iter().flatten() {
            let named = |item: &Node| item.get(key).and_then(Node::text).map(str::to_owned);
            for (index, item) in items.iter().enumerate() {
                let Some(name) = named(item) else { continue };
                let before = items.iter().take(index).find(|before| named(before).as_ref() == Some(&name));
                if let Some(before) = before {
                    let message = format!("{name} is used on line {} already; choose another {key}", before.line);
                    self.say(&format!("{path}[{index}].{key}"), item.line_of(key), Kind::Bound, message);
                }
            }
        }
    }

    /// Checks a map: its fields, its required fields, and the rules between fields. Skips the values of the fields in
    /// `checked_elsewhere`.
    pub fn fields(&mut self, path: &str, node: &Node, schema: &JSONSchemaProps, checked_elsewhere: &[&str]) {
        let entries = node.entries();
        for (index, entry) in entries.iter().enumerate() {
            self.key(path, entry, entries.get(..index).unwrap_or_default(), checked_elsewhere.is_empty());
        }
        for field in schema.required.iter().flatten().filter(|field| node.get(field).is_none()) {
            self.say(&join(path, field), node.line, Kind::Type, "missing");
        }
        // The API server drops null fields without a default before it counts the fields.
        let counted = entries.iter().filter(|entry| !entry.node.is_null()).count();
        if let Some(message) = words::outside(counted, schema.min_properties, schema.max_properties, "entries") {
            self.say(path, node.line, Kind::Bound, message);
        }
        for entry in
            entries.iter().filter(|entry| !entry.node.is_null() && !checked_elsewhere.contains(&entry.key.as_str()))
        {
            let own = join(path, &entry.key);
            let of_field = schema.properties.as_ref().and_then(|properties| properties.get(&entry.key));
            match (of_field, &schema.additional_properties) {
                (Some(of_field), _) => self.value(&own, &entry.node, of_field),
                (None, Some(JSONSchemaPropsOrBool::Schema(of_values))) => self.value(&own, &entry.node, of_values),
                // The API server keeps unknown fields here. The policy reports them.
                _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
                _ => self.say(&own, entry.line, Kind::Bound, "unknown field; check the spelling"),
            }
        }
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            let twin = TWINS.iter().find(|(cel, _)| *cel == rule.rule);
            if !twin.is_some_and(|(_, holds)| holds(node)) {
                let message = rule.message.clone().unwrap_or_else(|| format!("must fulfil {}", rule.rule));
                self.say(path, node.line, Kind::Bound, message);
            }
        }
    }

    /// Reports a key that occurs twice, or that kubectl converts into another text, for example `yes` into `true`.
    pub fn key(&mut self, path: &str, entry: &Entry, before: &[Entry], is_deep: bool) {
        let own = join(path, &entry.key);
        let first = before.iter().find(|before| before.key == entry.key && !before.is_merged);
        if let Some(first) = first.filter(|_| !entry.is_merged) {
            // kubectl converts keys into strings in random order. If `1` and `"1"` are both keys, chance decides which
            // value kubectl uses.
            let read = if first.bare.is_some() == entry.bare.is_some() { "the last one" } else { "either, by chance" };
            let message = format!(
                "the key is used on line {} already: kubectl reads {read}, other tools refuse the file; remove one",
                first.line
            );
            self.say(&own, entry.line, Kind::Type, message);
        }
        if let Some(bare) = entry.bare.as_ref().filter(|bare| **bare != entry.key && is_deep) {
            let message = format!("the bare word {bare} is {} for kubectl; quote it: \"{bare}\"", entry.key);
            self.say(&own, entry.line, Kind::Type, message);
        }
    }
}
