//! Problems of rules. Each test makes one valid rule invalid.

use super::*;

/// Returns the problem of the only rule.
#[track_caller]
pub(super) fn problem(rule: &str) -> RuleError {
    let compiled = compile(&whitelist("web", rule));
    assert_eq!(compiled.rule_count(), 0, "{rule} is in force");
    compiled.invalid_rules.first().unwrap_or_else(|| panic!("{rule} is neither in force nor broken")).problem.clone()
}

/// Returns a rule with this parameter, as an operand after `--`.
fn with_parameter(parameter: &str) -> String {
    format!("- {{name: r, run: [/bin/echo, --, '{{p}}'], parameters: {{p: {parameter}}}}}")
}

/// Returns a rule with this `run`.
fn running(run: &str) -> String {
    format!("- {{name: r, run: {run}, parameters: {{p: {{pattern: '[a-z]+'}}}}}}")
}

macro_rules! problem_is {
    ($rule:expr, $pattern:pat) => {
        let rule: &str = &$rule;
        let problem = problem(rule);
        assert!(matches!(problem, $pattern), "{rule}: {problem:?}");
        assert!(!problem.to_string().is_empty());
    };
}

#[test]
fn a_broken_allow_rule_is_out_of_force_alone() {
    let rules = policy(&format!("{RESTART}\n- {{name: bad, run: [systemctl]}}"));
    assert_eq!(rules.whitelists()[0].rule_count(), 1);
    allowed(&rules, &command("systemctl restart nginx.service"));
    assert!(denied(&rules, &command("x")).message.contains("1 rule of the namespace is broken"));
}

#[test]
fn a_broken_deny_closes_the_namespace() {
    for deny in [
        "- {name: no, effect: Deny, run: ['{undeclared}']}",
        "- {name: no, effect: Deny, match: x, timeoutSeconds: {maximum: 3}}",
        "- {name: no, effect: Deny, match: x, unknown: 1}",
        "- {name: no, effect: Deny, match: '{p}', parameters: {p: {pattern: '('}}}",
    ] {
        let rules = policies(&[("a", RESTART), ("b", deny)]);
        let denial = denied(&rules, &command("systemctl restart nginx.service"));
        assert_eq!(denial.reason, Reason::PolicyBroken, "{deny}");
        assert!(denial.message.contains("Whitelist b"), "{}", denial.message);
    }
    let mut whitelist = whitelist("b", RESTART);
    whitelist.spec.unknown_fields.insert("defaultEffect".to_owned(), "Deny".into());
    let rules = RuleSet::new(vec![compile(&whitelist).into()]);
    assert_eq!(denied(&rules, &command("systemctl restart nginx.service")).reason, Reason::PolicyBroken);
    let record = crate::api::execution_status::ObjectRecord { name: "b".into(), uid: "u".into(), generation: 1 };
    let rules = RuleSet::new(vec![CompiledWhitelist::unreadable(record, "no rules").into()]);
    assert_eq!(denied(&rules, &command("x")).reason, Reason::PolicyBroken);
}

#[test]
fn fields_that_are_not_known_close_the_rule_however_deep_they_are() {
    for field in [
        "suspend: true",
        "subjects: [{kind: User, name: jane, until: tomorrow}]",
        "machineSelector: {matchFields: {}}",
        "machineSelector: {matchExpressions: [{key: a, operator: Exists, not: true}]}",
        "timeoutSeconds: {minimum: 1}",
        "output: {compress: true}",
        "environment: {TZ: {pattern: 'a', notIn: [b]}}",
        "environment: {TZ: {integer: {maximum: 3, step: 2}}}",
    ] {
        problem_is!(format!("- {{name: r, run: [/bin/true], {field}}}"), RuleError::UnknownField { .. });
    }
    problem_is!(with_parameter("{pattern: 'a', except: b}"), RuleError::UnknownField { .. });
}

