//! Whitelists and requests with arbitrary values in all fields, including values that the API server would refuse. The
//! fuzzer includes this file and `model.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api::command_execution::RuleRequest;
use super::api::selector::{LabelExpression, LabelOperator, MachineSelector};
use super::api::unknown_fields::UnknownFields;
use super::api::whitelist::{Effect, IntegerRange, OutputLimits, Parameter, Subject, SubjectKind, TimeoutLimits};
use super::api::{CommandExecutionSpec, SessionRequest, Whitelist, WhitelistRule, WhitelistSpec};
use super::model::{Source, labels, nothing, requester};
use super::policy::{CompiledWhitelist, Identity, Request, RuleSet, Verdict, compile, decide, lint};

const TOKENS: &[&str] = &[
    "a", "b", "/bin/x", "{p}", "{q}", "{", "}", "{{", "}}", " ", "-", "--", "=", "'", "!", "\\", "\n", "é", "\0", "$",
    "9", "0", "/", ".", "..", "sh", "-c",
];
const PATTERN_TOKENS: &[&str] = &[
    "a",
    "b",
    "?",
    "*",
    "+",
    "{2}",
    "{4294967295}",
    "{0}",
    "(",
    ")",
    "[a-z]",
    "|",
    ".",
    "\\",
    "(?i)",
    "^",
    "$",
    "-",
    "(?u:",
    "[^a]",
    "\\w",
    "(?x)",
    "#",
    "(?m)",
    "{3,}",
    "\\d",
    "[ -~]",
    "é",
    "(a|",
    "(a?)",
    "{1000}",
];
const NAMES: &[&str] = &["p", "q", "a", "A B", "", "PATH", "TZ", "é", "1"];

fn text(source: &mut Source<'_>, tokens: &[&str]) -> String {
    (0..source.below(6)).map(|_| source.pick(tokens)).collect()
}

fn maybe<T>(source: &mut Source<'_>, make: impl FnOnce(&mut Source<'_>) -> T) -> Option<T> {
    source.once_in(3).then(|| make(source))
}

fn unknown_fields(source: &mut Source<'_>) -> UnknownFields {
    if source.once_in(40) { BTreeMap::from([("later".to_owned(), true.into())]) } else { BTreeMap::new() }
}

fn parameter(source: &mut Source<'_>) -> Parameter {
    let integers = [0, 1, -1, i64::MAX, i64::MIN, 10];
    Parameter {
        one_of: maybe(source, |source| (0..source.below(4)).map(|_| text(source, TOKENS)).collect()),
        integer: maybe(source, |source| IntegerRange {
            minimum: source.pick(&integers),
            maximum: source.pick(&integers),
            unknown_fields: unknown_fields(source),
        }),
        pattern: maybe(source, |source| text(source, PATTERN_TOKENS) + &text(source, PATTERN_TOKENS)),
        allow_parent_directory: source.once_in(3),
        max_length: maybe(source, |source| source.pick(&[0, 1, 4096, u32::MAX])),
        default: maybe(source, |source| text(source, TOKENS)),
        description: None,
        unknown_fields: unknown_fields(source),
    }
}

fn parameters(source: &mut Source<'_>) -> BTreeMap<String, Parameter> {
    (0..source.below(4)).map(|_| (source.pick(NAMES).to_owned(), parameter(source))).collect()
}

fn values(source: &mut Source<'_>) -> BTreeMap<String, String> {
    (0..source.below(3)).map(|_| (source.pick(NAMES).to_owned(), text(source, TOKENS))).collect()
}

fn selector(source: &mut Source<'_>) -> MachineSelector {
    let operators = [LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist];
    let expression = |source: &mut Source<'_>| LabelExpression {
        key: source.pick(&["role", ""]).to_owned(),
        operator: source.pick(&operators),
        values: (0..source.below(3)).map(|_| source.pick(&["web", "db", ""]).to_owned()).collect(),
        unknown_fields: unknown_fields(source),
    };
    MachineSelector {
        match_labels: (0..source.below(2)).map(|_| ("role".to_owned(), text(source, TOKENS))).collect(),
        match_expressions: (0..source.below(2)).map(|_| expression(source)).collect(),
        unknown_fields: unknown_fields(source),
    }
}

fn subject(source: &mut Source<'_>) -> Subject {
    Subject {
        kind: source.pick(&[SubjectKind::User, SubjectKind::Group, SubjectKind::ServiceAccount]),
        name: source.pick(&["quzza", "quzzgroup", "", "é"]).to_owned(),
        namespace: maybe(source, |source| text(source, TOKENS)),
        unknown_fields: unknown_fields(source),
    }
}

