//! Age of the facts by which a command starts. Writ decides early by facts that can be outdated. Before the claim, it
//! confirms them, so that an outdated fact starts nothing. In these tests, the watches hang.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use writ::api::{Phase, Reason};
use writ::cluster::MAX_LIST_AGE;

use crate::case::Case;
use crate::lab::{SshdOptions, asked};
use crate::proxy::{Fate, Proxy};
use crate::world::World;

/// Records each greeting in the file `greeted`.
const PROGRAM: &str = "#!/bin/sh\necho \"$1\" >> \"$HOME/greeted\"\n";

fn program(case: &Case) -> PathBuf {
    case.sshd.home().join("greet")
}

fn greet(case: &Case) -> Value {
    json!({"name": "greet", "match": "greet {who}", "run": [program(case), "{who}"],
        "parameters": {"who": {"enum": ["alice", "bob"]}}})
}

fn deny_bob(case: &Case) -> Value {
    json!([{"name": "no-bob", "effect": "Deny", "run": [program(case), "bob"]}])
}

/// Rules that affect no command of these tests.
fn nothing() -> Value {
    json!([{"name": "nothing", "effect": "Deny", "run": ["/bin/false"]}])
}

/// Returns a case in which one command has run, and whose watches of these resources hang. A connection to the machine
/// is therefore open, and the Whitelists are known.
async fn warm_case(flags: &[&str], hanging: &[&str]) -> (Case, Proxy) {
    let mut case = Case::durable_with(SshdOptions::default(), flags).await;
    std::fs::write(program(&case), PROGRAM).expect("a program on the machine");
    std::fs::set_permissions(program(&case), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    case.apply_whitelist("greet", json!([greet(&case)])).await;
    let proxy = Proxy::start(&case.world, Vec::new()).await;
    hanging.iter().for_each(|resource| proxy.hang_watches_of(resource));
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    case.execute("warm", "greet alice").await;
    case.ends("warm", Phase::Succeeded, Reason::Completed).await;
    (case, proxy)
}

/// Returns the number of times that the machine greeted bob.
fn greeted_bob(case: &Case) -> usize {
    let greeted = std::fs::read_to_string(case.sshd.home().join("greeted")).expect("at least one greeting");
    greeted.lines().filter(|who| *who == "bob").count()
}

#[tokio::test]
async fn a_changed_or_deleted_rule_counts_at_once_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&[], &["whitelists"]).await;
    for round in 0..5 {
        case.apply_whitelist("freeze", nothing()).await;
        case.execute(&format!("before-{round}"), "greet bob").await;
        case.ends(&format!("before-{round}"), Phase::Succeeded, Reason::Completed).await;
        tokio::time::sleep(MAX_LIST_AGE).await;
        case.apply_whitelist("freeze", deny_bob(&case)).await;
        case.execute(&format!("denied-{round}"), "greet bob").await;
        case.ends(&format!("denied-{round}"), Phase::Rejected, Reason::Denied).await;
    }
    assert_eq!(greeted_bob(&case), 5);
    case.apply_whitelist("freeze", nothing()).await;
    case.execute("again", "greet bob").await;
    case.ends("again", Phase::Succeeded, Reason::Completed).await;
    case.whitelists().delete("greet", &DeleteParams::default()).await.expect("deleted");
    case.execute("gone", "greet bob").await;
    case.ends("gone", Phase::Rejected, Reason::NoMatchingRule).await;
    assert_eq!(greeted_bob(&case), 6);
}

/// `writ serve` starts other executions meanwhile, so it lists the Whitelists in the background.
#[tokio::test]
async fn a_new_whitelist_counts_after_the_stated_time_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&[], &["whitelists"]).await;
    for round in 0..3 {
        for turn in 0..4 {
            let name = format!("busy-{round}-{turn}");
            case.execute(&name, "greet alice").await;
            case.ends(&name, Phase::Succeeded, Reason::Completed).await;
        }
        case.apply_whitelist(&format!("freeze-{round}"), deny_bob(&case)).await;
        tokio::time::sleep(MAX_LIST_AGE).await;
        case.execute(&format!("denied-{round}"), "greet bob").await;
        case.ends(&format!("denied-{round}"), Phase::Rejected, Reason::Denied).await;
        case.whitelists().delete(&format!("freeze-{round}"), &DeleteParams::default()).await.expect("deleted");
    }
    assert_eq!(greeted_bob(&case), 0);
}

