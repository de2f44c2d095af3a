//! Commands that outlive their connection and their controller. Their records also outlive a reboot of the machine.
//! After each kind of loss, the command started once, and the record has its exit code and every byte of its output.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use writ::api::{CommandExecutionStatus, ExecutionMode, Phase, Reason};

use crate::case::Case;
use crate::lab::asked::launched;
use crate::lab::processes;
use crate::proxy::{Fate, Proxy};
use crate::work::{self, Work};

pub fn work_of(id: &str, bytes: u64, seconds: &str, code: u8) -> Work {
    Work { id: id.to_owned(), bytes, seconds: seconds.to_owned(), code }
}

pub async fn execute(case: &Case, work: &Work) {
    case.execute(&work.id, &work.command()).await;
}

pub async fn ends_right(case: &Case, work: &Work) -> CommandExecutionStatus {
    let status = case.finished(&work.id).await;
    work::check(case, work, &status);
    status
}

pub async fn until_started(case: &Case, id: &str) {
    for _ in 0..600 {
        if work::started(&case.sshd).iter().any(|started| started == id) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{id} is not started:\n{}", case.log());
}

pub async fn until_acknowledged(case: &Case) {
    for _ in 0..300 {
        if work::outputs_left(&case.sshd).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?} are left:\n{}", work::outputs_left(&case.sshd), case.log());
}

/// Returns a case with a stored claim. Its `writ` died before it received the answer, so the machine has received
/// nothing.
async fn claimed_and_killed(work: &Work, deadline: u64) -> (Case, Proxy) {
    let mut case = Case::durable().await;
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::AnswerIsLost { arrived: Arc::clone(&arrived), release };
    let proxy = Proxy::start(&case.world, vec![fate]).await;
    case.restart_writ_through(proxy.port);
    case.execute_with(&work.id, json!({"command": work.command(), "startingDeadlineSeconds": deadline})).await;
    arrived.notified().await;
    case.kill_writ();
    (case, proxy)
}

#[tokio::test]
async fn a_short_command_leaves_its_record_and_no_output_on_the_machine() {
    let case = Case::durable().await;
    let work = work_of("x", 1000, "0", 3);
    execute(&case, &work).await;
    let status = ends_right(&case, &work).await;
    let claim = status.claim.expect("a claim");
    assert_eq!(claim.mode, ExecutionMode::Durable);
    assert!(claim.not_after_time.expect("a deadline").0 > claim.dispatched_time.0);
    let remote = status.remote.expect("where it was sent");
    assert_eq!(remote.directory, work::directory(&case.sshd).display().to_string());
    assert!(status.start_time.is_some() && status.duration_ms.is_some());
    until_acknowledged(&case).await;
    let program = case.sshd.home().join("work");
    let words = [program.to_str().expect("UTF-8"), "x", "1000", "0", "3"].map(str::to_owned).to_vec();
    assert_eq!(launched(&case.ledger()), Ok(vec![words]), "nothing else was sent");
    let journals = std::fs::read_dir(work::directory(&case.sshd)).expect("the folder").count();
    assert!(journals >= 1, "the journal stays: it is what keeps the command from starting again");
}

#[tokio::test]
async fn a_controller_killed_while_a_command_runs_is_followed_by_one_that_reads_all_of_it() {
    let mut case = Case::durable().await;
    let work = work_of("x", 500_000, "1.5", 7);
    execute(&case, &work).await;
    let before = case.in_phase("x", Phase::Running).await;
    case.kill_writ();
    case.start_writ();
    let after = ends_right(&case, &work).await;
    let (before_claim, after_claim) = (before.claim.expect("a claim"), after.claim.expect("a claim"));
    assert!(before_claim.token != after_claim.token && before_claim.holder != after_claim.holder);
    assert_eq!(before_claim.dispatched_time, after_claim.dispatched_time);
    assert_eq!((before.start_time, before.remote), (after.start_time, after.remote));
    until_acknowledged(&case).await;
}

#[tokio::test]
async fn a_command_that_ends_while_nobody_watches_is_recorded_by_the_next_one() {
    let mut case = Case::durable().await;
    let work = work_of("x", 200_000, "0.5", 0);
    execute(&case, &work).await;
    until_started(&case, "x").await;
    case.kill_writ();
    tokio::time::sleep(Duration::from_secs(4)).await;
    case.start_writ();
    let status = ends_right(&case, &work).await;
    // The machine measures the duration, so the time without a controller is not part of it.
    let known = status.completion_time.expect("an end").0.duration_since(status.start_time.expect("a start").0);
    assert!(i128::from(status.duration_ms.expect("a duration")) < known.as_millis(), "{known:?}");
}

#[tokio::test]
async fn a_controller_that_is_stopped_leaves_what_runs_to_the_next_one() {
    let mut case =
        Case::durable_with(crate::lab::SshdOptions::default(), &["--lease-seconds", "3", "--drain-seconds", "1"]).await;
    let work = work_of("x", 50_000, "2", 0);
    execute(&case, &work).await;
    case.in_phase("x", Phase::Running).await;
    case.terminate_writ();
    assert!(case.writ_ended().await.success());
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Running);
    case.start_writ();
    ends_right(&case, &work).await;
}

