//! Requests: allowed requests, the rule that wins, and the message of a denial.

use super::*;

const NGINX: [&str; 4] = ["/usr/bin/systemctl", "restart", "--", "nginx.service"];

#[test]
fn without_a_whitelist_nothing_is_allowed() {
    let denial = denied(&RuleSet::default(), &command("systemctl restart nginx.service"));
    assert_eq!(denial.reason, Reason::NoMatchingRule);
    assert!(denial.message.contains("no Whitelist"), "{}", denial.message);
}

#[test]
fn the_three_ways_to_ask_give_the_same_decision() {
    let rules = sound(RESTART);
    let by_text = allowed(&rules, &command("systemctl restart nginx.service"));
    assert_eq!(by_text, allowed(&rules, &argv(&NGINX)));
    assert_eq!(by_text, allowed(&rules, &by_rule("restart-service", &[("unit", "nginx.service")])));
    assert_eq!(by_text.argv, NGINX);
    assert_eq!((by_text.rule.as_str(), by_text.action_type.as_str()), ("restart-service", "restart_service"));
    assert_eq!((by_text.timeout_seconds, by_text.run_as), (30, None));
}

#[test]
fn a_rule_without_match_is_asked_for_by_its_words() {
    let rules = sound("- {name: uptime, run: [/usr/bin/uptime, -p]}");
    assert_eq!(allowed(&rules, &command("/usr/bin/uptime -p")).rule, "uptime");
    denied(&rules, &command("uptime -p"));
}

#[test]
fn anything_but_the_same_bytes_is_denied() {
    let rules = sound(RESTART);
    let near = [
        "systemctl restart nginx.service ",
        " systemctl restart nginx.service",
        "systemctl  restart nginx.service",
        "Systemctl restart nginx.service",
        "systemctl restart nginx.service;id",
        "systemctl restart nginx",
        "systemctl restart nginx.service nginx.service",
        "systemctl restart ",
        "systemctl restart {unit}",
        "/usr/bin/systemctl restart -- nginx.service",
    ];
    for text in near {
        assert_eq!(denied(&rules, &command(text)).reason, Reason::NoMatchingRule, "{text}");
    }
    let near: [&[&str]; 7] = [
        &NGINX[..3],
        &["/usr/bin/systemctl", "restart", "--", "nginx.service", ""],
        &["/usr/bin/systemctl", "restart", "-- nginx.service"],
        &["/usr/bin/../bin/systemctl", "restart", "--", "nginx.service"],
        &["systemctl", "restart", "--", "nginx.service"],
        &["/usr/bin/systemctl", "restart", "--", "nginx.service "],
        &["/usr/bin/systemctl", "restart", "--", "{unit}"],
    ];
    for words in near {
        assert_eq!(denied(&rules, &argv(words)).reason, Reason::NoMatchingRule, "{words:?}");
    }
    let near: [&[(&str, &str)]; 5] = [
        &[],
        &[("unit", "nginx")],
        &[("unit", "")],
        &[("Unit", "nginx.service")],
        &[("unit", "nginx.service"), ("more", "x")],
    ];
    for parameters in near {
        let denial = denied(&rules, &by_rule("restart-service", parameters));
        assert_eq!(denial.reason, Reason::NoMatchingRule, "{parameters:?}");
    }
    denied(&rules, &by_rule("restart", &[("unit", "nginx.service")]));
}

#[test]
fn a_place_inside_a_word_and_the_same_place_twice_are_read_back() {
    let rules = sound(
        r"
- name: logs
  match: logs of {unit} since {day} in {{braces}}
  run: [/usr/bin/journalctl, '--unit={unit}', '--since={day}', '--cursor={unit}', 'x{{y}}']
  parameters:
    unit: {pattern: '[a-z]+'}
    day: {pattern: '[0-9]{4}-[0-9]{2}-[0-9]{2}', default: 2026-01-01}
",
    );
    let words = ["/usr/bin/journalctl", "--unit=web", "--since=2026-11-21", "--cursor=web", "x{y}"];
    assert_eq!(allowed(&rules, &command("logs of web since 2026-11-21 in {braces}")).argv, words);
    assert_eq!(allowed(&rules, &argv(&words)).argv, words);
    denied(&rules, &argv(&["/usr/bin/journalctl", "--unit=web", "--since=2026-11-21", "--cursor=db", "x{y}"]));
    assert_eq!(allowed(&rules, &by_rule("logs", &[("unit", "web")])).argv[2], "--since=2026-01-01");
}

