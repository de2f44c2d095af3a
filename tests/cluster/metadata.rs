//! Metadata are input: anyone with the right to patch executions can write them. The admission policies limit their
//! size. The metadata that Writ reads stay as they were at the creation. Only the requester or a user on call may
//! cancel an execution.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use writ::api::{CommandExecution, ExecutionReceipt, Phase, Reason};

use crate::case::Case;
use crate::lab::{SshdOptions, User};
use crate::protection::{create, executions, root, with_role};
use crate::world::World;

/// Returns the message of a refusal. Panics if no admission policy of Writ refused the request.
#[track_caller]
fn refused<T>(what: &str, result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) && status.message.contains("writ-") => {
            status.message.clone()
        }
        Err(error) => panic!("{what} is not refused by a policy: {error}"),
        Ok(_) => panic!("{what} is not refused"),
    }
}

async fn patch(case: &Case, client: &Client, name: &str, change: Value) -> Result<CommandExecution, kube::Error> {
    executions(case, client).patch(name, &PatchParams::default(), &Patch::Merge(change)).await
}

fn numbered(count: usize, start: &str, value: &str) -> Value {
    let name = |index: usize| format!("{start}{index:02}");
    Value::Object((0..count).map(|index| (name(index), json!(value))).collect())
}

/// Returns metadata that exceed each bound, with the words that the refusal must contain.
fn over_bounds() -> Vec<(Value, &'static str)> {
    let finalizers: Vec<String> = (0..17).map(|index| format!("example.org/hold-{index}")).collect();
    let domain = ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join(".");
    let long: Vec<String> = (0..16).map(|index| format!("{domain}/hold-{index}")).collect();
    vec![
        (json!({"labels": numbered(65, "n", "v")}), "metadata.labels"),
        (
            json!({"labels": numbered(64, &format!("example.org/{}", "n".repeat(60)), &"v".repeat(63))}),
            "metadata.labels",
        ),
        (json!({"annotations": numbered(65, "n", "v")}), "metadata.annotations"),
        (json!({"annotations": numbered(64, &format!("example.org/{}", "n".repeat(60)), "v")}), "metadata.annotations"),
        (json!({"annotations": {"big": "v".repeat(131_072)}}), "metadata.annotations"),
        // The policy counts bytes, not characters.
        (json!({"annotations": {"big": "\u{20ac}".repeat(43_700)}}), "metadata.annotations"),
        (json!({"finalizers": finalizers}), "metadata.finalizers"),
        (json!({"finalizers": long}), "metadata.finalizers"),
    ]
}

#[tokio::test]
async fn metadata_have_bounds_for_whoever_writes_them_and_what_is_over_them_already_may_stay() {
    let case = Case::new().await;
    let (root, jane) = (root(&case).await, with_role(&case, User::Jane, "writ-requester").await);
    case.execute("x", "sleep-long").await;
    for (index, (metadata, words)) in over_bounds().into_iter().enumerate() {
        let mut created = metadata.clone();
        created["name"] = json!(format!("new-{index}"));
        let refusal = refused(words, create(&case, &jane, created, "say hello").await);
        assert!(refusal.contains(words), "{words} is not in: {refusal}");
        for client in [&root, &jane] {
            let refusal = refused(words, patch(&case, client, "x", json!({"metadata": metadata.clone()})).await);
            let is_told = refusal.contains(words) || refusal.contains("only its requester puts a finalizer");
            assert!(is_told, "{words} is not in: {refusal}");
        }
        // The bounds also apply to Machines and Whitelists, because their size takes memory from all users.
        for (kind, name) in [("Machine", "web-1"), ("Whitelist", "web")] {
            let annotation = metadata.pointer("/annotations/big").is_some();
            let kind = kube::core::GroupVersionKind::gvk("writ.dev", "v1alpha1", kind);
            let api: Api<DynamicObject> =
                Api::namespaced_with(root.clone(), &case.namespace, &ApiResource::from_gvk(&kind));
            let change = Patch::Merge(json!({"metadata": metadata.clone()}));
            let changed = api.patch(name, &PatchParams::default().dry_run(), &change).await;
            match annotation {
                // `kubectl apply` stores the whole Whitelist in an annotation. So the policy accepts annotations of any
                // size that Kubernetes accepts.
                true => drop(changed.expect("taken")),
                false => assert!(refused(words, changed).contains(words)),
            }
        }
    }
    appliers_are_bounded(&case, &jane).await;
    // The CRD limits the only other input of any size: the names in maps.
    let name = "n".repeat(64);
    for spec in [
        json!({"command": "say hello", "environment": {name.clone(): "v"}}),
        json!({"rule": {"name": "hello", "parameters": {name.clone(): "v"}}}),
    ] {
        let Err(kube::Error::Api(status)) = case.try_execute("named", spec).await else { panic!("not refused") };
        assert!(status.message.contains("at most 63 characters"), "{}", status.message);
    }
    // The administrator is exempt and exceeds the bound. Other users cannot add more, but every other change still
    // works.
    patch(&case, &case.client, "x", json!({"metadata": {"labels": numbered(100, "n", "v")}})).await.expect("exempt");
    refused("more", patch(&case, &root, "x", json!({"metadata": {"labels": {"one": "more"}}})).await);
    patch(&case, &root, "x", json!({"metadata": {"labels": {"n01": null}}})).await.expect("one less");
    patch(&case, &root, "x", json!({"spec": {"cancelRequested": true}})).await.expect("cancelled");
    case.ends("x", Phase::Cancelled, Reason::Stopped).await;
    // A write to the status subresource changes no metadata.
    let forged = Patch::Merge(json!({"metadata": {"annotations": {"writ.dev/x": "y"}, "generateName": "x-"}}));
    let patched = case.executions().patch_status("x", &PatchParams::default(), &forged).await.expect("no change");
    assert_eq!((patched.metadata.annotations, patched.metadata.generate_name), (None, None));
}

