//! Checks the rules of CONTRIBUTING.md, "Style", that a program can check: the length of lines, refused phrases, and
//! the first word of doc comments. The checks apply to the paths in `CLEAN` only.
//!
//! `cargo test --test wording -- --ignored --nocapture` prints the violations of all other files, and their number for
//! each module.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets an impossible state has to fail, and the report is for a terminal"
)]

mod messages;
mod phrases;
mod rules;
mod rust;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rules::Finding;
use text::Block;

/// Prefixes of the paths without violations. To switch a module on, fix its violations and add its path.
const CLEAN: &[&str] = &[
    ".ci/",
    "benches/",
    "charts/",
    "Containerfile",
    "CONTRIBUTING.md",
    "deploy/",
    "docs/",
    "examples/",
    "hack/cargo-deny",
    "hack/contract",
    "hack/control-plane",
    "hack/deploy",
    "hack/fuzz",
    "hack/gtfobins",
    "hack/image",
    "hack/lab",
    "hack/lint",
    "hack/sshd",
    "Makefile",
    "README.md",
    "src/api",
    "src/backoff",
    "src/bin",
    "src/lib.rs",
    "src/machine",
    "src/operations",
    "src/ssh",
    "src/telemetry",
    "src/traces",
    "tests/",
];

/// Correct uses of a refused phrase: path, phrase, reason.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// Maximum number of violations in a failure message. The report prints all of them.
const MAX_SHOWN: usize = 100;

/// Directories with files to check.
const ROOTS: &[&str] = &[".ci", "benches", "charts", "deploy", "docs", "examples", "fuzz", "hack", "src", "tests"];

/// Files in the root of the repository to check. The changelog is history, so it is not among them.
const ROOT_FILES: &[&str] = &["CONTRIBUTING.md", "Cargo.toml", "Containerfile", "Makefile", "README.md"];

/// Paths that `make generate` writes or that are inputs of tests. Their texts come from other files.
const SKIPPED: &[&str] = &[
    "charts/writ/files/crds/",
    "docs/reference.md",
    "fuzz/target/",
    "health_test.yaml",
    "testdata/",
    "tests/policy/corpus/",
    "tests/wording/fixtures/",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path and text of every file to check, sorted by path.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut paths: Vec<PathBuf> = ROOT_FILES.iter().map(|name| root.join(name)).collect();
    let mut directories: Vec<PathBuf> = ROOTS.iter().map(|name| root.join(name)).collect();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() { directories.push(path) } else { paths.push(path) }
        }
    }
    let relative = |path: &Path| path.strip_prefix(&root).expect("a path below the root").display().to_string();
    let is_skipped = |path: &str| SKIPPED.iter().any(|skipped| path.starts_with(skipped) || path.contains(skipped));
    let mut files: Vec<(String, String)> = paths
        .iter()
        .map(|path| (relative(path), path))
        .filter(|(name, _)| !is_skipped(name))
        .filter_map(|(name, path)| std::fs::read_to_string(path).ok().map(|text| (name, text)))
        .collect();
    files.sort();
    files
}

/// Returns the blocks of prose of a file, by the kind of the file.
fn blocks(path: &str, text: &str) -> Vec<Block> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "rs" => rust::blocks(text, path.starts_with("src/")),
        "md" => text::markdown(text),
        "lua" => text::hash_comments(text, "--"),
        "json" if path.starts_with("charts/") => text::json_strings(text),
        // Texts of alerts and of admission policies are next to the comments, so the whole file is prose.
        "yaml" | "tpl" | "txt" if path.starts_with("charts/") => text::whole(text),
        "yaml" | "sh" | "toml" => text::hash_comments(text, "#"),
        "" if text.starts_with("#!") || ["Containerfile", "Makefile"].contains(&name) => text::hash_comments(text, "#"),
        _ => Vec::new(),
    }
}

fn findings(path: &str, text: &str) -> Vec<Finding> {
    blocks(path, text).iter().flat_map(|block| rules::check(path, block)).collect()
}

fn is_clean(path: &str) -> bool {
    CLEAN.iter().any(|prefix| path.starts_with(prefix))
}

fn is_allowed(finding: &Finding) -> bool {
    ALLOWED.iter().any(|(path, phrase, _)| finding.path == *path && finding.phrase == Some(*phrase))
}

