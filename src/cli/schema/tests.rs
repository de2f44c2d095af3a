use std::collections::BTreeSet;

use super::validator::TWINS;
use super::*;
use crate::cli::manifest;

/// Schema keywords that [`Validator`] checks, or that do not restrict values.
const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

fn visit(schema: &Value, seen: &mut dyn FnMut(&str, &Value)) {
    for (keyword, value) in schema.as_object().expect("a schema") {
        seen(keyword, value);
        match keyword.as_str() {
            "properties" => value.as_object().expect("a map").values().for_each(|inner| visit(inner, seen)),
            "items" | "additionalProperties" => visit(value, seen),
            _ => {}
        }
    }
}

#[test]
fn every_keyword_of_the_crd_is_looked_at_every_pattern_has_words_and_every_cel_rule_a_twin() {
    let spec = &WHITELIST.properties.as_ref().expect("properties")["spec"];
    let (mut keywords, mut patterns, mut rules, mut formats) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    visit(&serde_json::to_value(spec).expect("JSON"), &mut |keyword, value| {
        keywords.insert(keyword.to_owned());
        match keyword {
            "pattern" => drop(patterns.insert(value.as_str().expect("text").to_owned())),
            "format" => drop(formats.insert(value.as_str().expect("text").to_owned())),
            "x-kubernetes-validations" => {
                rules.extend(
                    value.as_array().expect("a list").iter().map(|rule| rule["rule"].as_str().expect("CEL").to_owned()),
                );
            }
            _ => {}
        }
    });
    for keyword in &keywords {
        assert!(KEYWORDS.contains(&keyword.as_str()), "the schema check does not know {keyword}");
    }
    assert!(formats.iter().all(|format| format == "int64"), "{formats:?}");
    let known: BTreeSet<String> = words::PATTERNS.iter().map(|(pattern, _)| (*pattern).to_owned()).collect();
    assert_eq!(patterns, known);
    assert_eq!(rules, TWINS.iter().map(|(cel, _)| (*cel).to_owned()).collect());
}

fn said(text: &str) -> Vec<String> {
    let node = manifest::read(text.as_bytes()).expect("text").remove(0).expect("YAML");
    problems(&node)
        .into_iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.path, problem.message))
        .collect()
}

const HEAD: &str = "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: w}\nspec:\n  rules:\n";

#[test]
fn a_bare_word_that_is_no_string_for_kubectl_is_named_with_the_remedy() {
    let text =
        format!("{HEAD}  - name: n\n    run: [/bin/x, -9, y]\n    parameters: {{on: {{enum: [off, 1.5, ~]}}}}\n");
    let said = said(&text);
    for part in [
        "6:spec.rules[0].name: the bare word n is a boolean for kubectl; quote it: \"n\"",
        "7:spec.rules[0].run[1]: the bare word -9 is a number for kubectl; quote it: \"-9\"",
        "7:spec.rules[0].run[2]: the bare word y is a boolean for kubectl; quote it: \"y\"",
        "8:spec.rules[0].parameters.true: the bare word on is true for kubectl; quote it: \"on\"",
        "8:spec.rules[0].parameters.true.enum[0]: the bare word off is a boolean",
        "8:spec.rules[0].parameters.true.enum[1]: the bare word 1.5 is a number",
        "8:spec.rules[0].parameters.true.enum[2]: must be a string, but is nothing",
    ] {
        assert!(said.iter().any(|said| said.starts_with(part)), "{part}\n{said:#?}");
    }
    assert_eq!(said.len(), 7, "{said:#?}");
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line() {
    let text = format!(
        "{HEAD}  - name: a\n    effect: deny\n    run: []\n  - name: a\n    match: 'é'\n    run: [/bin/x]\n    run: [/bin/y]\n    subjects: {{}}\n  - match: x\n    interactive: 1\n"
    );
    let said = said(&text);
    for part in [
        "7:spec.rules[0].effect: must be one of Allow, Deny, but is \"deny\"",
        "8:spec.rules[0].run: must have at least 1 entries, but has 0",
        "9:spec.rules[1].name: a is used on line 6 already",
        "10:spec.rules[1].match: must have printable ASCII characters, but is \"é\"",
        "12:spec.rules[1].run: the key is used on line 11 already",
        "13:spec.rules[1].subjects: must be a list, but is a map",
        "14:spec.rules[2].name: missing",
        "14:spec.rules[2]: a rule must say in `run`",
        "15:spec.rules[2].interactive: must be true or false, but is 1",
    ] {
        assert!(said.iter().any(|said| said.starts_with(part)), "{part}\n{said:#?}");
    }
    assert_eq!(said.len(), 9, "{said:#?}");
}

#[test]
fn of_a_number_and_the_same_number_in_quotes_as_keys_kubectl_reads_either() {
    let labels = |keys: &str| {
        let said = said(&format!(
            "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata:\n  name: w\n  labels: {keys}\n\
             spec: {{rules: [{{name: a, run: [/bin/true]}}]}}\n"
        ));
        said.into_iter().find(|said| said.contains("kubectl reads")).unwrap_or_default()
    };
    for keys in [r#"{1: x, "1": y}"#, r#"{"1": x, 1: y}"#] {
        assert!(labels(keys).contains("kubectl reads either, by chance"), "{keys}: {}", labels(keys));
    }
    for keys in [r#"{"1": x, '1': y}"#, "{a: x, a: y}"] {
        assert!(labels(keys).contains("kubectl reads the last one"), "{keys}: {}", labels(keys));
    }
}

#[test]
fn metadata_over_the_bounds_of_the_admission_policy_are_refused() {
    let rules = "spec: {rules: [{name: a, run: [/bin/true]}]}\n";
    let with = |metadata: &str| {
        said(&format!("apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata:\n  name: w\n{metadata}{rules}"))
    };
    let many: String = (0..65).map(|index| format!("    n{index}: v\n")).collect();
    for field in ["labels", "annotations"] {
        let found = with(&format!("  {field}:\n{many}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("5:metadata.{field}: must have at most 64 entries")), "{found:?}");
    }
    let finalizers: String = (0..17).map(|index| format!("  - example.org/f{index}\n")).collect();
    let found = with(&format!("  finalizers:\n{finalizers}"));
    assert!(found.len() == 1 && found[0].starts_with("5:metadata.finalizers: must have at most 16"), "{found:?}");
    assert!(with("  labels: {a: b}\n  annotations: {c: d}\n  finalizers: [example.org/e]\n").is_empty());
}
