//! Compares the scanners with a judge: a simple check that tries every value up to a small length. The scanners and the
//! judge must find the same features.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::policy::language::Words;
use crate::policy::language::scanner::{PARENTS, Scanner, beginning_with, containing};
use crate::policy::pattern::Pattern;
use crate::policy::template::{ParameterSpec, Template};
use crate::policy::values::{ValueSpec, ValueUse};

/// Letters of the patterns of these tests. `z` and `9` represent all letters without a special meaning.
const LETTERS: &[char] = &['.', '/', '-', 'z', ' ', '=', '9'];
/// Maximum length of a value that the judge tries, in bytes.
const LONGEST: usize = 4;

/// Returns true if a word has a segment `..`. In contrast to the scanner, this function splits the word at the ends of
/// segments.
fn has_parent(word: &str) -> bool {
    let is_edge = |character: char| !character.is_ascii_alphanumeric() && !"._-+~%^".contains(character);
    let mut segments = word.split(is_edge);
    // In `-C..`, the letter of a short option precedes the first segment, so the letter is removed.
    let first = segments.next().unwrap_or_default();
    let cluster =
        first.strip_prefix('-').map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()));
    let is_clustered = cluster == Some("..") && first != "-..";
    first == ".." || is_clustered || segments.any(|segment| segment == "..")
}

fn all_values(letters: &[char], longest: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..longest {
        last = last.iter().flat_map(|value| letters.iter().map(move |letter| format!("{value}{letter}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn parameter(name: &str, pattern: &str, longest: usize) -> Option<ParameterSpec> {
    let declared = api::whitelist::Parameter {
        pattern: Some(pattern.to_owned()),
        max_length: Some(u32::try_from(longest).unwrap()),
        ..Default::default()
    };
    let values = ValueSpec::compile(name, &declared, ValueUse::Argument).ok()?;
    Some(ParameterSpec { name: name.to_owned(), values })
}

fn class() -> impl Strategy<Value = String> {
    proptest::sample::subsequence(LETTERS.to_vec(), 1..4).prop_map(|letters| {
        let escaped: String = letters
            .iter()
            .map(|letter| {
                format!("\\{letter}")
                    .replace("\\z", "z")
                    .replace("\\9", "9")
                    .replace("\\=", "=")
                    .replace("\\ ", " ")
                    .replace("\\/", "/")
            })
            .collect();
        format!("[{escaped}]")
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => class(),
        2 => proptest::sample::select(vec!["[.]", "/", "-", "z", "[.][.]", "[.]/", "z+", "[z.]+", "[a-z9]+", "[.]{2}", "/z"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            4 => proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| parts.concat()),
            2 => proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join("|"))),
            2 => (inner.clone(), proptest::sample::select(vec!["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{3,}"]))
                .prop_map(|(part, count)| format!("({part}){count}")),
        ]
    })
}

/// Returns the values that the pattern admits, for the judge.
fn tried<'v>(pattern: &Pattern, values: &'v [String], longest: usize) -> Vec<&'v String> {
    values.iter().filter(|value| value.len() <= longest && pattern.matches_whole(value)).collect()
}

fn found(parameters: &[ParameterSpec], scanner: &Scanner, word: &str) -> Option<String> {
    let template = Template::parse("run", word, parameters).unwrap();
    let example = Words::new(parameters, scanner, |_| true).find(&template).unwrap()?;
    Some(example.word)
}

