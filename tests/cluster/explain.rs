//! `writ explain` and `writ lint` as programs: their output and exit codes. Their verdicts must be those of the
//! controller.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::User;

const WHITELIST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: something-else}
---
apiVersion: writ.dev/v1alpha1
kind: Whitelist
metadata: {name: web}
spec:
  rules:
    - name: restart
      match: restart {unit}
      run: [/usr/bin/systemctl, restart, --, '{unit}']
      parameters: {unit: {enum: [nginx.service]}}
      machineSelector: {matchLabels: {role: web}}
      subjects: [{kind: Group, name: sre}]
      actionType: restart_service
";

fn writ(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_writ"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("writ starts");
    // An error is ignored, because the process may end before it reads its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("an end")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{printed}\n{errors}");
    format!("{printed}{errors}")
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_request_is_explained_from_files_as_allowed_denied_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, "web.yaml", WHITELIST);
    let explain = |arguments: &[&str]| {
        let start = ["explain", "-f", &file, "--machine-label", "role=web", "--as", "jane", "--as-group", "sre"];
        writ(&[&start[..], arguments].concat(), "")
    };
    let allowed = ends(&explain(&["--", "restart", "nginx.service"]), 0);
    assert!(allowed.contains("allowed by the rule restart") && allowed.contains("sha256:"), "{allowed}");
    ends(&explain(&["--action-type", "restart_service", "--", "restart nginx.service"]), 0);
    ends(&explain(&["--argv", "--", "/usr/bin/systemctl", "restart", "--", "nginx.service"]), 0);
    ends(&explain(&["--rule", "restart", "--parameter", "unit=nginx.service", "--whitelist", "web"]), 0);
    let denied = ends(&explain(&["--", "restart", "sshd.service"]), 3);
    assert!(denied.contains("nearest: web/restart: its parameter unit must be one of nginx.service"), "{denied}");
    ends(&explain(&["--action-type", "custom", "--", "restart nginx.service"]), 3);
    ends(&explain(&["--", "restart nginx.service\n"]), 2);
    ends(&explain(&["--", ""]), 2);
    ends(&explain(&[]), 2);
    ends(&explain(&["--parameter", "x"]), 2);
    ends(&explain(&["--timeout-seconds", "0", "--", "restart nginx.service"]), 2);
    // Without a requester, the output advises `--as`. It does not report a missing admission policy.
    let nobody =
        ends(&writ(&["explain", "-f", &file, "--machine-label", "role=web", "--", "restart nginx.service"], ""), 3);
    assert!(nobody.contains("add --as USER") && nobody.contains("web/restart"), "{nobody}");
    assert!(!nobody.contains("admission policy") && !nobody.contains("established"), "{nobody}");
    // If no other requester would change the result, the output does not advise `--as`.
    let other = ends(&writ(&["explain", "-f", &file, "--", "reboot"], ""), 3);
    assert!(!other.contains("--as"), "{other}");
}

/// Closes the output early, like `writ explain ... | head -1`.
#[test]
fn a_reader_that_goes_away_ends_every_subcommand_without_a_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, "web.yaml", WHITELIST);
    let line = "{\"command\": \"restart nginx.service\"}\n".repeat(5000);
    // Each command reads its input before it writes. By then, its output has no reader.
    let cases: [(&[&str], &str, i32); 4] = [
        (&["lint", "-"], WHITELIST, 141),
        (&["explain", "-f", "-", "--", "restart nginx.service"], WHITELIST, 141),
        (&["explain", "-f", &file, "--json-lines"], &line, 141),
        (&["--help"], "", 0),
    ];
    for (arguments, input, code) in cases {
        let mut child = Command::new(env!("CARGO_BIN_EXE_writ"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("writ starts");
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().expect("a pipe");
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.is_empty(), "{arguments:?}: {errors}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_denial_that_a_group_could_change_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, "web.yaml", WHITELIST);
    let explain = |flags: &[&str], code: i32| {
        let start = ["explain", "-f", &file, "--machine-label", "role=web"];
        let words = ["--", "restart", "nginx.service"];
        let printed = ends(&writ(&[&start[..], flags, &words].concat(), ""), code);
        printed.starts_with("note: jane counts here as a member of no group: add --as-group for each group of jane")
    };
    assert!(explain(&["--as", "jane"], 3));
    assert!(!explain(&["--as", "jane", "--as-group", "sre"], 0));
    assert!(!explain(&["--as", "jane", "--as-group", "staff"], 3));
}

#[test]
fn a_request_without_its_separator_gets_a_tip() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, "web.yaml", WHITELIST);
    for words in [&["restart", "nginx.service"][..], &["-x"], &["--as", "jane", "restart", "--now"]] {
        let refused = ends(&writ(&[&["explain", "-f", &file], words].concat(), ""), 2);
        assert!(refused.contains("put `--` between the flags and the request"), "{words:?}: {refused}");
    }
    let refused = ends(&writ(&["explain", "-f", &file, "--no-such-flag", "--", "restart"], ""), 2);
    assert!(!refused.contains("between the flags and the request"), "{refused}");
}

