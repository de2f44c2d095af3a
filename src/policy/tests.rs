use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::api::{CommandExecutionSpec, Reason, Whitelist, WhitelistRule, WhitelistSpec};

fn rule(name: &str, text: Option<&str>, run: &[&str]) -> WhitelistRule {
    WhitelistRule {
        name: name.to_owned(),
        description: None,
        match_text: text.map(str::to_owned),
        run: run.iter().map(|word| (*word).to_owned()).collect(),
        unrecognized: BTreeMap::new(),
    }
}

fn restart() -> WhitelistRule {
    rule("restart", Some("restart nginx"), &["/usr/bin/systemctl", "restart", "nginx.service"])
}

fn whitelist(name: &str, rules: Vec<WhitelistRule>) -> Whitelist {
    Whitelist::new(name, WhitelistSpec { rules })
}

/// Asks for nothing yet.
fn spec() -> CommandExecutionSpec {
    CommandExecutionSpec { command: None, ..CommandExecutionSpec::asking_for("") }
}

fn command(text: &str) -> CommandExecutionSpec {
    CommandExecutionSpec::asking_for(text)
}

fn argv(words: &[&str]) -> CommandExecutionSpec {
    CommandExecutionSpec { argv: Some(words.iter().map(|word| (*word).to_owned()).collect()), ..spec() }
}

fn verdict(whitelists: &[Whitelist], spec: &CommandExecutionSpec) -> Verdict {
    decide(&compile(whitelists), &Request::parse(spec).expect("a well-formed request"))
}

#[track_caller]
fn denied(whitelists: &[Whitelist], spec: &CommandExecutionSpec) -> Denial {
    match verdict(whitelists, spec) {
        Verdict::Deny(denial) => denial,
        Verdict::Allow(decision) => panic!("allowed by {}", decision.rule),
    }
}

#[track_caller]
fn allowed(whitelists: &[Whitelist], spec: &CommandExecutionSpec) -> Decision {
    match verdict(whitelists, spec) {
        Verdict::Allow(decision) => decision,
        Verdict::Deny(denial) => panic!("denied: {}", denial.message),
    }
}

#[test]
fn without_a_whitelist_nothing_is_allowed() {
    assert_eq!(denied(&[], &command("restart nginx")).reason, Reason::NoMatchingRule);
}

#[test]
fn text_and_argument_vector_give_the_same_decision() {
    let web = [whitelist("web", vec![restart()])];
    let by_text = allowed(&web, &command("restart nginx"));
    let by_argv = allowed(&web, &argv(&["/usr/bin/systemctl", "restart", "nginx.service"]));
    assert_eq!(by_text, by_argv);
    assert_eq!(by_text.argv, ["/usr/bin/systemctl", "restart", "nginx.service"]);
    assert_eq!(by_text.timeout_seconds, 30);
}

#[test]
fn a_rule_without_match_is_asked_for_by_its_words() {
    let web = [whitelist("web", vec![rule("uptime", None, &["/usr/bin/uptime", "-p"])])];
    assert_eq!(allowed(&web, &command("/usr/bin/uptime -p")).rule, "uptime");
    denied(&web, &command("uptime -p"));
}

#[test]
fn anything_but_the_same_bytes_is_denied() {
    let web = [whitelist("web", vec![restart()])];
    let near = [
        "restart nginx ",
        " restart nginx",
        "restart  nginx",
        "Restart nginx",
        "restart nginx;id",
        "restart nginx && id",
        "restart nginx|sh",
        "restart $(id)",
        "restart `id`",
        "restart",
        "restart nginx nginx",
        "'restart nginx'",
        "restart\\ nginx",
        "restart ngin?",
        "restart *",
        "/usr/bin/systemctl restart nginx.service",
        "exec restart nginx",
    ];
    for text in near {
        assert_eq!(denied(&web, &command(text)).reason, Reason::NoMatchingRule, "{text}");
    }
    let near: [&[&str]; 6] = [
        &["/usr/bin/systemctl", "restart"],
        &["/usr/bin/systemctl", "restart", "nginx.service", ""],
        &["/usr/bin/systemctl", "restart nginx.service"],
        &["/usr/bin/../bin/systemctl", "restart", "nginx.service"],
        &["systemctl", "restart", "nginx.service"],
        &["/usr/bin/systemctl", "restart", "nginx.service "],
    ];
    for words in near {
        assert_eq!(denied(&web, &argv(words)).reason, Reason::NoMatchingRule, "{words:?}");
    }
}

