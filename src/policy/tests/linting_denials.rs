//! Warnings about Deny rules that forbid less than they seem to forbid. The warnings consider all Whitelists of a
//! namespace.

use super::*;

const ALLOW: &str = "
- name: stop
  run: [/usr/bin/systemctl, stop, '{unit}']
  parameters: {unit: {pattern: '[a-z][a-z-]*[.]service'}}
";

/// Returns the warnings about a Deny in a separate Whitelist.
fn said(allows: &str, deny: &str) -> Vec<String> {
    let (web, deny) = (whitelist("web", allows), whitelist("deny", &format!("- {{name: no, effect: Deny, {deny}}}")));
    let [web, deny] = lint_all(&[&web, &deny]).try_into().unwrap();
    assert!(web.is_sound() && deny.is_sound(), "{:?} {:?}", web.errors(), deny.errors());
    let of_deny = deny.warnings.into_iter().filter(|warning| warning.rule == "no");
    of_deny.map(|warning| warning.message).filter(|message| !message.contains("a Deny by match alone")).collect()
}

#[test]
fn a_deny_that_holds_against_nothing_names_the_nearest_rule_and_what_differs() {
    for (deny, why) in [
        ("run: [/opt/bin/systemctl, stop, redis.service]", "it runs /usr/bin/systemctl"),
        ("run: [/usr/bin/systemctl, redis.service, stop]", "its words stand in another order"),
        ("run: [/usr/bin/systemctl, stop, --, redis.service]", "it does not have --"),
        ("run: [/usr/bin/systemctl, stop]", "it has {unit} too"),
        ("run: [/usr/bin/systemctl, stop, --now, redis.service]", "it does not have --now"),
        ("run: [/usr/bin/systemctl, kill, redis.service]", "it has stop and not kill"),
        ("run: [/usr/bin/systemctl, stop, redis]", "it has {unit} and not redis"),
        (
            "run: [/usr/bin/systemctl, stop, redis.service], actionType: stop_it",
            "its actionType is custom and not stop_it",
        ),
        ("run: [/usr/bin/systemctl, stop, redis.service], runAs: root", "it does not run as root"),
        ("runAs: root", "it does not run as root"),
        ("actionType: other", "its actionType is custom and not other"),
        ("run: [/usr/bin/systemctl, stop, '{u}'], parameters: {u: {pattern: 'REDIS.*'}}", "it has {unit} and not {u}"),
        (
            "run: [/usr/bin/systemctl, stop, '{u}'], parameters: {u: {pattern: '.*[.]socket'}}",
            "it has {unit} and not {u}",
        ),
        (
            "run: [/usr/bin/systemctl, stop, '{u}'], parameters: {u: {integer: {maximum: 9}}}",
            "it has {unit} and not {u}",
        ),
        ("match: systemctl stop redis.service", "its text is"),
    ] {
        let said = said(ALLOW, deny);
        assert_eq!(said.len(), 1, "{deny}: {said:?}");
        assert!(said[0].contains(&format!("the nearest is web/stop, but {why}")), "{deny}: {said:?}");
    }
    let db = "- {name: r, run: [/bin/true], machineSelector: {matchLabels: {role: db}}, subjects: [{kind: User, name: jane}]}";
    for (deny, why) in [
        ("run: [/bin/true], machineSelector: {matchLabels: {role: web}}", "its machineSelector chooses other Machines"),
        ("run: [/bin/true], subjects: [{kind: User, name: joe}]", "it has other subjects"),
        ("run: [/bin/false], subjects: [{kind: User, name: joe}]", "it runs /bin/true, and it has other subjects"),
    ] {
        let said = said(db, deny);
        assert!(said.len() == 1 && said[0].contains(why), "{deny}: {said:?}");
    }
    let several = format!("{ALLOW}\n- {{name: a, run: [/bin/true]}}\n- {{name: z, run: [/usr/bin/systemctl, status]}}");
    assert!(said(&several, "run: [/usr/bin/systemctl, redis.service, stop]")[0].contains("web/stop"));
    assert!(said(&several, "run: [/bin/truee]")[0].contains("web/a"));
    // If several rules are equally near to the Deny, the first rule is named.
    assert!(said(&several, "runAs: nobody")[0].contains("the nearest is web/stop, but it does not run as nobody"));
}

