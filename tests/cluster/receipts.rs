//! If the TTL deleted an execution and its manifest is applied again, the command does not run again. No event in
//! between changes this. If a user deleted the execution or changed the manifest, the command runs again.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Notify;
use writ::api::{CommandExecution, CommandExecutionStatus, ExecutionReceipt, Phase, RETENTION_OVER_ANNOTATION, Reason};
use writ::execution::ReceiptKey;

use crate::case::Case;
use crate::lab::SshdOptions;
use crate::proxy::{Fate, Proxy};
use crate::world::{HOME, World, world};

const VERSION: &str = "writ.dev/v1alpha1";
const PATIENCE: Duration = Duration::from_secs(60);

fn receipts(case: &Case) -> Api<ExecutionReceipt> {
    Api::namespaced(case.client.clone(), &case.namespace)
}

async fn all_receipts(case: &Case) -> Vec<ExecutionReceipt> {
    receipts(case).list(&ListParams::default()).await.expect("receipts").items
}

fn uid(execution: &CommandExecution) -> String {
    execution.metadata.uid.clone().expect("a UID")
}

/// Applies an execution, as GitOps tools do. Returns its UID, or an empty text if the execution is already deleted.
async fn apply(case: &Case, name: &str, command: &str, ttl: u32) -> String {
    let spec = json!({"machineRef": {"name": "web-1"}, "command": command, "ttlSecondsAfterFinished": ttl});
    case.apply(VERSION, "CommandExecution", name, json!({"spec": spec})).await;
    // With a TTL of 0, the execution may already be deleted.
    case.executions().get_opt(name).await.expect("an answer").as_ref().map(uid).unwrap_or_default()
}

/// Deletes an execution, as a user does.
async fn delete(case: &Case, name: &str) {
    case.executions().delete(name, &DeleteParams::default()).await.expect("deleted");
    case.gone(name).await;
}

fn condition<'a>(status: &'a CommandExecutionStatus, name: &str) -> Option<&'a str> {
    status.conditions.iter().find(|condition| condition.type_ == name).map(|condition| condition.status.as_str())
}

async fn until(case: &Case, what: &str, is_so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "not {what} after {PATIENCE:?}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_its_time_to_live_deleted_and_is_applied_again_ends_as_the_first_did_and_nothing_is_sent() {
    let case = Case::new().await;
    let first = apply(&case, "x", "say hello", 2).await;
    let ended = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    case.gone("x").await;
    for _ in 0..2 {
        let this = apply(&case, "x", "say hello", 2).await;
        let status = case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
        let known = status.first_execution.as_ref().expect("the first one");
        assert_eq!((known.uid.as_str(), known.exit_code), (first.as_str(), Some(0)));
        assert_eq!(Some(&known.completion_time), ended.completion_time.as_ref());
        assert_eq!((status.exit_code, &status.claim, &status.stdout), (None, &None, &None));
        assert_eq!((condition(&status, "Ready"), condition(&status, "Stalled")), (Some("True"), None));
        assert!(status.message.as_ref().is_some_and(|message| message.contains(&first)));
        case.gone("x").await;
        let [receipt] = &all_receipts(&case).await[..] else { panic!("one receipt") };
        assert_eq!((&receipt.spec.uid, &receipt.spec.expired_uid), (&first, &this));
    }
    assert_eq!(case.ledger().len(), 1);
    let changed = json!({"command": "say hello", "reason": "once more", "ttlSecondsAfterFinished": 2});
    case.execute_with("x", changed).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
    let table = case.world.kubectl_succeeds(&["get", "cmdrcpt", "-n", &case.namespace]);
    assert!(table.contains("FIRST-UID") && table.contains(&first), "{table}");
}

