//! Clients that leave: the command continues, its record is complete, and the places of the caller are free again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use writ::api::{CommandExecution, Phase};

use super::socket::{Frame, Socket};
use super::{Gated, PATIENCE, rule};

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";
/// Maximum number of open streams and waiting calls of one caller.
const PLACES: usize = 64;
/// Pause between two sockets, because a caller may read 50 times per second.
const PACE: Duration = Duration::from_millis(30);
/// Times from a call to the departure, in milliseconds. A command takes about 300 ms from the call to the answer.
const DEPARTURES: [u64; 10] = [0, 10, 40, 80, 140, 200, 260, 320, 380, 500];
/// Output of each command.
const OUTPUT: &str = "begun\ndone\n";

async fn gated() -> Gated {
    let gated = Gated::new().await;
    gated.case.apply_machine("web-1", json!({"maxConcurrent": 1})).await;
    let rules = json!([
        rule("first", "echo begun; sleep 8; echo done"),
        rule("second", "echo begun; sleep 1; echo done"),
        rule("third", "echo begun; sleep 1; echo done"),
        rule("short", "echo begun; sleep 0.1; echo done"),
    ]);
    gated.case.apply_whitelist("api", rules).await;
    gated
}

fn request(command: &str) -> String {
    json!({"command": command, "action_type": "shell"}).to_string()
}

/// Sends a call whose client leaves when `departure` completes.
async fn call_until(gated: &Gated, command: &str, departure: impl Future<Output = ()>) {
    let body = json!({"command": command, "action_type": "shell", "timeout": 60}).to_string();
    tokio::select! {
        _ = gated.send("POST", gated.url(EXECUTE), &gated.jane, &[], Some(body)) => {}
        () = departure => {}
    }
}

async fn open(gated: &Gated, command: &str) -> Socket {
    let path = format!("/api/v1/machines/web-1/commands/stream?namespace={}", gated.case.namespace);
    let mut socket = Socket::open(gated, &path).await;
    socket.send(&request(command)).await;
    socket
}

/// Reads messages up to the first one for which `is_so` returns true.
async fn until_message(socket: &mut Socket, is_so: impl Fn(&Value) -> bool) {
    loop {
        match socket.next().await {
            Frame::Message(message) if is_so(&message) => return,
            Frame::Message(_) => {}
            end => panic!("{end:?} before the message"),
        }
    }
}

async fn executions(gated: &Gated) -> Vec<CommandExecution> {
    gated.case.executions().list(&ListParams::default()).await.expect("executions").items
}

/// Waits until the newest execution of a command has one of these phases.
async fn reaches(gated: &Gated, command: &str, phases: &[Phase]) {
    let started = Instant::now();
    loop {
        let all = executions(gated).await;
        let of_command = |execution: &&CommandExecution| execution.spec.command.as_deref() == Some(command);
        if all.iter().filter(of_command).any(|execution| phases.contains(&execution.phase())) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{command} is not in {phases:?}\n{}", gated.case.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the end of all executions, and checks their records. Returns their number.
async fn all_are_complete(gated: &Gated) -> usize {
    // A create whose client has left can still be on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let names: BTreeSet<String> = executions(gated).await.iter().map(|execution| execution.name_any()).collect();
    for name in &names {
        let status = gated.case.finished(name).await;
        let result = (status.phase, status.exit_code, status.stdout.as_deref());
        assert_eq!(result, (Phase::Succeeded, Some(0), Some(OUTPUT)), "{name}: {:?}", status.message);
        let view = gated.ended(&format!("{}:{name}", gated.case.namespace)).await;
        assert_eq!((&view["status"], &view["stdout"]), (&json!("completed"), &json!(OUTPUT)), "{view}");
    }
    // Each execution ran once: the ledger has the command of each of them, and no other.
    assert_eq!(gated.case.ledger().len(), names.len(), "{:?}", gated.case.ledger());
    names.len()
}

/// Checks that the caller has no place in use: takes all of them, and no more.
async fn all_places_are_free(gated: &Gated) {
    let path = format!("/api/v1/machines/web-1/commands/stream?namespace={}", gated.case.namespace);
    let authorization = format!("Bearer {}", gated.jane);
    let headers = [("Authorization", authorization.as_str())];
    let started = Instant::now();
    loop {
        let mut sockets = Vec::new();
        while sockets.len() <= PLACES {
            tokio::time::sleep(PACE).await;
            let (head, socket) = Socket::try_open(gated, &path, &headers).await;
            let Some(socket) = socket else {
                assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
                break;
            };
            sockets.push(socket);
        }
        if sockets.len() == PLACES {
            break;
        }
        // The gateway can notice a departure a moment later.
        assert!(sockets.len() < PLACES && started.elapsed() < PATIENCE, "{} places are free", sockets.len());
        drop(sockets);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The places of these sockets become free again, too.
    let mut status = 429;
    while status == 429 {
        assert!(started.elapsed() < PATIENCE, "the places of closed sockets do not become free");
        tokio::time::sleep(Duration::from_millis(100)).await;
        status = gated.execute("short").await.status;
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_client_of_execute_that_leaves_at_any_time_changes_nothing() {
    let gated = gated().await;
    // The client of the second command leaves before the claim, because the first command has the only slot. The client
    // of the first command leaves while it runs.
    let leaving = call_until(&gated, "first", reaches(&gated, "first", &[Phase::Running]));
    let queued = async {
        reaches(&gated, "first", &[Phase::Dispatched, Phase::Running]).await;
        call_until(&gated, "second", reaches(&gated, "second", &[Phase::Pending, Phase::Queued])).await;
        let all = executions(&gated).await;
        let second = all.iter().find(|one| one.spec.command.as_deref() == Some("second")).expect("the second one");
        assert!(second.claim().is_none(), "the client did not leave before the claim");
    };
    tokio::join!(leaving, queued);
    for delay in DEPARTURES {
        call_until(&gated, "short", tokio::time::sleep(Duration::from_millis(delay))).await;
    }
    let count = all_are_complete(&gated).await;
    assert!(count > DEPARTURES.len() / 2, "only {count} executions were created");
    all_places_are_free(&gated).await;
}

#[tokio::test]
async fn a_client_of_a_stream_that_leaves_at_any_time_changes_nothing() {
    let gated = gated().await;
    let mut first = open(&gated, "first").await;
    reaches(&gated, "first", &[Phase::Dispatched, Phase::Running]).await;
    // Before the claim: the first command has the only slot.
    let mut second = open(&gated, "second").await;
    let Frame::Message(created) = second.next().await else { panic!("no message\n{}", gated.case.log()) };
    drop(second);
    let name = created["command_id"].as_str().and_then(|id| id.split_once(':')).expect("an id").1;
    let execution = gated.case.executions().get(name).await.expect("the second one");
    assert!(execution.claim().is_none(), "the client did not leave before the claim");
    // While it runs: after the first bytes.
    until_message(&mut first, |message| message["type"] == "stdout").await;
    drop(first);
    // At the end: after the last bytes, and before the last message is read.
    let is_last = |message: &Value| message["data"].as_str().is_some_and(|data| data.ends_with("done\n"));
    let mut third = open(&gated, "third").await;
    until_message(&mut third, is_last).await;
    drop(third);
    for delay in DEPARTURES {
        let leaving = open(&gated, "short").await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        drop(leaving);
    }
    let count = all_are_complete(&gated).await;
    assert!(count > DEPARTURES.len() / 2, "only {count} executions were created");
    all_places_are_free(&gated).await;
}