#[tokio::test]
async fn in_strict_mode_a_new_whitelist_counts_at_once_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&["--strict-policy-reads"], &["whitelists"]).await;
    for round in 0..5 {
        case.execute(&format!("busy-{round}"), "greet alice").await;
        case.ends(&format!("busy-{round}"), Phase::Succeeded, Reason::Completed).await;
        case.apply_whitelist(&format!("freeze-{round}"), deny_bob(&case)).await;
        case.execute(&format!("denied-{round}"), "greet bob").await;
        case.ends(&format!("denied-{round}"), Phase::Rejected, Reason::Denied).await;
        case.whitelists().delete(&format!("freeze-{round}"), &DeleteParams::default()).await.expect("deleted");
    }
    assert_eq!(greeted_bob(&case), 0);
}

/// A new Whitelist that allows a command counts for the next execution, because Writ rejects nothing by outdated rules.
#[tokio::test]
async fn nothing_is_rejected_by_outdated_rules_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&[], &["whitelists", "machines"]).await;
    case.apply_whitelist("more", json!([{"name": "more", "match": "more", "run": ["/bin/echo", "more"]}])).await;
    case.execute_with("more", json!({"command": "more", "startingDeadlineSeconds": 0})).await;
    case.ends("more", Phase::Succeeded, Reason::Completed).await;
}

/// The Deny is at every moment in at least one Whitelist: first in `a`, then in both, then in `b` or in a new one.
#[tokio::test]
async fn a_deny_that_moves_between_whitelists_is_never_missed() {
    let (case, _proxy) = warm_case(&[], &["whitelists"]).await;
    case.apply_whitelist("a", deny_bob(&case)).await;
    case.apply_whitelist("b", nothing()).await;
    tokio::time::sleep(MAX_LIST_AGE).await;
    case.execute("first", "greet bob").await;
    case.ends("first", Phase::Rejected, Reason::Denied).await;
    let moving = async {
        for round in 0..20 {
            let new = format!("new-{round}");
            for (from, to) in [("a", "b"), ("b", new.as_str()), (new.as_str(), "a")] {
                case.apply_whitelist(to, deny_bob(&case)).await;
                match from.starts_with("new") {
                    true => drop(case.whitelists().delete(from, &DeleteParams::default()).await.expect("deleted")),
                    false => case.apply_whitelist(from, nothing()).await,
                }
            }
        }
    };
    let executing = async {
        for number in 0.. {
            case.execute(&format!("x{number}"), "greet bob").await;
            case.execute(&format!("y{number}"), "greet alice").await;
            case.ends(&format!("y{number}"), Phase::Succeeded, Reason::Completed).await;
        }
    };
    tokio::select! {
        () = moving => {}
        () = executing => {}
    }
    assert_eq!(greeted_bob(&case), 0);
}

/// Writ decides early with the Machine of the open connection, and reads the Machine before the claim.
#[tokio::test]
async fn a_changed_machine_counts_at_once_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&[], &["machines"]).await;
    let mut rule = greet(&case);
    rule["machineSelector"] = json!({"matchLabels": {"role": "web"}});
    case.apply_whitelist("greet", json!([rule])).await;
    let label = |label: &str| {
        case.world.kubectl_succeeds(&["label", "--overwrite", "-n", &case.namespace, "machine", "web-1", label]);
    };
    for round in 0..3 {
        label("role=web");
        case.execute(&format!("web-{round}"), "greet bob").await;
        case.ends(&format!("web-{round}"), Phase::Succeeded, Reason::Completed).await;
        label("role=db");
        case.execute_with(&format!("db-{round}"), json!({"command": "greet bob", "startingDeadlineSeconds": 0})).await;
        case.ends(&format!("db-{round}"), Phase::Rejected, Reason::NotPermitted).await;
    }
    label("role=web");
    case.apply_machine_with_labels("web-1", json!({"role": "web"}), json!({"suspend": true})).await;
    case.execute("suspended", "greet bob").await;
    assert_eq!(case.in_phase("suspended", Phase::Queued).await.reason, Some(Reason::MachineSuspended));
    assert_eq!(greeted_bob(&case), 3);
}