#[tokio::test]
async fn what_failed_and_is_applied_again_has_failed() {
    let case = Case::new().await;
    for (name, command, phase, reason, code) in [
        ("failed", "exit-three", Phase::Failed, Reason::NonZeroExitCode, Some(3)),
        ("rejected", "rm -rf /", Phase::Rejected, Reason::NoMatchingRule, None),
    ] {
        apply(&case, name, command, 2).await;
        case.ends(name, phase, reason).await;
        case.gone(name).await;
        apply(&case, name, command, 2).await;
        let status = case.ends(name, phase, Reason::AlreadyExecuted).await;
        assert_eq!(status.first_execution.as_ref().and_then(|first| first.exit_code), code);
        assert_eq!((condition(&status, "Ready"), condition(&status, "Stalled")), (Some("False"), Some("True")));
        assert_eq!(condition(&status, "Accepted"), None, "nothing was decided about it");
    }
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn what_a_person_deleted_runs_again_also_after_it_was_not_run_for_its_first() {
    let case = Case::new().await;
    apply(&case, "x", "say hello", 3600).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    delete(&case, "x").await;
    assert!(all_receipts(&case).await.is_empty());
    apply(&case, "x", "say hello", 1).await;
    case.gone("x").await;
    assert_eq!((case.ledger().len(), all_receipts(&case).await.len()), (2, 1));
    apply(&case, "x", "say hello", 3600).await;
    case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
    delete(&case, "x").await;
    assert!(all_receipts(&case).await.is_empty());
    apply(&case, "x", "say hello", 3600).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 3);
}

#[tokio::test]
async fn a_receipt_that_a_person_deleted_lets_the_next_one_run() {
    let case = Case::new().await;
    apply(&case, "x", "say hello", 1).await;
    case.gone("x").await;
    apply(&case, "x", "say hello", 2).await;
    case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
    receipts(&case).delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    case.gone("x").await;
    assert!(all_receipts(&case).await.is_empty());
    apply(&case, "x", "say hello", 3600).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_crash_between_receipt_and_deletion_changes_nothing() {
    let mut case = Case::new().await;
    let first = apply(&case, "x", "say hello", 3).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    case.kill_writ();
    let execution = case.executions().get("x").await.expect("it is there");
    let receipt = ReceiptKey::of(&execution).and_then(|key| key.receipt(&execution)).expect("a receipt");
    receipts(&case).create(&PostParams::default(), &receipt).await.expect("a receipt");
    case.start_writ();
    case.gone("x").await;
    apply(&case, "x", "say hello", 3600).await;
    let status = case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
    assert_eq!(status.first_execution.map(|known| known.uid), Some(first));
    assert_eq!((case.ledger().len(), all_receipts(&case).await.len()), (1, 1));
}

/// Returns a case whose controller has written the receipt of `x`. The proxy holds the deletion of `x` back until the
/// test notifies the returned value.
async fn held_between_receipt_and_deletion() -> (Case, Arc<Notify>) {
    let mut case = Case::new().await;
    let (held, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::IsHeldBack { held: Arc::clone(&held), go_on: Arc::clone(&go_on) };
    let proxy = Proxy::start(&case.world, vec![fate]).await;
    case.restart_writ_through(proxy.port);
    apply(&case, "x", "rm -rf /", 0).await;
    held.notified().await;
    assert_eq!(all_receipts(&case).await.len(), 1);
    (case, go_on)
}

#[tokio::test]
async fn a_person_who_is_quicker_to_delete_than_its_time_to_live_leaves_no_receipt() {
    let (case, go_on) = held_between_receipt_and_deletion().await;
    case.executions().delete("x", &DeleteParams::default()).await.expect("deleted");
    go_on.notify_one();
    case.gone("x").await;
    assert!(all_receipts(&case).await.is_empty());
    apply(&case, "x", "rm -rf /", 3600).await;
    case.ends("x", Phase::Rejected, Reason::NoMatchingRule).await;
}

#[tokio::test]
async fn a_process_that_is_late_does_not_undo_the_receipt_that_another_one_relied_on() {
    let (case, go_on) = held_between_receipt_and_deletion().await;
    // Simulates another process that finds the receipt. That process updates the nonce of the receipt, then deletes the
    // execution.
    let [receipt] = &all_receipts(&case).await[..] else { panic!("one receipt") };
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"writ.dev/revision-nonce": "by another"}}}));
    receipts(&case).patch(&receipt.name_any(), &PatchParams::default(), &patch).await.expect("seen");
    case.executions().delete("x", &DeleteParams::default()).await.expect("deleted");
    go_on.notify_one();
    case.gone("x").await;
    apply(&case, "x", "rm -rf /", 3600).await;
    case.ends("x", Phase::Rejected, Reason::AlreadyExecuted).await;
}

