//! Machines that do not answer, answer late, or disappear.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use writ::api::execution_status::IncompleteReason;
use writ::api::{Phase, Reason};
use writ::ssh::{ConnectError, Target};

use crate::case::Case;
use crate::cutter::Cutter;
use crate::keys::{log_in, pinned};
use crate::lab::{Sshd, SshdOptions};
use crate::world::world;

/// Port on which no server listens: tcpmux, which nobody uses. A port that is only free at the moment could belong to
/// another test later.
pub const CLOSED_PORT: u16 = 1;

#[tokio::test]
async fn a_port_that_refuses_leaves_it_queued_then_expired() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"port": CLOSED_PORT})).await;
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 5})).await;
    let queued = case.in_phase("x", Phase::Queued).await;
    assert_eq!(queued.reason, Some(Reason::MachineOffline));
    assert!(queued.message.unwrap_or_default().contains("refused"));
    let status = case.ends("x", Phase::Expired, Reason::MachineOffline).await;
    assert!(status.claim.is_none() && status.exit_code.is_none());
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_meets_a_deadline() {
    let case = Case::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    case.apply_machine("web-1", json!({"port": silent.local_addr().expect("an address").port()})).await;
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 0})).await;
    let status = case.ends("x", Phase::Expired, Reason::MachineOffline).await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains("did not complete the SSH handshake within 10 s"), "{message}");
}

#[tokio::test]
async fn a_port_that_speaks_something_else_fails_the_launch() {
    let case = Case::new().await;
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let page = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".repeat(20);
            let _ = std::io::Write::write_all(&mut &stream, page.as_bytes());
            std::thread::sleep(Duration::from_secs(30));
        }
    });
    case.apply_machine("web-1", json!({"port": port})).await;
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 0})).await;
    let status = case.finished("x").await;
    assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(Reason::HandshakeFailed)), "{status:?}");
    assert!(status.claim.is_none());
}

#[tokio::test]
async fn a_machine_that_comes_back_runs_what_waited_for_it() {
    let case = Case::new().await;
    case.sshd.stop();
    case.execute("x", "say hello").await;
    assert_eq!(case.in_phase("x", Phase::Queued).await.reason, Some(Reason::MachineOffline));
    case.sshd.restart().expect("sshd starts again");
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn one_dead_machine_delays_no_other() {
    let case = Case::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    case.apply_machine("dead", json!({"port": port})).await;
    for index in 0..4 {
        case.execute_with(&format!("dead-{index}"), json!({"command": "say hello", "machineRef": {"name": "dead"}}))
            .await;
    }
    case.execute("alive", "say hello").await;
    case.ends("alive", Phase::Succeeded, Reason::Completed).await;
    // The attempts to reach the dead machine have not failed yet. So the other machine did not wait for them.
    for index in 0..4 {
        let dead = case.executions().get(&format!("dead-{index}")).await.expect("it is there");
        let reason = dead.status.and_then(|status| status.reason);
        assert!(!matches!(reason, Some(Reason::MachineOffline)), "dead-{index} was waited for");
    }
}

#[tokio::test]
async fn a_policy_that_is_taken_away_while_it_waits_counts() {
    let case = Case::new().await;
    case.sshd.stop();
    case.execute("x", "say hello").await;
    case.in_phase("x", Phase::Queued).await;
    case.whitelists().delete("web", &kube::api::DeleteParams::default()).await.expect("deleted");
    case.ends("x", Phase::Rejected, Reason::NoMatchingRule).await;
    case.sshd.restart().expect("sshd starts again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_that_moved_while_it_waits_is_run_on_where_it_is_now() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"port": CLOSED_PORT})).await;
    case.execute("x", "say hello").await;
    case.in_phase("x", Phase::Queued).await;
    case.apply_machine("web-1", json!({})).await;
    let status = case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert!(status.machine.expect("a machine record").generation >= 3);
}

#[tokio::test]
async fn a_connection_that_is_lost_while_it_runs_is_an_unknown_outcome() {
    let case = Case::new().await;
    case.execute("x", "sleep-long").await;
    case.in_phase("x", Phase::Running).await;
    case.sshd.drop_connections();
    let status = case.ends("x", Phase::OutcomeUnknown, Reason::ConnectionLost).await;
    assert_eq!((status.exit_code, status.signal, status.duration_ms), (None, None, None));
    assert_eq!(status.stdout.as_deref(), Some("begun\n"), "what was seen is kept");
    let output = status.output.expect("an output record");
    assert_eq!((output.incomplete, output.incomplete_reason), (true, Some(IncompleteReason::NotReceived)));
    assert_eq!(case.ledger().len(), 1);
}

#[tokio::test]
async fn an_ecdsa_host_key_is_as_good_as_an_ed25519_one() {
    let options = crate::lab::SshdOptions { ecdsa_host_key: true, ..crate::lab::SshdOptions::default() };
    let case = Case::with(crate::world::world(), options, &[]).await;
    let ecdsa = case.sshd.ecdsa_host_key().expect("a host key");
    case.apply_machine("web-1", json!({"hostKeys": [ecdsa]})).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_machine_that_refuses_sessions_starts_nothing() {
    let options =
        crate::lab::SshdOptions { config: vec!["MaxSessions 0".to_owned()], ..crate::lab::SshdOptions::default() };
    let case = Case::with(crate::world::world(), options, &[]).await;
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 10})).await;
    let status = case.finished("x").await;
    assert!(status.claim.is_none() && status.phase == Phase::Expired, "{status:?}");
    assert!(case.sshd_logged("Accepted publickey") >= 1, "it was tried");
    assert_eq!(case.ledger(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_that_freezes_after_its_banner_costs_no_connection_for_ever() {
    let case = Case::new().await;
    let frozen = TcpListener::bind("127.0.0.1:0").expect("a port");
    case.apply_machine("web-1", json!({"port": frozen.local_addr().expect("an address").port()})).await;
    // Sends its banner, then only reads until the peer closes the connection.
    let gone = std::thread::spawn(move || {
        let (mut stream, _) = frozen.accept().expect("a connection");
        std::io::Write::write_all(&mut stream, b"SSH-2.0-frozen\r\n").expect("a banner");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
        let mut buffer = [0; 4096];
        loop {
            match std::io::Read::read(&mut stream, &mut buffer) {
                // A shutdown arrives as the end of the stream, or as a reset if Writ left some of our bytes unread.
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    });
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 0})).await;
    case.ends("x", Phase::Expired, Reason::MachineOffline).await;
    gone.join().expect("the thread ends").expect("the connection is closed, not open long after it was given up");
}

/// A cut connection must count as unreachable, so that the execution waits. As a refusal, it would fail the execution
/// for good.
#[tokio::test]
async fn a_login_that_is_cut_at_any_byte_is_never_taken_for_a_refusal() {
    let sshd = Sshd::start(&world().reaper, &SshdOptions::default()).expect("an sshd");
    let cutter = Cutter::start(sshd.port(), 7_000, 1).await;
    let target = Target { port: cutter.port, ..pinned(&sshd) };
    let mut cut = 0;
    for _ in 0..150 {
        match log_in(&sshd, &target).await {
            Ok(connection) => connection.close().await,
            Err(ConnectError::Unreachable(_) | ConnectError::ConnectionDropped(_)) => cut += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(cut > 30, "{cut} of 150 were cut");
}
