//! The main path: a listed command runs, and its result is in the status.

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};
use crate::lab::asked;

#[tokio::test]
async fn a_listed_command_runs_and_its_result_is_in_the_status() {
    let case = Case::new().await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!((status.exit_code, status.signal), (Some(0), None));
    assert_eq!((status.stdout.as_deref(), status.stderr.as_deref()), (Some("hello\n"), Some("")));
    assert!(status.duration_ms.is_some_and(|duration| (0..60_000).contains(&duration)));
    let output = status.output.expect("an output record");
    assert_eq!(output.stdout.bytes, 6);
    assert_eq!(output.stdout.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    assert!(!output.incomplete && !output.stdout.truncated);
    let decision = status.decision.expect("a decision");
    assert_eq!((decision.whitelist.name.as_str(), decision.rule.as_str()), ("web", "hello"));
    assert_eq!(decision.argv, ["/bin/echo", "hello"]);
    let machine = status.machine.expect("a machine record");
    assert_eq!(machine.address, format!("127.0.0.1:{}", case.sshd.port()));
    assert!(machine.host_key_fingerprint.starts_with("SHA256:"));
    assert!(status.start_time <= status.completion_time && status.start_time.is_some());
    assert_eq!(case.ledger(), [asked(&["/bin/echo", "hello"])]);
}

#[tokio::test]
async fn a_command_that_fails_is_failed_with_its_exit_code_and_stderr() {
    let case = Case::new().await;
    case.execute("x", "exit-three").await;
    let status = case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, status.stderr.as_deref()), (Some(3), Some("sorry\n")));
}

#[tokio::test]
async fn the_argument_vector_asks_for_the_same_as_the_text() {
    let case = Case::new().await;
    case.execute_with("x", json!({"argv": ["/bin/echo", "hello"]})).await;
    assert_eq!(case.ends("x", Phase::Succeeded, Reason::Completed).await.stdout.as_deref(), Some("hello\n"));
}

#[tokio::test]
async fn the_words_of_a_rule_reach_the_program_byte_for_byte() {
    let case = Case::new().await;
    let words =
        ["/usr/bin/printf", "%s|", "a  b", "", "$HOME", "`id`", "$(id)", "*", "~", "a;b", "\"q\"", "-n", "#", "a&b>c"];
    case.apply_whitelist("words", json!([{"name": "words", "match": "words", "run": words}])).await;
    case.execute("x", "words").await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let expected: String = words[2..].iter().map(|word| format!("{word}|")).collect();
    assert_eq!(status.stdout, Some(expected));
}

