//! Output that is too long for the status: `writ serve` stores all of it, and `writ output` prints all of it or
//! refuses.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::{Case, sh};
use crate::lab::{SshdOptions, User};
use crate::world::world;

/// Shell line that prints slightly more than 1 MiB. Its standard error is not UTF-8.
const MUCH: &str =
    "seq 1 180000; head -c 70000 /bin/sh >&2; seq 1 180000 >$HOME/stdout; head -c 70000 /bin/sh >$HOME/stderr";

async fn with_rule(line: &str, fields: Value, flags: &[&str]) -> Case {
    let case = Case::with(world(), SshdOptions::default(), flags).await;
    let mut rule = sh("line", line);
    for (field, value) in fields.as_object().expect("an object of fields") {
        rule[field] = value.clone();
    }
    case.apply_whitelist("line", json!([rule])).await;
    case
}

async fn ran(case: &Case) -> CommandExecutionStatus {
    case.execute("x", "line").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await
}

/// Runs `writ output` as the administrator of the test.
fn writ_output(case: &Case, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_writ"))
        .args(["output", "-n", &case.namespace, "--kubeconfig"])
        .arg(case.world.control_plane.kubeconfig(User::Admin))
        .args(arguments)
        .env("HOME", "/nonexistent")
        .env_remove("WRIT_OUTPUT_STORE")
        .output()
        .expect("writ starts")
}