/// Compares the example of a scanner with the values that the judge tries:
///
/// - If the judge finds a value with the feature, the scanner also finds an example.
/// - The parameter admits the example, and the example has the feature.
fn assert_agrees(
    parameters: &[ParameterSpec],
    scanner: &Scanner,
    has: impl Fn(&str) -> bool,
    tried: &[&String],
) -> Result<(), TestCaseError> {
    let verdict = found(parameters, scanner, "{p}");
    let by_hand = tried.iter().find(|value| has(value));
    prop_assert!(by_hand.is_none() || verdict.is_some(), "{by_hand:?} was not found");
    if let Some(example) = verdict {
        prop_assert!(parameters[0].values.check(&example).is_ok(), "{example:?} is not admitted");
        prop_assert!(has(&example), "{example:?} does not have it");
        // The example is the shortest value with the feature. If the judge tries values of this length, its shortest
        // value has the same length.
        let shortest = tried.iter().filter(|value| has(value)).map(|value| value.len()).min();
        prop_assert!(example.len() > LONGEST || shortest == Some(example.len()), "{example:?} {shortest:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_global_rejects: u32::MAX, ..ProptestConfig::default() })]

    #[test]
    fn what_a_pattern_admits_is_what_a_judge_finds_who_tries_every_value(text in pattern(), longest in 1..8_usize) {
        let Some(parameter) = parameter("p", &text, longest) else { return Ok(()) };
        let values = all_values(LETTERS, LONGEST);
        let pattern = Pattern::compile("p", &text).unwrap();
        let tried = tried(&pattern, &values, longest);
        let parameters = [parameter];
        assert_agrees(&parameters, &PARENTS, has_parent, &tried)?;
        for letter in [b'-', b'/'] {
            assert_agrees(&parameters, &beginning_with(letter), |value| value.starts_with(char::from(letter)), &tried)?;
        }
        assert_agrees(&parameters, &containing(b' '), |value| value.contains(' '), &tried)?;
    }

    /// The verdict on a whole rule agrees with the judge, also for words with constant text and two parameters.
    #[test]
    fn a_rule_is_out_of_force_if_and_only_if_a_word_has_two_dots(
        one in pattern(), other in pattern(),
        word in proptest::sample::select(vec![
            "{p}", "/srv/{p}", "/srv/.{p}", "/srv/..{p}", "x{p}", "-C{p}", "--file={p}", "@{p}", "{p}../z", "{p}:{q}",
            "/srv/{p}_{q}", "{p},.{q}", "{p}z.{q}", "a/{p}%..", "-{p}", "..{p}", ".{p}", "/..{p}", "{p}+{p}",
        ]),
    ) {
        let has_two = word.contains("{q}");
        let short = if has_two { 2 } else { 3 };
        let (Some(p), Some(q)) = (parameter("p", &one, short), parameter("q", &other, short)) else { return Ok(()) };
        let values = all_values(LETTERS, short);
        let of = |text: &str| { let pattern = Pattern::compile("p", text).unwrap();
            tried(&pattern, &values, short).into_iter().cloned().collect::<Vec<_>>() };
        let (ones, others) = (of(&one), if has_two { of(&other) } else { vec!["z".to_owned()] });
        let text = word.replace("{p}", "z").replace("{q}", "z");
        // The author chose the constant text of the rule, so Writ does not refuse a `..` in it.
        prop_assume!(!has_parent(&text));
        let expected = ones.iter().find_map(|p| others.iter().find_map(|q| {
            let word = word.replace("{p}", p).replace("{q}", q);
            has_parent(&word).then_some(word)
        }));
        let second = if has_two { format!(", q: {{pattern: '{other}', maxLength: {short}}}") } else { String::new() };
        let rules = format!("- {{name: r, match: 'a {{p}}', run: [/bin/x, --, '{word}'], parameters: {{p: {{pattern: '{one}', maxLength: {short}}}{second}}}}}");
        let rules = if has_two { rules.replace("'a {p}'", "'a {p}|{q}'") } else { rules };
        let compiled = compile(&whitelist("web", &rules));
        let parameters = if has_two { vec![p, q] } else { vec![p] };
        match compiled.invalid_rules.first().map(|broken| &broken.problem) {
            None => prop_assert_eq!(expected, None),
            Some(RuleError::ParentDirectory { word: example, .. }) => {
                prop_assert!(has_parent(example), "{}", example);
                let template = Template::parse("run", word, &parameters).unwrap();
                prop_assert!(template.extract(example, &parameters, &mut vec![None; parameters.len()]).is_ok(), "{}", example);
                prop_assert!(expected.is_some());
            }
            // The template is ambiguous, so the rule is invalid for another reason than `..`.
            Some(RuleError::AmbiguousTemplate { .. }) => {}
            Some(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// For each feature of this test, some random patterns have the feature, and others do not. Without both kinds of
/// patterns, the other tests of this file would prove little.
#[test]
fn the_patterns_are_of_every_kind() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        let text = pattern().new_tree(&mut runner).unwrap().current();
        let Some(parameter) = parameter("p", &text, 5) else {
            *counts.entry("refused".to_owned()).or_insert(0) += 1;
            continue;
        };
        let parameters = [parameter];
        for (name, scanner) in [("parents", &*PARENTS), ("dash", &beginning_with(b'-')), ("space", &containing(b' '))] {
            let is_found = found(&parameters, scanner, "{p}").is_some();
            *counts.entry(format!("{name} {is_found}")).or_insert(0) += 1;
        }
    }
    let kinds = ["parents true", "parents false", "dash true", "dash false", "space true", "space false"];
    assert!(kinds.iter().all(|kind| counts.get(*kind).is_some_and(|count| *count >= 20)), "{counts:?}");
}

fn rule(run: &str, parameters: &str) -> String {
    format!("- {{name: r, match: go, run: [/usr/local/bin/show, {run}], parameters: {{{parameters}}}}}")
}

#[track_caller]
fn leaves(run: &str, parameters: &str, word: &str) {
    // The `match` of the rule has no placeholders. Each parameter therefore needs a default.
    let compiled = compile(&whitelist("web", &rule(run, parameters)));
    match compiled.invalid_rules.first().map(|broken| &broken.problem) {
        Some(RuleError::ParentDirectory { word: example, .. }) => assert_eq!(example, word, "{run} {parameters}"),
        other => panic!("{run} {parameters}: {other:?}"),
    }
}

#[test]
fn a_pattern_that_leads_to_a_parent_directory_puts_the_rule_out_of_force() {
    let p = |pattern: &str, value: &str| format!("p: {{pattern: '{pattern}', default: '{value}'}}");
    leaves("'/var/log/{p}'", &p("[A-Za-z0-9._/-]+", "a"), "/var/log/..");
    leaves("'{p}'", &p("/var/log/[A-Za-z0-9._/-]+", "/var/log/a"), "/var/log/..");
    leaves("'--output={p}'", &p("[a-z./]+", "a"), "--output=..");
    leaves("'@{p}'", &p("[a-z.]+", "a"), "@..");
    leaves("'-C{p}'", &p("[a-z./]+", "a"), "-C..");
    leaves("'-xzf{p}'", &p("[a-z./]+", "a"), "-xzf..");
    leaves("'x.{p}'", &p("/[.]+", "/."), "x./..");
    leaves("'/srv/.{p}'", &p("[.a-z]+", "a"), "/srv/..");
    leaves("'/srv/..{p}'", &p("/[a-z]+", "/a"), "/srv/../a");
    leaves("'{p}/../x'", &p("[a-z]+|[.][.]", "a"), "../../x");
    leaves("'{p}-log'", &p("[a-z]+(/[.][.])?/[a-z]+", "a/a"), "a/../a-log");
    // The example has the same value for both placeholders.
    leaves("'{p}+{p}'", &p("[a-z]+(/[.][.])?", "a"), "a/..+a/..");
    leaves("'host:{p}'", &p("[a-z./]+", "a"), "host:..");
    leaves("'src={p},ro'", &p("[a-z./]+", "a"), "src=..,ro");
    // Two values together make the segment `..`. The rule is invalid even if an enum lists one of the two values.
    let two = "p: {pattern: '[a-z]+/', default: a/}, q: {pattern: '[.]', default: .}";
    leaves("'/srv/{p}.{q}'", two, "/srv/a/..");
    let listed = "p: {enum: [a/], default: a/}, q: {pattern: '[.]', default: .}";
    leaves("'/srv/{p}.{q}'", listed, "/srv/a/..");
    // `maxLength` decides if the value with `..` is admitted.
    leaves("'/srv/{p}'", "p: {pattern: '[a-z]{4}/[.]{2}|a', maxLength: 7, default: a}", "/srv/aaaa/..");
    sound(&rule("'/srv/{p}'", "p: {pattern: '[a-z]{4}/[.]{2}|a', maxLength: 6, default: a}"));
    for (run, parameters) in [
        ("'/var/log/{p}'", p("[A-Za-z0-9_][A-Za-z0-9._-]*", "a")),
        ("'/var/log/{p}'", p("[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*", "a")),
        ("'/var/log/{p}'", p("([.]?[a-z]+/)*[a-z]+[.]log", "a.log")),
        ("'app-{p}'", p("[0-9.]+", "1")),
        ("'{p}'", p("[a-z]+[.]service", "a.service")),
        ("'{p}'", p("[0-9]+[.][0-9]+", "1.1")),
        ("'{p}..HEAD'", p("[a-z]+", "a")),
        ("'{p}'", p("[a-z]+[.]{2,3}[a-z]+", "a..b")),
        ("'{p}'", p("[.]{3}", "...")),
        ("'HEAD^..{p}'", p("[a-z/]+", "a")),
        ("'{p}'", "p: {enum: [.., ../x], default: ..}".to_owned()),
        ("'/srv/../{p}'", p("[a-z]+", "a")),
        ("'/srv/{p}'", "p: {pattern: '[a-z./]+', allowParentDirectory: true, default: a}".to_owned()),
        ("'/srv/..{p}'", "p: {enum: [/a], default: /a}".to_owned()),
    ] {
        sound(&rule(run, &parameters));
    }
    let variable = |more: &str| {
        let whitelist = whitelist(
            "web",
            &format!("- {{name: r, run: [/bin/true], environment: {{DATA: {{pattern: '[a-z./]+'{more}}}}}}}"),
        );
        compile(&whitelist).invalid_rules.first().map(|broken| broken.problem.to_string())
    };
    assert!(
        variable("")
            .is_some_and(|problem| problem.starts_with("environment.DATA admits values with which DATA is \"..\""))
    );
    assert_eq!(variable(", allowParentDirectory: true"), None);
}

#[test]
fn the_field_is_for_patterns_of_what_is_allowed() {
    let problem = |rules: &str| compile(&whitelist("web", rules)).invalid_rules[0].problem.clone();
    let listed = "- {name: r, run: [/bin/x, '{p}'], parameters: {p: {enum: [a], allowParentDirectory: true}}}";
    assert_eq!(problem(listed), RuleError::OnlyForPatterns { field: "parameters.p".to_owned() });
    let deny =
        "- {name: r, effect: Deny, run: [/bin/x, '{p}'], parameters: {p: {pattern: '.*', allowParentDirectory: true}}}";
    assert!(matches!(problem(deny), RuleError::NotAllowedOnDeny { .. }));
    // A Deny can have a pattern that admits `..` without `allowParentDirectory`.
    sound("- {name: r, effect: Deny, run: [/bin/x, '{p}'], parameters: {p: {pattern: '.*'}}}");
    // `allowParentDirectory: false` means the same as an absent field.
    sound("- {name: r, run: [/bin/x, '{p}'], parameters: {p: {pattern: a, allowParentDirectory: false}}}");
}

/// The work for a rule depends on its parameters, not on the number of their placeholders.
#[test]
fn the_same_parameter_a_thousand_times_is_walked_once() {
    let word = "{p}/".repeat(1000) + "x";
    let words = format!(", '{word}'").repeat(40);
    let rules = format!(
        "- {{name: r, match: go, run: [/bin/x{words}], parameters: {{p: {{pattern: '[A-Za-z0-9._]{{1,150}}x', maxLength: 4096, default: ax}}}}}}"
    );
    sound(&rules);
}

#[test]
fn a_dash_that_no_value_is_short_enough_for_is_none() {
    let rule = |longest: usize| {
        format!(
            "- {{name: r, run: [/bin/x, '{{p}}'], parameters: {{p: {{pattern: '[a-z]+|-{{5}}', maxLength: {longest}}}}}}}"
        )
    };
    sound(&rule(4));
    let problem = &compile(&whitelist("web", &rule(5))).invalid_rules[0].problem;
    assert!(matches!(problem, RuleError::OptionAsOperand { value, .. } if value == "-----"), "{problem:?}");
}

/// Each scanner must have few states, because the work for a pattern grows with the number of these states.
#[test]
fn scanners_are_small() {
    use crate::policy::language::paths::{ABSOLUTE, LAUNCHER};
    let states: Vec<usize> = [&*PARENTS, &*ABSOLUTE, &*LAUNCHER].iter().map(|scanner| scanner.states()).collect();
    assert!(states[0] <= 14 && states[1] <= 256 && states[2] <= 256, "{states:?}");
    let classes: BTreeSet<_> = (0..=u8::MAX).filter_map(|byte| PARENTS.class(byte)).collect();
    assert!(classes.len() <= 8, "{classes:?}");
}
