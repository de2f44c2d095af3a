//! Requests that a Deny matches.

use super::*;

const NGINX: [&str; 4] = ["/usr/bin/systemctl", "restart", "--", "nginx.service"];

#[test]
fn a_deny_wins_over_every_allow_whichever_way_is_asked() {
    let denies = [
        "- {name: no, effect: Deny, match: systemctl restart nginx.service}",
        "- {name: no, effect: Deny, match: '{all}', parameters: {all: {pattern: '.*restart nginx.*'}}}",
        "- {name: no, effect: Deny, run: [/usr/bin/systemctl, restart, --, nginx.service]}",
        "- {name: no, effect: Deny, run: [/usr/bin/systemctl, '{verb}', --, '{unit}'], parameters: {verb: {pattern: '.*'}, unit: {pattern: 'nginx.*'}}}",
        "- {name: no, effect: Deny, run: ['{program}', '{a}', '{b}', '{c}'], parameters: {program: {pattern: '.*systemctl'}, a: {pattern: '.*'}, b: {pattern: '.*'}, c: {pattern: '.*'}}}",
        "- {name: no, effect: Deny}",
        "- {name: no, effect: Deny, actionType: restart_service}",
        "- {name: no, effect: Deny, subjects: [{kind: User, name: jane}]}",
        "- {name: no, effect: Deny, machineSelector: {}}",
    ];
    for deny in denies {
        for order in [format!("{RESTART}\n{deny}"), format!("{deny}\n{RESTART}")] {
            let rules = sound(&order);
            for form in [
                command("systemctl restart nginx.service"),
                argv(&NGINX),
                by_rule("restart-service", &[("unit", "nginx.service")]),
            ] {
                let denial = denied(&rules, &form);
                assert_eq!(denial.reason, Reason::Denied, "{deny}");
                assert!(denial.message.contains("web/no"), "{}", denial.message);
            }
        }
        // The Deny can also be in another Whitelist.
        let rules = policies(&[("a", RESTART), ("z", deny)]);
        assert_eq!(denied(&rules, &argv(&NGINX)).reason, Reason::Denied, "{deny}");
    }
}

#[test]
fn a_deny_holds_against_what_it_says_and_nothing_else() {
    let denies = [
        "- {name: no, effect: Deny, match: systemctl restart redis-server.service}",
        "- {name: no, effect: Deny, run: [/usr/bin/systemctl, restart, --, redis-server.service]}",
        "- {name: no, effect: Deny, run: [/usr/bin/systemctl, restart, --, nginx.service], runAs: root}",
        "- {name: no, effect: Deny, runAs: root}",
        "- {name: no, effect: Deny, actionType: other}",
        "- {name: no, effect: Deny, subjects: [{kind: User, name: joe}]}",
        "- {name: no, effect: Deny, machineSelector: {matchLabels: {role: db}}}",
    ];
    for deny in denies {
        let rules = sound(&format!("{RESTART}\n{deny}"));
        allowed(&rules, &command("systemctl restart nginx.service"));
        allowed(&rules, &argv(&NGINX));
    }
    // If a Deny by text or words has `runAs`, it matches only commands of that user.
    let two = "- {name: r, match: go, run: [/bin/true], runAs: root}\n- {name: s, match: stay, run: [/bin/true]}";
    for (deny, go) in [
        ("- {name: no, effect: Deny, match: go, runAs: root}", false),
        ("- {name: no, effect: Deny, run: [/bin/true], runAs: root}", false),
        ("- {name: no, effect: Deny, match: stay, runAs: root}", true),
        ("- {name: no, effect: Deny, run: [/bin/true], runAs: app}", true),
    ] {
        let rules = sound(&format!("{two}\n{deny}"));
        allowed(&rules, &command("stay"));
        assert_eq!(matches!(verdict(&rules, &command("go")), Verdict::Allow(_)), go, "{deny}");
    }
    // `kill 042` has the same effect as `kill 42`. A Deny of the number 42 must therefore match both.
    let kill = "- {name: kill, run: [/bin/kill, --, '{pid}'], parameters: {pid: {pattern: '[0-9+]+'}}}";
    let deny = "- {name: no, effect: Deny, run: [/bin/kill, --, '{pid}'], parameters: {pid: {integer: {maximum: 99}}}}";
    let rules = sound(&format!("{kill}\n{deny}"));
    for pid in ["42", "042", "+42", "+0042", "0", "00"] {
        assert_eq!(denied(&rules, &argv(&["/bin/kill", "--", pid])).reason, Reason::Denied, "{pid}");
    }
    allowed(&rules, &argv(&["/bin/kill", "--", "100"]));
    let rules = sound("- {name: r, run: [/bin/true], runAs: root}\n- {name: no, effect: Deny, runAs: root}");
    assert_eq!(denied(&rules, &command("/bin/true")).reason, Reason::Denied);
}

#[test]
fn a_deny_with_subjects_holds_against_who_is_not_known() {
    let rules = sound(&format!("{RESTART}\n- {{name: no, effect: Deny, subjects: [{{kind: User, name: joe}}]}}"));
    let request = Request::parse(&argv(&NGINX)).unwrap();
    let denial = expect_denied(decide(&rules, &request, &BTreeMap::new(), Identity::Unknown));
    assert_eq!(denial.reason, Reason::Denied);
}