#[test]
fn what_is_not_printable_ascii_is_malformed_before_anything_else() {
    for text in
        ["restart\nnginx", "restart nginx\0", "restart\tnginx", "restart nginx\r", "restart ngınx", "\u{7f}", "réstart"]
    {
        let error = Request::parse(&command(text)).unwrap_err();
        assert!(matches!(error, RequestError::NotPrintable { field: "spec.command", .. }), "{text:?}: {error}");
    }
    let error = Request::parse(&argv(&["/bin/echo", "a\nb"])).unwrap_err();
    assert!(matches!(error, RequestError::NotPrintable { field: "spec.argv", byte: b'\n', position: 1 }));
}

#[test]
fn a_request_has_exactly_one_way_and_its_bounds() {
    assert_eq!(Request::parse(&spec()), Err(RequestError::NotExactlyOneWay));
    let both = CommandExecutionSpec { argv: argv(&["/bin/echo"]).argv, ..command("x") };
    assert_eq!(Request::parse(&both), Err(RequestError::NotExactlyOneWay));
    assert_eq!(Request::parse(&command("")), Err(RequestError::Empty { field: "spec.command" }));
    assert_eq!(Request::parse(&argv(&[])), Err(RequestError::Empty { field: "spec.argv" }));
    assert!(matches!(Request::parse(&command(&"x".repeat(4097))), Err(RequestError::TooLong { maximum: 4096, .. })));
    assert!(matches!(Request::parse(&argv(&["x"; 65])), Err(RequestError::TooLong { maximum: 64, .. })));
}

#[test]
fn the_first_of_rules_that_do_the_same_is_recorded_whatever_the_order_of_the_list() {
    let again = rule("again", Some("restart nginx"), &["/usr/bin/systemctl", "restart", "nginx.service"]);
    let (first, second) = (whitelist("a", vec![again]), whitelist("b", vec![restart()]));
    for whitelists in [[first.clone(), second.clone()], [second, first]] {
        let decision = allowed(&whitelists, &command("restart nginx"));
        assert_eq!((decision.whitelist.name.as_str(), decision.rule.as_str()), ("a", "again"));
    }
}

#[test]
fn rules_that_would_do_different_things_are_ambiguous() {
    let other = rule("other", Some("restart nginx"), &["/usr/bin/systemctl", "restart", "nginx"]);
    let web = [whitelist("web", vec![restart(), other])];
    let denial = denied(&web, &command("restart nginx"));
    assert_eq!(denial.reason, Reason::Ambiguous);
    assert!(denial.message.contains("web/restart") && denial.message.contains("web/other"), "{}", denial.message);
    assert_eq!(allowed(&web, &argv(&["/usr/bin/systemctl", "restart", "nginx"])).rule, "other");
}

