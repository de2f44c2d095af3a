//! Executions with `whenOffline: Fail`: they wait for a slot, and not for a machine that is offline or suspended.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::machines::CLOSED_PORT;

const VERSION: &str = "writ.dev/v1alpha1";
/// A well-formed host key that no machine of the tests has.
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
/// Time after which a new execution no longer counts as created together with a fault. Creation times are whole
/// seconds.
const AFTER_FAULT: Duration = Duration::from_millis(2500);

async fn execute(case: &Case, name: &str) {
    case.execute_with(name, json!({"command": "say hello", "whenOffline": "Fail"})).await;
}

/// Both executions have the default deadline of 300 s, which is longer than the patience of the test.
#[tokio::test]
async fn offline_machine_expires_it_after_one_attempt_and_others_wait() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"port": CLOSED_PORT})).await;
    for name in ["first", "second"] {
        execute(&case, name).await;
        let status = case.ends(name, Phase::Expired, Reason::MachineOffline).await;
        assert!(status.claim.is_none() && status.exit_code.is_none(), "{status:?}");
        let message = status.message.unwrap_or_default();
        for words in ["whenOffline is Fail", "refused", "nothing was sent"] {
            assert!(message.contains(words), "{words} is not in: {message}");
        }
        // The second execution finds a machine that Writ knows to be offline.
        case.execute(&format!("{name}-waits"), "say hello").await;
        let waits = case.in_phase(&format!("{name}-waits"), Phase::Queued).await;
        assert_eq!(waits.reason, Some(Reason::MachineOffline));
    }
    assert_eq!(case.ledger(), Vec::<String>::new());
    case.apply_machine("web-1", json!({})).await;
    for name in ["first-waits", "second-waits"] {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
    assert_eq!(case.ledger().len(), 2);
}

/// The pause before the next attempt of the queued execution lasts some seconds when the machine comes back.
#[tokio::test]
async fn machine_that_is_back_runs_it_before_the_pause_ends() {
    let case = Case::new().await;
    case.sshd.stop();
    case.execute("waits", "say hello").await;
    assert_eq!(case.in_phase("waits", Phase::Queued).await.reason, Some(Reason::MachineOffline));
    tokio::time::sleep(Duration::from_secs(5)).await;
    case.sshd.restart().expect("sshd starts again");
    execute(&case, "fails").await;
    case.ends("fails", Phase::Succeeded, Reason::Completed).await;
    case.ends("waits", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn busy_machine_lets_it_wait_until_the_deadline() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"maxConcurrent": 1})).await;
    case.execute("busy", "sleep-eight").await;
    case.in_phase("busy", Phase::Running).await;
    execute(&case, "patient").await;
    let late = json!({"command": "say hello", "whenOffline": "Fail", "startingDeadlineSeconds": 2});
    case.execute_with("late", late).await;
    let queued = case.in_phase("patient", Phase::Queued).await;
    assert_eq!(queued.reason, Some(Reason::WaitingForSlot), "{:?}", queued.message);
    case.ends("late", Phase::Expired, Reason::StartingDeadlineExceeded).await;
    case.ends("busy", Phase::Succeeded, Reason::Completed).await;
    case.ends("patient", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

/// The attempts time out one after another, because the machine has one slot. Each attempt counts for all executions
/// that were queued when it began.
#[tokio::test]
async fn burst_on_a_silent_machine_needs_few_attempts() {
    let case = Case::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in silent.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    case.apply_machine("web-1", json!({"port": port, "maxConcurrent": 1})).await;
    for index in 0..6 {
        execute(&case, &format!("x{index}")).await;
    }
    for index in 0..6 {
        case.ends(&format!("x{index}"), Phase::Expired, Reason::MachineOffline).await;
    }
    let connections = connections.load(Ordering::SeqCst);
    assert!((1..=3).contains(&connections), "{connections} connections for 6 executions");
}

#[tokio::test]
async fn suspended_machine_expires_it_at_once() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"maxConcurrent": 1})).await;
    case.execute("busy", "sleep-long").await;
    case.in_phase("busy", Phase::Running).await;
    execute(&case, "queued").await;
    assert_eq!(case.in_phase("queued", Phase::Queued).await.reason, Some(Reason::WaitingForSlot));
    case.apply_machine("web-1", json!({"maxConcurrent": 1, "suspend": true})).await;
    case.ends("queued", Phase::Expired, Reason::MachineSuspended).await;
    execute(&case, "new").await;
    let status = case.ends("new", Phase::Expired, Reason::MachineSuspended).await;
    assert!(status.message.unwrap_or_default().contains("whenOffline is Fail"));
    assert_eq!(case.ledger().len(), 1);
    case.change_spec("busy", json!({"cancelRequested": true})).await.expect("cancelled");
    case.finished("busy").await;
}

#[tokio::test]
async fn machine_that_needs_a_repair_fails_the_launch() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"hostKeys": [OTHER_KEY]})).await;
    execute(&case, "first").await;
    case.ends("first", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    tokio::time::sleep(AFTER_FAULT).await;
    case.execute("waits", "say hello").await;
    case.until("waits", "waiting for a repair", |status| status.reason == Some(Reason::MachineMisconfigured)).await;
    execute(&case, "second").await;
    case.ends("second", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    assert_eq!(case.sshd_logged("userauth-request"), 0, "Writ sends no login to another host");
    assert_eq!(case.ledger(), Vec::<String>::new());
}

/// A manifest from before the field existed is the same request as one that names the default.
#[tokio::test]
async fn default_in_the_manifest_does_not_run_the_command_again() {
    let case = Case::new().await;
    let apply = async |when_offline: Option<&str>| {
        let mut spec = json!({"machineRef": {"name": "web-1"}, "command": "say hello", "ttlSecondsAfterFinished": 2});
        if let Some(value) = when_offline {
            spec["whenOffline"] = json!(value);
        }
        case.apply(VERSION, "CommandExecution", "x", json!({"spec": spec})).await;
    };
    for (when_offline, reason) in
        [(None, Reason::Completed), (Some("Wait"), Reason::AlreadyExecuted), (Some("Fail"), Reason::Completed)]
    {
        apply(when_offline).await;
        case.ends("x", Phase::Succeeded, reason).await;
        case.gone("x").await;
    }
    assert_eq!(case.ledger().len(), 2);
}
