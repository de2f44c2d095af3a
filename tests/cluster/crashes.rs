//! Crashes of the controller and of the API server: no command is started twice, and no result is made up.

use std::sync::OnceLock;
use std::time::Duration;

use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::{SshdOptions, User};
use crate::world::{World, world};

#[tokio::test]
async fn a_controller_killed_while_a_command_runs_does_not_start_it_again() {
    let mut case = Case::new().await;
    case.execute("x", "sleep-long").await;
    let before = case.in_phase("x", Phase::Running).await;
    case.kill_writ();
    case.start_writ();
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::HolderLost).await;
    assert_eq!((status.exit_code, status.signal.clone(), status.stdout.clone()), (None, None, None));
    assert_eq!(status.claim, before.claim, "the record still says who had started it");
    // It works on: what is new runs, what was claimed does not run again.
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().iter().filter(|line| line.contains("sleep 300")).count(), 1);
}

#[tokio::test]
async fn a_controller_killed_at_any_moment_starts_nothing_twice() {
    let mut case = Case::new().await;
    let mut names = Vec::new();
    for round in 0..8u64 {
        for index in 0..4 {
            let name = format!("x-{round}-{index}");
            case.execute(&name, "say hello").await;
            names.push(name);
        }
        // From before the first claim to after the last result.
        tokio::time::sleep(Duration::from_millis(round * 25)).await;
        case.kill_writ();
        case.start_writ();
    }
    let mut succeeded = 0;
    for name in &names {
        let status = case.finished(name).await;
        match status.phase {
            Phase::Succeeded => {
                succeeded += 1;
                assert_eq!((status.exit_code, status.stdout.as_deref()), (Some(0), Some("hello\n")));
            }
            Phase::OutcomeUnknown => assert_eq!((status.reason, status.exit_code), (Some(Reason::HolderLost), None)),
            other => panic!("{name} is {other:?}: {:?}", status.message),
        }
    }
    let started = case.ledger().len();
    assert!(started <= names.len() && started >= succeeded, "{started} starts, {succeeded} successes");
}

#[tokio::test]
async fn another_controller_does_not_call_a_living_one_lost() {
    let mut case = Case::new().await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    // A second one beside the first, as a rolling update does it; its lease is watched for three seconds.
    let first = std::mem::replace(&mut case, Case::new().await);
    case.namespace = first.namespace.clone();
    case.start_writ();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(first.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    first.change_spec("x", serde_json::json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    assert_eq!(first.finished("x").await.phase, Phase::Cancelled, "the first one still has it");
}

#[tokio::test]
async fn a_controller_of_all_namespaces_and_one_of_a_single_one_respect_each_other() {
    // Its own control plane: the one of all namespaces would serve the other tests too.
    static OWN: OnceLock<World> = OnceLock::new();
    let own: &'static World = OWN.get_or_init(World::start);
    let case = Case::with(own, SshdOptions::default(), &[]).await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_writ"));
    other.args(["serve", "--lease-seconds", "3", "--kubeconfig"]).arg(own.control_plane.kubeconfig(User::Admin));
    let log = own.reaper.make_folder("other", 0o700).expect("a folder").join("writ.log");
    let _other = own.reaper.spawn("writ", &mut other, &log).expect("writ starts");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    case.terminate_writ();
    // What is new is run by the one that is left; the first one still has what it has.
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn an_api_server_that_was_away_for_twenty_seconds_is_survived_without_a_restart() {
    // Its own control plane: the others would not like to be without one.
    static OWN: OnceLock<World> = OnceLock::new();
    let own: &'static World = OWN.get_or_init(World::start);
    let case = Case::with(own, SshdOptions::default(), &[]).await;
    case.execute("before", "say hello").await;
    case.ends("before", Phase::Succeeded, Reason::Completed).await;
    // One that runs over the whole outage: its result must not be lost.
    case.execute("across", "sleep-three").await;
    case.in_phase("across", Phase::Running).await;
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
    assert_eq!(case.ledger().len(), 3);
}

#[tokio::test]
async fn an_execution_that_is_deleted_while_it_runs_harms_nobody() {
    let case = Case::new().await;
    case.execute("x", "sleep-three").await;
    case.in_phase("x", Phase::Running).await;
    case.executions().delete("x", &kube::api::DeleteParams::default()).await.expect("deleted");
    // Another one of the same name is another one.
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(status.stdout.as_deref(), Some("hello\n"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(case.finished("x").await.stdout.as_deref(), Some("hello\n"));
    assert!(case.writ_runs());
}

#[tokio::test]
async fn without_the_crds_it_says_what_to_install() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_writ"))
        .args(["serve", "--kubeconfig", "/does/not/exist"])
        .output()
        .expect("writ starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("kubeconfig cannot be used"), "{errors}");
    // mallory may not do anything: the error says which role to grant.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_writ"))
        .arg("serve")
        .arg("--kubeconfig")
        .arg(world().control_plane.kubeconfig(User::Mallory))
        .output()
        .expect("writ starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("deploy/operator-role.yaml"), "{errors}");
}