/// In every rolling update, two processes run for a moment.
#[tokio::test]
async fn two_processes_at_a_time_leave_a_receipt_of_each_and_run_none_again() {
    let case = Case::new().await;
    let folder = case.world.reaper.make_folder("writ", 0o700).expect("a folder");
    let mut other = Command::new(env!("CARGO_BIN_EXE_writ"));
    other
        .args(["serve", "--namespace", &case.namespace, "--lease-namespace", HOME, "--missing-grace-seconds", "1"])
        .args(crate::lab::LOOPBACK)
        .arg("--minimum-retention-seconds=0")
        .env("WRIT_OUTPUT_STORE", case.store())
        .env("RUST_LOG", "warn,writ=debug")
        .arg("--state-directory")
        .arg(folder.join("state"))
        .arg("--kubeconfig")
        .arg(&case.kubeconfig);
    let log = folder.join("writ.log");
    let _process = case.world.reaper.spawn("writ", &mut other, &log).expect("writ starts");
    until(&case, "served twice", async || std::fs::read_to_string(&log).unwrap_or_default().contains("writ serves"))
        .await;
    let (names, commands): (Vec<_>, _) =
        ((0..40).map(|index| format!("x-{index}")).collect(), ["say hello", "rm -rf /"]);
    for _ in 0..2 {
        for (name, command) in names.iter().zip(commands.iter().cycle()) {
            apply(&case, name, command, 0).await;
        }
        for name in &names {
            case.gone(name).await;
        }
        assert_eq!((case.ledger().len(), all_receipts(&case).await.len()), (20, 40));
    }
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_leaves_its_receipt() {
    let mut case = Case::new().await;
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    release.notify_one();
    let proxy = Proxy::start(&case.world, vec![Fate::AnswerIsLost { arrived, release }]).await;
    case.restart_writ_through(proxy.port);
    apply(&case, "x", "rm -rf /", 0).await;
    case.gone("x").await;
    assert_eq!(proxy.fates_left(), 0);
    apply(&case, "x", "rm -rf /", 3600).await;
    case.ends("x", Phase::Rejected, Reason::AlreadyExecuted).await;
}

#[tokio::test]
async fn a_receipt_is_the_record_and_only_says_anew_which_was_the_last() {
    let case = Case::new().await;
    apply(&case, "x", "say hello", 0).await;
    case.gone("x").await;
    let [receipt] = &all_receipts(&case).await[..] else { panic!("one receipt") };
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        receipts(&case).patch(&receipt.name_any(), &PatchParams::default(), &patch).await.map(drop)
    };
    for change in [
        json!({"uid": "another"}),
        json!({"phase": "Failed"}),
        json!({"exitCode": null}),
        json!({"requestedBy": {"username": "another"}}),
        json!({"rule": null}),
        json!({"argvDigest": null}),
        json!({"machineUid": "another"}),
    ] {
        match patch(change.clone()).await {
            Err(kube::Error::Api(status)) => assert!(status.message.contains("the record"), "{}", status.message),
            other => panic!("{change} was not refused: {other:?}"),
        }
    }
    patch(json!({"expiredUid": "another"})).await.expect("it may change");
}

