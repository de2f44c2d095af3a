//! More tests like those in `durable`: reboots, files that earlier processes left on a machine, and machines with few
//! sessions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::durable::{ends_right, execute, until_acknowledged, until_started, work_of};
use crate::proxy::{Fate, Proxy};
use crate::work::{self, Work};

/// Returns a case whose machine can reboot, or `None` without root.
async fn one_that_reboots() -> Option<Case> {
    if !crate::lab::openssh::is_root() {
        crate::lab::say::note("this needs root, for a boot id of the machine's own: passed over");
        return None;
    }
    let options = crate::lab::SshdOptions { own_boot_id: true, ..crate::lab::SshdOptions::default() };
    Some(Case::durable_with(options, &["--lease-seconds", "3"]).await)
}

#[tokio::test]
async fn a_command_that_ran_when_its_machine_was_booted_anew_has_no_outcome() {
    let Some(case) = one_that_reboots().await else { return };
    let work = work_of("x", 10_000, "30", 0);
    execute(&case, &work).await;
    case.in_phase("x", Phase::Running).await;
    case.sshd.reboot().expect("the machine boots");
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::Rebooted).await;
    assert_eq!((status.exit_code, status.signal, status.duration_ms), (None, None, None));
    assert_eq!(work::started(&case.sshd).len(), 1);
    // After the reboot, the machine runs commands as before.
    let next = work_of("y", 10, "0", 0);
    execute(&case, &next).await;
    ends_right(&case, &next).await;
}

#[tokio::test]
async fn a_result_that_was_recorded_before_the_reboot_is_read_after_it() {
    let Some(mut case) = one_that_reboots().await else { return };
    let work = work_of("x", 100_000, "0.3", 6);
    execute(&case, &work).await;
    until_started(&case, "x").await;
    case.kill_writ();
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let journal = work::directory(&case.sshd).join(format!("{uid}.j"));
    let has_ended = || std::fs::read_to_string(&journal).is_ok_and(|lines| lines.contains("\nE "));
    for _ in 0..600 {
        if has_ended() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    case.sshd.reboot().expect("the machine boots");
    case.start_writ();
    ends_right(&case, &work).await;
}

#[tokio::test]
async fn what_was_claimed_before_the_reboot_is_not_started_after_it() {
    let Some(mut case) = one_that_reboots().await else { return };
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fate = Fate::AnswerIsLost { arrived: Arc::clone(&arrived), release };
    let proxy = Proxy::start(&case.world, vec![fate]).await;
    case.restart_writ_through(proxy.port);
    execute(&case, &work_of("x", 10, "0", 0)).await;
    arrived.notified().await;
    case.kill_writ();
    case.sshd.reboot().expect("the machine boots");
    case.start_writ();
    case.ends("x", Phase::OutcomeUnknown, Reason::Rebooted).await;
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}

/// Output files of a process that was killed at the wrong moment.
#[tokio::test]
async fn output_that_was_never_acknowledged_is_removed_by_a_later_process_and_that_of_others_is_not() {
    let mut case = Case::durable().await;
    let work = work_of("x", 10_000, "0", 0);
    execute(&case, &work).await;
    ends_right(&case, &work).await;
    until_acknowledged(&case).await;
    case.kill_writ();
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let folder = work::directory(&case.sshd);
    for name in [format!("{uid}.o"), format!("{uid}.e"), "of-another-cluster.o".to_owned()] {
        std::fs::write(folder.join(name), "left").expect("a file on the machine");
    }
    std::fs::copy(folder.join(format!("{uid}.j")), folder.join("of-another-cluster.j")).expect("a journal");
    let own = std::fs::metadata(folder.join(format!("{uid}.j"))).expect("a journal");
    let whose = (std::os::unix::fs::MetadataExt::uid(&own), std::os::unix::fs::MetadataExt::gid(&own));
    for name in
        [format!("{uid}.o"), format!("{uid}.e"), "of-another-cluster.o".to_owned(), "of-another-cluster.j".to_owned()]
    {
        std::os::unix::fs::chown(folder.join(name), Some(whose.0), Some(whose.1)).expect("an owner");
    }
    case.start_writ();
    let next = work_of("y", 10, "0", 0);
    execute(&case, &next).await;
    ends_right(&case, &next).await;
    for _ in 0..300 {
        if work::outputs_left(&case.sshd) == ["of-another-cluster.o"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}\n{}", work::outputs_left(&case.sshd), case.log());
}

#[tokio::test]
async fn a_machine_with_one_session_for_a_connection_is_served_by_more_connections() {
    let options =
        crate::lab::SshdOptions { config: vec!["MaxSessions 1".to_owned()], ..crate::lab::SshdOptions::default() };
    let case = Case::durable_with(options, &["--lease-seconds", "3"]).await;
    let works: Vec<Work> = (0..4).map(|index| work_of(&format!("x{index}"), 1000, "1", 0)).collect();
    for work in &works {
        execute(&case, work).await;
    }
    case.execute_with("long", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    for work in &works {
        ends_right(&case, work).await;
    }
    case.in_phase("long", Phase::Running).await;
    case.change_spec("long", json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    case.ends("long", Phase::Cancelled, Reason::Stopped).await;
    until_acknowledged(&case).await;
}

#[tokio::test]
async fn a_machine_that_answers_with_something_else_than_a_shell_is_unfit_and_nothing_is_started() {
    // This login shell prints its arguments, which is not an answer of the launcher.
    let login_shell = Some(std::path::PathBuf::from("/bin/echo"));
    let options = crate::lab::SshdOptions { login_shell, ..crate::lab::SshdOptions::default() };
    let case = Case::durable_with(options, &["--lease-seconds", "3"]).await;
    execute(&case, &work_of("x", 10, "0", 0)).await;
    let status = case.ends("x", Phase::LaunchFailed, Reason::LauncherUnsupported).await;
    assert!(status.message.expect("a message").contains("login shell") && status.claim.is_none());
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_others_may_write_to_is_unfit_and_says_what_is_wanted() {
    use std::os::unix::fs::PermissionsExt as _;
    let case = Case::durable().await;
    let folder = case.sshd.home().join("open");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let execution = json!({"mode": "Durable", "directory": folder});
    case.apply_machine("web-1", json!({"execution": execution})).await;
    execute(&case, &work_of("x", 10, "0", 0)).await;
    let status = case.ends("x", Phase::LaunchFailed, Reason::LauncherUnsupported).await;
    assert!(status.message.expect("a message").contains("execution.directory"));
    assert_eq!(work::started(&case.sshd), Vec::<String>::new());
}
