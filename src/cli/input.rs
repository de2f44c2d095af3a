//! Reads manifests and requests from files and standard input.

mod kinds;
mod request_input;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use crate::api::Whitelist;
use crate::api::whitelist::{WhitelistRule, WhitelistSpec};

use super::manifest::{self, Fault, Node};
use super::schema::{self, Kind};
use kinds::Sorted;

pub(super) use request_input::{RequestInput, parse_key_value};

/// Maximum size of a file, in bytes. etcd stores objects of up to 1.5 MiB, and a file can contain several objects.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Problem that prevents the use of a file, a document or a Whitelist.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub file: PathBuf,
    /// Line number, from 1. 0 if the problem concerns the whole file.
    pub line: usize,
    /// Name of the Whitelist.
    pub whitelist: Option<String>,
    /// Message. It starts with the rule and the field.
    pub message: String,
    /// True if the file, the document or the value could not be read.
    pub is_unreadable: bool,
    /// Rule and field of a text that does not match the pattern of the field. `None` for all other problems. For
    /// example, the field of `run[0]` is `run`.
    pub of_form: Option<(String, String)>,
}

/// A Whitelist in a file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub file: PathBuf,
    /// The Whitelist, without the rules that could not be read.
    pub whitelist: Whitelist,
    pub node: Node,
    /// Problems for which the API server would refuse the Whitelist.
    pub problems: Vec<Problem>,
}

/// Content of all files.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub whitelists: Vec<Found>,
    /// Problems of unreadable files and documents, and of documents with a missing or misspelt kind or apiVersion.
    pub problems: Vec<Problem>,
    /// Notes about ignored documents, one line for each file.
    pub notes: Vec<String>,
}

/// Reads the Whitelists of several files. `-` is standard input. After an unreadable file, the other files are still
/// read.
pub(super) fn read(files: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for file in files {
        let (before, problems) = (reading.whitelists.len(), reading.problems.len());
        let documents =
            bytes(file).and_then(|bytes| manifest::read(&bytes).map_err(|fault| (fault.line, fault.message)));
        match documents {
            Ok(documents) => reading.add(file, documents),
            Err((line, message)) => reading.problems.push(unreadable(file, line, message)),
        }
        if reading.whitelists.len() == before && reading.problems.len() == problems {
            let message = "there is no Whitelist in it (apiVersion writ.dev/v1alpha1)".to_owned();
            reading.problems.push(unreadable(file, 0, message));
        }
    }
    reading.compare_names();
    reading
}

/// Returns the Whitelists of several files, or an error if the API server would refuse one of them.
pub(super) fn whitelists(files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Whitelist)>> {
    let reading = read(files);
    let of_whitelists = reading.whitelists.iter().flat_map(|found| &found.problems);
    let problems: Vec<String> = reading.problems.iter().chain(of_whitelists).map(ToString::to_string).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(reading.whitelists.into_iter().map(|found| (found.file, found.whitelist)).collect())
}

fn bytes(file: &Path) -> Result<Vec<u8>, (usize, String)> {
    let failed = |error: std::io::Error| (0, format!("cannot be read: {error}"));
    if file == Path::new("-") {
        return read_bounded(std::io::stdin().lock());
    }
    read_bounded(std::fs::File::open(file).map_err(failed)?)
}

fn read_bounded(from: impl std::io::Read) -> Result<Vec<u8>, (usize, String)> {
    let mut bytes = Vec::new();
    let read = std::io::Read::take(from, MAX_FILE_BYTES + 1);
    let read = std::io::Read::read_to_end(&mut { read }, &mut bytes);
    match read {
        Err(error) => Err((0, format!("cannot be read: {error}"))),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            Err((0, format!("cannot be read: more than {MAX_FILE_BYTES} bytes")))
        }
        Ok(_) => Ok(bytes),
    }
}

fn unreadable(file: &Path, line: usize, message: String) -> Problem {
    Problem { file: file.to_owned(), line, whitelist: None, message, is_unreadable: true, of_form: None }
}

impl Reading {
    fn add(&mut self, file: &Path, documents: Vec<Result<Node, Fault>>) {
        let mut others: Vec<String> = Vec::new();
        for document in documents {
            let document = match document {
                Ok(document) => document,
                Err(fault) => {
                    self.problems.push(unreadable(file, fault.line, fault.message));
                    continue;
                }
            };
            for sorted in kinds::sort(document) {
                match sorted {
                    Sorted::Whitelist(node) => self.whitelists.push(found(file, node)),
                    Sorted::Other(kind) => others.push(kind),
                    Sorted::Wrong(line, message) => self.problems.push(unreadable(file, line, message)),
                }
            }
        }
        if !others.is_empty() {
            let count = others.len();
            others.sort();
            others.dedup();
            let (documents, are) = if count == 1 { ("document", "is") } else { ("documents", "are") };
            let kinds = others.join(", ");
            self.notes.push(format!("{}: note: {count} other {documents} {are} ignored ({kinds})", file.display()));
        }
    }

