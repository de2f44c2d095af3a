//! Crashes of the controller and of the API server. No command starts twice, and Writ invents no result.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::processes::Process;
use crate::lab::{SshdOptions, User};
use crate::world::{World, world};

/// Returns a case with a Lease of 3 s, for tests that wait until a Lease expires.
async fn with_short_lease(world: Arc<World>) -> Case {
    Case::with(world, SshdOptions::default(), &["--lease-seconds", "3"]).await
}

/// Starts a second controller in addition to that of the case. It serves all namespaces, and its Lease is in another
/// namespace.
fn one_of_all_namespaces(world: &World) -> Process {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["serve", "--lease-seconds", "3", "--kubeconfig"]).arg(world.control_plane.kubeconfig(User::Admin));
    command.args(crate::lab::LOOPBACK);
    let log = world.reaper.make_folder("other", 0o700).expect("a folder").join("writ.log");
    world.reaper.spawn("writ", &mut command, &log).expect("writ starts")
}

/// Starts a command that outlasts the test.
async fn start_a_long_one(case: &Case) {
    case.execute_with("x", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
}

#[tokio::test]
async fn a_controller_killed_while_a_command_runs_does_not_start_it_again() {
    let mut case = with_short_lease(world()).await;
    start_a_long_one(&case).await;
    let before = case.in_phase("x", Phase::Running).await;
    case.kill_writ();
    case.start_writ();
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::HolderLost).await;
    assert_eq!((status.exit_code, status.signal.clone(), status.stdout.clone()), (None, None, None));
    assert_eq!(status.claim, before.claim, "the record still says who had started it");
    // The controller still works: it runs a new execution, and does not run the claimed one again.
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().iter().filter(|line| line.contains("sleep 300")).count(), 1);
}

#[tokio::test]
async fn a_controller_killed_at_any_moment_starts_nothing_twice() {
    let mut case = with_short_lease(world()).await;
    let names: Vec<String> = (0..32).map(|index| format!("x-{index}")).collect();
    // Each command has its own word, which identifies it in the ledger.
    let rule = |name: &String| json!({"name": name, "match": name, "run": ["/bin/echo", name]});
    case.apply_whitelist("words", names.iter().map(rule).collect()).await;
    for (round, group) in names.chunks(4).enumerate() {
        for name in group {
            case.execute(name, name).await;
        }
        // The kills happen from before the first claim until after the last result.
        tokio::time::sleep(Duration::from_millis(round as u64 * 25)).await;
        case.kill_writ();
        case.start_writ();
    }
    for name in &names {
        let status = case.finished(name).await;
        let starts = case.ledger().iter().filter(|line| line.ends_with(&format!(" '{name}'"))).count();
        match status.phase {
            Phase::Succeeded => {
                assert_eq!((status.exit_code, status.stdout, starts), (Some(0), Some(format!("{name}\n")), 1));
            }
            Phase::OutcomeUnknown => {
                assert_eq!((status.reason, status.exit_code), (Some(Reason::HolderLost), None));
                assert!(starts <= 1, "{name} was started {starts} times");
            }
            other => panic!("{name} is {other:?}: {:?}", status.message),
        }
    }
}

#[tokio::test]
async fn another_controller_does_not_call_a_living_one_lost() {
    let mut case = with_short_lease(world()).await;
    start_a_long_one(&case).await;
    case.in_phase("x", Phase::Running).await;
    // Starts a second controller while the first one runs, like a rolling update. After 3 s without a renewal, it would
    // adopt the claims of the first.
    let first = std::mem::replace(&mut case, with_short_lease(world()).await);
    case.namespace = first.namespace.clone();
    case.start_writ();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(first.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    first.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    assert_eq!(first.finished("x").await.phase, Phase::Cancelled, "the first one still has it");
}

#[tokio::test]
async fn a_controller_of_all_namespaces_and_one_of_a_single_one_respect_each_other() {
    // This test has its own control plane, because the controller of all namespaces would also serve the other tests.
    let own = World::start();
    let case = with_short_lease(own.clone()).await;
    start_a_long_one(&case).await;
    case.in_phase("x", Phase::Running).await;
    let _other = one_of_all_namespaces(&own);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    case.terminate_writ();
    // The remaining controller runs the new execution. The first one still follows its command.
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn an_api_server_that_was_away_for_twenty_seconds_is_survived_without_a_restart() {
    // This test has its own control plane, because it stops the API server.
    let own = World::start();
    let case = with_short_lease(own.clone()).await;
    case.execute("before", "say hello").await;
    case.ends("before", Phase::Succeeded, Reason::Completed).await;
    // The first command outlasts the outage. The second one ends during the outage, and its result must not be lost.
    start_a_long_one(&case).await;
    case.execute("across", "sleep-eight").await;
    case.in_phase("across", Phase::Running).await;
    case.in_phase("x", Phase::Running).await;
    // A second controller watches the Leases. During the outage, it must not consider the holder dead.
    let _other = one_of_all_namespaces(&own);
    tokio::time::sleep(Duration::from_secs(2)).await;
    own.control_plane.stop_api_server();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(case.writ_runs(), "{}", case.log());
    own.control_plane.start_api_server().expect("the API server starts again");
    case.execute("after", "say hello").await;
    let ended = tokio::time::timeout(Duration::from_secs(30), case.finished("after")).await;
    assert_eq!(ended.expect("within 30 s").phase, Phase::Succeeded);
    let across = case.ends("across", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(across.stdout.as_deref(), Some("done\n"));
    assert!(case.writ_runs(), "{}", case.log());
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    assert_eq!(case.ledger().len(), 4);
}

#[tokio::test]
async fn an_execution_that_is_deleted_while_it_runs_harms_nobody() {
    let case = Case::new().await;
    case.execute("x", "sleep-eight").await;
    case.in_phase("x", Phase::Running).await;
    case.executions().delete("x", &kube::api::DeleteParams::default()).await.expect("deleted");
    case.gone("x").await;
    // A new execution of the same name is independent of the deleted one.
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout.as_deref(), Some("hello\n"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(case.finished("x").await.stdout.as_deref(), Some("hello\n"));
    assert!(case.writ_runs());
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_with_its_remedy() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_writ"))
        .args(["serve", "--kubeconfig", "/does/not/exist"])
        .output()
        .expect("writ starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("kubeconfig cannot be used"), "{errors}");
    // The user mallory has no rights. The error names the role to grant.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_writ"))
        .arg("serve")
        .arg("--kubeconfig")
        .arg(world().control_plane.kubeconfig(User::Mallory))
        .output()
        .expect("writ starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("deploy/operator-role.yaml"), "{errors}");
}