/// A Deny also matches a program that another program launches.
#[test]
fn a_deny_sees_through_launchers() {
    let deny = "- {name: no, effect: Deny, run: [/usr/bin/systemctl, stop, redis.service]}";
    let by_parameters = "- {name: no, effect: Deny, run: [/usr/bin/systemctl, '{v}', '{u}'], parameters: {v: {enum: [stop, kill]}, u: {pattern: 'redis.*'}}}";
    let wide =
        "- {name: no, effect: Deny, run: ['{p}', stop, redis.service], parameters: {p: {pattern: '/usr/bin/.*ctl'}}}";
    let by_name = "- {name: no, effect: Deny, run: [systemctl, stop, redis.service]}";
    for launcher in [
        "",
        "/usr/bin/timeout, '5',",
        "/usr/bin/nice, -n, '5', /usr/bin/timeout, -k, '1', '5',",
        "/usr/bin/env, A=b,",
        "/usr/bin/nohup,",
        "/usr/bin/setsid, -w,",
        "/usr/bin/stdbuf, -oL,",
        "/usr/bin/ionice, -c2,",
        "/usr/bin/sudo, -n,",
        "/usr/bin/sudo, -u, app, --,",
        "/usr/sbin/runuser, -u, postgres, --,",
        "/usr/bin/flock, /run/lock,",
        "/usr/sbin/chroot, /srv,",
        "/bin/busybox,",
        "/usr/bin/timeout, --later=5, '5',",
        "/usr/bin/strace, -f,",
    ] {
        for program in ["/usr/bin/systemctl", "/bin/systemctl", "systemctl"] {
            if launcher.is_empty() && !program.starts_with('/') {
                continue;
            }
            let allow = format!("- {{name: r, match: go, run: [{launcher} {program}, stop, redis.service]}}");
            for deny in [deny, by_parameters, wide, by_name] {
                let rules = sound(&format!("{allow}\n{deny}"));
                assert_eq!(denied(&rules, &command("go")).reason, Reason::Denied, "{allow} {deny}");
            }
            let other = allow.replace("redis", "nginx");
            for deny in [deny, by_parameters] {
                allowed(&sound(&format!("{other}\n{deny}")), &command("go"));
            }
        }
    }
    let allow = "- {name: r, run: [/usr/bin/timeout, '5', /usr/bin/systemctl, '{v}', --, '{u}'], parameters: {v: {enum: [start, stop]}, u: {pattern: '[a-z]+[.][a-z]+'}}}";
    let deny = "- {name: no, effect: Deny, run: [/usr/bin/systemctl, stop, --, redis.service]}";
    let rules = sound(&format!("{allow}\n{deny}"));
    let form = |verb: &str, unit: &str| argv(&["/usr/bin/timeout", "5", "/usr/bin/systemctl", verb, "--", unit]);
    assert_eq!(denied(&rules, &form("stop", "redis.service")).reason, Reason::Denied);
    assert_eq!(denied(&rules, &by_rule("r", &[("v", "stop"), ("u", "redis.service")])).reason, Reason::Denied);
    allowed(&rules, &form("start", "redis.service"));
    allowed(&rules, &form("stop", "nginx.service"));
}

#[test]
fn a_deny_of_a_user_holds_against_a_launcher_that_changes_the_user() {
    let denies = [
        "- {name: no, effect: Deny, runAs: root}",
        "- {name: no, effect: Deny, runAs: root, run: [/usr/bin/id, -u]}",
        "- {name: no, effect: Deny, runAs: root, match: go}",
    ];
    for deny in denies {
        for (launcher, is_denied) in [
            ("", false),
            ("/usr/bin/sudo, -n,", true),
            ("/usr/bin/sudo, -n, -u, root,", true),
            ("/usr/bin/sudo, --user=root, --,", true),
            ("/usr/bin/sudo, -u, '#0',", true),
            ("/usr/bin/timeout, '5', sudo,", true),
            ("/usr/bin/sudo, -u, app,", false),
            ("/usr/sbin/runuser, -u, app, --,", false),
            ("/usr/bin/su, root,", true),
            ("/usr/bin/doas,", true),
        ] {
            let rules = sound(&format!("- {{name: r, match: go, run: [{launcher} /usr/bin/id, -u]}}\n{deny}"));
            let is_allowed = matches!(verdict(&rules, &command("go")), Verdict::Allow(_));
            assert_eq!(!is_allowed, is_denied, "{launcher} {deny}");
        }
    }
    // If the launcher does not change the user, the launched command runs as the user of the rule.
    let allow = "- {name: r, match: go, run: [/usr/bin/timeout, '5', /usr/bin/id, -u], runAs: root}";
    let rules = sound(&format!("{allow}\n{}", denies[1]));
    assert_eq!(denied(&rules, &command("go")).reason, Reason::Denied);
}

/// Commands that no Deny matches. The denied program is only an argument, or it is another program (`/opt/app` is not
/// `/usr/bin/app`).
#[test]
fn a_deny_holds_against_no_file_that_a_launched_program_reads() {
    for (allow, deny) in [
        ("[/usr/bin/timeout, '5', sha256sum, /usr/sbin/reboot]", "[/usr/sbin/reboot]"),
        ("[/usr/bin/nice, -n, '5', /usr/bin/apt-get, install, python3]", "[/usr/bin/python3]"),
        ("[/bin/ls, -l, /usr/sbin/reboot]", "[/usr/sbin/reboot]"),
        ("[/usr/bin/apt-get, install, python3]", "[/usr/bin/python3]"),
        ("[/usr/bin/env, A=b, /bin/echo, systemctl, stop]", "[/usr/bin/systemctl, stop]"),
        ("[/bin/bash, /opt/check.sh, /usr/sbin/reboot]", "[/usr/sbin/reboot]"),
        ("[/usr/local/bin/app, stop]", "[/usr/bin/app, stop]"),
        ("[/opt/app, stop]", "[/usr/bin/app, stop]"),
    ] {
        let rules =
            sound(&format!("- {{name: r, match: go, run: {allow}}}\n- {{name: no, effect: Deny, run: {deny}}}"));
        allowed(&rules, &command("go"));
    }
}