#[test]
fn a_deny_that_holds_against_something_is_no_matter_of_a_warning() {
    for deny in [
        "run: [/usr/bin/systemctl, stop, redis.service]",
        "run: [/bin/systemctl, stop, redis.service]",
        "run: [systemctl, stop, redis.service]",
        "run: [/usr/bin/systemctl, '{v}', redis.service], parameters: {v: {pattern: '.*'}}",
        "run: [/usr/bin/systemctl, stop, '{u}'], parameters: {u: {pattern: 'redis.*'}}",
        "run: ['{p}', stop, '{u}'], parameters: {p: {pattern: '.*ctl'}, u: {enum: [x, redis.service]}}",
        "match: /usr/bin/systemctl stop redis.service",
        "match: '{all}', parameters: {all: {pattern: '.* stop redis.*'}}",
        "actionType: custom",
        "machineSelector: {matchLabels: {role: web}}, run: [/usr/bin/systemctl, stop, redis.service]",
        "subjects: [{kind: Group, name: dev}]",
        "match: nothing, run: [/usr/bin/systemctl, stop, redis.service]",
    ] {
        assert_eq!(said(ALLOW, deny), Vec::<String>::new(), "{deny}");
    }
    // The Deny also matches commands that launchers start, so there is no warning.
    let launched = "- {name: r, match: go, run: [/usr/bin/timeout, '5', sudo, -n, systemctl, stop, redis.service]}";
    for deny in [
        "run: [/usr/bin/systemctl, stop, redis.service]",
        "runAs: root",
        "run: [/usr/bin/systemctl, stop, redis.service], runAs: root",
    ] {
        assert_eq!(said(launched, deny), Vec::<String>::new(), "{deny}");
    }
    let with_parameter = "- {name: r, match: 'go {s} {u}', run: [/usr/bin/timeout, '5', /usr/bin/systemctl, stop, '-n{s}', '{u}'], parameters: {s: {integer: {maximum: 9}}, u: {enum: [redis]}}}";
    assert_eq!(said(with_parameter, "run: [/usr/bin/systemctl, stop, -n7, redis]"), Vec::<String>::new());
    assert_eq!(said(with_parameter, "run: [/usr/bin/systemctl, stop, -n12, redis]").len(), 1);
    // Without an Allow rule, there is no warning.
    assert_eq!(said("- {name: other, effect: Deny}", "run: [/bin/x]"), Vec::<String>::new());
}