#[test]
fn files_that_cannot_be_used_are_bad_input_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [
        ("none.yaml", "a: b\n", "the document has no kind, so kubectl refuses it"),
        ("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "there is no Whitelist in it"),
        ("empty.yaml", "", "there is no Whitelist in it"),
        ("broken.yaml", "a: [", "neither YAML nor JSON"),
        (
            "typed.yaml",
            "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: x}\nspec: {rules: 7}\n",
            "typed.yaml:4: Whitelist x: error: spec.rules: must be a list, but is 7",
        ),
        (
            "effect.yaml",
            "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: x}\nspec: {rules: [{name: a, effect: deny}]}\n",
            "effect.yaml:4: Whitelist x: error: rule a: effect: must be one of Allow, Deny, but is \"deny\"",
        ),
    ];
    for (name, text, expected) in cases {
        let file = file(&folder, name, text);
        for printed in [ends(&writ(&["lint", &file], ""), 2), ends(&writ(&["explain", "-f", &file, "--", "x"], ""), 2)]
        {
            assert!(printed.contains(name) && printed.contains(expected), "{printed}");
        }
    }
    assert!(ends(&writ(&["lint", "/no/such/file.yaml"], ""), 2).contains("/no/such/file.yaml"));
    assert!(ends(&writ(&["lint"], ""), 2).contains("FILE"));
    let without_cluster = ends(&writ(&["explain", "--", "x"], ""), 2);
    assert!(without_cluster.contains("-f FILE"), "{without_cluster}");
}

#[test]
fn many_requests_are_answered_line_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, "web.yaml", WHITELIST);
    let sre = json!({"username": "joe", "groups": ["sre"]});
    let lines = [
        json!({"command": "restart nginx.service", "machineLabels": {"role": "web"}, "requestedBy": sre}).to_string(),
        json!({"argv": ["/usr/bin/systemctl", "restart", "--", "nginx.service"], "requestedBy": sre}).to_string(),
        String::new(),
        "{".to_owned(),
        json!({"comand": "x"}).to_string(),
        json!({"command": "x", "argv": ["x"]}).to_string(),
    ];
    let output = writ(&["explain", "-f", &file, "--json-lines"], &lines.join("\n"));
    let printed = ends(&output, 2);
    let answers: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 5, "{printed}");
    assert_eq!(answers[0]["decision"]["argv"][0], "/usr/bin/systemctl");
    assert_eq!(answers[1]["reason"], "NotPermitted");
    assert!(answers[2..].iter().all(|answer| answer["reason"] == "Malformed"), "{printed}");
    assert!(answers[3]["message"].as_str().expect("a message").contains("comand"));
    ends(&writ(&["explain", "-f", &file, "--json-lines"], &format!("{}\n", lines[0])), 0);
    // The requester of a line takes precedence over `--as`.
    let by_flags = ["explain", "-f", &file, "--json-lines", "--as", "mallory", "--machine-label", "role=web"];
    ends(&writ(&by_flags, &format!("{}\n", lines[0])), 0);
    ends(&writ(&by_flags, "{\"command\": \"restart nginx.service\"}\n"), 3);
    ends(&writ(&["explain", "-f", &file, "--json-lines"], &format!("{}\n{}\n", lines[0], lines[1])), 3);
    // A line that is too long gets an answer, like any other malformed line.
    let long = format!("{}\n{}\n{}", "x".repeat(3 << 20), lines[1], "x".repeat(2 << 20));
    let printed = ends(&writ(&["explain", "-f", &file, "--json-lines"], &long), 2);
    let reasons = printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["reason"].clone());
    assert_eq!(reasons.collect::<Vec<_>>(), ["Malformed", "NotPermitted", "Malformed"]);
    ends(
        &writ(
            &[
                "explain",
                "-f",
                "-",
                "--machine-label",
                "role=web",
                "--as",
                "a",
                "--as-group",
                "sre",
                "--",
                "restart nginx.service",
            ],
            WHITELIST,
        ),
        0,
    );
    ends(&writ(&["explain", "-f", "-", "--json-lines"], WHITELIST), 2);
}

