//! Interactive sessions: rules that permit them, their fields, and the warnings about them.

use super::*;
use crate::api::SessionRequest;

fn with_session(spec: CommandExecutionSpec) -> CommandExecutionSpec {
    CommandExecutionSpec { session: Some(SessionRequest::default()), ..spec }
}

/// Returns the messages of the warnings about the only rule, which runs these words.
fn warnings(run: &str, fields: &str) -> Vec<String> {
    let findings = lint(&whitelist("web", &format!("- {{name: r, run: [{run}], {fields}}}")));
    assert!(findings.is_sound(), "{:?}", findings.errors());
    findings.warnings.into_iter().map(|warning| warning.message).collect()
}

#[test]
fn session_is_denied_unless_the_rule_is_interactive() {
    let rules =
        sound("- {name: plain, run: [/usr/bin/top]}\n- {name: on, match: go, run: [/usr/bin/top], interactive: true}");
    for spec in [command("/usr/bin/top"), by_rule("plain", &[])] {
        assert!(!allowed(&rules, &spec).interactive);
        let denial = denied(&rules, &with_session(spec));
        assert_eq!(denial.reason, Reason::NotPermitted, "{}", denial.message);
        for part in ["the rule web/plain", "interactive sessions", "add `interactive: true`"] {
            assert!(denial.message.contains(part), "{}", denial.message);
        }
        assert!(denial.nearest.unwrap().why.contains("interactive sessions"));
    }
    for spec in [command("go"), by_rule("on", &[])] {
        assert!(allowed(&rules, &with_session(spec)).interactive);
    }
    // Words of both rules: without a session the request is ambiguous, with a session only one rule is left.
    assert_eq!(denied(&rules, &argv(&["/usr/bin/top"])).reason, Reason::Ambiguous);
    assert_eq!(allowed(&rules, &with_session(argv(&["/usr/bin/top"]))).rule, "on");
}

#[test]
fn request_without_session_may_use_an_interactive_rule() {
    let rules = sound("- {name: r, run: [/usr/bin/top], interactive: true}");
    let decision = allowed(&rules, &command("/usr/bin/top"));
    assert!(decision.interactive && !decision.record_input);
}

#[test]
fn denial_of_a_session_names_the_rule_for_this_machine() {
    let rules = sound(
        "
- {name: other-machine, match: go, run: [/usr/bin/top], interactive: true, machineSelector: {matchLabels: {role: db}}}
- {name: here, match: go, run: [/usr/bin/top]}
",
    );
    let denial = denied(&rules, &with_session(command("go")));
    assert!(denial.message.contains("web/here") && denial.message.contains("interactive"), "{}", denial.message);
    let rules = sound(
        "
- {name: here, match: go, run: [/usr/bin/top]}
- {name: others, match: go, run: [/usr/bin/top], interactive: true, subjects: [{kind: User, name: joe}]}
",
    );
    let denial = denied(&rules, &with_session(command("go")));
    assert!(denial.message.contains("web/others") && denial.message.contains("subjects"), "{}", denial.message);
}

#[test]
fn deny_rule_forbids_a_session_too() {
    let rules = sound(
        "- {name: r, run: [/usr/bin/sudo, /usr/bin/top], interactive: true}\n- {name: no, effect: Deny, run: [/usr/bin/top]}",
    );
    let denial = denied(&rules, &with_session(argv(&["/usr/bin/sudo", "/usr/bin/top"])));
    assert_eq!(denial.reason, Reason::Denied);
}

#[test]
fn rules_that_record_different_input_are_ambiguous() {
    let rules = sound(
        "- {name: one, match: go, run: [/usr/bin/top], interactive: true}\n\
         - {name: two, match: go, run: [/usr/bin/top], interactive: true, recordInput: true}",
    );
    for spec in [command("go"), with_session(command("go"))] {
        assert_eq!(denied(&rules, &spec).reason, Reason::Ambiguous);
    }
    assert!(allowed(&rules, &with_session(by_rule("two", &[]))).record_input);
    // `interactiveShell` is for lint only, so it makes no difference.
    let rules = sound(
        "- {name: one, match: go, run: [/bin/sh], interactive: true}\n\
         - {name: two, match: go, run: [/bin/sh], interactive: true, interactiveShell: true}",
    );
    assert_eq!(allowed(&rules, &with_session(command("go"))).rule, "one");
}