    /// Reports Whitelists with the same name and namespace, because the second Whitelist would replace the first.
    fn compare_names(&mut self) {
        let mut first: HashMap<(Option<String>, String), (PathBuf, usize)> = HashMap::new();
        for found in &mut self.whitelists {
            let metadata = &found.whitelist.metadata;
            let Some(name) = metadata.name.clone() else { continue };
            let line = found.node.line_of("metadata.name");
            let key = (metadata.namespace.clone(), name.clone());
            let Some((file, at)) = first.get(&key) else {
                first.insert(key, (found.file.clone(), line));
                continue;
            };
            let message = format!(
                "metadata.name: there is a Whitelist {name} already in {}, line {at}: the one would replace the other; give it another name, or put its rules there",
                file.display()
            );
            found.problems.push(Problem {
                whitelist: Some(name),
                is_unreadable: false,
                ..unreadable(&found.file, line, message)
            });
        }
    }
}

/// Reads a Whitelist, and collects the problems for which the API server would refuse it.
fn found(file: &Path, node: Node) -> Found {
    let name = node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::text).map(str::to_owned);
    let problems = schema::problems(&node).into_iter().map(|problem| {
        let (rule, path) = in_rule(&node, &problem.path);
        let message = match (&rule, path) {
            (Some(rule), "") => format!("rule {rule}: {}", problem.message),
            (Some(rule), path) => format!("rule {rule}: {path}: {}", problem.message),
            (None, path) => format!("{path}: {}", problem.message),
        };
        let first = path.split(['.', '[']).next().unwrap_or_default();
        Problem {
            whitelist: Some(name.clone().unwrap_or_else(|| NAMELESS.to_owned())),
            is_unreadable: problem.kind == Kind::Type,
            of_form: rule.clone().filter(|_| problem.kind == Kind::Pattern).map(|rule| (rule, first.to_owned())),
            ..unreadable(file, problem.line, message)
        }
    });
    let problems = problems.collect();
    Found { file: file.to_owned(), whitelist: readable_part(&node), node, problems }
}

/// Text in messages for a Whitelist without a name.
pub(super) const NAMELESS: &str = "(without a name)";

/// Splits `spec.rules[2].run[0]` into the name of the rule and `run[0]`. A rule without a name is called `[2]`. If the
/// path is in no rule, returns `None` and the whole path.
fn in_rule<'a>(node: &Node, path: &'a str) -> (Option<String>, &'a str) {
    let split = path.strip_prefix("spec.rules[").and_then(|rest| rest.split_once(']'));
    let Some((index, rest)) = split else { return (None, path) };
    let rules = node.get("spec").and_then(|spec| spec.get("rules")).map(Node::items).unwrap_or_default();
    let rule = index.parse::<usize>().ok().and_then(|index| rules.get(index));
    let name = rule.and_then(|rule| rule.get("name")).and_then(Node::text).filter(|name| !name.is_empty());
    let name = name.map_or_else(|| format!("[{index}]"), schema::shortened);
    (Some(name), rest.trim_start_matches('.'))
}

/// Returns the Whitelist without rules that have a value of the wrong type. [`schema::problems`] reports these rules.
fn readable_part(node: &Node) -> Whitelist {
    let mut value = schema::stored(node);
    if let Ok(whitelist) = serde_json::from_value(value.clone()) {
        return whitelist;
    }
    let rules = value.pointer_mut("/spec/rules").map(Value::take).unwrap_or_default();
    let rules = rules.as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| serde_json::from_value::<WhitelistRule>(rule.clone()).ok()).collect();
    let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
    let metadata = serde_json::from_value(metadata).unwrap_or_default();
    Whitelist { metadata, spec: WhitelistSpec { rules, ..WhitelistSpec::default() }, status: None }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if self.line > 0 {
            write!(formatter, ":{}", self.line)?;
        }
        if let Some(whitelist) = &self.whitelist {
            write!(formatter, ": Whitelist {whitelist}")?;
        }
        write!(formatter, ": error: {}", self.message)
    }
}

#[cfg(test)]
mod tests;