#[test]
fn a_parameter_with_a_default_may_be_left_out_of_the_text() {
    let rules = sound(
        "
- name: tail
  match: tail the log
  run: [/usr/bin/tail, -n, '{lines}', /var/log/app.log]
  parameters: {lines: {integer: {minimum: 1, maximum: 500}, default: '100'}}
",
    );
    assert_eq!(allowed(&rules, &command("tail the log")).argv[2], "100");
    assert_eq!(allowed(&rules, &by_rule("tail", &[("lines", "7")])).argv[2], "7");
    assert_eq!(allowed(&rules, &argv(&["/usr/bin/tail", "-n", "500", "/var/log/app.log"])).argv[2], "500");
    for lines in ["0", "501", "007", "+7", "-7", "7 ", " 7", "7.0", "0x7", "1e2", "", "18446744073709551623", "٧"] {
        let words = ["/usr/bin/tail", "-n", lines, "/var/log/app.log"];
        if let Ok(request) = Request::parse(&argv(&words)) {
            let identity = Identity::Unknown;
            expect_denied(decide(&rules, &request, &BTreeMap::new(), identity));
        }
    }
}

#[test]
fn a_value_may_be_as_long_as_its_parameter_says_and_no_longer() {
    let rules = sound(
        "
- name: say
  run: [/bin/echo, '{word}', '{long}']
  parameters: {word: {pattern: '[a-z]+'}, long: {pattern: 'x+', maxLength: 300}}
",
    );
    allowed(&rules, &argv(&["/bin/echo", &"a".repeat(256), &"x".repeat(300)]));
    denied(&rules, &argv(&["/bin/echo", &"a".repeat(257), "x"]));
    denied(&rules, &argv(&["/bin/echo", "a", &"x".repeat(301)]));
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
    let error = Request::parse(&by_rule("r", &[("unit", "a\u{0}")])).unwrap_err();
    assert!(matches!(error, RequestError::NotPrintable { field: "spec.rule.parameters", .. }));
    let environment = BTreeMap::from([("A".to_owned(), "a\nb".to_owned())]);
    let error = Request::parse(&CommandExecutionSpec { environment, ..command("x") }).unwrap_err();
    assert!(matches!(error, RequestError::NotPrintable { field: "spec.environment", .. }));
}