#[test]
fn each_thing_that_a_rule_may_never_do_puts_it_out_of_force_alone() {
    let spoilt: Vec<(WhitelistRule, RuleProblem)> = vec![
        (rule("r", None, &[]), RuleProblem::RunLength),
        (rule("r", None, &["/bin/x"; 65]), RuleProblem::RunLength),
        (rule("r", None, &["systemctl"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["./systemctl"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["/usr/../bin/sh"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["/usr/./sh"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["//bin/sh"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["/bin/"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &["/"]), RuleProblem::ProgramNotAbsolute),
        (rule("r", None, &[""]), RuleProblem::ProgramNotAbsolute),
    ];
    for (bad, problem) in spoilt {
        let set = compile(&[whitelist("web", vec![bad.clone(), restart()])]);
        assert_eq!(set.broken.iter().map(|broken| &broken.problem).collect::<Vec<_>>(), [&problem], "{:?}", bad.run);
        assert_eq!(set.rules.len(), 1, "the other rule holds");
    }
    for word in ["it's", "a!b", "a\\b", "{unit}", "a\nb", "é", "}"] {
        let set = compile(&[whitelist("web", vec![rule("r", None, &["/bin/echo", word])])]);
        assert!(matches!(set.broken[0].problem, RuleProblem::ForbiddenByte { field: "run", .. }), "{word:?}");
    }
    for text in ["restart {unit}", "a\nb", "é"] {
        let set = compile(&[whitelist("web", vec![rule("r", Some(text), &["/bin/echo"])])]);
        assert!(matches!(set.broken[0].problem, RuleProblem::ForbiddenByte { field: "match", .. }), "{text:?}");
    }
    let set = compile(&[whitelist("web", vec![rule("r", Some(""), &["/bin/echo"])])]);
    assert_eq!(set.broken[0].problem, RuleProblem::TextLength { field: "match" });
}

#[test]
fn a_field_that_is_not_known_closes_its_rule_and_an_effect_closes_the_namespace() {
    let mut narrowed = restart();
    narrowed.unrecognized.insert("subjects".to_owned(), serde_json::json!([{"kind": "Group", "name": "sre"}]));
    let denial = denied(&[whitelist("web", vec![narrowed])], &command("restart nginx"));
    assert_eq!(denial.reason, Reason::NoMatchingRule);
    assert!(denial.message.contains("1 broken rules"), "{}", denial.message);

    let mut deny = rule("no", None, &["/bin/true"]);
    deny.unrecognized.insert("effect".to_owned(), serde_json::json!("Deny"));
    let whitelists = [whitelist("web", vec![restart()]), whitelist("zz", vec![deny])];
    assert_eq!(denied(&whitelists, &command("restart nginx")).reason, Reason::PolicyBroken);
}

#[test]
fn a_rule_keeps_the_fields_that_it_does_not_know() {
    let yaml = serde_json::json!({"name": "r", "run": ["/bin/true"], "subjects": [], "runAs": "root"});
    let rule: WhitelistRule = serde_json::from_value(yaml).unwrap();
    assert_eq!(rule.unrecognized.keys().collect::<Vec<_>>(), ["runAs", "subjects"]);
}

#[test]
fn the_command_line_is_exec_and_quoted_words() {
    let words = ["/bin/echo".to_owned(), "a b".to_owned(), String::new(), "$(id); `id` \"x\" *".to_owned()];
    assert_eq!(command_line(&words), r#"exec '/bin/echo' 'a b' '' '$(id); `id` "x" *'"#);
}

proptest! {
    #[test]
    fn what_is_allowed_is_exactly_what_a_rule_lists(text in "[ -~]{1,12}", listed in "[ -z|~]{1,12}") {
        let web = [whitelist("web", vec![rule("r", Some(&listed), &["/bin/true"])])];
        let verdict = verdict(&web, &command(&text));
        prop_assert_eq!(matches!(verdict, Verdict::Allow(_)), text == listed);
    }

    /// A real shell reads the words back: whatever they are, byte for byte.
    #[test]
    fn a_shell_reads_back_the_words(words in proptest::collection::vec("[ -~\n\t]{0,20}", 0..6)) {
        let mut argv = vec!["/usr/bin/printf".to_owned(), "%s\\0".to_owned(), "first".to_owned()];
        argv.extend(words);
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(command_line(&argv)).output().unwrap();
        let expected: Vec<u8> = argv[2..].iter().flat_map(|word| word.bytes().chain([0])).collect();
        prop_assert_eq!(output.stdout, expected);
    }
}