#[test]
fn the_program_is_a_constant_absolute_path() {
    for program in [
        "systemctl",
        "./x",
        "/usr/../bin/sh",
        "/usr/./sh",
        "//bin/sh",
        "/bin/",
        "/",
        "''",
        "/a=b/c",
        "'{p}'",
        "'/bin/{p}'",
    ] {
        problem_is!(running(&format!("[{program}, '{{p}}']")), RuleError::ProgramNotAbsolute);
    }
    problem_is!("- {name: r, run: []}", RuleError::RunLength);
    problem_is!(format!("- {{name: r, run: [{}]}}", ["/bin/x"; 65].join(", ")), RuleError::RunLength);
}

/// Rules in which the value would choose the program or the code to run.
const CHOOSING_WHAT_RUNS: &[&str] = &[
    "[/bin/sh, -c, '{p}']",
    "[/bin/sh, -c, 'echo hello', '{p}']",
    "[/bin/bash, '-lc', 'x', '{p}']",
    "[/bin/sh, '{p}']",
    "[/usr/bin/env, '{p}']",
    "[/usr/bin/env, -S, 'x {p}']",
    "[/usr/bin/xargs, '{p}']",
    "[/usr/bin/timeout, 5, '{p}']",
    "[/usr/bin/ssh, host, '{p}']",
    "[/usr/bin/python3, -c, '{p}']",
    "[/usr/bin/python3.11, -m, '{p}']",
    "[/usr/bin/perl, -e, 'print', '{p}']",
    "[/usr/bin/perl5.36.0, '{p}']",
    "[/usr/bin/awk, '{p}', /etc/passwd]",
    "[/usr/bin/sed, 's/a/{p}/', /etc/passwd]",
    "[/usr/bin/find, /x, -exec, '{p}', ;]",
    "[/bin/busybox, '{p}']",
    "[/bin/busybox, sh, -c, '{p}']",
    "[/bin/busybox, env, '{p}']",
    "[/usr/bin/docker, exec, web, '{p}']",
    "[/usr/bin/docker, '{p}', web]",
    "[/usr/bin/docker, -H, x, '{p}']",
    "[/usr/bin/kubectl, exec, web, '{p}']",
    "[/opt/wrapper, sh, -c, '{p}']",
    "[/opt/wrapper, /bin/bash, -ec, '{p}']",
    "[/opt/wrapper, /bin/bash, -x, -o, -c, '{p}']",
    "[/opt/wrapper, python3, -I, -c, 'print', '{p}']",
    "[/usr/bin/make, '{p}']",
    "[/usr/bin/xterm, '{p}']",
    "[/usr/bin/nice, -n, 5, '{p}']",
    "[/usr/bin/timeout, 5, /bin/sh, -c, '{p}']",
    "[/usr/bin/timeout, 5, /usr/bin/env, '{p}']",
    "[/usr/bin/run0, '{p}']",
    "[/usr/bin/gosu, app, '{p}']",
    "[/usr/bin/ssh-agent, '{p}']",
    "[/lib64/ld-linux-x86-64.so.2, '{p}']",
    "[/usr/bin/bash5.2-static, -c, '{p}']",
    "[/usr/bin/perl5.36-x86_64-linux-gnu, -e, '{p}']",
    "[/bin/bash, -eu, -c, '{p}']",
    "[/bin/bash, -o, pipefail, '{p}']",
    "[/bin/bash, --rcfile, /x, '{p}']",
    "[/usr/bin/python3, -u, '{p}']",
    "[/usr/bin/python3, -m, '{p}']",
    "[/usr/bin/java, -cp, '{p}', Main]",
    "[/usr/bin/tar, -I, '{p}']",
    "[/usr/bin/tar, '--checkpoint-action=exec={p}']",
    "[/usr/bin/rsync, -e, '{p}', a, b]",
    "[/usr/bin/split, '--filter={p}']",
    "[/usr/bin/psql, -c, '{p}']",
    "[/usr/bin/apt-get, -o, '{p}', update]",
    "[/usr/sbin/ip, netns, exec, blue, '{p}']",
    "[/opt/wrapper, app, /bin/bash, -l, -c, '{p}']",
    "[/opt/wrapper, bash, -l, -c, '{p}']",
    "[/opt/wrapper, /usr/bin/python3, '{p}']",
    "[/opt/wrapper, /usr/bin/env, '{p}']",
    "[/usr/bin/docker, compose, -f, /x.yaml, exec, web, '{p}']",
    "[/usr/bin/kubectl, -n, web, exec, web-0, --, '{p}']",
    "[/usr/bin/git, -c, 'alias.x={p}', x]",
];

