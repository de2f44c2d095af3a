//! lint, the API server and the controller say the same of a Whitelist: of those that the documentation shows, and of such as
//! are wrong in one thing each. And what the API server warns of when one is applied.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use writ::cli::{manifest, schema};

use crate::case::Case;

fn lint(file: &Path) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_writ")).arg("lint").arg(file).output().expect("writ");
    (String::from_utf8(output.stdout).expect("UTF-8"), output.status.code())
}

/// Every document of kind Whitelist in the examples and in the guides, as text.
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

/// A Whitelist with changes: what JSON Patch's `add` would put there, or take away where it is null.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist", "metadata": {"name": "w"}, "spec": {"rules": [
        {"name": "a", "match": "x", "run": ["/bin/true", "{p}"], "parameters": {"p": {"enum": ["b"]}}, "subjects": [{"kind": "User", "name": "x"}],
         "machineSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
         "timeoutSeconds": {"default": 1}, "output": {"inlineBytes": 1}, "environment": {"E": {"integer": {"maximum": 3}}}},
        {"name": "b", "effect": "Deny", "match": "y"}]}});
    for (path, value) in changes {
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
        match parent {
            Value::Array(items) => items.push(value.clone()),
            parent => parent[field] = value.clone(),
        }
    }
    object
}