/// Returns a case whose first claim waits until the test notifies the last value. The value before it is notified when
/// the claim is under way.
async fn case_with_a_late_claim() -> (Case, Proxy, Arc<Notify>, Arc<Notify>) {
    let (held, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::IsHeldBack { held: Arc::clone(&held), go_on: Arc::clone(&go_on) };
    let mut case = Case::new().await;
    let proxy = Proxy::start(&case.world, vec![fate]).await;
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    (case, proxy, held, go_on)
}

/// Writ claims the version of the execution that the watch delivered. A later change makes the claim fail.
#[tokio::test]
async fn an_execution_that_is_cancelled_before_the_claim_starts_nothing() {
    let (case, proxy, held, go_on) = case_with_a_late_claim().await;
    case.execute("x", "say hello").await;
    held.notified().await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    go_on.notify_one();
    case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    assert_eq!((case.ledger(), proxy.fates_left()), (Vec::new(), 0));
}

#[tokio::test]
async fn an_execution_that_is_labelled_before_the_claim_runs_once() {
    let (case, proxy, held, go_on) = case_with_a_late_claim().await;
    case.execute("x", "say hello").await;
    held.notified().await;
    case.world.kubectl_succeeds(&["label", "-n", &case.namespace, "cmdexec", "x", "team=web"]);
    go_on.notify_one();
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!((case.ledger(), proxy.fates_left()), (vec![asked(&["/bin/echo", "hello"])], 0));
}

/// Appends `+` to the file `running` at its start, and `-` at its end.
const SLOW: &str = "#!/bin/sh\nprintf + >> \"$HOME/running\"; sleep 1; printf - >> \"$HOME/running\"\n";

/// Returns the maximum number of commands that ran concurrently, by the machine's own record. Empties the record.
fn most_running(case: &Case) -> usize {
    let record = case.sshd.home().join("running");
    let marks = std::fs::read_to_string(&record).expect("a record");
    std::fs::remove_file(record).expect("removed");
    let (mut running, mut most) = (0_usize, 0);
    for mark in marks.chars() {
        running = if mark == '+' { running + 1 } else { running - 1 };
        most = most.max(running);
    }
    assert_eq!(running, 0, "{marks}");
    most
}

/// Writ gives slots by the limit that it knows. The claim reads the Machine.
#[tokio::test]
async fn a_lower_limit_of_a_machine_counts_at_once_even_if_the_watch_hangs() {
    let (case, _proxy) = warm_case(&[], &["machines"]).await;
    let slow = case.sshd.home().join("slow");
    std::fs::write(&slow, SLOW).expect("a program on the machine");
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    case.apply_whitelist("slow", json!([{"name": "slow", "match": "slow", "run": [slow]}])).await;
    for (limit, expected) in [(8, 2..=8), (1, 1..=1)] {
        let machine = json!({"execution": {"mode": "Durable"}, "maxConcurrent": limit});
        case.apply_machine("web-1", machine).await;
        let names: Vec<String> = (0..5).map(|number| format!("x{limit}-{number}")).collect();
        futures::future::join_all(names.iter().map(|name| case.execute(name, "slow"))).await;
        for name in &names {
            case.ends(name, Phase::Succeeded, Reason::Completed).await;
        }
        let most = most_running(&case);
        assert!(expected.contains(&most), "{most} at once, maxConcurrent is {limit}");
    }
}

/// Without admission policies, Writ itself adds the finalizer, concurrently with the reads for the claim.
#[tokio::test]
async fn an_execution_that_changes_before_it_has_the_finalizer_starts_at_most_once() {
    let own = tokio::task::spawn_blocking(World::without_stamping).await.expect("a world");
    let mut case = Case::with(own, SshdOptions::default(), &[]).await;
    let proxy = Proxy::start(&case.world, Vec::new()).await;
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    // After this execution, Writ knows the rules, so the runner adds the next finalizers.
    case.execute("warm", "say hello").await;
    case.ends("warm", Phase::Succeeded, Reason::Completed).await;
    let ran = asked(&["/bin/echo", "hello"]);
    let started = async |name: &str| {
        let (held, may_continue) = proxy.hold_next_finalizer();
        case.execute(name, "say hello").await;
        tokio::time::timeout(Duration::from_secs(90), held.notified()).await.expect("Writ adds the finalizer");
        may_continue
    };
    let may_continue = started("labelled").await;
    case.world.kubectl_succeeds(&["label", "-n", &case.namespace, "cmdexec", "labelled", "team=web"]);
    may_continue.notify_one();
    case.ends("labelled", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger(), [ran.clone(), ran.clone()]);

    let may_continue = started("cancelled").await;
    case.change_spec("cancelled", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    may_continue.notify_one();
    case.ends("cancelled", Phase::Cancelled, Reason::CancelledBeforeStart).await;

    let may_continue = started("deleted").await;
    case.executions().delete("deleted", &DeleteParams::default()).await.expect("deleted");
    may_continue.notify_one();
    case.gone("deleted").await;

    // The name and the command of the second execution are the same, but it is another execution.
    let may_continue = started("again").await;
    case.executions().delete("again", &DeleteParams::default()).await.expect("deleted");
    case.gone("again").await;
    let second = case.execute_with("again", json!({"command": "say hello", "cancelRequested": true})).await;
    may_continue.notify_one();
    case.ends("again", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    assert_eq!(case.executions().get("again").await.expect("it is there").metadata.uid, second.metadata.uid);
    assert_eq!(case.ledger(), [ran.clone(), ran]);
}

/// Counts the requests of `writ serve` for one execution, with an open connection and the chart's policies. The create
/// is not among them, because the user sends it.
#[tokio::test]
async fn a_short_execution_costs_one_read_of_each_object_and_two_writes() {
    let (case, proxy) = warm_case(&[], &[]).await;
    let reads = ["GET executionreceipts", "GET machines", "GET secrets"];
    let writes = ["PATCH commandexecutions", "PUT commandexecutions"];
    let known = case.whitelists().list(&ListParams::default()).await.expect("a list").items.len();
    let once = reads.into_iter().chain(writes).map(|what| (what.to_owned(), 1));
    let expected: BTreeMap<String, usize> = once.chain([("GET whitelists".to_owned(), known)]).collect();
    // The counts also contain other work: a probe, a renewed Lease, a list in the background. The smallest count of
    // each request over several executions is the cost of an execution.
    let mut least: Option<BTreeMap<String, usize>> = None;
    for number in 0..80 {
        let _ = proxy.take_requests();
        let name = format!("x{number}");
        case.execute(&name, "greet bob").await;
        case.ends(&name, Phase::Succeeded, Reason::Completed).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut requests = proxy.take_requests();
        if let Some(before) = &least {
            requests.retain(|what, count| {
                *count = (*count).min(before.get(what).copied().unwrap_or_default());
                *count > 0
            });
        }
        if requests == expected {
            return;
        }
        least = Some(requests);
    }
    panic!("expected {expected:?}, but each execution costs at least {least:?}");
}

/// Twelve executions take turns in four slots. Only those that wait for 2 s are written as Queued.
#[tokio::test]
async fn a_burst_costs_two_writes_and_no_event_for_each_execution() {
    let (case, proxy) = warm_case(&[], &[]).await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 4})).await;
    case.execute("again", "greet bob").await;
    case.ends("again", Phase::Succeeded, Reason::Completed).await;
    let _ = proxy.take_requests();
    let names: Vec<String> = (0..12).map(|number| format!("x{number}")).collect();
    futures::future::join_all(names.iter().map(|name| case.execute(name, "greet bob"))).await;
    let mut queued = 0;
    for name in &names {
        let status = case.ends(name, Phase::Succeeded, Reason::Completed).await;
        queued += usize::from(status.queued_time.is_some());
    }
    let requests = proxy.take_requests();
    let count = |what: &str| requests.get(what).copied().unwrap_or_default();
    let writes = (count("PUT commandexecutions"), count("PATCH commandexecutions"), count("POST events"));
    assert_eq!(writes, (12 + queued, 12, 0), "{requests:?}");
}
