//! `writ lint`, the API server and the controller give the same verdict on a Whitelist. The tests use the Whitelists of
//! the documentation, and Whitelists with one faulty value each. They also check the warnings of the API server on
//! apply.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use writ::api::whitelist::WhitelistStatus;
use writ::cli::{manifest, schema};

use crate::case::Case;

fn lint(file: &Path) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_writ")).arg("lint").arg(file).output().expect("writ");
    (String::from_utf8(output.stdout).expect("UTF-8"), output.status.code())
}

/// Returns the text of every document of kind Whitelist in the examples and in the guides, with its origin.
fn shown_whitelists() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found) =
        (vec![root.join("examples"), root.join("docs"), root.join("charts"), root.join("deploy")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("below").display().to_string();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let documents: Vec<String> = if name.ends_with(".yaml") {
                text.split("\n---\n").map(str::to_owned).collect()
            } else if name.ends_with(".md") {
                let blocks = text.split("\n```yaml").skip(1).filter_map(|block| block.split_once('\n'));
                let blocks = blocks.filter_map(|(_, block)| block.split("\n```").next());
                blocks.flat_map(|block| block.split("\n---\n").map(str::to_owned).collect::<Vec<_>>()).collect()
            } else {
                Vec::new()
            };
            let is_whitelist = |text: &String| text.contains("\nkind: Whitelist\n") && text.contains("rules:");
            found.extend(
                documents
                    .into_iter()
                    .filter(is_whitelist)
                    .enumerate()
                    .map(|(index, text)| (format!("{name}-{index}"), text)),
            );
        }
    }
    found
}

#[tokio::test]
async fn lint_and_the_controller_agree_on_every_whitelist_that_the_documentation_shows() {
    let case = Case::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut agreed = 0;
    // In the cluster, Writ compares a Deny with the rules of all Whitelists. So the namespace has only one Whitelist at
    // any time, as lint has only one file.
    case.whitelists().delete("web", &kube::api::DeleteParams::default()).await.expect("deleted");
    for (number, (origin, text)) in shown_whitelists().into_iter().enumerate() {
        let mut object = manifest::read(text.as_bytes()).expect("text").remove(0).expect("YAML").value();
        let name = format!("shown-{number}");
        object["metadata"] = json!({"name": name});
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, object.to_string()).expect("a file");
        let (printed, code) = lint(&file);
        case.world.kubectl_succeeds(&["apply", "-n", &case.namespace, "-f", file.to_str().expect("UTF-8")]);
        let started = Instant::now();
        let status = loop {
            let whitelist = case.whitelists().get(&name).await.expect("a Whitelist");
            let status = whitelist.status.unwrap_or_default();
            if status.observed_generation == whitelist.metadata.generation {
                break status;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{origin}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let is = |type_: &str| status.conditions.iter().any(|it| it.type_ == type_ && it.status == "True");
        assert_eq!(is("Ready"), code == Some(0), "{origin}:\n{printed}\n{status:?}");
        let in_force = i64::try_from(object["spec"]["rules"].as_array().expect("rules").len()).expect("few");
        let broken: std::collections::BTreeSet<&str> =
            printed.lines().filter_map(|line| line.split_once(": error: rule ")?.1.split(':').next()).collect();
        assert_eq!(
            status.rule_count,
            Some(in_force - i64::try_from(broken.len()).expect("few")),
            "{origin}:\n{printed}\n{status:?}"
        );
        for rule in object["spec"]["rules"].as_array().expect("rules").iter().filter(|rule| rule["effect"] != "Deny") {
            let rule = rule["name"].as_str().expect("a name");
            let explain = ["explain", "-f", file.to_str().expect("UTF-8"), "--as", "jane", "--rule", rule];
            let output = Command::new(env!("CARGO_BIN_EXE_writ")).args(explain).output().expect("writ");
            let said = String::from_utf8(output.stdout).expect("UTF-8");
            assert_eq!(said.contains("is out of force"), broken.contains(rule), "{origin}: {rule}\n{said}");
        }
        let warnings = printed.lines().filter(|line| line.contains(": warning: ")).count();
        assert_eq!(status.warning_count, i64::try_from(warnings).ok(), "{origin}:\n{printed}\n{status:?}");
        assert_eq!(is("HasWarnings"), warnings > 0, "{origin}");
        agreed += 1;
        case.whitelists().delete(&name, &kube::api::DeleteParams::default()).await.expect("deleted");
    }
    assert!(agreed >= 10, "only {agreed} Whitelists were found");
}

/// Values for fields, by the path of the field. Some values are faulty in one way, the others are just valid.
const VALUES: &str = include_str!("agreement.json");

/// Returns a Whitelist with another value at a path. For a path that ends with `-`, the value is appended to the list.
fn changed(path: &str, value: &Value) -> Value {
    let mut object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist", "metadata": {"name": "w"}, "spec": {"rules": [
        {"name": "a", "match": "x", "run": ["/bin/true", "{p}"], "parameters": {"p": {"enum": ["b"]}},
         "subjects": [{"kind": "User", "name": "x"}], "timeoutSeconds": {"default": 1}, "output": {"inlineBytes": 1},
         "machineSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
         "environment": {"E": {"integer": {"maximum": 3}}}},
        {"name": "b", "effect": "Deny", "match": "y"}]}});
    let (parent, field) = path.rsplit_once('/').expect("a path");
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("{path}")) {
        Value::Array(items) => items.push(value.clone()),
        parent => parent[field] = value.clone(),
    }
    object
}

