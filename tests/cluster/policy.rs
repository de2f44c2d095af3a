//! Whitelists on a real cluster. Commands on the machine follow the rules. The status of a Whitelist describes the
//! rules that decisions use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use writ::api::whitelist::WhitelistStatus;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::asked;

/// Waits until the controller has reconciled the current generation of the Whitelist.
async fn looked_at(case: &Case, name: &str) -> WhitelistStatus {
    let started = Instant::now();
    loop {
        let whitelist = case.whitelists().get(name).await.expect("a Whitelist");
        let status = whitelist.status.unwrap_or_default();
        if status.observed_generation == whitelist.metadata.generation {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{name} is not looked at: {status:?}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn condition<'a>(status: &'a WhitelistStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.as_str(), found.message.as_str()))
}

fn greet() -> Value {
    json!({
        "name": "greet", "actionType": "greeting", "match": "greet {who}", "run": ["/bin/echo", "hello,", "{who}"],
        "parameters": {"who": {"enum": ["alice", "bob"]}},
        "timeoutSeconds": {"default": 7, "maximum": 9},
    })
}

#[tokio::test]
async fn the_three_ways_to_ask_run_the_same_by_the_same_decision() {
    let case = Case::new().await;
    case.apply_whitelist("greet", json!([greet()])).await;
    case.execute("text", "greet bob").await;
    case.execute_with("argv", json!({"argv": ["/bin/echo", "hello,", "bob"]})).await;
    case.execute_with("rule", json!({"rule": {"name": "greet", "parameters": {"who": "bob"}}})).await;
    let mut digests = Vec::new();
    for name in ["text", "argv", "rule"] {
        let status = case.ends(name, Phase::Succeeded, Reason::Completed).await;
        assert_eq!(status.stdout.as_deref(), Some("hello, bob\n"));
        let decision = status.decision.expect("a decision");
        assert_eq!((decision.rule.as_str(), decision.action_type.as_str()), ("greet", "greeting"));
        assert_eq!((decision.whitelist.generation, decision.timeout_seconds), (1, 7));
        digests.push(decision.digest);
    }
    assert!(digests.iter().all(|digest| digest.starts_with("sha256:") && *digest == digests[0]), "{digests:?}");
    assert_eq!(case.ledger(), vec![asked(&["/bin/echo", "hello,", "bob"]); 3]);
}

/// Computes the formula of the field's documentation with tools that contain no code of Writ.
#[tokio::test]
async fn anybody_can_check_the_digest_of_a_decision() {
    let case = Case::new().await;
    let mut rule = greet();
    rule["environment"] = json!({"LOG_LEVEL": {"enum": ["info"], "default": "info"}});
    rule["redact"] = json!(["password=\\S+"]);
    case.apply_whitelist("greet", json!([rule])).await;
    case.execute("x", "greet bob").await;
    case.finished("x").await;
    let printed = case.world.kubectl_succeeds(&[
        "get",
        "cmdexec",
        "x",
        "-n",
        &case.namespace,
        "-o",
        "jsonpath={.status.decision}",
    ]);
    let script = "import hashlib, json, sys\nd = json.load(sys.stdin)\nsaid = d.pop('digest')\nd.pop('decidedTime')\n\
                  text = json.dumps(d, sort_keys=True, separators=(',', ':'))\n\
                  sys.exit(0 if said == 'sha256:' + hashlib.sha256(text.encode()).hexdigest() else text)";
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    std::io::Write::write_all(&mut python.stdin.take().expect("a pipe"), printed.as_bytes()).expect("written");
    assert!(python.wait().expect("an end").success(), "{printed}");
}

