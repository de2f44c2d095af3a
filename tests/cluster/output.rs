//! Output of commands: Writ counts every byte, and the record is bounded and readable.

use serde_json::{Value, json};
use writ::api::execution_status::{Encoding, IncompleteReason};
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};

async fn run(line: &str) -> (Case, writ::api::CommandExecutionStatus) {
    run_with(line, json!({})).await
}

/// Runs a line of sh with a rule that has these additional fields.
async fn run_with(line: &str, fields: Value) -> (Case, writ::api::CommandExecutionStatus) {
    let case = Case::new().await;
    let mut rule = sh("line", line);
    for (field, value) in fields.as_object().expect("an object of fields") {
        rule[field] = value.clone();
    }
    case.apply_whitelist("line", json!([rule])).await;
    case.execute("x", "line").await;
    let status = case.finished("x").await;
    (case, status)
}

#[tokio::test]
async fn megabytes_are_counted_and_digested_whole_and_shown_by_head_and_tail() {
    // Both streams write concurrently, each more than one SSH window. seq and sha256sum give the expected values.
    let line = "seq 1 1000000; seq 1 1000000 >&2; seq 1 1000000 | sha256sum >$HOME/digest";
    let (case, status) = run(line).await;
    assert_eq!(status.phase, Phase::Succeeded, "{:?}", status.message);
    let digest = std::fs::read_to_string(case.sshd.home().join("digest")).expect("the digest");
    let output = status.output.expect("an output record");
    for stream in [&output.stdout, &output.stderr] {
        assert_eq!(stream.bytes, 6_888_896);
        assert!(digest.starts_with(&stream.sha256), "{digest} {}", stream.sha256);
        assert!(stream.truncated);
    }
    assert!(!output.incomplete);
    let stdout = status.stdout.expect("stdout");
    assert!(stdout.len() <= 8192 && stdout.starts_with("1\n2\n3\n") && stdout.ends_with("\n999999\n1000000\n"));
    assert!(stdout.contains("bytes left out here]"));
}

#[tokio::test]
async fn binary_output_is_stored_as_base64() {
    // The first bytes of a program are not UTF-8.
    let (_case, status) = run("head -c 4000 /bin/sh").await;
    let output = status.output.expect("an output record");
    assert_eq!(output.stdout.encoding, Encoding::Base64);
    assert_eq!((status.phase, status.exit_code), (Phase::Succeeded, Some(0)));
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_still_waited_for() {
    let (_case, status) = run("exec >&- 2>&-; sleep 2; exit 7").await;
    assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(7)));
}

#[tokio::test]
async fn a_process_that_holds_the_output_open_does_not_hold_the_result() {
    let (_case, status) = run("echo before; sleep 60 & exit 0").await;
    assert_eq!((status.phase, status.reason), (Phase::Succeeded, Some(Reason::Completed)));
    assert_eq!(status.stdout.as_deref(), Some("before\n"));
    let output = status.output.expect("an output record");
    assert_eq!((output.incomplete, output.incomplete_reason), (true, Some(IncompleteReason::StillOpen)));
    let message = status.message.expect("a message");
    assert!(
        message.ends_with("the output is incomplete: processes still held it open after the wait of 2 s"),
        "{message}"
    );
    assert!(status.duration_ms.is_some_and(|duration| duration < 30_000));
}

#[tokio::test]
async fn output_after_which_nothing_comes_is_complete() {
    let (_case, status) = run("echo one; echo two >&2; echo three").await;
    assert_eq!((status.stdout.as_deref(), status.stderr.as_deref()), (Some("one\nthree\n"), Some("two\n")));
    assert!(!status.output.expect("an output record").incomplete);
}

#[tokio::test]
async fn control_characters_and_nul_are_kept() {
    let (_case, status) = run("printf %s a; head -c 2 /dev/zero; printf %s b").await;
    assert_eq!(status.stdout.as_deref(), Some("a\0\0b"));
}

/// Checks that neither the stored execution nor Writ's log contains the secret.
async fn kept_nowhere(case: &Case, secret: &str) {
    let stored = serde_json::to_string(&case.executions().get("x").await.expect("it is there")).expect("JSON");
    assert!(!stored.contains(secret), "{stored}");
    assert!(!case.log().contains(secret), "{}", case.log());
}