/// Checks the limit on field managers. Each name under which a client applies leaves an entry, which the API server
/// never removes.
async fn appliers_are_bounded(case: &Case, jane: &Client) {
    let apply = async |manager: &str| {
        let object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": "x", "labels": {"ticket": "7"}}});
        executions(case, jane).patch("x", &PatchParams::apply(manager).force(), &Patch::Apply(&object)).await
    };
    for index in 0..8 {
        apply(&format!("manager-{index}")).await.expect("applied");
    }
    let refusal = refused("one more", apply("one-more").await);
    assert!(refusal.contains("metadata.managedFields"), "{refusal}");
    apply("manager-3").await.expect("one that is there");
    patch(case, jane, "x", json!({"metadata": {"labels": {"ticket": "8"}}})).await.expect("one that does not apply");
}

/// A manifest with all metadata that common tools add.
#[tokio::test]
async fn what_tools_put_into_metadata_fits() {
    let case = Case::new().await;
    let path = case.sshd.home().join("large.json");
    let file = path.to_str().expect("UTF-8");
    let words: Vec<String> = (0..24).map(|_| "x".repeat(4096)).collect();
    let labels = json!({"app.kubernetes.io/managed-by": "Helm", "kustomize.toolkit.fluxcd.io/name": "machines",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system", "helm.toolkit.fluxcd.io/name": "machines"});
    let annotations = json!({"argocd.argoproj.io/tracking-id": "web:writ.dev/CommandExecution:ops/large",
        "argocd.argoproj.io/hook": "PreSync", "meta.helm.sh/release-name": "machines",
        "helm.sh/hook": "pre-upgrade", "kustomize.toolkit.fluxcd.io/checksum": "0".repeat(64)});
    let finalizers = ["argocd.argoproj.io/hook-finalizer", "foregroundDeletion", "example.org/hold"];
    let object = json!({
        "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
        "metadata": {"name": "large", "labels": labels, "annotations": annotations, "finalizers": finalizers},
        "spec": {"machineRef": {"name": "web-1"}, "argv": words, "reason": "\u{20ac}".repeat(1024)},
    });
    std::fs::write(&path, object.to_string()).expect("a manifest");
    let who = format!("root-of-{}", case.namespace);
    root(&case).await;
    for flags in [&["apply"][..], &["apply"], &["apply", "--server-side", "--force-conflicts"]] {
        case.world.kubectl_succeeds(&[flags, &["-n", &case.namespace, "--as", &who, "-f", file]].concat());
    }
    case.ends("large", Phase::Rejected, Reason::NoMatchingRule).await;
}

#[tokio::test]
async fn what_was_so_at_the_creation_cannot_be_changed_by_metadata() {
    let mut case = Case::new().await;
    let (root, jane) = (root(&case).await, with_role(&case, User::Jane, "writ-requester").await);
    case.kill_writ();
    create(&case, &root, json!({"name": "x-x7k2p"}), "say hello").await.expect("created");
    let again = json!({"name": "y", "annotations": {"writ.dev/run-again": "true"}});
    create(&case, &root, again, "say hello").await.expect("created");
    // Writ has not written the first status yet.
    for client in [&root, &jane] {
        for (name, metadata, words) in [
            ("x-x7k2p", json!({"generateName": "x-"}), "generateName"),
            ("x-x7k2p", json!({"annotations": {"writ.dev/restored": "true"}}), "writ.dev/*"),
            ("x-x7k2p", json!({"annotations": {"writ.dev/run-again": "true"}}), "writ.dev/*"),
            ("x-x7k2p", json!({"annotations": {"writ.dev/anything": ""}}), "writ.dev/*"),
            ("y", json!({"annotations": {"writ.dev/run-again": "false"}}), "writ.dev/*"),
        ] {
            let refusal = refused(words, patch(&case, client, name, json!({"metadata": metadata})).await);
            assert!(refusal.contains(words), "{words} is not in: {refusal}");
        }
        // The API server restores metadata that the client leaves out.
        let bare = json!({"metadata": {"annotations": null, "finalizers": null}});
        let kept = patch(&case, client, "y", bare).await.expect("put back").metadata;
        assert_eq!(kept.annotations.expect("kept").get("writ.dev/run-again").map(String::as_str), Some("true"));
        assert_eq!(kept.finalizers.as_deref(), Some(&["writ.dev/audit".to_owned()][..]));
    }
    case.start_writ();
    for name in ["x-x7k2p", "y"] {
        let status = case.ends(name, Phase::Succeeded, Reason::Completed).await;
        let creation = status.creation.expect("what was so at the creation");
        assert_eq!((creation.name_generated, creation.restored_copy, creation.run_again), (false, false, name == "y"));
    }
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn a_name_that_is_made_up_from_a_manifest_that_is_kept_stays_one_that_is_kept() {
    let mut case = Case::new().await;
    let root = root(&case).await;
    case.kill_writ();
    let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let metadata = json!({"name": "m-x7k2p", "generateName": "m-", "annotations": applied});
    create(&case, &root, metadata, "say hello").await.expect("created");
    let bare = json!({"metadata": {"annotations": null}});
    assert!(refused("its trace", patch(&case, &root, "m-x7k2p", bare).await).contains("may come again"));
    case.start_writ();
    let status = case.ends("m-x7k2p", Phase::Succeeded, Reason::Completed).await;
    assert!(!status.creation.expect("what was so at the creation").name_generated);
}

/// Simulates a cluster without the guards: the administrator is exempt from them.
#[tokio::test]
async fn metadata_that_somebody_changed_all_the_same_switch_no_receipt_off_and_cancel_nothing() {
    let case = Case::new().await;
    let spec = || json!({"command": "say hello", "ttlSecondsAfterFinished": 4});
    let first = case.execute_with("migrate-x7k2p", spec()).await.metadata.uid;
    case.ends("migrate-x7k2p", Phase::Succeeded, Reason::Completed).await;
    let forged = json!({"metadata": {"generateName": "migrate-"}});
    patch(&case, &case.client, "migrate-x7k2p", forged).await.expect("exempt");
    case.gone("migrate-x7k2p").await;
    case.execute_with("migrate-x7k2p", json!({"command": "say hello", "ttlSecondsAfterFinished": 3600})).await;
    let status = case.ends("migrate-x7k2p", Phase::Succeeded, Reason::AlreadyExecuted).await;
    assert_eq!(status.first_execution.map(|first| first.uid), first);
    assert_eq!(case.ledger().len(), 1);
    let receipts: Api<ExecutionReceipt> = Api::namespaced(case.client.clone(), &case.namespace);
    let [receipt] = &receipts.list(&Default::default()).await.expect("receipts").items[..] else { panic!("one") };
    let spec = &receipt.spec;
    assert_eq!(spec.requested_by.as_ref().map(|requester| requester.username.as_str()), Some("admin"));
    assert_eq!((spec.whitelist.as_deref(), spec.rule.as_deref()), (Some("web"), Some("hello")));
    assert!(spec.argv_digest.is_some() && spec.machine_uid.is_some());
    // A queued execution that is marked as a copy.
    case.sshd.stop();
    case.execute("waits", "say hello").await;
    case.in_phase("waits", Phase::Queued).await;
    let mark = json!({"metadata": {"annotations": {"writ.dev/restored": "true"}}});
    patch(&case, &case.client, "waits", mark).await.expect("exempt");
    case.sshd.restart().expect("sshd starts again");
    case.ends("waits", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn one_cancels_ones_own_and_who_is_on_call_cancels_everybodys() {
    let case = Case::new().await;
    let (jane, mallory) =
        (with_role(&case, User::Jane, "writ-requester").await, with_role(&case, User::Mallory, "writ-pipeline").await);
    let cancel = || json!({"spec": {"cancelRequested": true}});
    for name in ["a", "b"] {
        create(&case, &jane, json!({"name": name}), "sleep-long").await.expect("created");
        case.in_phase(name, Phase::Running).await;
    }
    let refusal = refused("another's", patch(&case, &mallory, "a", cancel()).await);
    assert!(refusal.contains("jane's") && refusal.contains("writ-on-call"), "{refusal}");
    let lie = json!({"spec": {"cancelRequested": true, "requestedBy": {"username": "mallory"}}});
    refused("another's", patch(&case, &mallory, "a", lie).await);
    // A user with the same name and another UID is a different user.
    let path = case.sshd.home().join("c.json");
    let object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": "c"},
        "spec": {"machineRef": {"name": "web-1"}, "command": "sleep-long"}});
    std::fs::write(&path, object.to_string()).expect("a manifest");
    let file = path.to_str().expect("UTF-8");
    let own = ["-n", &case.namespace, "--as", "jane"];
    case.world.kubectl_succeeds(&[&["create", "-f", file, "--as-uid", "1"][..], &own].concat());
    let kubectl = |uid: &[&str]| {
        let patch = ["patch", "cmdexec", "c", "--type=merge", "-p", r#"{"spec":{"cancelRequested":true}}"#];
        case.world.kubectl(&[&patch[..], &own, uid].concat())
    };
    let other = kubectl(&["--as-uid", "2"]);
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("jane's"), "{other:?}");
    assert!(kubectl(&["--as-uid", "1"]).status.success());
    patch(&case, &jane, "a", cancel()).await.expect("one's own");
    case.ends("a", Phase::Cancelled, Reason::Stopped).await;
    let on_call = with_role(&case, User::Mallory, "writ-on-call").await;
    let started = std::time::Instant::now();
    let cancelled = loop {
        // RBAC rights take effect a moment after they are stored.
        match patch(&case, &on_call, "b", cancel()).await {
            Ok(cancelled) => break cancelled,
            Err(error) => assert!(started.elapsed().as_secs() < 30, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(cancelled.spec.cancelled_by.expect("a canceller").username, "mallory");
    case.ends("b", Phase::Cancelled, Reason::Stopped).await;
}

/// On Kubernetes 1.31 to 1.35, the policies can refuse a change but cannot restore metadata.
#[tokio::test]
async fn where_the_api_server_can_only_refuse_metadata_stay_as_they_were_too() {
    let world = World::without_stamping();
    // Without stamping by the API server, the chart installs no gateway.
    world.upgrade(&["--set", "admission.stamping=validate,gateway.enabled=false"]);
    let case = Case::with(world.clone(), SshdOptions::default(), &[]).await;
    let (root, jane) = (root(&case).await, with_role(&case, User::Jane, "writ-requester").await);
    // Admission policies take effect a moment after they are stored.
    let restored = || json!({"name": "probe", "annotations": {"writ.dev/restored": "true"}});
    let started = std::time::Instant::now();
    while create(&case, &root, restored(), "say hello").await.is_ok() {
        assert!(started.elapsed().as_secs() < 30, "the policies are not in force");
        executions(&case, &case.client).delete("probe", &Default::default()).await.expect("deleted");
        case.gone("probe").await;
    }
    let again = json!({"name": "x", "annotations": {"writ.dev/run-again": "true"}});
    create(&case, &jane, again, "sleep-long").await.expect("created");
    case.in_phase("x", Phase::Running).await;
    for (metadata, words) in over_bounds() {
        let refusal = refused(words, patch(&case, &root, "x", json!({"metadata": metadata})).await);
        // A client that replaces the finalizers also removes Writ's finalizer. The API server may refuse the request
        // for that reason.
        assert!(refusal.contains(words) || words == "metadata.finalizers", "{words} is not in: {refusal}");
    }
    for metadata in [
        json!({"generateName": "x-"}),
        json!({"annotations": {"writ.dev/restored": "true"}}),
        json!({"annotations": {"writ.dev/run-again": null}}),
        json!({"finalizers": null}),
    ] {
        refused("a change", patch(&case, &jane, "x", json!({"metadata": metadata})).await);
    }
    // The execution names no requester, so only a user on call may cancel it.
    let refusal = refused("nobody's", patch(&case, &jane, "x", json!({"spec": {"cancelRequested": true}})).await);
    assert!(refusal.contains("names nobody"), "{refusal}");
    let object = DynamicObject::new("own", &ApiResource::erase::<CommandExecution>(&())).data(json!({"spec": {
        "machineRef": {"name": "web-1"}, "command": "sleep-long",
        "requestedBy": {"username": "jane", "uid": "", "groups": ["sre", "system:authenticated"]}}}));
    let api: Api<DynamicObject> =
        Api::namespaced_with(jane.clone(), &case.namespace, &ApiResource::erase::<CommandExecution>(&()));
    api.create(&PostParams::default(), &object).await.expect("created");
    case.in_phase("own", Phase::Running).await;
    patch(&case, &jane, "own", json!({"spec": {"cancelRequested": true}})).await.expect("one's own");
    patch(&case, &root, "x", json!({"spec": {"cancelRequested": true}})).await.expect("everything is root's");
    case.ends("own", Phase::Cancelled, Reason::Stopped).await;
    case.ends("x", Phase::Cancelled, Reason::Stopped).await;
}