#[tokio::test]
async fn where_a_namespace_has_all_receipts_that_it_may_have_executions_stay() {
    let mut case = Case::with(world(), SshdOptions::default(), &["--receipt-limit", "2"]).await;
    for index in 0..6 {
        apply(&case, &format!("x-{index}"), "say hello", 1).await;
    }
    let executions = case.executions();
    let left = async || executions.list(&ListParams::default()).await.expect("a list").items;
    until(&case, "down to four", async || left().await.len() == 4).await;
    until(&case, "said", async || case.events("ReceiptLimitReached").await > 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((left().await.len(), all_receipts(&case).await.len()), (4, 2));
    assert!(case.log().contains("--receipt-limit"), "{}", case.log());
    // A user may delete a remaining execution. This deletion needs no receipt.
    let stays = left().await.first().expect("four").name_any();
    delete(&case, &stays).await;
    let [one, _] = &all_receipts(&case).await[..] else { panic!("two receipts") };
    receipts(&case).delete(&one.name_any(), &DeleteParams::default()).await.expect("deleted");
    case.kill_writ();
    case.start_writ();
    until(&case, "down to two", async || left().await.len() == 2).await;
    assert_eq!(all_receipts(&case).await.len(), 2);
}

#[tokio::test]
async fn what_a_quota_of_receipts_refuses_stays_and_it_is_said() {
    let case = Case::new().await;
    let hard = json!({"spec": {"hard": {"count/executionreceipts.writ.dev": "0"}}});
    case.apply("v1", "ResourceQuota", "receipts", hard).await;
    // The laboratory runs no quota controller, so the test writes the quota's status.
    let status = r#"{"status":{"hard":{"count/executionreceipts.writ.dev":"0"},"used":{"count/executionreceipts.writ.dev":"0"}}}"#;
    let patch = ["patch", "resourcequota", "receipts", "--subresource=status", "--type=merge", "-p", status];
    case.world.kubectl_succeeds(&[&patch[..], &["-n", &case.namespace]].concat());
    apply(&case, "x", "say hello", 1).await;
    until(&case, "said", async || case.events("ReceiptRefused").await > 0).await;
    assert!(case.executions().get_opt("x").await.expect("an answer").is_some());
    assert!(all_receipts(&case).await.is_empty());
}

#[tokio::test]
async fn a_name_that_the_api_server_made_up_leaves_no_receipt() {
    let case = Case::new().await;
    let mut execution = CommandExecution::new("", case.execute("model", "say hello").await.spec);
    execution.metadata = ObjectMeta { generate_name: Some("backup-".to_owned()), ..ObjectMeta::default() };
    execution.spec.ttl_seconds_after_finished = Some(1);
    execution.spec.requested_by = None;
    let created = case.executions().create(&PostParams::default(), &execution).await.expect("created");
    case.gone(&created.name_any()).await;
    assert!(all_receipts(&case).await.is_empty());
    assert_eq!(case.ledger().len(), 2);
}

/// User of `writ serve` in tests that remove rights. The rights of the chart's ServiceAccount apply to the whole
/// cluster, so other tests need them.
const LIMITED: &str = "limited-operator";

/// Restarts the case's `writ serve` as a user with the same rights, in this namespace alone.
async fn as_limited_operator(case: &mut Case) {
    give_rights(case, true).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writ-operator-credentials"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": LIMITED}],
    });
    case.apply(&format!("{group}/v1"), "RoleBinding", "limited-credentials", binding).await;
    let user = format!("--user={LIMITED}");
    // Another test may have created these bindings.
    for (kind, name, role) in [
        ("rolebinding", "limited-holder", "writ-operator-holder"),
        ("clusterrolebinding", "limited", "writ-operator-admission"),
    ] {
        case.world.kubectl(&["create", kind, name, &format!("--clusterrole={role}"), &user, "-n", HOME]);
    }
    case.kill_writ();
    case.kubeconfig = case.world.control_plane.kubeconfig_for(LIMITED, None).expect("a kubeconfig");
    case.start_writ();
}

/// Gives the operator all of its rights. If `with_receipts` is false, the rights for receipts are missing.
async fn give_rights(case: &Case, with_receipts: bool) {
    let group = "rbac.authorization.k8s.io";
    let role = case.world.kubectl_succeeds(&["get", "clusterrole", "writ-operator", "-o", "json"]);
    let mut rules = serde_json::from_str::<Value>(&role).expect("JSON")["rules"].take();
    let rules = rules.as_array_mut().expect("rules");
    rules.retain(|rule| with_receipts || rule["resources"] != json!(["executionreceipts"]));
    case.apply(&format!("{group}/v1"), "Role", "writ-here", json!({"rules": rules})).await;
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "writ-here"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": LIMITED}],
    });
    case.apply(&format!("{group}/v1"), "RoleBinding", "writ-here", binding).await;
    let who = format!("--as={LIMITED}");
    let question = ["auth", "can-i", "get", "executionreceipts.writ.dev", &who, "-n", &case.namespace];
    let answer: &[u8] = if with_receipts { b"yes\n" } else { b"no\n" };
    until(case, "in force", async || case.world.kubectl(&question).stdout == answer).await;
}