fn stored(case: &Case) -> Vec<u8> {
    let output = writ_output(case, &["x", "--store", &case.store(), "--stream", "stdout"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[track_caller]
fn ends(output: &Output, code: i32, words: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(output.stdout.is_empty(), "something was printed");
    for word in words {
        assert!(errors.contains(word), "{word} is not in: {errors}");
    }
}

/// Runs the commands of the guide in their order, with the namespace and the store of a case. Each command must
/// succeed.
#[tokio::test]
async fn every_command_of_the_guide_does_what_it_says() {
    let mut case = with_rule("seq 1 100000", json!({}), &[]).await;
    case.execute("count", "line").await;
    case.finished("count").await;
    case.execute("left", "line").await;
    case.finished("left").await;
    let guide = include_str!("../../docs/guides/output.md");
    let kubectl = case.world.control_plane.kubectl(User::Admin).get_program().to_owned();
    let folder = |path: &std::ffi::OsStr| PathBuf::from(path).parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", folder(env!("CARGO_BIN_EXE_writ").as_ref()), folder(&kubectl));
    let mut printed = Vec::new();
    for block in guide.split("```console\n").skip(1) {
        for line in block.split("\n```").next().expect("a block").lines() {
            if line.contains("xargs") {
                // This command is for users who no longer run Writ.
                case.kill_writ();
                case.executions().delete("left", &kube::api::DeleteParams::default()).await.expect("deleted");
            }
            let output = Command::new("sh")
                .args(["-c", &line.replace("-n ops", &format!("-n {}", case.namespace))])
                .env("PATH", &path)
                .env("KUBECONFIG", case.world.control_plane.kubeconfig(User::Admin))
                .env("WRIT_OUTPUT_STORE", case.store())
                .output()
                .expect("sh");
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            printed.push(output.stdout);
        }
    }
    assert_eq!((printed.len(), printed[0].len()), (4, 588_895));
    case.gone("count").await;
    case.gone("left").await;
}

/// Returns the files of the store in the directory of the execution.
async fn files(case: &Case) -> Vec<PathBuf> {
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let folder = PathBuf::from(case.store()).join(&case.namespace).join(uid);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[tokio::test]
async fn a_mebibyte_is_cut_in_the_status_and_printed_whole() {
    let case = with_rule(MUCH, json!({}), &[]).await;
    let status = ran(&case).await;
    let output = status.output.expect("an output record");
    assert!(output.stdout.truncated && output.stdout.stored && output.stderr.stored, "{output:?}");
    assert!(status.stdout.expect("stdout").contains("bytes left out here]"));
    let printed = writ_output(&case, &["x", "--store", &format!("file://{}", case.store())]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let written = |name: &str| std::fs::read(case.sshd.home().join(name)).expect("what was written");
    assert!(printed.stdout == written("stdout") && printed.stderr == written("stderr"));
    assert!(printed.stdout.len() > 1 << 20);
    let only = writ_output(&case, &["x", "--store", &case.store(), "--stream", "stderr"]);
    assert!(only.stdout == written("stderr") && only.stderr.is_empty());
    assert_eq!(files(&case).await.len(), 2);
    let no_store = writ_output(&case, &["x", "--store", "none", "--stream", "stdout"]);
    ends(&no_store, 2, &["output store of the `writ serve` that ran it", "`none` names no store"]);
}

#[tokio::test]
async fn short_output_comes_from_the_status_and_is_stored_nowhere() {
    let case =
        with_rule("echo short; head -c 300 /bin/sh >&2; head -c 300 /bin/sh >$HOME/stderr", json!({}), &[]).await;
    let output = ran(&case).await.output.expect("an output record");
    assert!(!output.stdout.stored && !output.stderr.stored && output.stdout.not_stored.is_none());
    let printed = writ_output(&case, &["x"]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_eq!(printed.stdout, b"short\n");
    assert_eq!(printed.stderr, std::fs::read(case.sshd.home().join("stderr")).expect("what was written"));
    assert_eq!(files(&case).await, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_was_damaged_is_refused_and_not_printed() {
    let case = with_rule("seq 1 100000", json!({}), &[]).await;
    ran(&case).await;
    let file = files(&case).await.remove(0);
    let mut bytes = std::fs::read(&file).expect("the stored output");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("damaged");
    let arguments = ["x", "--store", &case.store()];
    ends(&writ_output(&case, &arguments), 6, &["damaged or tampered with", "nothing was printed"]);
    bytes.pop();
    std::fs::write(&file, &bytes).expect("damaged");
    ends(&writ_output(&case, &arguments), 6, &["bytes, not 588895"]);
    std::fs::remove_file(&file).expect("removed");
    ends(&writ_output(&case, &arguments), 4, &["does not have it", "--output-store"]);
}

#[tokio::test]
async fn what_cannot_be_printed_says_why_and_what_to_do() {
    let mut case = with_rule("seq 1 100000", json!({}), &[]).await;
    ends(&writ_output(&case, &["x"]), 2, &["does not exist", "get cmdexec lists"]);
    ends(&writ_output(&case, &[]), 2, &["NAME"]);
    case.execute("rejected", "cat /etc/shadow").await;
    case.finished("rejected").await;
    ends(&writ_output(&case, &["rejected"]), 4, &["Rejected", "no output was recorded"]);
    ran(&case).await;
    ends(&writ_output(&case, &["x"]), 2, &["--store URL"]);
    ends(&writ_output(&case, &["x", "--store", "/no/such/folder"]), 2, &["/no/such/folder"]);
    ends(&writ_output(&case, &["x", "--store", "ftp://x/y"]), 2, &["s3://BUCKET/PREFIX"]);
    case.kill_writ();
    case.execute("waiting", "line").await;
    ends(&writ_output(&case, &["waiting"]), 5, &["has not finished", "wait commandexecution/waiting"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_takes_no_result_away() {
    let case = with_rule("seq 1 1000000", json!({}), &[]).await;
    // A file blocks the path of the namespace's directory.
    std::fs::write(PathBuf::from(case.store()).join(&case.namespace), "in the way").expect("a file");
    let status = ran(&case).await;
    assert_eq!(status.exit_code, Some(0));
    let output = status.output.expect("an output record");
    assert!(!output.stdout.stored && output.stdout.truncated);
    assert_eq!(output.stdout.bytes, 6_888_896);
    assert!(output.stdout.not_stored.expect("a reason").contains("the output store failed"));
    assert!(case.log().contains("output store failed"), "{}", case.log());
    ends(&writ_output(&case, &["x", "--store", &case.store()]), 4, &["was not stored", "the output store failed"]);
}

#[tokio::test]
async fn without_a_store_nothing_is_stored_and_that_is_said_by_who_is_asked() {
    let case = with_rule("seq 1 100000", json!({}), &["--output-store", "none"]).await;
    let output = ran(&case).await.output.expect("an output record");
    assert!(!output.stdout.stored && output.stdout.not_stored.is_none());
    ends(&writ_output(&case, &["x"]), 4, &["had no output store", ".status.stdout"]);
}

#[tokio::test]
async fn a_rule_that_redacts_stores_only_what_is_left() {
    let line = "i=0; while [ $i -lt 2000 ]; do echo line $i token=hun\"\"ter2 end; i=$((i+1)); done";
    let case = with_rule(line, json!({"redact": [r"token=\S+"]}), &[]).await;
    let output = ran(&case).await.output.expect("an output record");
    assert!(output.stdout.stored && output.stdout.redacted);
    let printed = String::from_utf8(stored(&case)).expect("UTF-8");
    assert_eq!(printed.lines().count(), 2000);
    assert!(printed.starts_with("line 0 *** end\n") && !printed.contains("hunter2"));
    for file in files(&case).await {
        assert!(!String::from_utf8_lossy(&std::fs::read(file).expect("a file")).contains("hunter2"));
    }
}
