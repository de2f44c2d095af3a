//! Writ reads files as kubectl reads them. The test gives the same texts to the laboratory's kubectl, without a
//! cluster.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use writ::cli::manifest;

use crate::lab;

const HEAD: &str = "apiVersion: v1\nkind: X\nmetadata: {name: x}\n";

/// Test texts. `words`: plain words, which kubectl reads as strings, booleans, numbers or null. `bodies`: lines below
/// the head of an object. `files`: whole files, with H for a head and J for an object in JSON.
const TEXTS: &str = include_str!("reading.json");

/// Returns the objects that kubectl reads, or `None` if kubectl refuses the file.
fn by_kubectl(kubectl: &std::path::Path, text: &str) -> Option<Vec<Value>> {
    let mut child = Command::new(kubectl)
        .args(["label", "--local", "-f", "-", "-o", "json", "read=yes", "--overwrite"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl starts");
    let _ = child.stdin.take().expect("a pipe").write_all(text.as_bytes());
    let output = child.wait_with_output().expect("an end");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let objects = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let objects: Vec<Value> = objects.map(|object| object.expect("JSON")).collect();
    output.status.success().then(|| objects.into_iter().map(without_label).collect())
}

fn without_label(mut object: Value) -> Value {
    if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("read");
        if labels.is_empty() {
            object["metadata"].as_object_mut().expect("metadata").remove("labels");
        }
    }
    object
}

/// Returns the objects that Writ reads, or `None` if Writ refuses the file.
fn by_writ(text: &str) -> Option<Vec<Value>> {
    let documents = manifest::read(text.as_bytes()).ok()?;
    documents.into_iter().map(|document| document.ok().map(|node| node.value())).collect()
}

/// Result of reading a text, compared with kubectl.
enum Comparison {
    Alike,
    Stricter,
    Wrong(String),
}

fn compare(kubectl: &std::path::Path, text: &str) -> Comparison {
    match (by_kubectl(kubectl, text), by_writ(text)) {
        (Some(_), None) => Comparison::Stricter,
        // kubectl reports that the file has no objects. `writ lint` reports the same, one step later.
        (None, Some(own)) if own.is_empty() => Comparison::Alike,
        (kubectl, own @ Some(_)) if kubectl != own => {
            Comparison::Wrong(format!("{text:?}\n  kubectl {kubectl:?}\n  writ    {own:?}"))
        }
        _ => Comparison::Alike,
    }
}

#[test]
fn what_is_read_is_what_kubectl_reads() {
    let kubectl = lab::Toolbox::find_or_build().expect("the toolbox").kubectl;
    let cases: Value = serde_json::from_str(TEXTS).expect("JSON");
    let list = |name: &str| -> Vec<String> { serde_json::from_value(cases[name].clone()).expect("texts") };
    let words: String = list("words").iter().map(|word| format!("- {word}\n")).collect();
    let in_brackets: String = list("words").iter().map(|word| format!("- [{word}]\n")).collect();
    let mut texts = vec![format!("{HEAD}a:\n{words}"), format!("{HEAD}a:\n{in_brackets}")];
    texts.extend(list("words").iter().map(|word| format!("{HEAD}a: {word}\n{word}: b\n")));
    texts.extend(list("words").iter().map(|word| format!("{HEAD}a: [{word}]\n")));
    texts.extend(list("bodies").iter().map(|body| format!("{HEAD}{body}")));
    let json = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}).to_string();
    texts.extend(list("files").iter().map(|file| file.replace('J', &json).replace('H', HEAD)));
    let next = AtomicUsize::new(0);
    let compared = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let comparison = compare(&kubectl, text);
                    compared.lock().expect("a lock").push((text, comparison));
                }
            });
        }
    });
    let compared = compared.into_inner().expect("a lock");
    let is = |comparison: &Comparison| match comparison {
        Comparison::Wrong(shown) => Some(shown.clone()),
        Comparison::Alike | Comparison::Stricter => None,
    };
    let wrong: Vec<String> = compared.iter().filter_map(|(_, comparison)| is(comparison)).collect();
    assert!(wrong.is_empty(), "{} texts:\n{}", wrong.len(), wrong.join("\n"));
    let stricter: Vec<_> =
        compared.iter().filter(|(_, it)| matches!(it, Comparison::Stricter)).map(|it| it.0).collect();
    println!("{} texts; of these Writ refuses what kubectl takes: {stricter:#?}", compared.len());
    assert!(stricter.len() < 60, "{stricter:#?}");
}