#[tokio::test]
async fn while_receipts_cannot_be_read_nothing_runs_and_it_is_said() {
    let mut case = Case::new().await;
    as_limited_operator(&mut case).await;
    apply(&case, "x", "say hello", 1).await;
    case.gone("x").await;
    give_rights(&case, false).await;
    apply(&case, "x", "say hello", 3600).await;
    apply(&case, "new", "say hello", 3600).await;
    let is_said = |status: &CommandExecutionStatus| status.reason == Some(Reason::ReceiptUnreadable);
    for name in ["x", "new"] {
        let status = case.until(name, "said to wait", is_said).await;
        assert_eq!(status.phase, Phase::Pending);
    }
    case.execute_with("urgent", json!({"command": "say hello", "startingDeadlineSeconds": 1})).await;
    case.ends("urgent", Phase::Expired, Reason::ReceiptUnreadable).await;
    assert_eq!(case.ledger().len(), 1);
    give_rights(&case, true).await;
    case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
    case.ends("new", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn where_there_is_no_such_kind_nothing_runs_and_writ_does_not_start() {
    let own = World::without_stamping();
    let mut case = Case::with(own.clone(), SshdOptions::default(), &[]).await;
    // Without the admission policy, only Writ adds the finalizer. Without the finalizer, Writ would not notice that a
    // user deletes the execution.
    apply(&case, "x", "say hello", 1).await;
    case.gone("x").await;
    apply(&case, "x", "say hello", 3600).await;
    case.ends("x", Phase::Succeeded, Reason::AlreadyExecuted).await;
    delete(&case, "x").await;
    assert!(all_receipts(&case).await.is_empty());
    let definition = "customresourcedefinition/executionreceipts.writ.dev";
    own.kubectl_succeeds(&["delete", definition, "--wait"]);
    apply(&case, "x", "say hello", 3600).await;
    case.until("x", "said to wait", |status| status.reason == Some(Reason::ReceiptUnreadable)).await;
    assert_eq!(case.ledger().len(), 1);
    case.kill_writ();
    case.start_writ();
    assert!(!case.writ_ended().await.success());
    assert!(case.log().contains("the CRDs are not installed"), "{}", case.log());
    own.kubectl_succeeds(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/crds/executionreceipts.yaml")]);
    own.kubectl_succeeds(&["wait", "--for=condition=Established", definition, "--timeout=60s"]);
    case.start_writ();
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn what_says_no_time_to_live_has_the_default_and_none_goes_before_the_minimum() {
    let flags = ["--default-ttl-seconds", "1", "--minimum-retention-seconds", "4"];
    let case = Case::with(world(), SshdOptions::default(), &flags).await;
    case.execute("default", "say hello").await;
    apply(&case, "long", "say hello", 3600).await;
    let ended = case.ends("default", Phase::Succeeded, Reason::Completed).await.completion_time.expect("an end").0;
    case.ends("long", Phase::Succeeded, Reason::Completed).await;
    let is_marked = async |name: &str| {
        let execution = case.executions().get(name).await.expect("it is there");
        execution.annotations().get(RETENTION_OVER_ANNOTATION).is_some_and(|value| value == "true")
    };
    assert!(!is_marked("long").await);
    case.gone("default").await;
    let lived = jiff::Timestamp::now().duration_since(ended);
    assert!(lived.as_millis() >= 4000, "it was deleted after {lived:?}");
    until(&case, "marked", async || is_marked("long").await).await;
}

/// Main guarantee of the receipts: a pipeline that applies manifests again and again runs each command once.
#[tokio::test]
async fn manifests_that_are_applied_fifty_times_run_each_of_their_commands_once() {
    let case = Case::new().await;
    let manifests = [("hello", "say hello", 0), ("failing", "exit-three", 1), ("denied", "rm -rf /", 0)];
    for turn in 0..50 {
        for (name, command, ttl) in manifests {
            apply(&case, name, command, ttl).await;
        }
        // In every second turn, `hello` is deleted before the next apply. In the other turns, it may be in any phase.
        if turn % 2 == 0 {
            case.gone("hello").await;
        }
    }
    for (name, ..) in manifests {
        case.gone(name).await;
    }
    let mut ledger = case.ledger();
    ledger.sort();
    ledger.dedup();
    assert_eq!((case.ledger().len(), ledger.len()), (2, 2), "{:?}", case.ledger());
    assert_eq!(all_receipts(&case).await.len(), 3);
}