#[test]
fn a_request_has_exactly_one_way_and_its_bounds() {
    assert_eq!(Request::parse(&spec()), Err(RequestError::NotExactlyOneForm));
    let both = CommandExecutionSpec { argv: argv(&["/bin/echo"]).argv, ..command("x") };
    assert_eq!(Request::parse(&both), Err(RequestError::NotExactlyOneForm));
    let both = CommandExecutionSpec { rule: by_rule("r", &[]).rule, ..command("x") };
    assert_eq!(Request::parse(&both), Err(RequestError::NotExactlyOneForm));
    assert_eq!(Request::parse(&command("")), Err(RequestError::Empty { field: "spec.command" }));
    assert_eq!(Request::parse(&argv(&[])), Err(RequestError::Empty { field: "spec.argv" }));
    assert_eq!(Request::parse(&by_rule("", &[])), Err(RequestError::Empty { field: "spec.rule.name" }));
    assert!(matches!(Request::parse(&command(&"x".repeat(4097))), Err(RequestError::TooLong { maximum: 4096, .. })));
    assert!(matches!(Request::parse(&argv(&["x"; 65])), Err(RequestError::TooLong { maximum: 64, .. })));
    assert!(matches!(Request::parse(&by_rule("r", &[("a b", "x")])), Err(RequestError::Name { .. })));
    assert!(matches!(Request::parse(&by_rule("r", &[("", "x")])), Err(RequestError::Name { .. })));
    let names: Vec<String> = (0..17).map(|number| format!("p{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    assert!(matches!(Request::parse(&by_rule("r", &many)), Err(RequestError::TooLong { maximum: 16, .. })));
    for timeout in [0, 86_401] {
        let spec = CommandExecutionSpec { timeout_seconds: Some(timeout), ..command("x") };
        assert_eq!(Request::parse(&spec), Err(RequestError::Timeout));
    }
}

#[test]
fn the_first_of_rules_that_do_the_same_is_recorded_whatever_the_order_they_are_read_in() {
    let again = "- {name: again, match: restart, run: [/bin/true]}";
    let other = "- {name: other, match: restart, run: [/bin/true], actionType: x}";
    for order in [[("a", again), ("b", other)], [("b", other), ("a", again)]] {
        let decision = allowed(&policies(&order), &command("restart"));
        assert_eq!((decision.whitelist.name.as_str(), decision.rule.as_str()), ("a", "again"));
    }
}

#[test]
fn rules_that_would_do_different_things_are_ambiguous_unless_one_is_named() {
    let base = "- {name: one, match: go, run: [/bin/true]}";
    let others = [
        "- {name: two, match: go, run: [/bin/false]}",
        "- {name: two, match: go, run: [/bin/true], runAs: root}",
        "- {name: two, match: go, run: [/bin/true], workingDirectory: /}",
        "- {name: two, match: go, run: [/bin/true], timeoutSeconds: {default: 31}}",
        "- {name: two, match: go, run: [/bin/true], output: {inlineBytes: 10}}",
        "- {name: two, match: go, run: [/bin/true], redact: [a]}",
        "- {name: two, match: go, run: [/bin/true], interactive: true}",
        "- {name: two, match: go, run: [/bin/true], environment: {LOG_LEVEL: {enum: [info], default: info}}}",
    ];
    for other in others {
        let rules = sound(&format!("{base}\n{other}"));
        let denial = denied(&rules, &command("go"));
        assert_eq!(denial.reason, Reason::Ambiguous, "{other}");
        assert!(denial.message.contains("web/one") && denial.message.contains("web/two"), "{}", denial.message);
        assert_eq!(allowed(&rules, &by_rule("two", &[])).rule, "two");
    }
    let rules = policies(&[("a", base), ("b", "- {name: one, match: go, run: [/bin/false]}")]);
    assert_eq!(denied(&rules, &by_rule("one", &[])).reason, Reason::Ambiguous);
    let mut named = by_rule("one", &[]);
    named.rule.as_mut().unwrap().whitelist = Some("b".to_owned());
    assert_eq!(allowed(&rules, &named).argv, ["/bin/false"]);
}

#[test]
fn an_action_type_that_is_named_must_be_the_rules() {
    let rules = sound(&format!("{RESTART}\n- {{name: plain, run: [/bin/true]}}"));
    let asking =
        |action_type: &str, text| CommandExecutionSpec { action_type: Some(action_type.to_owned()), ..command(text) };
    allowed(&rules, &asking("restart_service", "systemctl restart nginx.service"));
    let denial = denied(&rules, &asking("custom", "systemctl restart nginx.service"));
    assert_eq!(denial.reason, Reason::NotPermitted, "{}", denial.message);
    assert_eq!(allowed(&rules, &asking("custom", "/bin/true")).action_type, "custom");
}

#[test]
fn a_rule_is_for_the_machines_that_its_selector_chooses() {
    type Labels = &'static [(&'static str, &'static str)];
    let cases: [(&str, Labels, bool); 9] = [
        ("{}", &[], true),
        ("{matchLabels: {role: web}}", &[("role", "web"), ("env", "prod")], true),
        ("{matchLabels: {role: web}}", &[("role", "db")], false),
        ("{matchLabels: {role: web, env: prod}}", &[("role", "web")], false),
        ("{matchExpressions: [{key: role, operator: In, values: [web, db]}]}", &[("role", "db")], true),
        ("{matchExpressions: [{key: role, operator: In, values: [web]}]}", &[], false),
        ("{matchExpressions: [{key: role, operator: NotIn, values: [web]}]}", &[], true),
        ("{matchExpressions: [{key: role, operator: Exists}]}", &[("role", "")], true),
        ("{matchExpressions: [{key: role, operator: DoesNotExist}]}", &[("role", "web")], false),
    ];
    for (selector, labels, is_for) in cases {
        let rules = sound(&format!("- {{name: r, run: [/bin/true], machineSelector: {selector}}}"));
        let verdict = verdict_for(&rules, &command("/bin/true"), labels, &requester("jane", &[]));
        assert_eq!(matches!(verdict, Verdict::Allow(_)), is_for, "{selector} {labels:?}");
        if let Verdict::Deny(denial) = verdict {
            assert_eq!(denial.reason, Reason::NotPermitted);
        }
    }
}

#[test]
fn a_rule_with_subjects_is_for_those_who_are_known_to_be_one_of_them() {
    let rules = sound(
        "
- name: r
  run: [/bin/true]
  subjects:
    - {kind: User, name: jane}
    - {kind: Group, name: sre}
    - {kind: ServiceAccount, name: deployer}
    - {kind: ServiceAccount, name: argocd, namespace: argo}
",
    );
    let form = command("/bin/true");
    let may = |username, groups: &[&str]| {
        matches!(verdict_for(&rules, &form, &[], &requester(username, groups)), Verdict::Allow(_))
    };
    assert!(may("jane", &[]) && may("joe", &["dev", "sre"]));
    assert!(may("system:serviceaccount:team:deployer", &[]) && may("system:serviceaccount:argo:argocd", &[]));
    assert!(!may("joe", &["jane"]) && !may("sre", &[]) && !may("Jane", &[]) && !may("", &[]) && !may("jane ", &[]));
    assert!(!may("system:serviceaccount:other:deployer", &[]) && !may("deployer", &[]));
    let request = Request::parse(&form).unwrap();
    let denial = expect_denied(decide(&rules, &request, &BTreeMap::new(), Identity::Unknown));
    assert_eq!(denial.reason, Reason::NotPermitted);
    assert!(denial.message.contains("admission policy"), "{}", denial.message);
}

#[test]
fn a_caller_sets_the_variables_that_the_rule_lists_and_no_others() {
    let rules = sound(
        "
- name: r
  run: [/bin/true]
  environment:
    LOG_LEVEL: {enum: [debug, info]}
    TZ: {pattern: '[A-Za-z/_]+', default: UTC}
",
    );
    let asking = |variables: &[(&str, &str)]| CommandExecutionSpec {
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..command("/bin/true")
    };
    let environment = |variables| allowed(&rules, &asking(variables)).environment.into_iter().collect::<Vec<_>>();
    assert_eq!(environment(&[]), [("TZ".to_owned(), "UTC".to_owned())]);
    let set = environment(&[("LOG_LEVEL", "info"), ("TZ", "Europe/Berlin")]);
    assert_eq!(set[0].1, "info");
    assert_eq!(set[1].1, "Europe/Berlin");
    for variables in [
        [("LOG_LEVEL", "trace")],
        [("LOG_LEVEL", "")],
        [("PATH", "/tmp")],
        [("LD_PRELOAD", "/tmp/x")],
        [("log_level", "info")],
    ] {
        let denial = denied(&rules, &asking(&variables));
        assert_eq!(denial.reason, Reason::NotPermitted, "{variables:?}");
        assert!(denial.message.contains("spec.environment"), "{}", denial.message);
    }
}

#[test]
fn a_time_over_the_maximum_is_denied_and_never_shortened() {
    let rules = sound("- {name: r, run: [/bin/true], timeoutSeconds: {default: 5, maximum: 10}}");
    let asking = |seconds| CommandExecutionSpec { timeout_seconds: seconds, ..command("/bin/true") };
    assert_eq!(allowed(&rules, &asking(None)).timeout_seconds, 5);
    assert_eq!(allowed(&rules, &asking(Some(10))).timeout_seconds, 10);
    assert_eq!(denied(&rules, &asking(Some(11))).reason, Reason::NotPermitted);
    let limits = |limits: &str| {
        let rules = sound(&format!("- {{name: r, run: [/bin/true], timeoutSeconds: {limits}}}"));
        allowed(&rules, &asking(None)).timeout_seconds
    };
    assert_eq!((limits("{}"), limits("{maximum: 7}"), limits("{default: 7200}")), (30, 7, 7200));
}

#[test]
fn who_asked_is_told_what_was_nearest_and_sees_nothing_of_the_policy() {
    let rules = sound(
        "
- name: restart
  match: systemctl restart {unit} on {zone}
  run: [/usr/bin/systemctl, restart, --, '{unit}', '{zone}']
  parameters: {unit: {enum: [secret.service]}, zone: {pattern: 'eu-[0-9]+'}}
  subjects: [{kind: Group, name: wheel}]
",
    );
    let cases = [
        ("systemctl restart x.service on eu-1", "parameter unit", "secret.service"),
        ("systemctl restart secret.service on us-1", "parameter zone", "eu-[0-9]+"),
        ("systemctl restart secret.service off eu-1", "differs", "systemctl restart {unit} on {zone}"),
        ("systemctl restore", "differs", "systemctl restart {unit} on {zone}"),
        ("systemctl restart secret.service on eu-1", "its subjects do not include the requester", "neither jane"),
    ];
    for (text, told, in_full) in cases {
        let denial = denied(&rules, &command(text));
        assert!(denial.message.contains("web/restart") && denial.message.contains(told), "{}", denial.message);
        for secret in ["secret.service", "eu-", "wheel", "byte ", "{unit}"] {
            assert!(!denial.message.contains(secret), "{text}: {secret} is in: {}", denial.message);
        }
        let nearest = denial.nearest.expect("a nearest rule");
        assert_eq!((nearest.whitelist.as_str(), nearest.rule.as_str()), ("web", "restart"));
        assert!(nearest.why.contains(in_full), "{}", nearest.why);
    }
    let nothing_near = denied(&rules, &command("rm -rf /"));
    assert!(!nothing_near.message.contains("restart"), "{}", nothing_near.message);
}

/// A denial does not show how many letters of a guessed word were correct.
#[test]
fn guessing_a_word_letter_by_letter_gets_the_same_answer_whatever_was_right() {
    let rules = sound(
        "
- {name: one, match: systemctl restart zebra, run: [/bin/ctl, restart, zebra]}
- {name: two, match: systemctl restart zoo, run: [/bin/ctl, restart, zoo]}
- {name: three, match: systemctl stop zoo, run: [/bin/ctl, stop, zoo]}
",
    );
    let answers =
        ["x", "z", "ze", "zo"].map(|guess| denied(&rules, &command(&format!("systemctl restart {guess}"))).message);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(answers[0].contains("several rules"), "{}", answers[0]);
    let answers = ["x", "z", "ze", "zo"].map(|guess| denied(&rules, &argv(&["/bin/ctl", "restart", guess])).message);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let denial = denied(&rules, &command("systemctl restart zo"));
    assert_eq!(denial.nearest.expect("for who may read the policy").rule, "two");
    assert!(denied(&rules, &command("systemctl stop zebra")).message.contains("the nearest rule is web/three"));
}

#[test]
fn a_deny_by_a_number_holds_against_it_with_zeros_in_front() {
    let allow = "- {name: kill, run: [/bin/kill, '{pid}'], parameters: {pid: {pattern: '[0-9]+'}}}";
    let deny = "- {name: no, effect: Deny, run: [/bin/kill, '{pid}'], parameters: {pid: {integer: {maximum: 1}}}}";
    let rules = sound(&format!("{allow}\n{deny}"));
    for pid in ["0", "1", "00", "01", "0000000000000000000000000000001"] {
        assert_eq!(denied(&rules, &argv(&["/bin/kill", pid])).reason, Reason::Denied, "{pid}");
    }
    for pid in ["2", "10", "100000000000000000000000000000000"] {
        allowed(&rules, &argv(&["/bin/kill", pid]));
    }
}

#[test]
fn the_digest_is_of_everything_that_was_decided() {
    let rules = sound(&format!("{RESTART}  runAs: root\n  workingDirectory: /srv\n"));
    let decision = allowed(&rules, &argv(&NGINX));
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    let record = decision.record(time(jiff::Timestamp::UNIX_EPOCH));
    assert!(record.digest.starts_with("sha256:") && record.digest.len() == 71, "{}", record.digest);
    assert_eq!(record.digest, decision.record(time(jiff::Timestamp::MAX)).digest, "the time is not in it");
    let mut others: Vec<Decision> = Vec::new();
    for index in 0..11 {
        let mut other = decision.clone();
        match index {
            0 => other.whitelist.uid.push('x'),
            1 => other.argv.push("x".to_owned()),
            2 => other.run_as = None,
            3 => other.working_directory = None,
            4 => drop(other.environment.insert("A".to_owned(), "b".to_owned())),
            5 => other.timeout_seconds += 1,
            6 => other.whitelist.generation += 1,
            7 => other.redact.push("x".to_owned()),
            8 => other.output.drain_seconds += 1,
            9 => other.record_input = true,
            _ => other.interactive = true,
        }
        others.push(other);
    }
    for other in others {
        assert_ne!(other.record(time(jiff::Timestamp::UNIX_EPOCH)).digest, record.digest, "{other:?}");
    }
}

/// A command that is longer than a machine accepts is denied. If Writ sent this command, sshd would report exit code 1,
/// as if the command had run.
#[test]
fn what_is_longer_than_a_machine_takes_is_denied() {
    let word = "x".repeat(4096);
    let rules = sound(&format!("- {{name: r, match: go, run: [/bin/echo{}]}}", format!(", {word}").repeat(25)));
    let denial = denied(&rules, &command("go"));
    assert_eq!(denial.reason, Reason::NotPermitted, "{}", denial.message);
    let rules = sound(&format!("- {{name: r, match: go, run: [/bin/echo{}]}}", format!(", {word}").repeat(23)));
    allowed(&rules, &command("go"));
}

/// If a request has another form than the rule requires, the denial names the rule and the required form.
#[test]
fn a_rule_that_is_asked_for_in_another_way_is_named() {
    let rules = sound(
        "
- {name: disk, match: disk space, run: [/bin/df, -h]}
- {name: free, run: [/usr/bin/free, -m]}
- {name: logs, match: 'logs of {unit}', run: [/usr/bin/journalctl, -u, '{unit}'], parameters: {unit: {enum: [nginx]}}}
- {name: tail, match: 'tail {unit}', run: [/usr/bin/journalctl, -n, '5', -u, '{unit}', -q], parameters: {unit: {enum: [nginx]}}}
",
    );
    for (form, rule, why) in [
        (command("/bin/df -h"), "disk", "write the words in spec.argv"),
        (command("/usr/bin/journalctl -u nginx"), "logs", "write the words in spec.argv"),
        (command("df -h"), "disk", "another path, and spec.command must be its match"),
        (command("free -m"), "free", "another path"),
        (command("/bin/free -m"), "free", "another path"),
        (argv(&["df", "-h"]), "disk", "write the absolute path of run[0]"),
        (argv(&["/usr/bin/df", "-h"]), "disk", "write the absolute path of run[0]"),
        (argv(&["journalctl", "-u", "nginx"]), "logs", "write the absolute path of run[0]"),
        (argv(&["disk", "space"]), "disk", "write them in spec.command"),
        (argv(&["disk space"]), "disk", "write them in spec.command"),
        (argv(&["logs", "of", "nginx"]), "logs", "write them in spec.command"),
        (argv(&["/usr/bin/journalctl", "-u", "nginxx", "-n"]), "logs", "its run has another number of words"),
        (argv(&["/usr/bin/journalctl", "-u", "nginx", "-n", "9"]), "logs", "its run has another number of words"),
        (argv(&["/usr/bin/journalctl", "-u"]), "logs", "its run has another number of words"),
        (argv(&["/usr/bin/journalctl", "-n", "5", "-u", "x", "-v"]), "tail", "it differs from the words"),
        (argv(&["/usr/bin/journalctl", "-n", "5", "-u", "x", "-q"]), "tail", "its parameter unit has a value"),
        (argv(&["/usr/bin/free", "-g"]), "free", "it differs from the words"),
    ] {
        let denial = denied(&rules, &form);
        assert_eq!(denial.reason, Reason::NoMatchingRule);
        let named = format!("web/{rule}, but ");
        assert!(denial.message.contains(&named) && denial.message.contains(why), "{form:?}: {}", denial.message);
        assert_eq!(denial.nearest.as_ref().unwrap().rule, rule, "{form:?}: {:?}", denial.nearest);
    }
    let bare = denied(&rules, &argv(&["df", "-k"])).message;
    assert!(bare.contains("spec.argv[0] must be the absolute path"), "{bare}");
    let in_full = |words: &[&str]| denied(&rules, &argv(words)).nearest.unwrap().why;
    assert_eq!(
        in_full(&["/usr/bin/journalctl", "-u", "nginx", "-n"]),
        r#"it takes "/usr/bin/journalctl", "-u", "{unit}"; it has 3 words and spec.argv 4, the first 3 are equal"#
    );
    assert_eq!(
        in_full(&["/usr/bin/free", "-g"]),
        r#"it takes "/usr/bin/free", "-m"; spec.argv[1] is "-g" and not "-m""#
    );
    assert!(in_full(&["df", "-h"]).ends_with(r#"its match is "disk space", its run "/bin/df", "-h""#));
}