#[tokio::test]
async fn an_exit_code_of_255_and_a_signal_are_told_apart() {
    let case = Case::new().await;
    case.apply_whitelist("ends", json!([sh("exit-255", "exit 255"), sh("kill-itself", "kill -9 $$")])).await;
    case.execute("code", "exit-255").await;
    case.execute("signal", "kill-itself").await;
    assert_eq!(case.ends("code", Phase::Failed, Reason::NonZeroExitCode).await.exit_code, Some(255));
    if case.sshd.runs_as_root() {
        let status = case.ends("signal", Phase::Failed, Reason::Signalled).await;
        assert_eq!((status.signal.as_deref(), status.exit_code), (Some("KILL"), None));
    } else {
        // Under ForceCommand (without root), a shell starts the command, and sshd reports the end of that shell.
        let status = case.ends("signal", Phase::Failed, Reason::NonZeroExitCode).await;
        assert_eq!((status.signal, status.exit_code), (None, Some(128 + 9)));
    }
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_a_failure_that_was_observed() {
    let case = Case::new().await;
    case.apply_whitelist("none", json!([{"name": "none", "match": "none", "run": ["/no/such/program"]}])).await;
    case.execute("x", "none").await;
    assert_eq!(case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await.exit_code, Some(127));
}

#[tokio::test]
async fn waiting_tools_tell_success_from_failure() {
    let case = Case::new().await;
    let created = case.execute("good", "say hello").await;
    // kstatus reads this field before the controller has reconciled the object.
    assert_eq!(created.status.expect("a status by default").observed_generation, Some(-1));
    case.execute("bad", "exit-three").await;
    let namespace = case.namespace.as_str();
    let wait = |condition, name| ["wait", "-n", namespace, condition, name, "--timeout=60s"];
    // The condition Finished becomes true at every end.
    for name in ["cmdexec/good", "cmdexec/bad"] {
        case.world.kubectl_succeeds(&wait("--for=condition=Finished", name));
    }
    let reason = "-o=jsonpath={.status.conditions[?(@.type==\"Finished\")].reason}";
    assert_eq!(case.world.kubectl_succeeds(&["get", "-n", namespace, "cmdexec/bad", reason]), "Failed");
    case.world.kubectl_succeeds(&wait("--for=condition=Ready", "cmdexec/good"));
    case.world.kubectl_succeeds(&wait("--for=condition=Stalled", "cmdexec/bad"));
    case.world.kubectl_succeeds(&wait("--for=condition=Ready=False", "cmdexec/bad"));
    let status = case.finished("good").await;
    assert_eq!(status.observed_generation, Some(1));
    assert!(!status.conditions.iter().any(|condition| condition.type_ == "Stalled"));
}

#[tokio::test]
async fn the_table_shows_what_a_person_looks_for() {
    let case = Case::new().await;
    case.execute_with("by-text", json!({"command": "exit-three", "reason": "ticket 7"})).await;
    case.execute_with("by-name", json!({"rule": {"name": "hello"}})).await;
    case.execute_with("no-rule", json!({"rule": {"name": "missing"}})).await;
    case.execute_with("by-argv", json!({"argv": ["/bin/missing", "a b"]})).await;
    let started = case.finished("by-text").await.start_time.expect("a start").0.to_string();
    for name in ["by-name", "no-rule", "by-argv"] {
        case.finished(name).await;
    }
    let table = |flags: &[&str]| {
        let table = case.world.kubectl_succeeds(&[&["get", "cmdexec", "-n", &case.namespace], flags].concat());
        let lines: Vec<Vec<String>> = table
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect())
            .collect();
        lines
    };
    let header = ["NAME", "MACHINE", "PHASE", "REASON", "EXIT", "DURATION-MS", "REQUESTER", "AGE"];
    let narrow = table(&[]);
    assert_eq!(narrow[0], header);
    let wide = table(&["-o", "wide"]);
    assert_eq!(wide[0], [&header[..], &["COMMAND", "RULE", "STARTED", "REQUEST-REASON", "MESSAGE"]].concat());
    for (name, cells) in [
        (
            "by-text",
            &[
                "web-1",
                "Failed",
                "3",
                "/bin/sh -c 'echo sorry >&2; exit 3'",
                "exit-three",
                "NonZeroExitCode",
                "ticket 7",
                &started,
            ][..],
        ),
        ("by-name", &["Succeeded", "/bin/echo hello", "hello", "Completed"]),
        ("no-rule", &["Rejected", "NoMatchingRule", "missing"]),
        ("by-argv", &["Rejected", "NoMatchingRule", r#"["/bin/missing","a b"]"#]),
    ] {
        let row = wide.iter().find(|row| row[0] == name).expect("a row");
        for cell in cells {
            assert!(
                row.iter().any(|is| is == cell || is.starts_with(&cell[..cell.len().min(19)])),
                "{cell} is not in {row:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_command_that_runs_for_a_while_is_shown_as_running() {
    let case = Case::new().await;
    case.execute("x", "sleep-eight").await;
    let running = case.in_phase("x", Phase::Running).await;
    assert_eq!(running.reason, Some(Reason::Started));
    assert!(running.start_time.is_some() && running.exit_code.is_none());
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout.as_deref(), Some("done\n"));
    assert_eq!(status.start_time, running.start_time);
}

#[tokio::test]
async fn people_are_told_of_problems_by_events() {
    let case = Case::new().await;
    case.apply_whitelist("fails", json!([{"name": "fails", "match": "fail", "run": ["/bin/false"]}])).await;
    case.execute("good", "say hello").await;
    case.execute("failed", "fail").await;
    case.execute("bad", "rm -rf /").await;
    for name in ["good", "failed", "bad"] {
        case.finished(name).await;
    }
    for reason in ["NonZeroExitCode", "NoMatchingRule"] {
        for _ in 0..100 {
            if case.events(reason).await > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(case.events(reason).await, 1, "{reason}");
    }
    assert_eq!(case.events("Completed").await, 0, "a success costs no event");
}

#[tokio::test]
async fn the_field_documentation_reads_as_a_manual() {
    let world = crate::world::world();
    // The API server publishes the documentation of a CRD a moment after it serves its objects.
    for _ in 0..100 {
        let is_published = |kind: &str| world.kubectl(&["explain", kind]).status.success();
        if ["cmdexec.spec", "machine.spec", "whitelist.spec"].into_iter().all(is_published) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let text = world.kubectl_succeeds(&["explain", "cmdexec.spec"]);
    for word in
        ["machineRef", "command", "argv", "timeoutSeconds", "startingDeadlineSeconds", "Default 300", "cancelRequested"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    for kind in
        ["machine.spec.hostKeys", "whitelist.spec.rules.run", "cmdexec.status.exitCode", "cmdexec.status.claim.token"]
    {
        let text = world.kubectl_succeeds(&["explain", kind]);
        assert!(text.contains("DESCRIPTION:") && text.len() > 120, "{kind}:\n{text}");
    }
}