#[test]
fn rules_that_do_the_same_in_other_words_are_named() {
    let with = |rule: &str| format!("{ALLOW}\n{rule}");
    let deny = "run: [/usr/bin/systemctl, stop, redis.service]";
    for (rule, why) in [
        (
            "- {name: r, run: [/usr/bin/systemctl, --no-block, stop, '{u}'], parameters: {u: {enum: [redis.service]}}}",
            "web/r, which runs the same program: it has --no-block too",
        ),
        (
            "- {name: r, run: [/usr/bin/systemctl, stop, --, '{u}'], parameters: {u: {enum: [redis.service]}}}",
            "it has -- too",
        ),
        ("- {name: r, run: [/opt/bin/systemctl, stop, redis.service]}", "it runs /opt/bin/systemctl"),
        ("- {name: r, run: [/usr/bin/timeout, '5', systemctl, --quiet, stop, redis.service]}", "it has --quiet too"),
        ("- {name: r, run: [/bin/sh, -c, 'exec systemctl stop redis.service']}", "what /bin/sh does with them"),
        ("- {name: r, run: [/opt/wrap, /usr/bin/systemctl, stop, redis.service]}", "what /opt/wrap does with them"),
        ("- {name: r, run: [/usr/bin/docker, exec, web, systemctl, stop, redis.service]}", "what /usr/bin/docker does"),
    ] {
        let said = said(&with(rule), deny);
        assert!(said.len() == 1 && said[0].contains(why), "{rule}: {said:?}");
    }
    for rule in [
        "- {name: r, run: [/usr/bin/systemctl, --no-block, start, '{u}'], parameters: {u: {enum: [redis.service]}}}",
        "- {name: r, run: [/usr/bin/systemctl, --no-block, stop, '{u}'], parameters: {u: {enum: [nginx.service]}}}",
        "- {name: r, run: [/bin/sh, -c, 'exec systemctl status redis.service']}",
        "- {name: r, run: [/usr/bin/systemctl, --no-block, stop, redis.service], actionType: x}\n- {name: also, effect: Deny, run: [/usr/bin/systemctl, --no-block, stop, redis.service]}",
        "- {name: r, run: [/usr/bin/systemctl, --no-block, stop, '{u}'], parameters: {u: {enum: [nginx.service, redis.service]}}}\n- {name: also, effect: Deny, run: [/usr/bin/systemctl, --no-block, stop, '{u}'], parameters: {u: {pattern: 'redis.*'}}}",
    ] {
        assert_eq!(said(&with(rule), deny), Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn a_namespace_is_linted_by_itself() {
    let (web, mut deny) = (
        whitelist("web", ALLOW),
        whitelist("deny", "- {name: no, effect: Deny, run: [/bin/x]}\n- {name: r, run: [/bin/x]}"),
    );
    deny.metadata.namespace = Some("other".to_owned());
    let findings = lint_all(&[&web, &deny]);
    assert!(findings[0].warnings.is_empty(), "{:?}", findings[0].warnings);
    assert!(findings[1].warnings[0].message.contains("the Deny rule no forbids it"), "{:?}", findings[1].warnings);
    // A Deny of another Whitelist in the same namespace forbids the rule.
    deny = whitelist(
        "deny",
        "- {name: no, effect: Deny, run: [/usr/bin/systemctl, '{v}', '{u}'], parameters: {v: {pattern: '.*'}, u: {pattern: '.*'}}}",
    );
    let findings = lint_all(&[&web, &deny]);
    assert!(findings[0].warnings[0].message.contains("the Deny rule deny/no forbids it"), "{:?}", findings[0]);
    // A Deny that forbids some requests of a rule causes no warning, because that is the purpose of a Deny.
    let two = whitelist(
        "web",
        "- {name: r, run: [/bin/x, '{u}'], parameters: {u: {enum: [a, b]}}}\n- {name: no, effect: Deny, run: [/bin/x, a]}",
    );
    assert!(lint(&two).warnings.is_empty(), "{:?}", lint(&two).warnings);
}

#[test]
fn rules_whose_words_come_from_input_are_named_if_those_may_be_what_a_deny_forbids() {
    let deny = "run: [/usr/bin/systemctl, stop, redis.service]";
    for run in [
        "[/usr/bin/xargs, -n, '1', /usr/bin/systemctl, stop]",
        "[/usr/bin/xargs, -a, /srv/units, systemctl]",
        "[/usr/bin/xargs, sudo, -n]",
        "[/usr/bin/xargs, -i, nice, '{{}}']",
        "[/usr/bin/sudo, -n, xargs, /usr/bin/env]",
        "[/usr/bin/parallel]",
        "[/usr/bin/parallel, -j, '4', /usr/bin/systemctl, '{{}}']",
        "[/usr/bin/find, /srv/units, -exec, systemctl, stop, '{{}}', ;]",
        "[/usr/bin/find, /srv/bin, -type, f, -exec, '{{}}', ;]",
    ] {
        let rule = format!("- {{name: all, run: {run}}}");
        for allows in [rule.clone(), format!("{ALLOW}{rule}")] {
            let said = said(&allows, deny);
            let by_input = said.iter().filter(|message| {
                message.starts_with("the rule web/all runs ") && message.contains("adds words from its input")
            });
            assert_eq!(by_input.count(), 1, "{run}: {said:?}");
        }
    }
    for run in [
        "[/usr/bin/xargs, -n, '1', /bin/rm]",
        "[/usr/bin/xargs]",
        "[/usr/bin/find, /srv/units, -exec, /bin/rm, '{{}}', ;]",
        "[/usr/bin/find, /srv/units, -name, systemctl]",
        "[/usr/bin/timeout, '5', /usr/bin/systemctl, start, a.service]",
    ] {
        let said = said(&format!("{ALLOW}- {{name: all, run: {run}}}"), deny);
        assert!(said.iter().all(|message| !message.contains("from its input")), "{run}: {said:?}");
    }
}