/// Rules in which the value chooses neither a program nor code.
const NO_MORE_THAN_A_VALUE: &[&str] = &[
    "[/usr/bin/kubectl, -n, '{p}']",
    "[/usr/bin/nice, -n, '{p}', /bin/ls]",
    "[/usr/bin/env, 'A={p}', /bin/true]",
    "[/usr/bin/sudo, -n, /bin/ls, '{p}']",
    "[/usr/bin/systemctl, restart, '{p}']",
    "[/bin/sh, /opt/restart.sh, '{p}']",
    "[/usr/bin/python3, /opt/report.py, '--day={p}']",
    "[/usr/bin/docker, restart, '{p}']",
    "[/usr/bin/kubectl, rollout, restart, 'deployment/{p}']",
    "[/usr/bin/find, '/srv/{p}', -name, core]",
    "[/usr/bin/apt-get, install, python3, '{p}']",
    "[/bin/busybox, ls, '{p}']",
    "[/usr/bin/nice, -n, 5, /bin/ls, '{p}']",
    "[/usr/bin/timeout, 5, /usr/bin/curl, --, '{p}']",
    "[/bin/bash, -eu, /opt/deploy.sh, '{p}']",
    "[/usr/bin/python3, -u, /opt/report.py, '{p}']",
    "[/usr/bin/python3, -m, http.server, '{p}']",
    "[/usr/bin/java, -jar, /srv/app.jar, '{p}']",
    "[/usr/bin/git, -C, /srv/app, checkout, '{p}']",
    "[/usr/bin/git, pull, origin, '{p}']",
    "[/usr/bin/kubectl, -n, web, rollout, restart, 'deployment/{p}']",
    "[/usr/bin/kubectl, '--namespace=web', get, '{p}']",
    "[/usr/bin/docker, compose, -f, /x.yaml, restart, '{p}']",
    "[/usr/sbin/ip, -j, addr, show, '{p}']",
    "[/usr/bin/tar, -xf, '/srv/{p}.tar']",
    "[/usr/bin/rsync, -a, '/srv/{p}/', /backup/]",
    "[/usr/bin/perldoc, '{p}']",
    "[/opt/perl-report, '{p}']",
];

#[test]
fn a_value_never_is_a_program_nor_an_interpreters_text() {
    for run in CHOOSING_WHAT_RUNS {
        problem_is!(running(run), RuleError::ParameterAsProgram { .. });
    }
    for run in NO_MORE_THAN_A_VALUE {
        sound(&running(run));
    }
}