#[test]
fn a_policy_is_that_of_one_namespace() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |namespace: &str, rule: &str| {
        format!(
            "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {{name: w, namespace: {namespace}}}\n\
             spec: {{rules: [{{name: r, match: {rule}, run: [/bin/true], subjects: [{{kind: ServiceAccount, name: x}}]}}]}}\n"
        )
    };
    let file = file(&folder, "two.yaml", &format!("{}---\n{}", of("a", "one"), of("b", "two")));
    let explain =
        |more: &[&str]| writ(&[&["explain", "-f", &file, "--as", "system:serviceaccount:b:x"], more].concat(), "");
    assert!(ends(&explain(&["--", "two"]), 2).contains("select one with -n"));
    ends(&explain(&["-n", "b", "--", "two"]), 0);
    ends(&explain(&["-n", "b", "--", "one"]), 3);
    ends(&explain(&["-n", "a", "--", "two"]), 3);
}

#[test]
fn lint_takes_warnings_for_errors_where_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = WHITELIST.replace("enum: [nginx.service]", "pattern: '[a-z]+'").replace("restart, --, ", "enable, ");
    let file = file(&folder, "web.yaml", &text);
    assert!(
        ends(&writ(&["lint", &file], ""), 0)
            .contains("warning: rule restart: unit: systemctl takes it as a directory or file")
    );
    ends(&writ(&["lint", "--strict", &file], ""), 3);
    ends(&writ(&["lint", "-"], &text.replace("/usr/bin/systemctl", "systemctl")), 3);
}

#[test]
fn lint_tells_all_problems_of_all_files_and_explain_names_the_rule_out_of_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = WHITELIST.replace("{unit: {enum: [nginx.service]}}", "{unit: {pattern: \".+\"}}");
    let (unreadable, first) = (file(&folder, "a.yaml", "a: ["), file(&folder, "b.yaml", &broken));
    let bare = WHITELIST.replace("restart, --", "y, --").replace("name: web", "name: other");
    let second = file(&folder, "c.yaml", &bare.replace("match: restart", "match: do restart"));
    let printed = ends(&writ(&["lint", &unreadable, &first, &second, "/no/such/file"], ""), 2);
    for part in [
        "a.yaml:",
        "neither YAML nor JSON",
        "b.yaml: note: 1 other document is ignored (ConfigMap)",
        "b.yaml:14: Whitelist web: error: rule restart: parameters.unit must not admit byte",
        "c.yaml:13: Whitelist other: error: rule restart: run[1]: the bare word y is a boolean for kubectl; quote it: \"y\"",
        "/no/such/file: error: cannot be read",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    // lint reports all faulty fields of a rule together.
    let fields = "runAs: '0'\n      redact: ['(']\n      workingDirectory: /a/../b\n      timeoutSeconds: {default: 9, maximum: 3}\n      environment: {PATH: {enum: [x]}}";
    let many = file(&folder, "d.yaml", &WHITELIST.replace("subjects: [{kind: Group, name: sre}]", fields));
    let printed = ends(&writ(&["lint", &many], ""), 3);
    for part in [
        "runAs must be",
        "redact",
        "workingDirectory must be",
        "timeoutSeconds must be",
        "environment must not have PATH",
    ] {
        assert!(printed.contains(&format!("error: rule restart: {part}")), "{part}\n{printed}");
    }
    for arguments in [&["--", "restart sshd.service"][..], &["--rule", "restart", "--parameter", "unit=x"]] {
        let denied = ends(&writ(&[&["explain", "-f", &first, "--as", "jane"], arguments].concat(), ""), 3);
        assert!(denied.contains("out of force: the rule web/restart would have matched by its "), "{denied}");
        assert!(denied.contains("but is out of force: parameters.unit must not admit byte"), "{denied}");
    }
    let other = ends(&writ(&["explain", "-f", &first, "--", "start sshd.service"], ""), 3);
    assert!(!other.contains("would have matched"), "{other}");
    let line = writ(&["explain", "-f", &first, "--json-lines"], "{\"command\": \"restart sshd.service\"}");
    assert!(ends(&line, 3).contains("\"outOfForce\":\"the rule web/restart would have matched"));
}

