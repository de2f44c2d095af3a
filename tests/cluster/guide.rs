//! A test of docs/guides/whitelist.md: applies each file of the guide, runs each command, and compares the output.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kube::api::DeleteParams;

use crate::case::Case;

const GUIDE: &str = include_str!("../../docs/guides/whitelist.md");

/// Returns the blocks of the guide: the text after the three backticks, and the content.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = GUIDE;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (kind, after) = after.split_once('\n').expect("a block");
        let (text, after) = after.split_once("\n```").expect("the end of a block");
        blocks.push((kind, text));
        rest = after;
    }
    blocks
}

/// Writes the files of the guide into a new directory.
fn folder_of_files() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Vec::new();
    for (kind, text) in blocks() {
        if let Some(name) = kind.strip_prefix("yaml file=") {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{text}\n")).expect("a file");
            files.push(path);
        }
    }
    (folder, files)
}

/// Returns the output of a command, and its exit code if that is not 0.
fn run(folder: &Path, line: &str) -> String {
    let writ = Path::new(env!("CARGO_BIN_EXE_writ")).parent().expect("a folder");
    let path = format!("{}:{}", writ.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", line]).current_dir(folder).env("PATH", path).output().expect("sh");
    let mut printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    if let Some(code) = output.status.code().filter(|code| *code != 0) {
        printed.push_str(&format!("[exit code {code}]\n"));
    }
    printed
}

/// Returns true if `printed` matches `expected`. `...` at the end of a line matches the rest of the line. A line with
/// only `...` matches any number of lines.
fn is_as(expected: &[&str], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=printed.len()).any(|skipped| is_as(rest, &printed[skipped..])),
        (Some((line, rest)), Some((is, others))) => {
            let is_same = match line.strip_suffix("...") {
                Some(start) => is.starts_with(start),
                None => line == is,
            };
            is_same && is_as(rest, others)
        }
        _ => false,
    }
}

#[test]
fn every_command_of_the_guide_prints_what_it_says() {
    let (folder, _) = folder_of_files();
    let mut count = 0;
    for (_, text) in blocks().into_iter().filter(|(kind, _)| *kind == "console") {
        let commands = text.strip_prefix("$ ").expect("a command first");
        for command in commands.split("\n$ ") {
            let (line, expected) = command.split_once('\n').unwrap_or((command, ""));
            let printed = run(folder.path(), line);
            let is = is_as(&expected.lines().collect::<Vec<_>>(), &printed.lines().collect::<Vec<_>>());
            assert!(is, "$ {line}\nprinted:\n{printed}\nthe guide says:\n{expected}");
            count += 1;
        }
    }
    assert!(count >= 15, "only {count} commands were found in the guide");
}

#[tokio::test]
async fn every_file_of_the_guide_is_taken_by_a_cluster_and_is_in_force() {
    let case = Case::new().await;
    case.whitelists().delete("web", &DeleteParams::default()).await.expect("deleted");
    let (_folder, files) = folder_of_files();
    let mut whitelists = 0;
    for file in files {
        let path = file.to_str().expect("UTF-8");
        case.world.kubectl_succeeds(&["apply", "-n", &case.namespace, "-f", path]);
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
        if name == "restart-nginx" {
            continue;
        }
        whitelists += 1;
        let expected = if name == "careless" { "False" } else { "True" };
        let started = Instant::now();
        loop {
            let status =
                case.whitelists().get(name).await.expect("it is named after its file").status.unwrap_or_default();
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            if ready.is_some_and(|ready| ready.status == expected) {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(whitelists >= 6, "only {whitelists} files were found in the guide");
    // The request is allowed, but this machine has no such service.
    let status = case.finished("restart-nginx").await;
    assert_eq!(status.decision.expect("a decision").argv, ["/usr/bin/systemctl", "restart", "--", "nginx.service"]);
}
