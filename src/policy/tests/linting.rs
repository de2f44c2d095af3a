//! Errors and warnings for authors of Whitelists.

use super::*;

fn findings(rules: &str) -> Findings {
    lint(&whitelist("web", rules))
}

#[track_caller]
fn warns(rules: &str, rule: &str, of: &str) {
    let findings = findings(rules);
    assert!(findings.is_sound(), "{:?}", findings.errors());
    let found = findings.warnings.iter().any(|warning| warning.rule == rule && warning.message.contains(of));
    assert!(found, "no warning of {of:?} for {rule}: {:?}", findings.warnings);
}

#[track_caller]
fn is_quiet(rules: &str) {
    let findings = findings(rules);
    assert!(findings.is_sound() && findings.warnings.is_empty(), "{:?} {:?}", findings.errors(), findings.warnings);
}

#[test]
fn a_sound_whitelist_has_nothing_to_be_said_of() {
    is_quiet(RESTART);
    is_quiet("- {name: r, run: [/opt/release, '{v}'], parameters: {v: {pattern: 'v[0-9]+[.][0-9]+'}}, runAs: deploy}");
    is_quiet("- {name: r, run: [/bin/echo, '{v}'], parameters: {v: {pattern: '[A-Za-z][A-Za-z0-9_-]*'}}}");
}

#[test]
fn every_problem_of_a_rule_is_an_error() {
    let broken = findings("- {name: bad, run: [systemctl]}\n- {name: good, run: [/bin/true]}");
    assert!(!broken.is_sound() && broken.rule_count == 1);
    assert!(broken.errors()[0].starts_with("rule bad: run[0] must be"), "{:?}", broken.errors());
    let closing = findings("- {name: no, effect: Deny, run: ['{x}']}").errors();
    assert!(closing.len() == 1 && closing[0].contains("nothing would be allowed"), "{closing:?}");
    let mut unknown = whitelist("web", RESTART);
    unknown.spec.unknown_fields.insert("suspend".to_owned(), true.into());
    let errors = lint(&unknown).errors();
    assert!(errors.len() == 1 && errors[0].contains("spec.suspend"), "{errors:?}");
}

#[test]
fn names_that_the_api_server_refuses_are_errors() {
    for rules in ["- {name: Bad, run: [/bin/true]}", "- {name: -a, run: [/bin/true]}", "- {name: '', run: [/bin/true]}"]
    {
        assert!(!findings(rules).is_sound(), "{rules}");
    }
    let twice = findings("- {name: a, run: [/bin/true]}\n- {name: a, run: [/bin/false]}");
    assert_eq!(twice.names, ["a"]);
}

#[test]
fn what_is_wider_than_it_looks_is_warned_of() {
    let with = |pattern: &str| {
        format!("- {{name: r, run: [/bin/cat, --, 'x{{p}}'], parameters: {{p: {{pattern: '{pattern}'}}}}}}")
    };
    warns(&with("[(-+]+"), "r", "the range (-+");
    warns(&with("[0-Z]+"), "r", "the range 0-Z");
    warns(&with("a|b"), "r", "alternatives at the top level");
    warns(&with("[a-z ]+"), "r", "admits ' '");
    warns(&with("[a-z;]+"), "r", "admits ';', for example \";\"");
    // One warning names all special bytes, so that the author does not receive a new warning after each correction.
    warns(&with("[a-z ;|]+"), "r", "admits ' ', ';', '|', for example");
    // There is no warning about a byte if all values with this byte are too long.
    is_quiet("- {name: r, run: [/bin/x, 'x{p}'], parameters: {p: {pattern: '(a|b;{9})', maxLength: 5}}}");
    warns(
        "- {name: r, run: [/bin/x, 'x{p}'], parameters: {p: {pattern: 'b{9}', maxLength: 5}}}",
        "r",
        "raise maxLength",
    );
    is_quiet(&with("(a|b)-[0-9]+"));
}

