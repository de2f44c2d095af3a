//! What commands write: every byte counted, the record bounded and readable.

use serde_json::json;
use writ::api::execution_status::Encoding;
use writ::api::{Phase, Reason};

use crate::case::{Case, sh};

async fn run(line: &str) -> (Case, writ::api::CommandExecutionStatus) {
    let case = Case::new().await;
    case.apply_whitelist("line", json!([sh("line", line)])).await;
    case.execute("x", "line").await;
    let status = case.finished("x").await;
    (case, status)
}

#[tokio::test]
async fn megabytes_are_counted_and_digested_whole_and_shown_by_head_and_tail() {
    // Both streams at once, more than an SSH window each; seq and sha256sum are the oracle.
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
    // A program is not text: its first bytes are no UTF-8.
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
    assert!(status.output.expect("an output record").incomplete, "more may have come");
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