/// Changes that are wrong in one thing, or just not.
fn cases() -> Vec<Vec<(&'static str, Value)>> {
    let rule = |index: usize| json!({"name": format!("r{index}"), "run": ["/bin/true"]});
    let parameters =
        |count: usize| (0..count).map(|index| (format!("p{index}"), json!({"enum": ["x"]}))).collect::<Value>();
    let mut cases = vec![
        vec![],
        vec![("/spec/rules", json!([]))],
        vec![("/spec/rules", Value::Null)],
        vec![("/spec", Value::Null)],
        vec![("/spec", json!([]))],
        vec![("/extra", json!(1))],
        vec![("/spec/extra", json!(1))],
    ];
    cases.extend([256, 257].map(|count| vec![("/spec/rules", (0..count).map(rule).collect::<Value>())]));
    cases.extend([16, 17].map(|count| vec![("/spec/rules/0/parameters", parameters(count))]));
    cases.push(vec![("/spec/rules/-", json!({"name": "a", "run": ["/bin/true"]}))]);
    // The CEL rule, in all its cases.
    for effect in [None, Some("Allow"), Some("Deny")] {
        for run in [None, Some(json!(["/bin/true"])), Some(json!([]))] {
            let mut rule = json!({"name": "c"});
            rule["effect"] = json!(effect);
            rule["run"] = json!(run);
            cases.push(vec![("/spec/rules/-", rule)]);
        }
    }
    let of_fields: &[(&str, &[Value])] = &[
        (
            "/metadata/name",
            &[
                json!("a.b"),
                json!("A"),
                json!("a_b"),
                json!("a..b"),
                json!("-a"),
                json!(""),
                json!("a".repeat(253)),
                json!("a".repeat(254)),
                json!("a".repeat(100)),
                json!(1),
                json!(true),
            ],
        ),
        (
            "/metadata/labels",
            &[
                json!({"a": "b"}),
                json!({"a": 1}),
                json!({"a": null}),
                json!({"a/b/c": "x"}),
                json!({"a.b/c_D": "x-Y.z"}),
                json!({"a": "-x"}),
                json!({"a": "x".repeat(64)}),
                json!([]),
            ],
        ),
        (
            "/metadata/annotations",
            &[
                json!({"a": "b c"}),
                json!({"A/b": "x"}),
                json!({"a b": "x"}),
                json!({"a": 1}),
                json!({"a": "x".repeat(263_000)}),
            ],
        ),
        ("/metadata/label", &[json!({})]),
        (
            "/spec/rules/0/name",
            &[
                json!("a-b"),
                json!("A"),
                json!("-"),
                json!(""),
                json!("b"),
                json!("a".repeat(63)),
                json!("a".repeat(64)),
                json!(null),
                json!(7),
            ],
        ),
        (
            "/spec/rules/0/description",
            &[json!("é".repeat(1024)), json!("x".repeat(1025)), json!(""), json!(null), json!(false)],
        ),
        ("/spec/rules/0/effect", &[json!("Allow"), json!("deny"), json!("Deny"), json!(null), json!("")]),
        ("/spec/rules/0/actionType", &[json!("a_b-c"), json!("A"), json!(""), json!("a".repeat(64))]),
        (
            "/spec/rules/0/match",
            &[
                json!("x y"),
                json!(""),
                json!("é"),
                json!("x".repeat(4096)),
                json!("x".repeat(4097)),
                json!("a\nb"),
                json!("a\n"),
            ],
        ),
        (
            "/spec/rules/0/run",
            &[
                json!(["/bin/true", ""]),
                json!([true]),
                json!([null]),
                json!(["/bin/true", 9]),
                json!(["it's"]),
                json!(["a\n"]),
                json!("/bin/true"),
                json!({}),
                json!(vec!["x"; 64]),
                json!(vec!["x"; 65]),
                json!(null),
            ],
        ),
        (
            "/spec/rules/0/parameters",
            &[
                json!({}),
                json!(null),
                json!([]),
                json!({"p": null}),
                json!({"p": {}}),
                json!({"p": "x"}),
                json!({"p": {"enum": []}}),
                json!({"p": {"enum": ["x", "x"]}}),
                json!({"p": {"enum": ["x".repeat(257)]}}),
                json!({"p": {"pattern": ""}}),
                json!({"p": {"pattern": "x".repeat(1025)}}),
                json!({"p": {"maxLength": 0}}),
                json!({"p": {"maxLength": 4097}}),
                json!({"p": {"maxLength": "1"}}),
                json!({"p": {"maxLength": 1.5}}),
                json!({"p": {"maxLength": 2.0}}),
                json!({"p": {"integer": {}}}),
                json!({"p": {"integer": {"maximum": -1}}}),
                json!({"p": {"integer": {"minimum": null, "maximum": 3}}}),
                json!({"p": {"integer": {"maximum": 10_000_000_000_000_000_000_u64}}}),
                json!({"p": {"default": 1}}),
                json!({"p": {"unknown": null}}),
            ],
        ),
        (
            "/spec/rules/0/machineSelector",
            &[
                json!({}),
                json!(null),
                json!({"matchLabels": {"a": "x".repeat(64)}}),
                json!({"matchLabels": {"a": true}}),
                json!({"matchExpressions": [{"key": "a"}]}),
                json!({"matchExpressions": [{"key": "a", "operator": "in"}]}),
                json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}),
                json!({"matchExpressions": vec![json!({"key": "a", "operator": "Exists"}); 17]}),
                json!({"other": 1}),
            ],
        ),
        (
            "/spec/rules/0/subjects",
            &[
                json!([]),
                json!(null),
                json!([{"kind": "User"}]),
                json!([{"kind": "user", "name": "x"}]),
                json!([{"kind": "User", "name": ""}]),
                json!(vec![json!({"kind": "User", "name": "x"}); 65]),
                json!([{"kind": "User", "name": "x", "namespace": "n".repeat(64)}]),
            ],
        ),
        (
            "/spec/rules/0/runAs",
            &[
                json!("root"),
                json!("Deploy"),
                json!("CORP\\deploy"),
                json!("a b"),
                json!("-a"),
                json!(""),
                json!("a".repeat(65)),
                json!(0),
            ],
        ),
        (
            "/spec/rules/0/workingDirectory",
            &[json!("/srv"), json!("srv"), json!("/it's"), json!(""), json!(format!("/{}", "x".repeat(1024)))],
        ),
        (
            "/spec/rules/0/timeoutSeconds",
            &[
                json!({"default": 0}),
                json!({"maximum": 86401}),
                json!({"default": 30.0}),
                json!(30),
                json!({"default": "30"}),
                json!({"other": 1}),
            ],
        ),
        ("/spec/rules/0/interactive", &[json!(true), json!("true"), json!(1), json!(null)]),
        (
            "/spec/rules/0/output",
            &[
                json!({"inlineBytes": 16385}),
                json!({"maximumBytes": 1023}),
                json!({"drainSeconds": 61}),
                json!({"drainSeconds": -1}),
                json!({"maximumBytes": 1_099_511_627_776_i64}),
            ],
        ),
        (
            "/spec/rules/0/redact",
            &[json!([]), json!([""]), json!(["x".repeat(257)]), json!(vec!["x"; 9]), json!(["é"]), json!([null])],
        ),
        ("/spec/rules/0/minimumRetentionSeconds", &[json!(0), json!(-1), json!(31_536_001), json!(1.5)]),
        ("/spec/rules/0/unknownField", &[json!(1)]),
    ];
    cases.extend(of_fields.iter().flat_map(|(path, values)| values.iter().map(|value| vec![(*path, value.clone())])));
    cases
}