#[test]
fn a_parameter_that_can_name_the_launchers_files_is_warned_of() {
    let with = |word: &str, pattern: &str| {
        let parameter = format!("{{pattern: '{pattern}', allowParentDirectory: true}}");
        format!("- {{name: r, run: [/bin/cat, --, '{word}'], parameters: {{p: {parameter}}}}}")
    };
    let directory = "in the launcher's directory";
    for (word, pattern) in [
        ("{p}", "[A-Za-z0-9._/-]+"),
        ("{p}", "/home/[a-z]+/[A-Za-z0-9._/-]+"),
        ("{p}", "[.]local/state/writ/[0-9a-f-]+[.][oe]"),
        ("/home/deploy/{p}", "[A-Za-z0-9._/-]+"),
        ("/home/{p}", "[A-Za-z0-9._/-]+"),
        ("/root/{p}", "[.][a-z0-9._/-]+"),
        ("/var/log/{p}", "[a-z0-9._/-]+"),
        ("/var/log/app/{p}", "[a-z]/[a-z0-9._/-]+"),
        ("--file={p}", "/[a-z0-9._/-]+"),
        ("--file=/home/deploy/{p}", "[a-z0-9._/-]+"),
        ("/home/deploy{p}", "/[a-z./]+"),
        ("/srv/app-{p}", "[a-z./]+"),
        ("/{p}", "[a-z]+/[a-z]+/[.a-z/]+"),
        ("/home/{p}", "[a-z]+/[.a-z/]+"),
    ] {
        warns(&with(word, pattern), "r", directory);
    }
    warns(
        "- {name: r, run: [/bin/ls, '{p}'], parameters: {p: {enum: [/tmp, /root/.local/state/writ]}}}",
        "r",
        directory,
    );
    for (word, pattern) in [
        ("/var/log/{p}.log", "[a-z0-9-]+"),
        ("/var/log/{p}", "[a-z]+/[a-z]+[.]log"),
        ("/var/log/{p}", "[a-z0-9/_-]+"),
        ("{p}", "[a-z-]+[.]service"),
        ("--lines={p}", "[0-9]+"),
    ] {
        is_quiet(&with(word, pattern));
    }
}

