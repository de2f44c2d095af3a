//! The chart. Every values file renders to manifests that the API server accepts. Installing, upgrading and
//! uninstalling leave the objects that docs/guides/install.md and docs/guides/upgrade.md describe. The tests run the
//! binary with the arguments of the Deployment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use writ::api::{AUDIT_FINALIZER, CommandExecution, Phase, Reason};

use crate::case::Case;
use crate::lab::{LOOPBACK, Toolbox};
use crate::world::{CHART, HOME, World, world};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn values_files() -> Vec<PathBuf> {
    let files = std::fs::read_dir(in_repository("charts/writ/ci")).expect("values files");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// CRDs of the Prometheus operator, with only the fields that the chart's objects use (its documentation, "API
/// reference"). The API server refuses all other fields.
const MONITORING: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ServiceMonitor, plural: servicemonitors}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [selector, endpoints]
              properties:
                selector: {type: object, properties: {matchLabels: {type: object, additionalProperties: {type: string}}}}
                endpoints:
                  type: array
                  items:
                    type: object
                    properties:
                      port: {type: string}
                      path: {type: string}
                      interval: {type: string, pattern: '^([0-9]+(ms|s|m|h))+$'}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: prometheusrules.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PrometheusRule, plural: prometheusrules}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              properties:
                groups:
                  type: array
                  items:
                    type: object
                    required: [name, rules]
                    properties:
                      name: {type: string, minLength: 1}
                      interval: {type: string}
                      rules:
                        type: array
                        minItems: 1
                        items:
                          type: object
                          required: [expr]
                          properties:
                            alert: {type: string}
                            record: {type: string}
                            expr: {type: string}
                            for: {type: string, pattern: '^([0-9]+(ms|s|m|h|d))+$'}
                            keep_firing_for: {type: string}
                            labels: {type: object, additionalProperties: {type: string}}
                            annotations: {type: object, additionalProperties: {type: string}}
"#;

