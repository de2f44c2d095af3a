//! Records that a user tries to remove: the time for which Writ keeps them, and the lines about each execution in the
//! log.

use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::{SshdOptions, User};
use crate::protection::{create, executions, root, with_role};
use crate::world::{CHART, World};

/// Uses the default of the chart: 86400 s, one day.
#[tokio::test]
async fn a_record_is_kept_for_a_day_unless_the_rule_that_allowed_it_says_otherwise() {
    let own = World::start();
    let rendered = own.helm_succeeds(&["template", "writ", CHART]);
    assert!(rendered.contains("--minimum-retention-seconds=86400"), "{rendered}");
    own.upgrade(&["--set", "serve.minimumRetentionSeconds=86400"]);
    let case = Case::with(own.clone(), SshdOptions::default(), &["--minimum-retention-seconds=86400"]).await;
    let rule = |name: &str, seconds: u32| json!({"name": name, "match": name, "run": ["/bin/echo", name], "minimumRetentionSeconds": seconds});
    case.apply_whitelist("short", json!([rule("at-once", 0), rule("soon", 3)])).await;
    let root = root(&case).await;
    let run = async |name: &str, command: &str| {
        let metadata = if name.ends_with('-') { json!({"generateName": name}) } else { json!({"name": name}) };
        create(&case, &root, metadata, command).await.expect("created").name_any()
    };
    let erased = |command: &str| json!({"command": command, "ttlSecondsAfterFinished": 0});
    case.execute_with("kept", erased("say hello")).await;
    case.execute_with("refused", erased("rm -rf /")).await;
    case.execute_with("gone", erased("at-once")).await;
    let (made_up, at_once, soon) =
        (run("made-up-", "say hello").await, run("at-once", "at-once").await, run("soon", "soon").await);
    case.gone("gone").await;
    for name in ["kept", &made_up, &at_once, &soon] {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
    case.ends("refused", Phase::Rejected, Reason::NoMatchingRule).await;
    let delete = async |name: &str| executions(&case, &root).delete(name, &DeleteParams::default()).await;
    for (name, words) in [("kept", "86400 s"), (made_up.as_str(), "86400 s"), ("refused", "300 s")] {
        match delete(name).await {
            Err(kube::Error::Api(status)) => assert!(status.message.contains(words), "{}", status.message),
            other => panic!("{name} was not kept: {other:?}"),
        }
    }
    // Argo CD deletes like this with BeforeHookCreation. The rule has `minimumRetentionSeconds: 0`.
    delete(&at_once).await.expect("the rule says so");
    case.gone(&at_once).await;
    let started = Instant::now();
    while let Err(error) = delete(&soon).await {
        assert!(started.elapsed() < Duration::from_secs(60), "{error}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    case.gone(&soon).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in ["kept", &made_up, "refused"] {
        let there = case.executions().get_opt(name).await.expect("an answer").expect("it is kept");
        assert!(there.metadata.deletion_timestamp.is_none(), "{name}");
    }
}

#[tokio::test]
async fn the_log_says_of_each_claim_and_each_end_who_asked_for_what_by_which_rule_and_where() {
    let case = Case::new().await;
    let jane = with_role(&case, User::Jane, "writ-requester").await;
    let mismatch = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    case.apply_machine("wrong", json!({"hostKeys": [mismatch]})).await;
    let ask = async |name: &str, machine: &str, spec: serde_json::Value| {
        let resource = kube::discovery::ApiResource::erase::<writ::api::CommandExecution>(&());
        let mut spec = spec;
        spec["machineRef"] = json!({"name": machine});
        let object = kube::core::DynamicObject::new(name, &resource).data(json!({"spec": spec}));
        let api: kube::Api<kube::core::DynamicObject> =
            kube::Api::namespaced_with(jane.clone(), &case.namespace, &resource);
        api.create(&kube::api::PostParams::default(), &object).await.expect("created").uid().expect("a UID")
    };
    let uids = [
        ask("ran", "web-1", json!({"command": "say hello"})).await,
        ask("rejected", "web-1", json!({"argv": ["/bin/rm", "-rf", "/"]})).await,
        ask("failed", "wrong", json!({"command": "say hello"})).await,
        ask("cancelled", "web-1", json!({"command": "sleep-long"})).await,
    ];
    case.in_phase("cancelled", Phase::Running).await;
    let cancel = kube::api::Patch::Merge(json!({"spec": {"cancelRequested": true}}));
    executions(&case, &jane).patch("cancelled", &Default::default(), &cancel).await.expect("cancelled");
    let ran = case.ends("ran", Phase::Succeeded, Reason::Completed).await;
    case.ends("rejected", Phase::Rejected, Reason::NoMatchingRule).await;
    case.ends("failed", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    case.ends("cancelled", Phase::Cancelled, Reason::Stopped).await;
    let digest =
        |argv: &[&str]| writ::execution::argv_digest(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let decided = ran.decision.expect("a decision").argv;
    let decided = writ::execution::argv_digest(&decided);
    let machine = |uid: &str| format!("machine_uid=\"{uid}\"");
    let api: kube::Api<writ::api::Machine> = kube::Api::namespaced(case.client.clone(), &case.namespace);
    let (web, wrong) = (
        machine(&api.get("web-1").await.expect("a Machine").uid().expect("a UID")),
        machine(&api.get("wrong").await.expect("a Machine").uid().expect("a UID")),
    );
    let lines = [
        ("execution claimed", &uids[0], vec!["rule=\"hello\"", "whitelist=\"web\"", &decided, &web]),
        ("execution finished", &uids[0], vec!["rule=\"hello\"", "whitelist=\"web\"", &decided, &web, "Succeeded"]),
        ("execution finished", &uids[1], vec!["Rejected", &web]),
        ("execution finished", &uids[2], vec!["LaunchFailed", "machine=\"wrong\"", &wrong]),
        ("execution finished", &uids[3], vec!["canceller=\"jane\"", "Cancelled", &web]),
    ];
    let asked = digest(&["/bin/rm", "-rf", "/"]);
    let log = case.log();
    for (what, uid, mut words) in lines {
        words.extend(["requester=\"jane\"", "machine="]);
        if *uid == uids[1] {
            words.push(&asked);
        }
        let line = log.lines().find(|line| line.contains(what) && line.contains(uid.as_str()));
        let line = line.unwrap_or_else(|| panic!("there is no line {what} of {uid}:\n{log}"));
        for word in words {
            assert!(line.contains(word), "{word} is not in: {line}");
        }
    }
}
