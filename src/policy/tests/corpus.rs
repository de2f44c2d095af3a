//! Runs `lint` over the rules in tests/policy/corpus. Counts dangerous rules without a finding and harmless rules with
//! a finding. `hack/lint-corpus` does the same with a `writ` binary.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::*;
use crate::api::whitelist::WhitelistRule;

/// Maximum number of dangerous rules without a finding. To add a new rule that lint misses, increase this number.
const DANGEROUS_SILENT: usize = 15;
/// Maximum number of harmless rules with a finding.
const HARMLESS_WITH_FINDINGS: usize = 4;

const CORPUS: &[&str] = &[
    include_str!("../../../tests/policy/corpus/dangerous.yaml"),
    include_str!("../../../tests/policy/corpus/dangerous-system.yaml"),
    include_str!("../../../tests/policy/corpus/dangerous-services.yaml"),
    include_str!("../../../tests/policy/corpus/harmless.yaml"),
];

#[derive(serde::Deserialize)]
struct Entry {
    id: String,
    /// Kind of danger, as a letter that the file explains. `None` for a harmless rule.
    kind: Option<String>,
    rule: WhitelistRule,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Outcome {
    Refused,
    Warned,
    Silent,
}

fn entries() -> Vec<Entry> {
    let mut found = Vec::new();
    for text in CORPUS {
        // The file is a YAML list of JSON objects. Each object begins with `- ` in the first column.
        let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        for entry in format!("\n{text}").split("\n- ").skip(1) {
            found.push(serde_json::from_str(entry).unwrap_or_else(|error| panic!("{error}: {entry}")));
        }
    }
    found
}

fn outcome(entry: &Entry) -> (Outcome, Vec<String>) {
    let spec = WhitelistSpec { rules: vec![entry.rule.clone()], unknown_fields: BTreeMap::new() };
    let findings = lint(&Whitelist::new("corpus", spec));
    let warnings = findings.warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>();
    match (findings.is_sound(), warnings.is_empty()) {
        (false, _) => (Outcome::Refused, findings.errors()),
        (true, false) => (Outcome::Warned, warnings),
        (true, true) => (Outcome::Silent, warnings),
    }
}

#[test]
fn lint_sees_the_dangerous_rules_of_the_corpus_and_passes_the_harmless_ones() {
    let entries = entries();
    assert!(entries.len() > 1900, "{} entries: is the corpus there?", entries.len());
    let mut counts: BTreeMap<(String, Outcome), usize> = BTreeMap::new();
    let (mut silent, mut alarms, mut all) = (String::new(), String::new(), String::new());
    for entry in &entries {
        let (outcome, messages) = outcome(entry);
        let kind = entry.kind.clone().map_or_else(|| "harmless".to_owned(), |kind| format!("dangerous {kind}"));
        *counts.entry((kind.clone(), outcome)).or_default() += 1;
        let line = format!("{outcome:?} {kind} {}: {}", entry.id, entry.rule.run.join(" "));
        writeln!(all, "{line}\t{}", messages.join(" | ")).unwrap();
        match (entry.kind.is_some(), outcome) {
            (true, Outcome::Silent) => writeln!(silent, "  {line}").unwrap(),
            (false, Outcome::Refused | Outcome::Warned) => writeln!(alarms, "  {line}\n    {messages:?}").unwrap(),
            _ => {}
        }
    }
    println!(
        "{counts:#?}\nDangerous, and lint is silent:\n{silent}\nHarmless, and lint has findings:\n{alarms}\nAll:\n{all}"
    );
    let (silent, alarms) = (silent.lines().count(), alarms.lines().count() / 2);
    assert!(silent <= DANGEROUS_SILENT, "lint is silent about {silent} dangerous rules, at most {DANGEROUS_SILENT}");
    assert!(
        alarms <= HARMLESS_WITH_FINDINGS,
        "lint has findings about {alarms} harmless rules, at most {HARMLESS_WITH_FINDINGS}"
    );
}