fn explained(case: &Case, kubeconfig: &Path, arguments: &[&str]) -> Output {
    let kubeconfig = kubeconfig.to_str().expect("UTF-8");
    let start = ["explain", "--kubeconfig", kubeconfig, "-n", &case.namespace];
    writ(&[&start[..], arguments].concat(), "")
}

#[tokio::test]
async fn a_cluster_is_asked_with_the_rights_of_who_asks_and_says_what_the_controller_says() {
    let case = Case::new().await;
    case.execute("ran", "say hello").await;
    case.execute("rejected", "say helo").await;
    let ran = case.ends("ran", Phase::Succeeded, Reason::Completed).await.decision.expect("a decision");
    case.ends("rejected", Phase::Rejected, Reason::NoMatchingRule).await;
    let admin = case.world.control_plane.kubeconfig(User::Admin);
    for arguments in [&["--machine", "web-1", "--", "say", "hello"][..], &["--execution", "ran"]] {
        let printed = ends(&explained(&case, &admin, arguments), 0);
        assert!(printed.contains(&ran.digest), "{printed}\n{}", ran.digest);
    }
    let printed = ends(&explained(&case, &admin, &["--execution", "rejected"]), 3);
    assert!(
        printed.contains("nearest: web/hello: it takes \"say hello\"; the request differs from character 8 on"),
        "{printed}"
    );
    let missing = ends(&explained(&case, &admin, &["--machine", "web-9", "--", "say hello"]), 2);
    for part in ["web-9", "did you mean --machine web-1?", "get machines"] {
        assert!(missing.contains(part), "{part} is not in: {missing}");
    }
    assert!(ends(&explained(&case, &admin, &["--", "say hello"]), 2).contains("--machine"));
    // A user without the right to read the policy gets no information about it.
    let jane = case.world.control_plane.kubeconfig(User::Jane);
    let printed = ends(&explained(&case, &jane, &["--machine", "web-1", "--", "say helo"]), 2);
    assert!(printed.contains("may not read the Whitelists") && !printed.contains("say hello"), "{printed}");
    for part in ["you (user jane)", "create rolebinding writ-viewer-jane --clusterrole=writ-viewer --user='jane'"] {
        assert!(printed.contains(part), "{part} is not in: {printed}");
    }
    // Without `--as`, the requester is the user of the kubeconfig.
    let rule = json!([{"name": "mine", "match": "mine", "run": ["/bin/true"], "subjects": [{"kind": "User", "name": "admin"}]}]);
    case.apply_whitelist("mine", rule).await;
    ends(&explained(&case, &admin, &["--machine", "web-1", "--", "mine"]), 0);
    ends(&explained(&case, &admin, &["--machine", "web-1", "--as", "jane", "--", "mine"]), 3);
}