#[tokio::test]
async fn what_the_schema_check_refuses_is_what_the_api_server_refuses() {
    let case = Case::new().await;
    let mut wrong = Vec::new();
    for changes in cases() {
        let object = changed(&changes);
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
            let shown: String = format!("{changes:?}").chars().take(200).collect();
            wrong.push(format!("{shown}\n  API server: {:?}\n  Writ: {problems:?}", answer.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn warnings_come_with_kubectl_apply_and_stand_in_the_status() {
    let case = Case::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("careless.yaml");
    let text = r#"
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
    std::fs::write(&file, text).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let started = Instant::now();
    let expected = [
        "runs others: shell;",
        "as root for everybody who may create CommandExecutions: as-root;",
        "match alone, which do not forbid rules that run the same under another text: by-text;",
        "any character: upwards;",
    ];
    // Policies are served some seconds after they are installed.
    let printed = loop {
        let output = case.world.kubectl(&["apply", "-n", &case.namespace, "-f", path]);
        assert!(output.status.success(), "warnings refuse nothing: {output:?}");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        if printed.contains("Warning") || started.elapsed() > Duration::from_secs(20) {
            break printed;
        }
        std::fs::write(&file, text.replace("match: h", &format!("match: h{}", started.elapsed().as_millis())))
            .expect("a file");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    for part in expected {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    assert!(!printed.contains("harmless"), "{printed}");
    let status = loop {
        let whitelist = case.whitelists().get("careless").await.expect("a Whitelist");
        let status = whitelist.status.unwrap_or_default();
        if status.observed_generation == whitelist.metadata.generation {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let condition = status.conditions.iter().find(|it| it.type_ == "HasWarnings").expect("HasWarnings");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "LintWarnings"));
    assert!(condition.message.contains("as-root: it runs as root"), "{}", condition.message);
    assert!(status.warning_count >= Some(3), "{status:?}");
    let columns = case.world.kubectl_succeeds(&["get", "-n", &case.namespace, "whitelists", "careless"]);
    assert!(columns.contains("WARNINGS"), "{columns}");
    let events: Api<Event> = Api::namespaced(case.client.clone(), &case.namespace);
    let started = Instant::now();
    loop {
        let events = events.list(&ListParams::default()).await.expect("events").items;
        let own = |event: &&Event| {
            event.reason.as_deref() == Some("LintWarnings") && event.involved_object.name.as_deref() == Some("careless")
        };
        if let Some(event) = events.iter().find(own) {
            assert_eq!(event.type_.as_deref(), Some("Warning"));
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "no event");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A harmless one takes the condition away.
    let lines = text.lines().filter(|line| !line.contains("- {") || line.contains("harmless"));
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("a file");
    case.world.kubectl_succeeds(&["apply", "-n", &case.namespace, "-f", path]);
    let started = Instant::now();
    while case.whitelists().get("careless").await.expect("a Whitelist").status.unwrap_or_default().warning_count
        != Some(0)
    {
        assert!(started.elapsed() < Duration::from_secs(30), "the warnings stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