#[test]
fn clean_files_keep_the_style() {
    let found: Vec<String> = files()
        .iter()
        .filter(|(path, _)| is_clean(path))
        .flat_map(|(path, text)| findings(path, text))
        .filter(|finding| !is_allowed(finding))
        .map(|finding| finding.to_string())
        .collect();
    let shown = found.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{} violations (CONTRIBUTING.md, Style), for example:\n{shown}", found.len());
}

#[test]
fn every_clean_prefix_and_every_allowed_phrase_is_in_use() {
    let files = files();
    for prefix in CLEAN {
        assert!(files.iter().any(|(path, _)| path.starts_with(prefix)), "CLEAN has {prefix}, which has no file");
    }
    for (path, phrase, reason) in ALLOWED {
        assert!(!reason.is_empty(), "{path}: {phrase} needs a reason");
        let found = files.iter().filter(|(name, _)| name == path).flat_map(|(path, text)| findings(path, text));
        assert!(found.into_iter().any(|it| it.phrase == Some(phrase)), "ALLOWED has {phrase} in {path}; remove it");
    }
}

/// Returns the module of a path for the report: the first two names below `src`, `tests` and `hack`, else the first.
fn module(path: &str) -> String {
    let names: Vec<&str> = path.split('/').collect();
    match names.as_slice() {
        ["src", "bin", ..] => "src/bin".to_owned(),
        [first @ ("src" | "tests" | "hack"), second, ..] => format!("{first}/{}", second.trim_end_matches(".rs")),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

#[test]
#[ignore = "a report, not a check: it prints the violations of the files that are not in CLEAN"]
fn report() {
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for (path, text) in files() {
        let found = findings(&path, &text);
        if !is_clean(&path) {
            found.iter().for_each(|finding| println!("{finding}"));
        }
        let count = counts.entry(module(&path)).or_default();
        for finding in found.iter().filter(|finding| !is_allowed(finding)) {
            count[finding.kind as usize] += 1;
            count[3] += 1;
        }
    }
    println!("{:28} {:>7} {:>8} {:>6} {:>6}", "module", "length", "phrase", "start", "all");
    for (module, [length, phrase, start, all]) in counts {
        println!("{module:28} {length:>7} {phrase:>8} {start:>6} {all:>6}");
    }
}

const RUST: &str = include_str!("fixtures/violations.rs.txt");
const MARKDOWN: &str = include_str!("fixtures/violations.md.txt");

/// Returns the findings of a fixture, as `line kind`, and of a phrase as `line phrase`. Declarations become blanks
/// before the check.
fn found(path: &str, text: &str) -> Vec<String> {
    let mut text = text.to_owned();
    while let Some(start) = text.find("[expect: ") {
        let end = start + text[start..].find(']').expect("the end of the declaration") + 1;
        text.replace_range(start..end, &" ".repeat(end - start));
    }
    let name = |finding: &Finding| finding.phrase.map_or_else(|| format!("{:?}", finding.kind), str::to_owned);
    findings(path, &text).iter().map(|finding| format!("{} {}", finding.line, name(finding))).collect()
}

/// Returns the findings that a fixture declares: `[expect: NAME, ...]` at the end of a line.
fn declared(text: &str) -> Vec<String> {
    let mut declared = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((_, rest)) = line.split_once("[expect: ") else { continue };
        let names = rest.split_once(']').expect("the end of the declaration").0;
        declared.extend(names.split(", ").map(|name| format!("{} {name}", index + 1)));
    }
    declared
}

#[test]
fn each_kind_of_violation_is_found_and_correct_text_is_not() {
    for (path, text) in [("src/fixture.rs", RUST), ("docs/fixture.md", MARKDOWN)] {
        let mut found = found(path, text);
        let mut declared = declared(text);
        found.sort();
        declared.sort();
        assert!(declared.len() >= 6, "{path}: the fixture declares {} findings", declared.len());
        assert_eq!(found, declared, "{path}");
    }
}

#[test]
fn every_refused_phrase_is_found() {
    for (phrase, replacement) in phrases::REFUSED {
        assert!(!replacement.is_empty(), "{phrase} has no replacement");
        let found = found("docs/x.md", &format!("The text {phrase} ends.\n"));
        assert_eq!(found, [format!("1 {phrase}")]);
    }
}