#[tokio::test]
async fn a_lost_connection_costs_no_byte() {
    let case = Case::durable().await;
    let work = work_of("x", 400_000, "1", 0);
    execute(&case, &work).await;
    until_started(&case, "x").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        case.sshd.drop_connections();
    }
    ends_right(&case, &work).await;
}

#[tokio::test]
async fn a_machine_that_is_away_for_ten_seconds_is_waited_for() {
    let case = Case::durable().await;
    let work = work_of("x", 100_000, "1", 4);
    execute(&case, &work).await;
    until_started(&case, "x").await;
    case.sshd.stop();
    tokio::time::sleep(Duration::from_secs(10)).await;
    case.sshd.restart().expect("sshd starts again");
    ends_right(&case, &work).await;
}

#[tokio::test]
async fn a_machine_that_stays_away_makes_the_outcome_unknown_and_never_an_exit_code() {
    let case =
        Case::durable_with(crate::lab::SshdOptions::default(), &["--lease-seconds", "3", "--unreachable-seconds", "1"])
            .await;
    let spec = json!({"command": work_of("x", 10, "9", 0).command(), "timeoutSeconds": 3});
    case.execute_with("x", spec).await;
    until_started(&case, "x").await;
    case.sshd.stop();
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::ConnectionLost).await;
    assert_eq!((status.exit_code, status.signal.clone(), status.duration_ms), (None, None, None), "{status:?}");
}

#[tokio::test]
async fn a_claim_whose_holder_died_before_it_sent_anything_is_started_by_the_next_one() {
    let work = work_of("x", 100, "0", 5);
    let (mut case, _proxy) = claimed_and_killed(&work, 300).await;
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
    case.start_writ();
    ends_right(&case, &work).await;
}

#[tokio::test]
async fn what_the_policy_no_longer_allows_is_not_started_by_the_next_one() {
    let work = work_of("x", 100, "0", 0);
    let (mut case, _proxy) = claimed_and_killed(&work, 300).await;
    case.whitelists().delete("work", &kube::api::DeleteParams::default()).await.expect("deleted");
    case.start_writ();
    let status = case.ends("x", Phase::LaunchFailed, Reason::PolicyChanged).await;
    assert_eq!((status.exit_code, work::started(&case.sshd)), (None, Vec::<String>::new()));
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let fence = work::directory(&case.sshd).join(format!("{uid}.j"));
    assert!(fence.exists(), "the fence is closed, so that a launch which is still under way starts nothing");
}