#[test]
fn places_are_declared_used_and_readable_in_one_way() {
    problem_is!("- {name: r, run: [/bin/echo, '{p}']}", RuleError::UndeclaredParameter { .. });
    problem_is!("- {name: r, run: [/bin/echo], match: 'x {p}'}", RuleError::UndeclaredParameter { .. });
    problem_is!(running("[/bin/echo]"), RuleError::UnusedParameter { .. });
    for word in ["{", "}", "{p", "p}", "{p}}", "a{b"] {
        problem_is!(running(&format!("[/bin/echo, '{word}']")), RuleError::UnescapedBrace { .. });
    }
    problem_is!(running("[/bin/echo, '{ p}']"), RuleError::UndeclaredParameter { .. });
    problem_is!(running("[/bin/echo, '{}']"), RuleError::UndeclaredParameter { .. });
    let no_value = "- {name: r, match: x, run: [/bin/echo, '{p}'], parameters: {p: {pattern: a}}}";
    problem_is!(no_value, RuleError::MissingFromMatch { .. });
    for (name, quoted) in [("a b", "'a b'"), ("1a", "'1a'"), ("a-b", "'a-b'"), ("é", "'é'")] {
        let rule = format!("- {{name: r, run: [/bin/echo, '{{{name}}}'], parameters: {{{quoted}: {{pattern: a}}}}}}");
        problem_is!(rule, RuleError::Name { .. });
    }
    let two = |text: &str, run: &str, a: &str| {
        format!(
            "- {{name: r, match: '{text}', run: [/bin/echo, {run}], parameters: {{a: {a}, b: {{pattern: '[b]+'}}}}}}"
        )
    };
    let word = "{pattern: '[a-z]+'}";
    for ambiguous in [
        two("{a}{b}", "'{a}', '{b}'", word),
        two("{a} {b}", "'{a}', '{b}'", "{pattern: '[a-z ]+'}"),
        two("{a}, {b}", "'{a}', '{b}'", "{pattern: '[a-z ]+'}"),
        two("{a}x{b}", "'{a}', '{b}'", word),
        two("{a} {b}", "'{a}{b}'", word),
        two("{a} {b}", "'{a}b{b}'", word),
        two("{a}1{b}", "'{a}', '{b}'", "{integer: {maximum: 9}}"),
        two("{a}-{b}", "'{a}', '{b}'", "{enum: [x-y, x]}"),
    ] {
        problem_is!(ambiguous, RuleError::AmbiguousTemplate { .. });
    }
    sound(&two("{a} {b}", "'{a}', '{b}'", word));
    sound(&two("{b} says {a}", "'{a}', '{b}'", "{pattern: '[a-z ]+'}"));
    // Without `match`, the words of `run` form the text of the rule. A problem of this text is reported for `match`.
    let joined = "- {name: r, run: [/bin/echo, '{a}', end], parameters: {a: {pattern: '[a-z ]+'}}}";
    problem_is!(joined, RuleError::AmbiguousTemplate { field: "match", .. });
}

#[test]
fn a_parameter_says_in_one_way_what_its_values_are() {
    for parameter in ["{}", "{enum: []}", "{enum: [a], pattern: a}", "{integer: {maximum: 1}, enum: [a]}"] {
        problem_is!(with_parameter(parameter), RuleError::NotExactlyOneKind { .. });
    }
    for range in ["{minimum: 2, maximum: 1}", "{minimum: -1, maximum: 1}", "{maximum: -1}"] {
        problem_is!(with_parameter(&format!("{{integer: {range}}}")), RuleError::IntegerRange { .. });
    }
    for default in [
        "{enum: [a], default: b}",
        "{pattern: a, default: ''}",
        "{integer: {maximum: 9}, default: '10'}",
        "{pattern: a+, maxLength: 2, default: aaa}",
    ] {
        problem_is!(with_parameter(default), RuleError::InvalidDefault { .. });
    }
}