/// Expands `{"repeat": ..., "times": ...}`, for a text or for the items of a list.
fn written_out(value: &Value) -> Value {
    let times = value.get("times").and_then(Value::as_u64).and_then(|times| usize::try_from(times).ok());
    match (value, value.get("repeat"), times) {
        (_, Some(Value::String(text)), Some(times)) => json!(text.repeat(times)),
        (_, Some(Value::Array(items)), Some(times)) => json!(vec![items.clone(); times].concat()),
        (Value::Object(fields), ..) => fields.iter().map(|(name, value)| (name.clone(), written_out(value))).collect(),
        (Value::Array(items), ..) => items.iter().map(written_out).collect(),
        (other, ..) => other.clone(),
    }
}

fn cases() -> Vec<(String, Value)> {
    let of_fields: std::collections::BTreeMap<String, Vec<Value>> = serde_json::from_str(VALUES).expect("JSON");
    let of_fields =
        of_fields.into_iter().flat_map(|(path, values)| values.into_iter().map(move |it| (path.clone(), it)));
    let mut cases: Vec<(String, Value)> = of_fields.map(|(path, value)| (path, written_out(&value))).collect();
    let rule = |index: usize| json!({"name": format!("r{index}"), "run": ["/bin/true"]});
    let parameter = |index: usize| (format!("p{index}"), json!({"enum": ["x"]}));
    cases.extend([256, 257].map(|count| ("/spec/rules".to_owned(), (0..count).map(rule).collect())));
    cases.extend([16, 17].map(|count| ("/spec/rules/0/parameters".to_owned(), (0..count).map(parameter).collect())));
    cases.push(("/spec/rules/-".to_owned(), json!({"name": "a", "run": ["/bin/true"]})));
    // All cases of the CEL rule on `effect` and `run`.
    for effect in [None, Some("Allow"), Some("Deny")] {
        for run in [None, Some(json!(["/bin/true"])), Some(json!([]))] {
            cases.push(("/spec/rules/-".to_owned(), json!({"name": "c", "effect": effect, "run": run})));
        }
    }
    cases
}