#[tokio::test]
async fn a_value_a_time_or_a_variable_that_the_rule_does_not_list_is_rejected_and_nothing_connects() {
    let case = Case::new().await;
    case.apply_whitelist("greet", json!([greet()])).await;
    let rejected = [
        (json!({"command": "greet mallory"}), Reason::NoMatchingRule),
        (json!({"rule": {"name": "greet", "parameters": {"who": "bob; id"}}}), Reason::NoMatchingRule),
        (json!({"rule": {"name": "greet"}}), Reason::NoMatchingRule),
        (json!({"command": "greet bob", "timeoutSeconds": 10}), Reason::NotPermitted),
        (json!({"command": "greet bob", "environment": {"LD_PRELOAD": "/tmp/x"}}), Reason::NotPermitted),
        (json!({"command": "greet bob", "actionType": "custom"}), Reason::NotPermitted),
    ];
    for (index, (spec, _)) in rejected.iter().enumerate() {
        case.execute_with(&format!("x{index}"), spec.clone()).await;
    }
    for (index, (_, reason)) in rejected.iter().enumerate() {
        let status = case.ends(&format!("x{index}"), Phase::Rejected, *reason).await;
        let message = status.message.unwrap_or_default();
        assert!(message.contains("greet/greet") && !message.contains("alice"), "{message}");
    }
    assert_eq!((case.ledger(), case.sshd_logged("Connection from")), (Vec::new(), 0));
}

#[tokio::test]
async fn a_deny_is_told_at_once_and_wins_over_every_allow() {
    let case = Case::new().await;
    case.apply_whitelist("greet", json!([greet()])).await;
    case.apply_whitelist(
        "a-freeze",
        json!([{"name": "no-bob", "effect": "Deny", "run": ["/bin/echo", "hello,", "bob"]}]),
    )
    .await;
    case.execute("text", "greet bob").await;
    case.execute_with("rule", json!({"rule": {"name": "greet", "parameters": {"who": "bob"}}})).await;
    case.execute("alice", "greet alice").await;
    case.ends("text", Phase::Rejected, Reason::Denied).await;
    case.ends("rule", Phase::Rejected, Reason::Denied).await;
    case.ends("alice", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger(), [asked(&["/bin/echo", "hello,", "alice"])]);
}

#[tokio::test]
async fn environment_and_directory_are_those_of_the_rule() {
    let case = Case::new().await;
    let home = case.sshd.home().canonicalize().expect("a home");
    let folder = home.join("in here");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let rule = |name: &str, directory: &str| {
        json!({
            "name": name, "match": name, "run": ["/bin/sh", "-c", "pwd; echo \"$LOG_LEVEL $TZ $PATH $LC_ALL\""],
            "workingDirectory": directory,
            "environment": {"LOG_LEVEL": {"enum": ["debug", "info"]}, "TZ": {"pattern": "[A-Za-z/]+", "default": "UTC"}},
        })
    };
    let folder = folder.to_str().expect("UTF-8");
    case.apply_whitelist("where", json!([rule("here", folder), rule("nowhere", "/no/such/folder")])).await;
    case.execute_with("x", json!({"command": "here", "environment": {"LOG_LEVEL": "debug"}})).await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(status.stdout, Some(format!("{folder}\ndebug UTC {path} C\n")));
    let decision = status.decision.expect("a decision");
    assert_eq!(decision.environment.into_values().collect::<Vec<_>>(), ["debug", "UTC"]);
    case.execute("y", "nowhere").await;
    let status = case.ends("y", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, status.stdout.as_deref()), (Some(126), Some("")));
}