#[tokio::test]
async fn every_values_file_lints_and_renders_to_what_the_api_server_takes() {
    let world = world();
    let folder = world.reaper.make_folder("rendered", 0o700).expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a manifest");
        path.to_str().expect("UTF-8").to_owned()
    };
    let monitoring = write("monitoring.yaml", MONITORING);
    world.kubectl_succeeds(&["apply", "-f", &monitoring]);
    world.kubectl_succeeds(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &monitoring]);
    for namespace in ["team-a", "team-b", "ops"] {
        world.kubectl_succeeds(&["create", "namespace", namespace]);
    }
    for file in values_files() {
        let file = file.to_str().expect("UTF-8");
        world.helm_succeeds(&["lint", "--strict", CHART, "--values", file]);
        // Not the name of the installed release: its Service has another port, and the API server would merge both.
        let template = ["template", "sample", CHART, "-n", HOME, "--values", file, "--kube-version", "1.36.0"];
        let rendered = write("rendered.yaml", &world.helm_succeeds(&template));
        let apply =
            ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", &rendered];
        let mut output = world.kubectl(&apply);
        // The API server serves a kind only a moment after its CRD is established.
        for _ in 0..50 {
            if output.status.success() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            output = world.kubectl(&apply);
        }
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{file}: {errors}");
        assert!(printed.lines().count() > 5 && printed.contains("deployment.apps/"), "{file}: {printed}");
    }
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused_with_their_names() {
    let world = world();
    for (value, says) in [
        ("serve.drainSecond=3", "drainSecond"),
        ("operations.port=0", "/operations/port"),
        ("outputStore=ftp://x", "/outputStore"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        ("admission.stamping=perhaps", "/admission/stamping"),
        ("admission.operators={a b}", "/admission/operators/0"),
        ("serve.allowCidrs={everywhere}", "/serve/allowCidrs/0"),
        ("nameOverride=Foo_Bar", "/nameOverride"),
        ("replicaCount=2,persistence.enabled=true", "replicaCount over 1"),
        ("gateway.port=0", "/gateway/port"),
        ("gateway.commandsPerMinute=0", "/gateway/commandsPerMinute"),
        ("gateway.compatRoutes=perhaps", "/gateway/compatRoutes"),
        ("gateway.groups={system:masters}", "/gateway/groups/0"),
        ("gateway.groups={*}", "/gateway/groups/0"),
        ("gateway.extraKeys={scopes}", "/gateway/extraKeys/0"),
        ("gateway.extraKeys={example.org/*}", "/gateway/extraKeys/0"),
        ("gateway.extraKeys={writ.dev/via}", "/gateway/extraKeys/0"),
        ("gateway.extraKeys={authentication.kubernetes.io/credential-id}", "/gateway/extraKeys/0"),
        ("gateway.allowedOrigins={*}", "/gateway/allowedOrigins/0"),
    ] {
        let output = world.helm(&["template", "writ", CHART, "--set", value]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(says), "{value}: {errors}");
    }
}

#[test]
fn a_gateway_that_would_be_unsafe_is_refused_with_the_reason() {
    let world = world();
    let standard = "gateway.enabled=true,gateway.behindTlsProxy=true,admission.stamping=mutate";
    let template = |values: &str| {
        let all = format!("{standard},{values}");
        world.helm(&["template", "writ", CHART, "-n", HOME, "--set", &all])
    };
    for (values, says) in [
        ("admission.stamping=validate", "needs Kubernetes 1.36"),
        ("gateway.behindTlsProxy=false", "gateway.tls.secretName"),
        ("gateway.tls.secretName=x", "not both"),
        ("gateway.port=8081", "operations.port"),
        ("gateway.serviceAccount.name=writ", "must differ from the ServiceAccount"),
        ("gateway.serviceAccount.create=false", "gateway.serviceAccount.name"),
        ("watchNamespaces={ops,kube-system}", "must not contain kube-system"),
        ("watchNamespaces={writ-system}", "must not contain writ-system"),
        ("gateway.callerNamespaces={kube-system}", "must not contain kube-system"),
        ("gateway.callerNamespaces={ci,writ-system}", "must not contain writ-system"),
        ("gateway.ingress.enabled=true", "gateway.ingress.host"),
    ] {
        let output = template(values);
        assert!(!output.status.success() && said(&output).contains(says), "{values}: {}", said(&output));
    }
    // No role has the legacy verb, with any values, and the roles for actions and ServiceAccounts have no
    // ClusterRoleBinding.
    for values in ["replicaCount=1", "watchNamespaces={a,b},gateway.callerNamespaces={ci},gateway.groups={sre}"] {
        let output = template(values);
        assert!(output.status.success(), "{}", said(&output));
        let rendered = String::from_utf8_lossy(&output.stdout);
        assert!(!rendered.lines().any(|line| line.trim_start_matches(['-', ' ']).trim_matches('"') == "impersonate"));
        assert!(!rendered.contains("[impersonate]"));
        for object in rendered.split("\n---\n").filter(|object| object.contains("kind: ClusterRoleBinding\n")) {
            let role = object.lines().find(|line| line.starts_with("roleRef:")).expect("a role");
            assert!(!role.contains("-actions") && !role.contains("-serviceaccounts"), "{object}");
        }
    }
    let rendered = template("gateway.groups={sre}");
    let rendered = String::from_utf8_lossy(&rendered.stdout);
    assert!(rendered.contains(r#"resourceNames: ["system:authenticated","sre"]"#), "{rendered}");
}

#[tokio::test]
async fn what_stands_in_deploy_is_what_the_chart_renders() {
    let folder = world().reaper.make_folder("deploy", 0o700).expect("a folder");
    let mut command = Command::new(in_repository("hack/deploy"));
    let output = command.arg(&folder).env("HELM", Toolbox::helm().expect("helm")).output().expect("hack/deploy runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = |folder: &Path| -> BTreeSet<String> {
        let names = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").file_name());
        names.map(|name| name.into_string().expect("UTF-8")).filter(|name| name.ends_with(".yaml")).collect()
    };
    assert_eq!(files(&folder), files(&in_repository("deploy")));
    for name in files(&folder) {
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("a manifest");
        let (rendered, stands) = (read(folder.join(&name)), read(in_repository("deploy").join(&name)));
        assert!(rendered == stands, "deploy/{name} is not what the chart says; run hack/deploy and commit it");
    }
}

/// The guards are not generated from the Rust types. So this test compares their phases with those of the types.
#[test]
fn the_guard_knows_every_finished_phase() {
    let guard = std::fs::read_to_string(in_repository("charts/writ/templates/guards.yaml")).expect("the guard");
    let finished: Vec<String> =
        Phase::ALL.iter().filter(|phase| phase.is_finished()).map(|phase| format!("\"{}\"", phase.as_str())).collect();
    let list = guard.split("in\n        [").nth(1).and_then(|rest| rest.split(']').next()).expect("the list of phases");
    let listed: BTreeSet<&str> = list.split(", ").collect();
    assert_eq!(listed, finished.iter().map(String::as_str).collect());
}

/// Returns the arguments of the first container in a rendered object of a kind. `changes` replaces paths and ports by
/// those of this machine.
fn arguments(rendered: &str, kind: &str, changes: &[(&str, &str)]) -> Vec<String> {
    let objects = rendered.split("\n---\n").filter(|text| text.contains(&format!("kind: {kind}\n")));
    let lines: Vec<&str> = objects.flat_map(str::lines).collect();
    let start = lines.iter().position(|line| line.trim() == "args:").expect("arguments");
    let arguments = lines[start + 1..].iter().map(|line| line.trim()).take_while(|line| line.starts_with("- "));
    arguments
        .map(|argument| {
            let argument = argument.trim_start_matches("- ").trim_matches('"').to_owned();
            changes.iter().fold(argument, |argument, (from, to)| argument.replace(from, to))
        })
        .collect()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn what_goes_out_is_bounded_by_the_ranges_that_are_named() {
    let world = world();
    let render = |values: &str| {
        let all = format!("networkPolicy.egress.enabled=true,{values}");
        let template = ["template", "writ", CHART, "--show-only", "templates/networkpolicy.yaml", "--set", &all];
        world.helm_succeeds(&template)
    };
    let open = render("replicaCount=1");
    assert!(!open.contains("ipBlock"), "{open}");
    let bounded =
        render("networkPolicy.egress.apiServerCidrs={192.0.2.1,10.96.0.1/32},serve.allowCidrs={10.0.0.0/8,fd00::1}");
    let policy: serde_json::Value = serde_saphyr::from_str(&bounded).expect("YAML");
    let rules = policy["spec"]["egress"].as_array().expect("rules").clone();
    let rule_of = |port: u64| {
        let has = |rule: &&serde_json::Value| {
            rule["ports"].as_array().is_some_and(|ports| ports.iter().any(|each| each["port"] == port))
        };
        rules.iter().find(has).unwrap_or_else(|| panic!("no rule for {port}: {bounded}"))["to"].to_string()
    };
    assert_eq!(rule_of(53), "null", "resolvers are anywhere");
    for port in [443, 6443] {
        assert_eq!(rule_of(port), r#"[{"ipBlock":{"cidr":"192.0.2.1/32"}},{"ipBlock":{"cidr":"10.96.0.1/32"}}]"#);
    }
    let none = r#"networkPolicy.egress={"enabled":true,"sshPorts":[],"apiServerPorts":[]}"#;
    let template = ["template", "writ", CHART, "--show-only", "templates/networkpolicy.yaml", "--set-json", none];
    let closed = world.helm_succeeds(&template);
    assert_eq!(closed.matches("ports:").count(), 2, "what comes in, and resolvers: {closed}");
    assert_eq!(rule_of(22), r#"[{"ipBlock":{"cidr":"10.0.0.0/8"}},{"ipBlock":{"cidr":"fd00::1/128"}}]"#);
}

/// This control plane has no node for Pods. So the test runs the binary with the arguments of the Pod, as its
/// ServiceAccount.
#[tokio::test]
async fn the_binary_does_its_work_with_the_arguments_of_the_rendered_deployment_and_helm_test_sees_it() {
    let mut case = Case::new().await;
    case.kill_writ();
    let world = case.world.clone();
    let folder = world.reaper.make_folder("pod", 0o700).expect("a folder");
    let (state, port) = (folder.join("state").display().to_string(), free_port());
    let values = format!("watchNamespaces={{{}}},tracing.otlpEndpoint=http://127.0.0.1:9", case.namespace);
    let rendered = world.helm_succeeds(&["template", "writ", CHART, "-n", HOME, "--set", &values]);
    let listen = format!("127.0.0.1:{port}");
    let changes = [("/var/lib/writ", state.as_str()), ("0.0.0.0:8081", listen.as_str())];
    let serve = arguments(&rendered, "Deployment", &changes);
    assert!(serve.contains(&format!("--namespace={}", case.namespace)), "{serve:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(&serve).args(LOOPBACK).arg("--kubeconfig").arg(&world.operator);
    let log = folder.join("writ.log");
    let process = world.reaper.spawn("writ", &mut command, &log).expect("writ starts");
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let said = std::fs::read_to_string(&log).expect("a log");
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "log lines are not JSON: {said}");

    let service = format!("http://writ.{HOME}.svc:8081/");
    let here = format!("http://{listen}/");
    let test = arguments(&rendered, "Pod", &[(&service, &here), ("--wait-seconds=60", "--wait-seconds=20")]);
    let run =
        |arguments: &[String]| Command::new(env!("CARGO_BIN_EXE_writ")).args(arguments).output().expect("writ runs");
    let output = run(&test);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    process.end(Duration::from_secs(60));
    let soon =
        test.iter().map(|argument| argument.replace("--wait-seconds=20", "--wait-seconds=1")).collect::<Vec<_>>();
    assert!(!run(&soon).status.success(), "nobody listens any more");
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Acts as the kubelet: reports that the Pod of `helm test` ended in a phase.
async fn end_test_pods(world: &World, phase: &'static str) -> tokio::task::JoinHandle<()> {
    let client = world.client().await;
    tokio::spawn(async move {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client, HOME);
        loop {
            let ended = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]}});
            let _ = pods.patch_status("writ-ready", &PatchParams::default(), &Patch::Merge(ended)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

#[tokio::test]
async fn installing_upgrading_and_uninstalling_leave_what_the_guides_say() {
    let world = World::empty();
    let printed = world.helm_succeeds(&["install", "writ", CHART, "-n", HOME, "--create-namespace"]);
    assert!(
        printed.contains("helm -n writ-system test writ") && printed.contains("rolebinding writ-credentials"),
        "{printed}"
    );
    assert!(printed.contains("serve.allowCidrs is empty"), "{printed}");
    let services = said(&world.kubectl(&["get", "servicecidr", "-o", "jsonpath={.items[0].spec.cidrs[0]}"]));
    let deployment = said(&world.kubectl(&["get", "deployment", "-n", HOME, "-o", "yaml"]));
    assert!(deployment.contains(&format!("--refuse-cidr={}", services.trim())), "{services}: {deployment}");
    for kind in ["deployment", "service", "serviceaccount", "networkpolicy", "poddisruptionbudget"] {
        assert!(names(&world, kind).contains("/writ"), "{kind}");
    }
    for (phase, ends_well) in [("Succeeded", true), ("Failed", false)] {
        let kubelet = end_test_pods(&world, phase).await;
        let installed = world.clone();
        let output =
            tokio::task::spawn_blocking(move || installed.helm(&["-n", HOME, "test", "writ", "--timeout", "30s"]))
                .await
                .expect("helm");
        kubelet.abort();
        assert_eq!(output.status.success(), ends_well, "{phase}: {}", said(&output));
    }

    upgrade_to_other_values(&world);
    let executions = uninstall_beside_a_record(&world).await;
    let kept = executions.get("x").await.expect("records are kept");
    assert!(kept.metadata.finalizers.unwrap_or_default().contains(&AUDIT_FINALIZER.to_owned()));
    take_the_way_out(&world, &executions).await;
    // A new installation adopts the objects that the uninstall kept.
    world.helm_succeeds(&["install", "writ", CHART, "-n", HOME]);
}

fn names(world: &World, kind: &str) -> String {
    said(&world.kubectl(&["get", kind, "-n", HOME, "-o", "name"]))
}

/// Upgrades to one namespace instead of all, a retention of 60 s, and no NetworkPolicy.
fn upgrade_to_other_values(world: &World) {
    world.kubectl_succeeds(&["create", "namespace", "team-a"]);
    let values = "watchNamespaces={team-a},serve.minimumRetentionSeconds=60,networkPolicy.enabled=false";
    world.helm_succeeds(&["upgrade", "writ", CHART, "-n", HOME, "--set", values]);
    assert!(!names(world, "networkpolicy").contains("/writ"));
    let over_all = world.kubectl(&["get", "clusterrolebinding", "writ-operator"]);
    assert!(said(&over_all).contains("NotFound"), "{}", said(&over_all));
    assert!(
        said(&world.kubectl(&["get", "rolebinding", "-n", "team-a", "-o", "name"]))
            .contains("writ-operator-credentials")
    );
    let guard = said(&world.kubectl(&["get", "validatingadmissionpolicy", "writ-guard", "-o", "yaml"]));
    assert!(guard.contains("minimumRetentionSeconds.orValue(60)"), "{guard}");
}

/// Uninstalls the chart while a record exists. The record stays, because no process removes its finalizer.
async fn uninstall_beside_a_record(world: &World) -> Api<CommandExecution> {
    let client = world.client().await;
    let executions: Api<CommandExecution> = Api::namespaced(client.clone(), "team-a");
    let manifest = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": "x"},
        "spec": {"machineRef": {"name": "none"}, "command": "none"}});
    let object: CommandExecution = serde_json::from_value(manifest).expect("an execution");
    let started = Instant::now();
    while let Err(error) = executions.create(&PostParams::default(), &object).await {
        assert!(started.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.helm_succeeds(&["uninstall", "writ", "-n", HOME]);
    for kind in ["deployment", "service", "serviceaccount/writ", "poddisruptionbudget"] {
        let left = said(&world.kubectl(&["get", kind, "-n", HOME, "-o", "name"]));
        assert!(!left.contains("/writ\n"), "{kind}: {left}");
    }
    for kind in ["clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "mutatingadmissionpolicy"] {
        let left = world.kubectl_succeeds(&["get", kind, "-o", "name"]);
        assert!(!left.contains("/writ-"), "{kind}: {left}");
    }
    executions
}

/// Follows docs/guides/upgrade.md to remove a record that stayed after the uninstall.
async fn take_the_way_out(world: &World, executions: &Api<CommandExecution>) {
    world.kubectl_succeeds(&["delete", "namespace", "team-a", "--wait=false"]);
    let release = r#"kubectl -n team-a get cmdexec -o name | xargs -r -n 1 kubectl -n team-a patch --type=merge -p '{"metadata":{"finalizers":null}}'"#;
    assert!(
        std::fs::read_to_string(in_repository("docs/guides/upgrade.md"))
            .expect("the guide")
            .contains(&release.replace("team-a", "NAMESPACE"))
    );
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let started = Instant::now();
    while let Ok(Some(_)) = executions.get_opt("x").await {
        let _ = executions.patch("x", &PatchParams::default(), &none).await;
        assert!(started.elapsed() < Duration::from_secs(60), "the execution does not go");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while world.kubectl(&["get", "namespace", "team-a"]).status.success() {
        assert!(started.elapsed() < Duration::from_secs(90), "the namespace does not go");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
