//! Sorts documents into Whitelists, other objects, and Writ's objects with a misspelt kind or apiVersion.

use crate::api::{GROUP, VERSION};
use crate::cli::manifest::{Content, Node};

/// Kinds of Writ, with which misspelt kinds are compared.
const KINDS: &[&str] = &["Whitelist", "Machine", "CommandExecution", "ExecutionReceipt", "GatewaySession"];
/// Maximum number of changed letters for which a word counts as a misspelt kind or group.
const MISSPELT: usize = 2;

pub(super) enum Sorted {
    Whitelist(Node),
    /// An object of another kind. Holds the kind.
    Other(String),
    /// A document with a problem. Holds its line and the problem.
    Wrong(usize, String),
}

/// Classifies a document by its apiVersion and kind. If the document is a List, classifies each item.
pub(super) fn sort(document: Node) -> Vec<Sorted> {
    sort_item(document, None)
}

fn sort_item(node: Node, of_list: Option<(&str, &str)>) -> Vec<Sorted> {
    if !matches!(node.content, Content::Map(_)) {
        let message = "the document is no object: it has no apiVersion and no kind".to_owned();
        return vec![Sorted::Wrong(node.line, message)];
    }
    let text = |field: &str| node.get(field).and_then(Node::text).filter(|text| !text.is_empty());
    let version = text("apiVersion").or(of_list.map(|(version, _)| version)).map(str::to_owned);
    let kind = text("kind").or(of_list.map(|(_, kind)| kind)).map(str::to_owned);
    if let Some(items) = node.entries().iter().rfind(|entry| entry.key == "items").map(|entry| &entry.node)
        && matches!(items.content, Content::List(_))
    {
        let of_items = kind.as_deref().and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
        if let (Some(kind), Some(version), None) = (&kind, &version, of_items)
            && kind != "List"
            && version.starts_with(GROUP)
        {
            let message = format!("a {kind} has no items: kubectl reads it as a list; check the spelling");
            return vec![Sorted::Wrong(node.line, message)];
        }
        let of_items = version.as_deref().zip(of_items);
        return items.items().iter().flat_map(|item| sort_item(item.clone(), of_items)).collect();
    }
    let (Some(version), Some(kind)) = (version, kind) else {
        let missing = if text("kind").is_none() { "kind" } else { "apiVersion" };
        let message = format!(
            "the document has no {missing}, so kubectl refuses it; a Whitelist begins with apiVersion: {GROUP}/{VERSION} and kind: Whitelist"
        );
        return vec![Sorted::Wrong(node.line, message)];
    };
    vec![match problem(&version, &kind) {
        Some((field, message)) => Sorted::Wrong(node.line_of(field), message),
        None if version == ours() && kind == "Whitelist" => Sorted::Whitelist(node),
        None => Sorted::Other(kind),
    }]
}

fn ours() -> String {
    format!("{GROUP}/{VERSION}")
}

/// Returns the name of the invalid field (`apiVersion` or `kind`) and the problem. Returns `None` if both fields are
/// valid.
fn problem(version: &str, kind: &str) -> Option<(&'static str, String)> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_ours = group == GROUP;
    if version == ours() && KINDS.contains(&kind) {
        return None;
    }
    if is_ours && version != ours() {
        return Some(("apiVersion", format!("there is no {version}; write {}", ours())));
    }
    let meant = nearest(kind);
    match (is_ours, meant) {
        (true, Some(meant)) => Some(("kind", format!("there is no kind {kind} of {version}; write {meant}"))),
        (true, None) => {
            Some(("kind", format!("there is no kind {kind} of {version}; it has the kinds {}", KINDS.join(", "))))
        }
        // Other software can also have a kind Machine, so only a kind similar to Whitelist is reported.
        (false, Some("Whitelist")) if distance(&kind.to_ascii_lowercase(), "whitelist") <= 1 => Some((
            "apiVersion",
            format!("a kind {kind} of {version} is none of Writ's; write apiVersion: {} and kind: Whitelist", ours()),
        )),
        (false, _) if group != GROUP && distance(group, GROUP) <= MISSPELT && !group.is_empty() => {
            Some(("apiVersion", format!("the group {group} is none of Writ's; write {}", ours())))
        }
        (false, _) => None,
    }
}

/// Returns the kind of Writ that is most similar to a misspelt word, or `None` if no kind is similar.
fn nearest(kind: &str) -> Option<&'static str> {
    let plain = |word: &str| {
        let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
        word.to_ascii_lowercase()
    };
    let is = plain(kind);
    let named = KINDS
        .iter()
        .map(|known| (distance(&is, &plain(known)).min(distance(&is, &plain(&format!("{known}s")))), *known));
    named.min().filter(|(changes, _)| *changes <= MISSPELT).map(|(_, known)| known)
}

/// Returns the number of letters to add, remove or change to turn one word into the other. If `left` is longer than 64
/// bytes, returns the length of `left`.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > 64 {
        return left.len();
    }
    let mut before: Vec<usize> = (0..=right.chars().count()).collect();
    for (row, of_left) in left.chars().enumerate() {
        let mut diagonal = row;
        let mut last = row + 1;
        let mut current = vec![last];
        for (of_right, above) in right.chars().zip(before.iter().skip(1)) {
            let changed = diagonal + usize::from(of_left != of_right);
            last = changed.min(last + 1).min(above + 1);
            diagonal = *above;
            current.push(last);
        }
        before = current;
    }
    before.last().copied().unwrap_or_default()
}