#[tokio::test]
async fn a_rule_is_for_the_machines_that_have_its_labels_now() {
    let case = Case::new().await;
    let mut rule = greet();
    rule["machineSelector"] = json!({"matchLabels": {"role": "web"}});
    case.apply_whitelist("greet", json!([rule])).await;
    case.execute("x", "greet bob").await;
    case.ends("x", Phase::Rejected, Reason::NotPermitted).await;
    case.world.kubectl_succeeds(&["label", "-n", &case.namespace, "machine", "web-1", "role=web"]);
    case.execute("y", "greet bob").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_whitelist_says_what_became_of_its_rules() {
    let case = Case::new().await;
    let status = looked_at(&case, "web").await;
    assert_eq!(condition(&status, "Ready"), Some(("True", "5 rules are in force")));
    assert_eq!((status.rule_count, condition(&status, "Stalled")), (Some(5), None));
    case.world.kubectl_succeeds(&["wait", "-n", &case.namespace, "--for=condition=Ready", "wl/web", "--timeout=30s"]);

    case.apply_whitelist("broken", json!([greet(), {"name": "bad", "run": ["systemctl", "restart"]}])).await;
    let status = looked_at(&case, "broken").await;
    let (stalled, message) = condition(&status, "Stalled").expect("Stalled");
    assert!(stalled == "True" && message.contains("bad: run[0] must be a constant absolute path"), "{message}");
    assert_eq!((status.rule_count, condition(&status, "Ready").map(|(is, _)| is)), (Some(1), Some("False")));
    let table = case.world.kubectl_succeeds(&["get", "wl", "-n", &case.namespace, "-o", "wide"]);
    assert!(table.contains("READY") && table.contains("bad: run[0]"), "{table}");
    case.execute("x", "greet bob").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;

    case.apply_whitelist("broken", json!([greet()])).await;
    let status = looked_at(&case, "broken").await;
    assert_eq!((condition(&status, "Ready").map(|(is, _)| is), condition(&status, "Stalled")), (Some("True"), None));
    for reason in ["RulesBroken", "AllRulesInForce"] {
        let started = Instant::now();
        while case.events(reason).await == 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "no event {reason}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_broken_deny_closes_the_namespace_until_it_is_mended() {
    let case = Case::new().await;
    let deny = |run: Value| json!([{"name": "never", "effect": "Deny", "run": run}]);
    case.apply_whitelist("deny", deny(json!(["{undeclared}"]))).await;
    let status = looked_at(&case, "deny").await;
    let (_, message) = condition(&status, "Stalled").expect("Stalled");
    assert!(message.contains("nothing is allowed in this namespace") && message.contains("never"), "{message}");
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Rejected, Reason::PolicyBroken).await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains("kubectl describe whitelist deny") && !message.contains("undeclared"), "{message}");
    case.apply_whitelist("deny", deny(json!(["/bin/false"]))).await;
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_field_of_a_later_version_closes_its_rule_and_beside_the_rules_the_namespace() {
    let case = Case::new().await;
    let mut narrowed = greet();
    narrowed["parameters"]["who"]["notBefore"] = json!("2027-01-01");
    case.apply_whitelist("greet", json!([narrowed])).await;
    let status = looked_at(&case, "greet").await;
    let (_, message) = condition(&status, "Stalled").expect("Stalled");
    assert!(message.contains("parameters.who.notBefore"), "{message}");
    case.execute("x", "greet bob").await;
    case.ends("x", Phase::Rejected, Reason::NoMatchingRule).await;
    let spec = json!({"spec": {"rules": [greet()], "defaultEffect": "Deny"}});
    case.apply("writ.dev/v1alpha1", "Whitelist", "greet", spec).await;
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Rejected, Reason::PolicyBroken).await;
}

