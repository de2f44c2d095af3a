//! Runs the examples of docs/guides/http-api.md, as they stand, with curl, Python and JavaScript.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Gated, rule};
use crate::lab::say;

const GUIDE: &str = include_str!("../../../docs/guides/http-api.md");
/// Address in the examples.
const HOST: &str = "://writ.example.com";
/// Namespace in the examples.
const NAMESPACE: &str = "namespace=ops";

/// Returns the blocks of a language, for this gateway and this namespace.
fn examples(gated: &Gated, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = GUIDE.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let own = |block: &str| {
        let block = block.replace(&format!("https{HOST}"), &format!("http://{}", gated.address));
        let block = block.replace(&format!("wss{HOST}"), &format!("ws://{}", gated.address));
        block.replace(NAMESPACE, &format!("namespace={}", gated.case.namespace))
    };
    let examples: Vec<String> = blocks.map(own).collect();
    assert!(examples.iter().all(|example| !example.contains(HOST)), "{examples:?}");
    examples
}

async fn gated() -> Gated {
    let gated = Gated::new().await;
    let restart = json!({"name": "restart", "match": "systemctl restart nginx.service", "actionType": "restart",
        "run": ["/bin/true"]});
    let mut uptime = rule("uptime", "echo up; echo late >&2; sleep 1; echo long");
    uptime["actionType"] = json!("custom");
    gated.case.apply_whitelist("guide", json!([restart, uptime])).await;
    gated
}

/// Returns the output of a program with an example. Only this thread waits, so that the test can continue.
async fn run(gated: &Gated, program: &str, arguments: &[&str], example: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).arg(example).env("WRIT_API_KEY", &gated.jane).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a result");
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Returns the standard output of an example. Panics if it failed.
async fn printed(gated: &Gated, program: &str, arguments: &[&str], example: &str) -> String {
    let output = run(gated, program, arguments, example).await;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {}\n{example}\n{text}\n{errors}\n{}", output.status, gated.case.log());
    text.into_owned()
}

/// Returns true if a program works with these arguments. Otherwise says that its examples did not run.
fn is_usable(gated: &Gated, program: &str, arguments: &[&str], check: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).arg(check).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let is_usable = command.status().is_ok_and(|status| status.success());
    if !is_usable {
        say::note(format!("the examples for {program} did not run: {arguments:?} {check:?} does not work here"));
    }
    is_usable && gated.case.writ_runs()
}

#[tokio::test]
async fn every_curl_example_of_the_guide_works() {
    let gated = gated().await;
    let mut answers = Vec::new();
    // Other tests cover the examples that need an ended session or command.
    let needs_more = |example: &str| example.contains("/recording") || example.contains("/downloads");
    let curl = |example: &&String| example.starts_with("curl ") && !needs_more(example);
    for example in examples(&gated, "console").iter().filter(curl) {
        let text = printed(&gated, "sh", &["-c"], example).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{example}"));
        assert!(answer.get("error").is_none(), "{answer}\n{example}");
        answers.push(answer);
    }
    assert!(answers.len() >= 2, "only {} examples were found", answers.len());
    // The guide shows the answer to the first example.
    let shown = examples(&gated, "json").first().cloned().expect("an answer");
    let shown = shown.replace("key-5f0c...", "key-5f0c");
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    for (field, value) in shown.as_object().expect("an object") {
        let is = &answers[0][field];
        assert_eq!(is.is_number(), value.is_number(), "{field}: {}", answers[0]);
        if ["exit_code", "stdout", "stderr", "phase"].contains(&field.as_str()) {
            assert_eq!(is, value, "{field}: {}", answers[0]);
        }
    }
    let queued = answers[1]["command_id"].as_str().expect("an id");
    assert_eq!(gated.ended(queued).await["stdout"], "up\nlong\n");
}

#[tokio::test]
async fn every_python_example_of_the_guide_works() {
    let gated = gated().await;
    if !is_usable(&gated, "python3", &["-c"], "import json, os, urllib.request") {
        return;
    }
    let examples = examples(&gated, "python");
    let [execute, follow] = examples.as_slice() else { panic!("{examples:?}") };
    assert_eq!(printed(&gated, "python3", &["-c"], execute).await, "0\n");
    let followed = printed(&gated, "python3", &["-c"], follow).await;
    let mut lines: Vec<&str> = followed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["late", "long", "up"]);
    // A refused call shows the message.
    let refused = execute.replace("nginx.service", "other.service").replace("deploy-4712", "deploy-4713");
    let output = run(&gated, "python3", &["-c"], &refused).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("rule") && !errors.contains("Traceback"), "{errors}");
}

#[tokio::test]
async fn every_javascript_example_of_the_guide_works() {
    let gated = gated().await;
    // Node.js has WebSockets since version 20, and without this flag since version 22.
    let arguments = ["--experimental-websocket", "-e"];
    if !is_usable(&gated, "node", &arguments, "if (!globalThis.WebSocket) process.exit(1)") {
        return;
    }
    let examples = examples(&gated, "javascript");
    assert!(!examples.is_empty(), "no example was found");
    for example in examples {
        // In a browser, the page has the key.
        let example = format!("const key = process.env.WRIT_API_KEY;\n{example}");
        let text = printed(&gated, "node", &arguments, &example).await;
        for expected in ["type: 'execution'", "data: 'up\\n'", "data: 'long\\n'", "type: 'exit'"] {
            assert!(text.contains(expected), "no {expected} in {text}\n{}", gated.case.log());
        }
    }
}