#[tokio::test]
async fn what_the_schema_check_refuses_is_what_the_api_server_refuses() {
    let case = Case::new().await;
    let mut wrong = Vec::new();
    for (path, value) in cases() {
        let object = changed(&path, &value);
        let node = manifest::read(object.to_string().as_bytes()).expect("text").remove(0).expect("JSON");
        let problems = schema::problems(&node);
        let uri = format!(
            "/apis/writ.dev/v1alpha1/namespaces/{}/whitelists?dryRun=All&fieldValidation=Strict",
            case.namespace
        );
        let request = http::Request::post(uri).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("a request");
        let answer = case.client.request_text(request).await;
        if answer.is_ok() != problems.is_empty() {
            let shown: String = format!("{path}: {value}").chars().take(200).collect();
            wrong.push(format!("{shown}\n  API server: {:?}\n  Writ: {problems:?}", answer.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const CARELESS: &str = r#"
apiVersion: writ.dev/v1alpha1
kind: Whitelist
metadata: {name: careless}
spec:
  rules:
    - {name: shell, match: "s {x}", run: [/bin/sh, /opt/run, "{x}"], parameters: {x: {enum: [a]}}}
    - {name: as-root, match: r, run: [/usr/bin/id], runAs: root}
    - {name: upwards, match: "u {x}", run: [/bin/cat, --, "{x}"], parameters: {x: {pattern: "/srv/[a-z./]+"}}}
    - {name: by-text, effect: Deny, match: "s b"}
    - {name: harmless, match: h, run: [/usr/bin/uptime]}
"#;

/// Applies a Whitelist, and returns the standard error of kubectl, which has the warnings.
fn apply(case: &Case, text: &str) -> String {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let output = case.world.kubectl(&["apply", "-n", &case.namespace, "-f", file.path().to_str().expect("UTF-8")]);
    assert!(output.status.success(), "warnings refuse nothing: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until the status of `careless` is current and fulfils `is`.
async fn until(case: &Case, is: impl Fn(&WhitelistStatus) -> bool) -> WhitelistStatus {
    let started = Instant::now();
    loop {
        let whitelist = case.whitelists().get("careless").await.expect("a Whitelist");
        let status = whitelist.status.unwrap_or_default();
        if status.observed_generation == whitelist.metadata.generation && is(&status) {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn warnings_come_with_kubectl_apply_and_stand_in_the_status() {
    let case = Case::new().await;
    let started = Instant::now();
    // The API server applies an admission policy only some seconds after its installation.
    let printed = loop {
        let text = CARELESS.replace("match: h", &format!("match: h{}", started.elapsed().as_millis()));
        let printed = apply(&case, &text);
        if printed.contains("Warning") || started.elapsed() > Duration::from_secs(20) {
            break printed;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    for part in [
        "runs others: shell;",
        "as root for everybody who may create CommandExecutions: as-root;",
        "match alone, which do not forbid rules that run the same under another text: by-text;",
        "any character: upwards;",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    assert!(!printed.contains("harmless"), "{printed}");
    let status = until(&case, |status| status.warning_count >= Some(3)).await;
    let condition = status.conditions.iter().find(|it| it.type_ == "HasWarnings").expect("HasWarnings");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "LintWarnings"));
    assert!(condition.message.contains("as-root: it runs as root"), "{}", condition.message);
    let columns = case.world.kubectl_succeeds(&["get", "-n", &case.namespace, "whitelists", "careless"]);
    assert!(columns.contains("WARNINGS"), "{columns}");
    let started = Instant::now();
    let of_it = "reason=LintWarnings,involvedObject.name=careless,type=Warning";
    let events = ["get", "events", "-n", &case.namespace, "-o", "name", "--field-selector", of_it];
    while case.world.kubectl_succeeds(&events).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(30), "no event");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // If the Whitelist has only harmless rules, Writ removes the condition.
    let lines = CARELESS.lines().filter(|line| !line.contains("- {") || line.contains("harmless"));
    assert!(!apply(&case, &lines.collect::<Vec<_>>().join("\n")).contains("Warning"));
    let status = until(&case, |status| status.warning_count == Some(0)).await;
    assert!(status.conditions.iter().all(|it| it.type_ != "HasWarnings"), "{status:?}");
    // Writ compares a Deny with the rules of the other Whitelists. One of these rules has `hello`, none has `hallo`.
    for (word, count) in [("hallo", 1), ("hello", 0)] {
        let head = "apiVersion: writ.dev/v1alpha1\nkind: Whitelist\nmetadata: {name: careless}\nspec:\n  rules:\n";
        apply(&case, &format!("{head}  - {{name: never, effect: Deny, run: [/bin/echo, {word}]}}\n"));
        let status = until(&case, |status| status.warning_count == Some(count)).await;
        let message = status.conditions.iter().find(|it| it.type_ == "HasWarnings").map(|it| it.message.as_str());
        assert_eq!(
            message.is_some_and(|message| message.contains("the nearest is web/hello")),
            count == 1,
            "{message:?}"
        );
    }
}