/// The CRD refuses such a Whitelist. An older or edited CRD may accept it.
#[tokio::test]
async fn a_whitelist_that_does_not_decode_closes_the_namespace_and_is_told_of() {
    let world = crate::world::World::start();
    let case = Case::with(world.clone(), crate::lab::SshdOptions::default(), &[]).await;
    let lax = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    world.kubectl_succeeds(&["patch", "crd", "whitelists.writ.dev", "--type=json", "-p", &lax.to_string()]);
    let started = Instant::now();
    let strange = json!({"spec": {"rules": [{"name": "x", "run": ["/bin/true"], "effect": "Maybe"}]}});
    // The API server refuses the object until it serves the changed CRD, which takes a moment.
    while let Err(error) = case.try_apply("writ.dev/v1alpha1", "Whitelist", "strange", strange.clone()).await {
        assert!(started.elapsed() < Duration::from_secs(60), "the lax CRD does not come into force: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Rejected, Reason::PolicyBroken).await;
    let started = Instant::now();
    loop {
        let path = "jsonpath={.status.conditions[?(@.type==\"Stalled\")].message}";
        let said = world.kubectl_succeeds(&["get", "wl", "strange", "-n", &case.namespace, "-o", path]);
        if said.contains("cannot be read") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{said}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    case.whitelists().delete("strange", &DeleteParams::default()).await.expect("deleted");
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

/// CRDs of an older version silently drop unknown fields.
#[tokio::test]
async fn what_was_not_stored_as_it_was_decided_is_not_sent() {
    let world = crate::world::World::start();
    let case = Case::with(world.clone(), crate::lab::SshdOptions::default(), &[]).await;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/decision/properties/redact";
    let older = json!([{"op": "remove", "path": field}]);
    world.kubectl_succeeds(&["patch", "crd", "commandexecutions.writ.dev", "--type=json", "-p", &older.to_string()]);
    let mut rule = greet();
    rule["redact"] = json!(["b[o]b"]);
    case.apply_whitelist("greet", json!([rule])).await;
    // Until the API server serves the changed CRD, which takes a moment, it stores decisions whole and the commands
    // run.
    let (mut ran, started) = (0, Instant::now());
    let status = loop {
        let name = format!("x-{ran}");
        case.execute(&name, "greet bob").await;
        let status = case.finished(&name).await;
        if status.phase != Phase::Succeeded {
            break status;
        }
        ran += 1;
        assert!(started.elapsed() < Duration::from_secs(60), "the older CRD does not come into force");
    };
    assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(Reason::PolicyBroken)));
    assert!(status.message.unwrap_or_default().contains("install the CRDs"));
    assert_eq!(case.ledger().len(), ran);
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

/// Each start reads the Whitelists live, but only their versions.
#[tokio::test]
async fn whitelists_are_read_in_full_only_when_one_has_changed() {
    let mut case = Case::new().await;
    looked_at(&case, "web").await;
    let proxy = crate::proxy::Proxy::start(&case.world, Vec::new()).await;
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    case.execute("warm", "say hello").await;
    case.ends("warm", Phase::Succeeded, Reason::Completed).await;
    // Each watch starts with a list.
    let mut before = usize::MAX;
    while before != proxy.policies_read() {
        before = proxy.policies_read();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for number in 0..10 {
        case.execute(&format!("x{number}"), "say hello").await;
        case.ends(&format!("x{number}"), Phase::Succeeded, Reason::Completed).await;
    }
    assert_eq!(proxy.policies_read(), before, "nothing has changed");
    case.apply_whitelist("greet", json!([greet()])).await;
    looked_at(&case, "greet").await;
    let before = proxy.policies_read();
    case.execute("y", "greet bob").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    case.execute("z", "greet bob").await;
    case.ends("z", Phase::Succeeded, Reason::Completed).await;
    // A list in the background has perhaps read the change before.
    assert!(proxy.policies_read() - before <= 1, "at most once, for the change");
    let deny = json!([{"name": "no", "effect": "Deny"}]);
    case.apply_whitelist("greet", deny).await;
    case.execute("denied", "say hello").await;
    case.ends("denied", Phase::Rejected, Reason::Denied).await;
    case.whitelists().delete("greet", &DeleteParams::default()).await.expect("deleted");
    case.execute("again", "say hello").await;
    case.ends("again", Phase::Succeeded, Reason::Completed).await;
}

/// Lists overlap: the starts and the background each list. All of them find the same change.
#[tokio::test]
async fn concurrent_lists_that_find_the_same_change_read_the_whitelists_in_full_once() {
    let mut case = Case::new().await;
    let proxy = crate::proxy::Proxy::start(&case.world, Vec::new()).await;
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    looked_at(&case, "web").await;
    case.execute("warm", "say hello").await;
    case.ends("warm", Phase::Succeeded, Reason::Completed).await;
    for round in 0..4 {
        let before = proxy.policies_read();
        let labels = json!({"metadata": {"labels": {"round": format!("r{round}")}}});
        let patch = kube::api::Patch::Merge(labels);
        case.whitelists().patch("web", &kube::api::PatchParams::default(), &patch).await.expect("labelled");
        let names: Vec<_> = (0..12).map(|number| format!("x{round}-{number}")).collect();
        for name in &names {
            case.execute(name, "say hello").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for name in &names {
            case.ends(name, Phase::Succeeded, Reason::Completed).await;
        }
        assert!(proxy.policies_read() - before <= 1, "round {round}: at most once, for the change");
    }
}

/// Runs 500 executions while their Whitelist changes as fast as possible. The Whitelist allows the command, denies it,
/// or allows something else.
#[tokio::test]
async fn what_ran_while_the_policy_was_changed_is_what_its_recorded_decision_says() {
    const EXECUTIONS: usize = 500;
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"maxConcurrent": 16, "queueLimit": 1000})).await;
    // A Deny takes effect immediately, so more steps with Deny would leave few executions to run.
    let is_allowing = |step: usize| step % 12 != 11 && step % 3 != 1;
    let rules = |step: usize| match step {
        _ if step % 12 == 11 => json!([{"name": "go", "effect": "Deny", "match": "go"}]),
        _ if step % 3 == 1 => json!([{"name": "other", "match": "nothing", "run": ["/bin/true"]}]),
        _ => json!([{"name": "go", "match": "go", "run": ["/bin/echo", format!("step {step}")]}]),
    };
    case.apply_whitelist("flip", rules(0)).await;
    let all_asked = AtomicBool::new(false);
    let flipping = async {
        // Output of the command that each generation allows, or `None`.
        let mut allowed = std::collections::BTreeMap::new();
        let mut step = 0;
        loop {
            case.apply_whitelist("flip", rules(step)).await;
            let generation = case.whitelists().get("flip").await.expect("it is there").metadata.generation;
            allowed.insert(generation.expect("a generation"), is_allowing(step).then(|| format!("step {step}")));
            let unfinished = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Rejected").limit(1);
            if step % 20 == 19
                && all_asked.load(Ordering::Relaxed)
                && case.executions().list_metadata(&unfinished).await.expect("a list").items.is_empty()
            {
                return allowed;
            }
            step += 1;
        }
    };
    let asking = async {
        for number in 0..EXECUTIONS {
            case.execute_with(&format!("x{number}"), json!({"command": "go", "startingDeadlineSeconds": 600})).await;
        }
        all_asked.store(true, Ordering::Relaxed);
    };
    let (allowed, ()) = tokio::join!(flipping, asking);
    let (mut ran, rejected) = what_came_of_it(&case, &allowed).await;
    assert_eq!(ran.len() + rejected, EXECUTIONS);
    assert!(ran.len() > 20 && rejected > 20, "{} ran, {rejected} were rejected: that shows nothing", ran.len());
    let mut ledger = case.ledger();
    ledger.sort();
    ran.sort();
    assert_eq!(ledger, ran);
}

/// Checks that each command ran under a generation that allows it. Returns the expected ledger entries and the number
/// of rejected executions.
async fn what_came_of_it(
    case: &Case,
    allowed: &std::collections::BTreeMap<i64, Option<String>>,
) -> (Vec<String>, usize) {
    let mut ran = Vec::new();
    let mut rejected = 0;
    for execution in case.executions().list(&ListParams::default()).await.expect("a list").items {
        let name = execution.metadata.name.unwrap_or_default();
        let status = execution.status.expect("a status");
        if status.phase == Phase::Rejected {
            assert!(status.claim.is_none() && status.stdout.is_none(), "{name}");
            rejected += 1;
            continue;
        }
        assert_eq!((status.phase, status.exit_code), (Phase::Succeeded, Some(0)), "{name}: {:?}", status.message);
        let decision = status.decision.expect("a decision");
        let step = allowed.get(&decision.whitelist.generation).unwrap_or_else(|| panic!("{name}: {decision:?}"));
        let step =
            step.as_ref().unwrap_or_else(|| panic!("{name} ran by a generation that allows nothing: {decision:?}"));
        assert_eq!(decision.argv, ["/bin/echo", step], "{name}");
        assert_eq!(status.stdout, Some(format!("{step}\n")), "{name}");
        ran.push(asked(&["/bin/echo", step]));
    }
    (ran, rejected)
}