fn rule(source: &mut Source<'_>) -> WhitelistRule {
    let program = if source.once_in(3) { text(source, TOKENS) } else { "/bin/x".to_owned() };
    let words = (0..source.below(4)).map(|_| text(source, TOKENS));
    let run = std::iter::once(program).chain(words).collect();
    WhitelistRule {
        name: source.pick(&["r", "s", "", "é", "R"]).to_owned(),
        effect: source.pick(&[None, Some(Effect::Allow), Some(Effect::Allow), Some(Effect::Deny)]),
        action_type: maybe(source, |source| text(source, TOKENS)),
        match_text: maybe(source, |source| text(source, TOKENS)),
        run,
        parameters: parameters(source),
        machine_selector: maybe(source, selector),
        subjects: maybe(source, |source| (0..source.below(3)).map(|_| subject(source)).collect()),
        run_as: maybe(source, |source| text(source, TOKENS)),
        working_directory: maybe(source, |source| text(source, TOKENS)),
        environment: if source.once_in(3) { parameters(source) } else { BTreeMap::new() },
        timeout_seconds: maybe(source, |source| TimeoutLimits {
            default: maybe(source, |source| source.pick(&[0, 1, 86_400, u32::MAX])),
            maximum: maybe(source, |source| source.pick(&[0, 1, 86_400, u32::MAX])),
            unknown_fields: unknown_fields(source),
        }),
        interactive: source.once_in(5),
        record_input: source.once_in(9),
        interactive_shell: source.once_in(9),
        output: maybe(source, |source| OutputLimits {
            inline_bytes: Some(source.pick(&[0, 10, u32::MAX])),
            maximum_bytes: Some(source.pick(&[1024, i64::MAX, i64::MIN])),
            drain_seconds: Some(source.pick(&[0, 60, 61, u32::MAX])),
            unknown_fields: unknown_fields(source),
        }),
        minimum_retention_seconds: maybe(source, |source| source.pick(&[0, 86_400, u32::MAX])),
        redact: if source.once_in(6) { vec![text(source, PATTERN_TOKENS)] } else { Vec::new() },
        unknown_fields: unknown_fields(source),
        ..WhitelistRule::default()
    }
}

fn request(source: &mut Source<'_>, whitelists: &[Whitelist]) -> CommandExecutionSpec {
    let rules: Vec<_> = whitelists.iter().flat_map(|whitelist| &whitelist.spec.rules).collect();
    let rule = rules.get(source.below(rules.len().max(1)));
    let run = rule.map(|rule| rule.run.clone()).unwrap_or_default();
    let filled = |text: &str, source: &mut Source<'_>| text.replace("{p}", source.pick(&["a", "b", "", "aa", "9"]));
    let mut spec =
        CommandExecutionSpec { timeout_seconds: maybe(source, |source| source.pick(&[0, 1, 90_000])), ..nothing() };
    match source.below(4) {
        0 => spec.command = Some(filled(&run.join(" "), source)),
        1 => spec.argv = Some(run.iter().map(|word| filled(word, source)).collect()),
        2 => {
            let whitelist = maybe(source, |source| text(source, TOKENS));
            let name = rule.map(|rule| rule.name.clone()).unwrap_or_default();
            spec.rule = Some(RuleRequest { name, parameters: values(source), whitelist });
        }
        _ => spec.command = Some(text(source, TOKENS)),
    }
    if source.once_in(5) {
        spec.environment = values(source);
    }
    spec.session = source.once_in(5).then(SessionRequest::default);
    spec.action_type = maybe(source, |source| text(source, TOKENS)).filter(|_| source.once_in(3));
    spec
}

/// Checks arbitrary Whitelists and requests:
///
/// - Nothing panics.
/// - The program of an allowed command is a plain absolute path. The words and the values of the variables of the
///   command are printable ASCII.
/// - The order of the Whitelists does not change the decision.
pub fn judge(source: &mut Source<'_>) {
    let whitelist = |name: String, source: &mut Source<'_>| {
        let rules = (0..1 + source.below(3)).map(|_| rule(source)).collect();
        Whitelist::new(&name, WhitelistSpec { rules, unknown_fields: unknown_fields(source) })
    };
    let whitelists: Vec<Whitelist> =
        (0..1 + source.below(2)).map(|index| whitelist(format!("w{index}"), source)).collect();
    for whitelist in &whitelists {
        let findings = lint(whitelist);
        let _ = (findings.is_sound(), findings.errors());
    }
    let compiled: Vec<Arc<CompiledWhitelist>> = whitelists.iter().map(|whitelist| compile(whitelist).into()).collect();
    let rules = RuleSet::new(compiled.clone());
    let shuffled = RuleSet::new(compiled.into_iter().rev().collect());
    for _ in 0..4 {
        let spec = request(source, &whitelists);
        let Ok(request) = Request::parse(&spec) else { continue };
        let (labels, requester) = (labels(source), requester(source));
        let identity = requester.as_ref().map_or(Identity::Unknown, Identity::Known);
        let verdict = decide(&rules, &request, &labels, identity);
        assert_eq!(verdict, decide(&shuffled, &request, &labels, identity));
        let Verdict::Allow(decision) = verdict else { continue };
        let whitelist =
            whitelists.iter().find(|whitelist| whitelist.metadata.name.as_ref() == Some(&decision.whitelist.name));
        let rules = whitelist.map(|whitelist| whitelist.spec.rules.as_slice()).unwrap_or_default();
        assert!(rules.iter().any(|rule| {
            let is_allowing = rule.effect != Some(Effect::Deny) && rule.unknown_fields.is_empty();
            rule.name == decision.rule && is_allowing && (spec.session.is_none() || rule.interactive)
        }));
        let mut parts = decision.argv[0].split('/');
        assert!(parts.next() == Some("") && parts.all(|part| !matches!(part, "" | "." | "..")), "{decision:?}");
        let is_safe = |byte: u8| matches!(byte, b' '..=b'~');
        assert!(decision.argv.iter().chain(decision.environment.values()).all(|word| word.bytes().all(is_safe)));
    }
}