#[test]
fn a_pattern_says_which_characters_it_admits() {
    for pattern in ["(", "[", "a{2", "*", r"\", "(?<=a)b", r"(a)\1", "(?z)", "[a-é]"] {
        problem_is!(with_parameter(&format!("{{pattern: '{pattern}'}}")), RuleError::PatternSyntax { .. });
    }
    for pattern in ["^a$", "a$", "^a", r"\Aa\z", r"\ba", "(?m)^a|b$", "(^a)|b"] {
        problem_is!(with_parameter(&format!("{{pattern: '{pattern}'}}")), RuleError::PatternAnchor { .. });
    }
    for pattern in ["", "a*", "a?", "(a|)", "a{0,3}", "()", "(a*)*"] {
        problem_is!(with_parameter(&format!("{{pattern: '{pattern}'}}")), RuleError::MatchesEmpty { .. });
    }
    let unsafe_patterns = [
        ".",
        ".+",
        "[^a]",
        r"\s",
        r"\S+",
        r"\W",
        r"\D",
        "é",
        "(?s).",
        r"a\n",
        r"a\t",
        "a!",
        r"a\\",
        "[ -~]",
        "a''",
        r"\x00",
        r"\xff",
        r"(?i-u)\x80",
        "(?u:[[:^alpha:]])",
    ];
    for pattern in unsafe_patterns {
        problem_is!(
            with_parameter(&format!("{{pattern: \"{}\"}}", pattern.replace('\\', r"\\"))),
            RuleError::AdmitsByte { .. }
        );
    }
    // With Unicode, case folding maps k to the Kelvin sign, so the pattern would admit bytes that are not ASCII.
    problem_is!(with_parameter("{pattern: '(?iu)k'}"), RuleError::AdmitsByte { .. });
    problem_is!(with_parameter("{pattern: '[a&&b]'}"), RuleError::PatternNeverMatches { .. });
    problem_is!(with_parameter(&format!("{{pattern: '{}'}}", "a".repeat(1025))), RuleError::PatternTooLarge { .. });
    problem_is!(with_parameter("{pattern: '(([a-z]{50}){50}){50}'}"), RuleError::PatternTooLarge { .. });
    // Repetitions of a part that can be empty: the values are short, but matching would need too many steps.
    problem_is!(with_parameter("{pattern: '((a?){4294967295}){4294967295}b'}"), RuleError::PatternTooLarge { .. });
    problem_is!(
        with_parameter(&format!("{{pattern: '{}a{}'}}", "(".repeat(40), ")".repeat(40))),
        RuleError::PatternSyntax { .. }
    );
    problem_is!(with_parameter(r#"{enum: ["a\nb"]}"#), RuleError::AdmitsByte { .. });
    problem_is!(with_parameter(r#"{enum: ["é"]}"#), RuleError::AdmitsByte { .. });
    problem_is!(with_parameter("{enum: ['']}"), RuleError::MatchesEmpty { .. });
    for pattern in
        ["[A-Za-z0-9._-]+", r"\\w+", r"\\d{4}-\\d{2}", "(?i)web-[0-9]+", "a|b", "(?x) a b # c", r"[ -&(-~&&[^!\\\\]]+"]
    {
        sound(&with_parameter(&format!("{{pattern: \"{pattern}\", allowParentDirectory: true}}")));
    }
}

/// The text of a pattern cannot affect its anchors.
#[test]
fn a_pattern_holds_for_the_whole_value() {
    for (pattern, good, bad) in [
        ("a|b", vec!["a", "b"], vec!["ab", "ax", "xb", ""]),
        ("(?x) a | b # ) x", vec!["a", "b"], vec!["ab", "ax", "xb"]),
        ("(?m)a", vec!["a"], vec!["aa", "xa"]),
        ("a{2}?", vec!["aa"], vec!["a", "aaa"]),
        ("(?U)a+", vec!["a", "aaa"], vec!["ab"]),
        ("abc|ab|a", vec!["a", "ab", "abc"], vec!["abcd", "b"]),
    ] {
        let rules = sound(&with_parameter(&format!("{{pattern: \"{pattern}\"}}")));
        for value in good {
            allowed(&rules, &argv(&["/bin/echo", "--", value]));
        }
        for value in bad {
            denied(&rules, &argv(&["/bin/echo", "--", value]));
        }
    }
}

#[test]
fn no_value_looks_like_an_option_unless_two_dashes_stand_before_it() {
    let rule =
        |run: &str, pattern: &str| format!("- {{name: r, run: {run}, parameters: {{p: {{pattern: '{pattern}'}}}}}}");
    for pattern in
        ["[a-z-]+", "-a", "(-|a)b", "a?-", "(a*)-x", r"\W?a"].into_iter().filter(|pattern| !pattern.contains('W'))
    {
        problem_is!(rule("[/bin/echo, '{p}']", pattern), RuleError::OptionAsOperand { .. });
        problem_is!(rule("[/bin/echo, '{p}=x', --]", pattern), RuleError::OptionAsOperand { .. });
        sound(&rule("[/bin/echo, --, '{p}']", pattern));
        sound(&rule("[/bin/echo, 'x={p}']", pattern));
    }
    // find reads `-delete` as an action even after `--`.
    problem_is!(rule("[/usr/bin/find, --, '{p}']", "[/a-z-]+"), RuleError::OptionAsOperand { .. });
    sound(&rule("[/bin/echo, '{p}']", "[a-z][a-z-]*"));
    // Even after `--`, find reads `-delete` as an action, and test reads `-f` as an operator.
    for program in ["/usr/bin/find", "/usr/bin/test", "/usr/bin/expr"] {
        problem_is!(rule(&format!("[{program}, --, '{{p}}']"), "[a-z-]+"), RuleError::OptionAsOperand { .. });
        sound(&rule(&format!("[{program}, --, '{{p}}']"), "[a-z]+"));
    }
    // An enum may contain options, because the author of the rule chooses its values.
    sound("- {name: r, run: [/bin/echo, '{p}'], parameters: {p: {enum: [--fast, --slow]}}}");
}

#[test]
fn bytes_that_login_shells_do_not_agree_on_are_refused() {
    for word in ["a\nb", "é", "\t"] {
        let run = serde_json::json!([{"name": "r", "run": ["/bin/echo", word]}]).to_string();
        problem_is!(run, RuleError::ForbiddenByte { field: "run", .. });
    }
    for text in ["a\nb", "é", "\t"] {
        let rule = serde_json::json!([{"name": "r", "match": text, "run": ["/bin/echo"]}]).to_string();
        problem_is!(rule, RuleError::ForbiddenByte { field: "match", .. });
    }
    problem_is!("- {name: r, match: '', run: [/bin/echo]}", RuleError::TextLength { field: "match" });
    let long = format!("- {{name: r, run: [/bin/echo, {}]}}", "x".repeat(4097));
    problem_is!(long, RuleError::TextLength { field: "run" });
}

#[test]
fn a_variable_that_steers_what_runs_is_refused() {
    for name in [
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "BASH_FUNC_ls",
        "PS4",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "RUBYOPT",
        "NODE_OPTIONS",
        "JAVA_TOOL_OPTIONS",
        "GIT_SSH_COMMAND",
        "PAGER",
        "MANPAGER",
        "EDITOR",
        "SHELLOPTS",
        "GLIBC_TUNABLES",
        "OPENSSL_CONF",
        "GCONV_PATH",
        "LOCPATH",
        "SSH_AUTH_SOCK",
        "SUDO_ASKPASS",
        "WRIT_X",
        "HOME",
        "LESSOPEN",
        "DYLD_INSERT_LIBRARIES",
        "PROMPT_COMMAND",
        "CDPATH",
        "KUBECONFIG",
        "TAR_OPTIONS",
        "APT_CONFIG",
        "RSYNC_RSH",
        "MAKEFLAGS",
        "DOCKER_CONFIG",
        "DOTNET_STARTUP_HOOKS",
        "JAVA_OPTS",
        "VIMINIT",
        "BROWSER",
        "WGETRC",
        "AWS_CONFIG_FILE",
        "RUSTC_WRAPPER",
    ] {
        let rule = format!("- {{name: r, run: [/bin/true], environment: {{{name}: {{enum: [a]}}}}}}");
        problem_is!(rule, RuleError::DangerousVariable { .. });
    }
    problem_is!("- {name: r, run: [/bin/true], environment: {'A=B': {enum: [a]}}}", RuleError::Name { .. });
    problem_is!("- {name: r, run: [/bin/true], environment: {A: {pattern: '.*'}}}", RuleError::MatchesEmpty { .. });
    sound("- {name: r, run: [/bin/true], environment: {LOG_LEVEL: {enum: [-a]}, LC_TIME: {pattern: '[A-Za-z_]+'}}}");
}

#[test]
fn the_other_fields_have_their_bounds() {
    let with = |field: &str| format!("- {{name: r, run: [/bin/true], {field}}}");
    for user in ["''", "'-u'", "'#0'", "0", "'a b'", "é", "a$b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        problem_is!(with(&format!("runAs: {user}")), RuleError::RunAs);
    }
    for directory in ["srv", "./x", "/a/../b", "//", "/a/", "'-'", "'~'", "''"] {
        problem_is!(with(&format!("workingDirectory: {directory}")), RuleError::WorkingDirectory);
    }
    problem_is!(with(r#"workingDirectory: "/é""#), RuleError::ForbiddenByte { .. });
    problem_is!(with("subjects: []"), RuleError::NoSubjects);
    for subject in
        ["{kind: User, name: ''}", "{kind: User, name: a, namespace: b}", "{kind: Group, name: a, namespace: b}"]
    {
        problem_is!(with(&format!("subjects: [{subject}]")), RuleError::Subject { .. });
    }
    for expression in
        ["{key: a, operator: In}", "{key: a, operator: NotIn, values: []}", "{key: a, operator: Exists, values: [b]}"]
    {
        problem_is!(
            with(&format!("machineSelector: {{matchExpressions: [{expression}]}}")),
            RuleError::Selector { .. }
        );
    }
    for limits in ["{default: 0}", "{maximum: 0}", "{default: 5, maximum: 4}", "{maximum: 86401}", "{default: 86401}"] {
        problem_is!(with(&format!("timeoutSeconds: {limits}")), RuleError::Timeout);
    }
    for limits in ["{inlineBytes: 16385}", "{maximumBytes: 1023}", "{maximumBytes: -1}", "{drainSeconds: 61}"] {
        problem_is!(with(&format!("output: {limits}")), RuleError::Output);
    }
    for field in [
        "workingDirectory: /",
        "environment: {TZ: {enum: [a]}}",
        "timeoutSeconds: {}",
        "interactive: true",
        "output: {}",
        "redact: [a]",
    ] {
        let compiled = compile(&whitelist("web", &format!("- {{name: r, effect: Deny, match: x, {field}}}")));
        assert!(matches!(compiled.invalid_rules[0].problem, RuleError::NotAllowedOnDeny { .. }), "{field}");
        assert!(compiled.closed.is_some());
    }
    let compiled = compile(&whitelist(
        "web",
        "- {name: r, effect: Deny, match: '{p}', parameters: {p: {pattern: a, maxLength: 3}}}",
    ));
    assert!(matches!(compiled.invalid_rules[0].problem, RuleError::NotAllowedOnDeny { .. }));
}

#[test]
fn patterns_that_are_too_large_together_do_not_take_the_memory_of_all() {
    let rules: String = (0..256)
        .map(|number| {
            let run: String = (0..8).map(|p| format!(", '{{p{p}}}'")).collect();
            let parameters: String =
                (0..8).map(|p| format!("p{p}: {{pattern: '[A-Za-z0-9_/:]{{1,180}}'}}, ")).collect();
            format!("- {{name: r{number}, run: [/bin/echo{run}], parameters: {{{parameters}}}}}\n")
        })
        .collect();
    let compiled = compile(&whitelist("web", &rules));
    assert!(compiled.rule_count() > 5, "{:?}", compiled.invalid_rules.first());
    assert_eq!(compiled.invalid_rules.last().unwrap().problem, RuleError::PatternsTooLarge);
}