#[tokio::test]
async fn what_a_pattern_matches_is_stored_nowhere_wherever_the_output_is_cut() {
    // The rule never contains the whole secret. The secret arrives in three writes, each in its own packet.
    let line = "printf %s user=root\" tok\"; sleep 0.3; printf en=hun; sleep 0.3; echo ter2 end; echo plain; \
                (echo note; printf Pass; sleep 0.3; printf %s \"word: hun\"; sleep 0.3; printf ter2) >&2; \
                (echo user=root \"***\" end; echo plain) | sha256sum >$HOME/digest";
    let redact = json!([r"token=\S+", "(?i)password: .*"]);
    let (case, status) = run_with(line, json!({"redact": redact})).await;
    assert_eq!(status.phase, Phase::Succeeded, "{:?}", status.message);
    assert_eq!(status.stdout.as_deref(), Some("user=root *** end\nplain\n"));
    assert_eq!(status.stderr.as_deref(), Some("note\n***"));
    let output = status.output.expect("an output record");
    assert!(output.stdout.redacted && output.stderr.redacted);
    // Writ counts and digests the redacted output. So nobody can guess a short secret from size and digest.
    let digest = std::fs::read_to_string(case.sshd.home().join("digest")).expect("the digest");
    assert!(digest.starts_with(&output.stdout.sha256), "{digest} {}", output.stdout.sha256);
    assert_eq!((output.stdout.bytes, output.stderr.bytes), (24, 8));
    kept_nowhere(&case, "hunter2").await;
}

#[tokio::test]
async fn a_line_that_is_too_long_or_was_cut_off_is_not_shown_where_there_are_patterns() {
    // A line longer than an SSH packet, then an end in the middle of a line.
    let line = "head -c 70000 /dev/zero | tr -c z z; echo; echo fine; printf %s \"half of hunt\"; kill -KILL $$";
    let (case, status) = run_with(line, json!({"redact": ["hunter2"]})).await;
    assert_eq!((status.phase, status.signal.as_deref()), (Phase::Failed, Some("KILL")), "{:?}", status.message);
    let expected = "*** [writ: a line of 70000 bytes was too long to be redacted]\nfine\n\
                    *** [writ: a line of 12 bytes was cut off before it could be redacted]";
    assert_eq!(status.stdout.as_deref(), Some(expected));
    let stored = serde_json::to_string(&case.executions().get("x").await.expect("it is there").status).expect("JSON");
    assert!(!stored.contains("zzz"), "{stored}");
}

#[tokio::test]
async fn a_rule_says_how_much_of_the_output_is_shown() {
    let line = "seq 1 100000; echo short >&2";
    let (_case, status) = run_with(line, json!({"output": {"inlineBytes": 16384}})).await;
    let shown = status.stdout.expect("stdout").len();
    assert!((8193..=16384).contains(&shown), "{shown}");
    let (_case, status) = run_with(line, json!({"output": {"inlineBytes": 0}})).await;
    assert_eq!((status.stdout.as_deref(), status.stderr.as_deref()), (Some(""), Some("")));
    let output = status.output.expect("an output record");
    assert_eq!((output.stdout.bytes, output.stderr.bytes), (588_895, 6));
    assert!(output.stdout.truncated && output.stderr.truncated && !output.stdout.redacted);
}

#[tokio::test]
async fn a_command_that_writes_without_end_is_stopped_and_failed() {
    let limits = json!({"maximumBytes": 65536, "inlineBytes": 1024});
    let (case, status) = run_with("exec yes out of bounds", json!({"output": limits})).await;
    assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{status:?}");
    assert!(status.message.as_ref().is_some_and(|message| message.contains("65536 bytes")), "{:?}", status.message);
    if case.sshd.runs_as_root() {
        assert_eq!(status.signal.as_deref(), Some("TERM"));
    } else {
        // Under ForceCommand, sshd delivers no signal. The status must report that the command may still run.
        assert!(status.message.is_some_and(|message| message.contains("may still run on the machine")));
    }
    let output = status.output.expect("an output record");
    assert_eq!((output.stdout.bytes, output.stdout.truncated), (65536, true), "the record ends at the limit");
    assert_eq!((output.incomplete, output.incomplete_reason), (true, Some(IncompleteReason::OverLimit)));
    assert!(status.stdout.is_some_and(|stdout| stdout.len() <= 1024 && stdout.starts_with("out of bounds\n")));
}

#[tokio::test]
async fn both_streams_count_for_the_bound_and_an_end_that_is_quicker_does_not_hide_it() {
    let line = "head -c 700 /dev/zero; head -c 324 /dev/zero >&2";
    let (_case, status) = run_with(line, json!({"output": {"maximumBytes": 1024}})).await;
    assert_eq!((status.phase, status.exit_code), (Phase::Succeeded, Some(0)), "as much as it may: {status:?}");
    let line = "head -c 700 /dev/zero; head -c 325 /dev/zero >&2";
    let (_case, status) = run_with(line, json!({"output": {"maximumBytes": 1024}})).await;
    assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{status:?}");
}