#[test]
fn words_that_look_like_several_are_warned_of_with_the_words_that_may_be_meant() {
    for (run, expected) in [
        ("['/usr/bin/uptime -p']", r#"write run: ["/usr/bin/uptime", "-p"]"#),
        ("['/bin/df  -h /var']", r#"write run: ["/bin/df", "-h", "/var"]"#),
        ("[/usr/bin/tail, '-n 5', /var/log/syslog]", r#"run[1] is the one word "-n 5""#),
        ("[/usr/bin/tail, '-n {lines}', /x]", r#"write them as ["-n", "{lines}"]"#),
        ("[/usr/bin/journalctl, '--unit nginx -n 50']", r#"["--unit", "nginx", "-n", "50"]"#),
        ("[/bin/ps, '-eo pid,comm']", r#"["-eo", "pid,comm"]"#),
        ("[/usr/bin/systemctl, 'restart nginx.service']", r#"["restart", "nginx.service"]"#),
        ("[/usr/sbin/service, 'nginx restart']", r#"["nginx", "restart"]"#),
        ("[/bin/df, -h, '|', /bin/grep, /dev]", r#"run[2] is "|""#),
        ("[/bin/echo, a, '>', /tmp/x]", r#"run[2] is ">""#),
        ("[/bin/true, '&&', /bin/false]", "there is none"),
    ] {
        let parameters = if run.contains('{') { ", parameters: {lines: {integer: {maximum: 9}}}" } else { "" };
        warns(&format!("- {{name: r, run: {run}{parameters}}}"), "r", expected);
    }
    // These words contain spaces or operators of a shell, but are valid.
    for run in [
        "[/bin/echo, 'Hello from a command that a rule allows.']",
        "[/usr/bin/stat, '--format=%n %s', /]",
        "[/bin/date, '+%F %T']",
        "[/usr/bin/find, /tmp, -name, 'a b', -exec, /bin/ls, '{{}}', ;]",
        "[/bin/test, a, '>', b]",
        "[/usr/bin/printf, --, '-n 5']",
        "[/bin/echo, '- a list', ' -n 5']",
        "[/usr/bin/awk, '{{ print $1 }}', /x]",
        "[/usr/bin/psql, -c, 'select 1']",
    ] {
        let findings = findings(&format!("- {{name: r, run: {run}}}"));
        let glued = findings.warnings.iter().filter(|warning| warning.message.starts_with("run["));
        assert_eq!(glued.count(), 0, "{run}: {:?}", findings.warnings);
    }
}

#[test]
fn who_and_what_runs_is_warned_of_where_it_is_much() {
    is_quiet("- {name: r, run: [/bin/sh, -c, 'exit 0']}");
    is_quiet("- {name: r, run: [/usr/bin/sudo, -n, /bin/true]}");
    warns("- {name: r, run: [/bin/true], runAs: root}", "r", "runs as root for everybody");
    warns("- {name: r, run: [/bin/ls, '-{f}'], parameters: {f: {pattern: '[a-z]+'}}}", "r", "chooses which option");
    is_quiet("- {name: r, run: [/usr/bin/tail, '-n{f}'], parameters: {f: {integer: {maximum: 9}}}}");
    is_quiet("- {name: r, run: [/bin/true], runAs: root, subjects: [{kind: Group, name: sre}]}");
    warns(
        "- {name: r, run: [/bin/true], environment: {MY_FILE: {pattern: '[a-z/]+'}}}",
        "r",
        "MY_FILE, which is not known",
    );
    is_quiet(
        "- {name: r, run: [/bin/true], environment: {MY_FILE: {enum: [/srv/a]}, RUN_ID: {pattern: 'run-[0-9]+'}}}",
    );
    warns("- {name: no, effect: Deny, match: x}", "no", "a Deny by match alone");
}

#[test]
fn rules_that_meet_are_warned_of_with_an_example() {
    let all = "- {name: any, match: 'restart {u}', run: [/bin/restart, '{u}'], parameters: {u: {pattern: '[a-z]+'}}}";
    let one = "- {name: one, match: restart web, run: [/bin/restart, web]}";
    warns(&format!("{all}\n{one}"), "one", "the rule any before it matches \"restart web\" too");
    warns(&format!("{one}\n{all}"), "one", "the rule any behind it matches \"restart web\" too");
    let same_words = "- {name: same, match: bounce web, run: [/bin/restart, web]}";
    warns(&format!("{all}\n{same_words}"), "same", "[\"/bin/restart\", \"web\"]");
    let deny = "- {name: no, effect: Deny, run: [/bin/restart, '{u}'], parameters: {u: {pattern: '.*'}}}";
    warns(&format!("{one}\n{deny}"), "one", "the Deny rule no forbids it");
    warns(&format!("{one}\n- {{name: freeze, effect: Deny}}"), "one", "the Deny rule freeze");
    let narrow = "- {name: no, effect: Deny, run: [/bin/restart, --, '{u}'], parameters: {u: {pattern: '.*'}}}";
    warns(&format!("{one}\n{narrow}"), "no", "the nearest is one, but it does not have --");
    warns("- {name: r, run: [/bin/x, '{u}'], parameters: {u: {pattern: '@[a-z]+'}}}", "r", "run[1] can be \"@a\"");
    is_quiet(&format!("{one}\n- {{name: freeze, effect: Deny, machineSelector: {{matchLabels: {{a: b}}}}}}"));
}

/// A file that defines what to run is refused in the same way as a program.
#[test]
fn a_value_is_no_configuration_file_that_runs_programs() {
    let errors =
        |run: &str| findings(&format!("- {{name: r, run: {run}, parameters: {{p: {{pattern: '[a-z]+'}}}}}}")).errors();
    for run in [
        "[/usr/bin/kubectl, --kubeconfig, '{p}', get, pods]",
        "[/usr/bin/kubectl, '--kubeconfig=/srv/{p}', get, pods]",
        "[/usr/bin/kubectl, get, pods, --kubeconfig, '{p}']",
        "[/usr/bin/kubectl, get, pods, '--kubeconfig={p}']",
        "[/usr/bin/oc, -n, web, --kubeconfig, '/srv/{p}', get, pods]",
        "[/usr/bin/helm, list, --kubeconfig, '{p}']",
        "[/usr/bin/docker, compose, -f, '{p}', up]",
        "[/usr/bin/docker, compose, -f, '/srv/{p}/compose.yaml', restart, web]",
        "[/usr/bin/docker, compose, '--file={p}', up]",
        "[/usr/bin/docker, compose, --env-file, '{p}', up]",
        "[/usr/bin/docker, --config, '{p}', pull, web]",
        "[/usr/bin/docker-compose, -f, /srv/a.yaml, -f, '{p}', up]",
        "[/usr/bin/mysql, '--defaults-file={p}']",
        "[/usr/bin/wget, --config, '{p}', 'https://example.com']",
    ] {
        let errors = errors(run);
        assert!(errors.len() == 1 && errors[0].contains("make it constant"), "{run}: {errors:?}");
    }
    for run in [
        "[/usr/bin/docker, logs, -f, '{p}']",
        "[/usr/bin/docker, ps, '--filter=name={p}']",
        "[/usr/bin/docker, compose, -f, /srv/a.yaml, -p, '{p}', restart]",
        "[/usr/bin/kubectl, --kubeconfig, /etc/kubeconfig, get, '{p}']",
        "[/usr/bin/kubectl, -n, '{p}', get, pods]",
    ] {
        assert_eq!(errors(run), Vec::<String>::new(), "{run}");
    }
}

/// Each pattern causes a warning. With the recommended change, it causes no warning.
#[test]
fn operators_in_classes_are_named_and_the_advice_helps() {
    let with = |pattern: &str| {
        let pattern = serde_json::Value::from(pattern);
        format!("- {{name: r, run: [/bin/cat, --, 'x{{p}}'], parameters: {{p: {{pattern: {pattern}}}}}}}")
    };
    for (pattern, of, meant) in [
        ("[a-z--x]+", "-- inside of [ ] in the pattern is an operator", r"[a-z\-x]+"),
        ("[a-z&&x]+", "&& inside of [ ] in the pattern is an operator", "[a-zx]+"),
        ("[a-c~~b-d]+", "~~ inside of [ ] in the pattern is an operator", "[ad]+"),
        ("[a-z[0-9]]+", "a class inside of a class", "[a-z0-9]+"),
        ("[a-z[]]]+", "a class inside of a class", r"[a-z\[\]]+"),
        ("([:alpha:])+", "[:alpha:] in the pattern is the characters", "([[:alpha:]])+"),
        ("[0-Z]+", "the range 0-Z", "[0-9A-Z]+"),
        ("a|b", "alternatives at the top level", "(a|b)"),
        ("[a-z @]+", "admits ' '", "[a-z@]+"),
    ] {
        warns(&with(pattern), "r", of);
        is_quiet(&with(meant));
    }
}

/// Unusual spellings of options and dots cause warnings.
#[test]
fn other_writings_of_options_and_dots_are_warned_of() {
    let with =
        |run: &str, pattern: &str| format!("- {{name: r, run: {run}, parameters: {{p: {{pattern: '{pattern}'}}}}}}");
    let url = "[/usr/bin/curl, -fsS, 'https://files.example/pub/{p}']";
    warns(&with(url, "[a-z0-9%/]+"), "r", "%2e is a dot in a URL");
    warns(&with("[/usr/bin/curl, 'https://files.example/%{p}']", "[0-9][A-F]"), "r", "%2E");
    is_quiet(&with(url, "[a-df-z0-9%/]+"));
    is_quiet(&with(url, "[a-z0-9/]+"));
    for run in ["[/bin/tar, '{p}', /srv/a.tar]", "[/bin/tar, '{p}f', /srv/a.tar]", "[/bin/ps, '{p}']"] {
        warns(&with(run, "[a-eg-z]+"), "r", "as options, with a dash or without");
    }
    is_quiet("- {name: r, run: [/bin/tar, '{p}', /srv/a.tar], parameters: {p: {enum: [tf, xf]}}}");
    is_quiet(&with("[/bin/tar, tf, '/srv/{p}.tar']", "[a-z]+"));
}

/// A path that the requester chooses completely causes a warning. A path after a constant directory causes no warning.
#[test]
fn a_free_absolute_path_is_warned_of() {
    let of = |program: &str, word: &str, pattern: &str| {
        format!("- {{name: r, run: [{program}, --, '{word}'], parameters: {{p: {{pattern: '{pattern}'}}}}}}")
    };
    let with = |word: &str, pattern: &str| of("/opt/print", word, pattern);
    for (word, pattern) in [
        ("{p}", "/[a-z/]+"),
        ("{p}", "(/[a-z]+)+"),
        ("{p}", "[a-z/]+"),
        ("--file={p}", "/[a-z/]+"),
        ("-f{p}", "/[a-z/]+"),
        ("/{p}", "[a-z]+/[a-z]+"),
        ("@{p}", "/[a-z/]+"),
        ("host:{p}", "/[a-z/]+"),
    ] {
        // The tables of known programs contain cat, but not print. Both programs cause a warning.
        for program in ["/bin/cat", "/opt/print"] {
            let found = findings(&of(program, word, pattern));
            assert!(
                found.invalid_rules.is_empty() && !found.warnings.is_empty(),
                "{program} {word} {pattern}: {found:?}"
            );
        }
    }
    for (word, pattern) in [
        ("/srv/app{p}", "/[a-z/]+"),
        ("/srv/{p}", "[a-z/]+"),
        ("{p}", "/srv/[a-z/]+"),
        ("{p}", "/(srv|opt)/[a-z/]+"),
        ("https://{p}/health", "[a-z]+"),
        ("{p}", "[a-z]+/[a-z]+"),
        ("{p}", "/[A-Z]+"),
    ] {
        let found = findings(&with(word, pattern));
        let of_paths = |warning: &Warning| warning.message.contains("chooses a path anywhere");
        assert!(found.invalid_rules.is_empty() && !found.warnings.iter().any(of_paths), "{word} {pattern}: {found:?}");
    }
    is_quiet("- {name: r, run: [/bin/cat, '{p}'], parameters: {p: {enum: [/etc/a, /srv/a, /var/a, /usr/a]}}}");
}