#[tokio::test]
async fn what_a_rule_of_the_same_name_would_now_run_otherwise_is_not_started_by_the_next_one() {
    let work = work_of("x", 100, "0", 0);
    let (mut case, _proxy) = claimed_and_killed(&work, 300).await;
    let mut rule = work::rule(&case.sshd);
    rule["run"] = json!(["/bin/echo", "{id}", "{bytes}", "{seconds}", "{code}"]);
    case.apply_whitelist("work", json!([rule])).await;
    case.start_writ();
    case.ends("x", Phase::LaunchFailed, Reason::PolicyChanged).await;
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_cancelled_meanwhile_is_not_started_by_the_next_one() {
    let work = work_of("x", 100, "0", 0);
    let (mut case, _proxy) = claimed_and_killed(&work, 300).await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    case.start_writ();
    case.ends("x", Phase::Cancelled, Reason::CancelledBeforeStart).await;
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_too_late_is_not_started_by_the_next_one() {
    let work = work_of("x", 100, "0", 0);
    let (mut case, _proxy) = claimed_and_killed(&work, 4).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    case.start_writ();
    case.ends("x", Phase::LaunchFailed, Reason::StartingDeadlineExceeded).await;
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}

#[tokio::test]
async fn another_folder_is_another_machine_and_nothing_is_started_there() {
    let work = work_of("x", 100, "0", 0);
    let (mut case, _proxy) = claimed_and_killed(&work, 300).await;
    let directory = case.sshd.home().join("elsewhere");
    let execution = json!({"mode": "Durable", "directory": directory});
    case.apply_machine("web-1", json!({"execution": execution})).await;
    case.start_writ();
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::MachineChanged).await;
    assert_eq!((status.exit_code, work::started(&case.sshd)), (None, Vec::<String>::new()));
}

#[tokio::test]
async fn a_command_without_a_machine_object_ends_as_unknown() {
    let mut case = Case::durable().await;
    execute(&case, &work_of("x", 10, "20", 0)).await;
    case.in_phase("x", Phase::Running).await;
    case.kill_writ();
    let machines: kube::Api<writ::api::Machine> = kube::Api::namespaced(case.client.clone(), &case.namespace);
    machines.delete("web-1", &kube::api::DeleteParams::default()).await.expect("deleted");
    case.start_writ();
    case.ends("x", Phase::OutcomeUnknown, Reason::MachineChanged).await;
}

#[tokio::test]
async fn a_cancelled_command_is_gone_with_all_that_it_started() {
    let case = Case::durable().await;
    let line = "trap '' TERM; (trap '' TERM; setsid sleep 300) & sleep 300 & wait; wait; sleep 300";
    case.apply_whitelist("stubborn", json!([work::script(&case.sshd, "stubborn", line)])).await;
    case.execute_with("x", json!({"command": "stubborn", "timeoutSeconds": 300})).await;
    case.in_phase("x", Phase::Running).await;
    case.change_spec("x", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    let status = case.ends("x", Phase::Cancelled, Reason::Stopped).await;
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    assert_eq!(processes::marked("WRIT_EXECUTION", &uid), Vec::<u32>::new(), "{status:?}");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_stopped_by_the_machine_itself_while_nobody_watches() {
    let mut case = Case::durable().await;
    case.execute_with("x", json!({"command": "sleep-long", "timeoutSeconds": 4})).await;
    case.in_phase("x", Phase::Running).await;
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    case.kill_writ();
    for _ in 0..200 {
        if processes::marked("WRIT_EXECUTION", &uid).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(processes::marked("WRIT_EXECUTION", &uid), Vec::<u32>::new());
    case.start_writ();
    let status = case.ends("x", Phase::TimedOut, Reason::Stopped).await;
    assert_eq!(status.stdout.as_deref(), Some("begun\n"));
}

#[tokio::test]
async fn twenty_at_once_on_one_machine_share_connections_and_all_end_right() {
    let case = Case::durable().await;
    let works: Vec<Work> = (0..20).map(|index| work_of(&format!("x{index}"), 2000 * index, "0.1", 0)).collect();
    for work in &works {
        execute(&case, work).await;
    }
    for work in &works {
        ends_right(&case, work).await;
    }
    let logins = case.sshd_logged("Accepted publickey");
    // At most 16 commands run concurrently, 5 on each connection. If sshd releases sessions late, Writ opens one more
    // connection.
    assert!(logins < 10, "{logins} logins for 20 commands");
    until_acknowledged(&case).await;
}

/// The fence is on the machine. It holds even if the API server has lost the claim.
#[tokio::test]
async fn an_api_server_restored_from_before_the_claim_runs_nothing_again() {
    let world = crate::world::World::start();
    let mut case = Case::durable_in(world.clone(), crate::lab::SshdOptions::default(), &["--lease-seconds", "3"]).await;
    case.kill_writ();
    let work = work_of("x", 1000, "0", 9);
    execute(&case, &work).await;
    world.control_plane.back_up().expect("a copy of etcd's data");
    case.start_writ();
    ends_right(&case, &work).await;
    until_acknowledged(&case).await;
    case.kill_writ();
    world.control_plane.restore().expect("etcd with the data from before");
    assert_eq!(case.executions().get("x").await.expect("it is there").phase(), Phase::Pending);
    case.start_writ();
    let status = case.ends("x", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((status.exit_code, work::started(&case.sshd)), (Some(9), vec!["x".to_owned()]));
    let output = status.output.expect("a record");
    assert!(output.incomplete, "what it wrote is no longer on the machine, and that is said: {output:?}");
}