#[test]
fn record_has_record_input_only_if_it_is_true() {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::UNIX_EPOCH);
    for (fields, expected) in
        [("", None), (", interactive: true", None), (", interactive: true, recordInput: true", Some(true))]
    {
        let rules = sound(&format!("- {{name: r, run: [/usr/bin/top]{fields}}}"));
        let record = allowed(&rules, &command("/usr/bin/top")).record(time.clone());
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json.get("recordInput").and_then(serde_json::Value::as_bool), expected, "{fields}");
        let permitted = permitted_rules(&rules, &BTreeMap::new(), Identity::Unknown);
        assert_eq!(permitted[0].record_input, expected.is_some(), "{fields}");
    }
}

#[test]
fn session_fields_without_interactive_are_a_problem() {
    for field in ["recordInput", "interactiveShell"] {
        let rule = format!("- {{name: r, run: [/bin/true], {field}: true}}");
        let whitelist = whitelist("web", &rule);
        let compiled = compile(&whitelist);
        let broken = &compiled.invalid_rules[0];
        assert_eq!(broken.problem, RuleError::OnlyForInteractive { field: field.to_owned() });
        let message = broken.problem.to_string();
        assert!(message.starts_with(field) && message.contains("add interactive: true"), "{message}");
        assert_eq!(all_problems(&whitelist.spec.rules[0], "team", broken).len(), 1);
        sound(&format!("- {{name: r, run: [/bin/true], {field}: false}}"));
        let deny = format!("- {{name: r, effect: Deny, run: [/bin/true], {field}: true}}");
        let compiled = compile(&super::whitelist("web", &deny));
        assert_eq!(compiled.invalid_rules[0].problem, RuleError::NotAllowedOnDeny { field: field.to_owned() });
        assert!(compiled.closed.is_some());
    }
    let both = "- {name: r, run: [/bin/true], recordInput: true, runAs: '-u'}";
    let whitelist = whitelist("web", both);
    let problems = all_problems(&whitelist.spec.rules[0], "team", &compile(&whitelist).invalid_rules[0]);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn lint_warns_of_interactive_programs_that_give_a_shell() {
    let fields = "interactive: true";
    for (run, part) in [
        ("/bin/bash", "/bin/bash executes its input"),
        ("/usr/bin/sudo, -u, app, -i", "/usr/bin/sudo executes its input"),
        ("/usr/bin/sudo, -u, app, /bin/sh", "/bin/sh executes its input"),
        ("/usr/bin/nice, less, /var/log/x", "less can start other programs"),
        ("/usr/bin/systemctl, status, web", "add --no-pager"),
    ] {
        let found = warnings(run, fields);
        assert!(
            found.iter().any(|message| message.contains(part) && message.contains("interactiveShell")),
            "{found:?}"
        );
        let stated = warnings(run, "interactive: true, interactiveShell: true");
        assert!(!stated.iter().any(|message| message.contains("interactiveShell")), "{stated:?}");
        let without = warnings(run, "timeoutSeconds: {}");
        assert!(!without.iter().any(|message| message.contains("interactiveShell")), "{without:?}");
    }
    for run in ["/usr/bin/top", "/opt/menu", "/bin/sh, /opt/menu", "/usr/bin/systemctl, --no-pager, status, web"] {
        assert_eq!(warnings(run, fields), Vec::<String>::new(), "{run}");
    }
    assert_eq!(warnings("/opt/menu", "interactive: true, interactiveShell: true"), Vec::<String>::new());
}

#[test]
fn lint_finds_a_shell_among_listed_values() {
    let with = |values: &str| {
        warnings("/usr/bin/sudo, '{p}'", &format!("interactive: true, parameters: {{p: {{enum: [{values}]}}}}"))
    };
    assert!(with("/usr/bin/top, /bin/bash").iter().any(|message| message.contains("/bin/bash")));
    assert!(!with("/usr/bin/top, /usr/bin/uptime").iter().any(|message| message.contains("interactiveShell")));
}

#[test]
fn lint_warns_of_recorded_input() {
    let found = warnings("/usr/bin/top", "interactive: true, recordInput: true");
    assert!(found.len() == 1 && found[0].contains("passwords"), "{found:?}");
}
