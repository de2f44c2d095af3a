//! Interactive sessions: input and output both ways, terminals, and every way in which a session ends.

use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use writ::api::{Phase, Reason};

use super::socket::{Frame, Socket};
use super::{Gated, PATIENCE, rule};

/// A session, and what it has sent so far.
struct Session {
    socket: Socket,
    id: String,
    output: String,
}

/// End of a session: its last message and the code of the close frame.
#[derive(Debug)]
struct End {
    last: Value,
    code: u16,
}

fn interactive(name: &str, run: &[&str]) -> Value {
    json!({"name": name, "match": name, "run": run, "interactive": true, "actionType": "shell"})
}

async fn gated(flags: &[&str]) -> Gated {
    let gated = Gated::with(flags).await;
    let rules = json!([
        interactive("shell", &["/bin/sh"]),
        interactive("cat", &["/bin/cat"]),
        interactive("digest", &["/usr/bin/sha256sum"]),
        {"name": "recorded", "match": "recorded", "run": ["/bin/cat", "-u"], "interactive": true, "recordInput": true,
         "redact": ["token=[a-z]+"], "actionType": "shell"},
        interactive("deaf", &["/bin/sh", "-c", "trap '' TERM HUP; echo deaf; while :; do sleep 0.2; done"]),
        {"name": "plain", "match": "plain", "run": ["/bin/date"], "actionType": "shell"},
        rule("long", "sleep 8"),
    ]);
    gated.case.apply_whitelist("api", rules).await;
    gated
}

fn path(gated: &Gated) -> String {
    format!("/api/v1/machines/web-1/exec?namespace={}", gated.case.namespace)
}

impl Session {
    /// Opens a session, and waits for the name of its execution.
    async fn open(gated: &Gated, request: Value) -> Self {
        let mut socket = Socket::open(gated, &path(gated)).await;
        socket.send(&request.to_string()).await;
        let first = socket.next().await;
        let Frame::Message(message) = &first else { panic!("{first:?}\n{}", gated.case.log()) };
        let id = message["command_id"].as_str().unwrap_or_else(|| panic!("{message}\n{}", gated.case.log())).to_owned();
        Self { socket, id, output: String::new() }
    }

    async fn shell(gated: &Gated) -> Self {
        Self::open(gated, json!({"command": ["/bin/sh"], "tty": true, "cols": 120, "rows": 40})).await
    }

    async fn input(&mut self, text: &str) {
        self.socket.send_bytes(text.as_bytes()).await;
    }

    /// Reads until the output contains a text.
    async fn until(&mut self, text: &str) {
        while !self.output.contains(text) {
            match self.socket.next().await {
                Frame::Bytes(bytes) => self.output.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {:?}", self.output),
            }
        }
    }

    /// Reads to the end.
    async fn end(&mut self) -> End {
        let mut last = Value::Null;
        loop {
            match self.socket.next().await {
                Frame::Bytes(bytes) => self.output.push_str(&String::from_utf8_lossy(&bytes)),
                Frame::Message(message) => last = message,
                Frame::Closed(code) => return End { last, code },
                Frame::Lost => panic!("the connection was lost after {:?} {last}", self.output),
            }
        }
    }
}

/// Waits until no process on the machine has a text in its arguments.
async fn no_process_has(text: &str) {
    let started = Instant::now();
    loop {
        let found = std::process::Command::new("pgrep").args(["-f", text]).output().expect("pgrep runs");
        if !found.status.success() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "still there: {}", String::from_utf8_lossy(&found.stdout));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn input_and_output_pass_both_ways_and_the_record_has_the_output() {
    let gated = gated(&[]).await;
    for mode in ["Direct", "Durable"] {
        gated.case.apply_machine("web-1", json!({"execution": {"mode": mode}})).await;
        let mut session = Session::open(&gated, json!({"command": ["/bin/cat"], "action_type": "shell"})).await;
        session.input("hello\n").await;
        session.until("hello\n").await;
        session.input("caf\u{e9}").await;
        session.socket.send(r#"{"type":"stdin_eof"}"#).await;
        let End { last, code } = session.end().await;
        assert_eq!((&last, code), (&json!({"exitCode": 0}), 1000), "{mode}\n{}", gated.case.log());
        assert_eq!(session.output, "hello\ncaf\u{e9}");
        let ended = gated.ended(&session.id).await;
        assert_eq!((&ended["phase"], &ended["requester"]), (&json!("Succeeded"), &json!("jane")), "{ended}");
        assert_eq!(ended["stdout"], "hello\ncaf\u{e9}", "{ended}");
    }
}

#[tokio::test]
async fn a_terminal_echoes_has_the_size_of_the_client_and_shows_nothing_of_writ() {
    let gated = gated(&[]).await;
    let mut session = Session::shell(&gated).await;
    session.input("stty size; echo done-$((1 + 1))\n").await;
    session.until("done-2").await;
    assert!(session.output.contains("40 120"), "{:?}", session.output);
    assert!(session.output.contains("echo done-$((1 + 1))"), "no echo: {:?}", session.output);
    session.socket.send(r#"{"resize":{"cols":77,"rows":33}}"#).await;
    session.input("stty size; test -t 0 && test -t 1 && echo ter\"\"minal\n").await;
    session.until("terminal").await;
    assert!(session.output.contains("33 77"), "{:?}", session.output);
    session.input("exit 7\n").await;
    let End { last, code } = session.end().await;
    assert_eq!((&last, code), (&json!({"exitCode": 7}), 1000));
    assert!(!session.output.contains("WRIT3") && !session.output.contains("exit 93"), "{:?}", session.output);
    assert!(!session.output.lines().any(|line| line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_hexdigit())));
    let ended = gated.ended(&session.id).await;
    assert_eq!((&ended["phase"], &ended["exit_code"]), (&json!("Failed"), &json!(7)), "{ended}");
    // Control-D ends the input of a terminal, as stdin_eof does.
    let mut session = Session::shell(&gated).await;
    session.input("echo rea\"\"dy\n").await;
    session.until("ready").await;
    session.socket.send(r#"{"type":"stdin_eof"}"#).await;
    assert_eq!(session.end().await.last, json!({"exitCode": 0}));
}

#[tokio::test]
async fn input_that_is_larger_than_every_buffer_arrives_whole() {
    let gated = gated(&[]).await;
    let mut session = Session::open(&gated, json!({"command": ["/usr/bin/sha256sum"]})).await;
    let mut digest = Sha256::new();
    for part in 0..100_u32 {
        let bytes: Vec<u8> = (0..40_000_u32).map(|index| (index.wrapping_mul(31) ^ part) as u8).collect();
        digest.update(&bytes);
        session.socket.send_bytes(&bytes).await;
    }
    session.socket.send(r#"{"type":"stdin_eof"}"#).await;
    assert_eq!(session.end().await.last, json!({"exitCode": 0}));
    let expected: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(session.output, format!("{expected}  -\n"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_process_group_and_the_record_says_so() {
    let gated = gated(&[]).await;
    for tty in [true, false] {
        let marker = format!("31{}{}", u8::from(tty), gated.case.writ_pid());
        let mut session = Session::open(&gated, json!({"command": ["/bin/sh"], "tty": tty})).await;
        session.input(&format!("echo star\"\"ted; sleep {marker}\n")).await;
        session.until("started").await;
        let id = session.id.clone();
        drop(session);
        let ended = gated.ended(&id).await;
        assert_eq!((&ended["phase"], &ended["reason"]), (&json!("Cancelled"), &json!("Stopped")), "{tty}: {ended}");
        assert!(ended["message"].as_str().is_some_and(|text| text.contains("client")), "{ended}");
        no_process_has(&format!("sleep {marker}")).await;
    }
}

#[tokio::test]
async fn a_command_that_ignores_every_polite_signal_is_killed() {
    let gated = gated(&[]).await;
    let script = "trap '' TERM HUP; echo deaf; while :; do sleep 0.2; done";
    let mut session = Session::open(&gated, json!({"command": ["/bin/sh", "-c", script], "tty": true})).await;
    session.until("deaf").await;
    let id = session.id.clone();
    drop(session);
    let ended = gated.ended(&id).await;
    assert_eq!(ended["phase"], "Cancelled", "{ended}");
}

#[tokio::test]
async fn what_no_rule_permits_is_refused_and_nothing_runs() {
    let gated = gated(&[]).await;
    let before = gated.case.ledger().len();
    for (request, error, reason) in [
        (json!({"command": ["/bin/date"]}), "Command not permitted", "NotPermitted"),
        (json!({"command": ["/bin/bash"]}), "Command not in whitelist", "NoMatchingRule"),
        (json!({"command": ["/bin/sh", "-c", "id"]}), "Command not in whitelist", "NoMatchingRule"),
        (json!({"command": ["/bin/sh"], "env": {"LD_PRELOAD": "x"}}), "Command not permitted", "NotPermitted"),
        (json!({"command": ["/bin/sh"], "cwd": "/tmp"}), "Malformed request", "Malformed"),
        (json!({"command": []}), "Malformed request", "Malformed"),
        (json!({"command": ["/bin/sh"], "tty": "yes"}), "Malformed request", "Malformed"),
    ] {
        let mut socket = Socket::open(&gated, &path(&gated)).await;
        socket.send(&request.to_string()).await;
        let (messages, code) = socket.all().await;
        let last = messages.last().unwrap_or_else(|| panic!("{request}"));
        assert_eq!((&last["error"], &last["reason"]), (&json!(error), &json!(reason)), "{request}: {messages:?}");
        assert_eq!(code, 1008, "{request}: {messages:?}");
    }
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn a_message_that_is_no_control_message_ends_the_session_with_an_error() {
    let gated = gated(&[]).await;
    for text in ["ls", r#"{"resize":{"cols":0,"rows":1}}"#, "{}"] {
        let mut session = Session::shell(&gated).await;
        session.input("echo rea\"\"dy\n").await;
        session.until("ready").await;
        session.socket.send(text).await;
        let End { last, code } = session.end().await;
        assert_eq!((&last["reason"], code), (&json!("Malformed"), 1008), "{text}: {last}");
        assert_eq!(gated.ended(&session.id).await["phase"], "Cancelled");
    }
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_or_lasts_too_long() {
    let gated = gated(&["--interactive-idle-seconds=2"]).await;
    let mut session = Session::shell(&gated).await;
    session.input("echo rea\"\"dy\n").await;
    session.until("ready").await;
    let End { last, .. } = session.end().await;
    assert_eq!((&last["error"], &last["phase"]), (&json!("Command execution timeout"), &json!("TimedOut")), "{last}");
    assert!(last["message"].as_str().is_some_and(|text| text.contains("no input and no output for 2 s")), "{last}");
    let mut session = Session::open(&gated, json!({"command": ["/bin/sh"], "tty": true, "timeout": 3})).await;
    let began = Instant::now();
    let last = loop {
        session.input("echo alive\n").await;
        match session.socket.next().await {
            Frame::Bytes(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            Frame::Message(message) => break message,
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < PATIENCE, "the session does not end");
    };
    assert_eq!(last["phase"], "TimedOut", "{last}");
    assert!(last["message"].as_str().is_some_and(|text| text.contains("ran longer than 3 s")), "{last}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_start_starts_nothing() {
    let gated = gated(&[]).await;
    gated.case.apply_machine("web-1", json!({"execution": {"mode": "Direct", "maxConcurrent": 1}})).await;
    gated.case.execute("busy", "long").await;
    gated.case.in_phase("busy", Phase::Running).await;
    let before = gated.case.ledger().len();
    let session = Session::open(&gated, json!({"command": ["/bin/sh"]})).await;
    let id = session.id.clone();
    drop(session);
    let ended = gated.ended(&id).await;
    assert_eq!((&ended["phase"], &ended["reason"]), (&json!("LaunchFailed"), &json!("NoSession")), "{ended}");
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn a_session_whose_writ_is_killed_has_an_unknown_outcome_and_never_runs_again() {
    let mut gated = gated(&[]).await;
    let mut session = Session::shell(&gated).await;
    session.input("echo rea\"\"dy\n").await;
    session.until("ready").await;
    let (id, before) = (session.id.clone(), gated.case.ledger().len());
    gated.restart().await;
    let name = id.split(':').nth(1).expect("a name").to_owned();
    gated.case.ends(&name, Phase::OutcomeUnknown, Reason::HolderLost).await;
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

/// Returns the lines of a recording.
async fn recording(gated: &Gated, id: &str) -> Vec<Value> {
    let answer = gated.get(&format!("/api/v1/commands/{id}/recording")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/x-asciicast");
    let text = answer.body.as_str().map_or_else(|| answer.body.to_string(), str::to_owned);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// Returns the data of all events with a code.
fn data(recording: &[Value], code: &str) -> Vec<String> {
    let events = recording.iter().skip(1).filter(|event| event[1] == code);
    events.map(|event| event[2].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn the_recording_has_output_sizes_and_the_exit_code_and_no_byte_of_the_input() {
    let gated = gated(&[]).await;
    let mut session = Session::shell(&gated).await;
    session.input("stty -echo; echo rea\"\"dy; read -r word; echo got-${#word}\n").await;
    session.until("ready").await;
    session.input("correct-horse-battery\n").await;
    session.until("got-21").await;
    session.socket.send(r#"{"resize":{"cols":77,"rows":33}}"#).await;
    session.input("exit 3\n").await;
    session.end().await;
    let recording = recording(&gated, &session.id).await;
    let header = &recording[0];
    assert_eq!(
        (&header["version"], &header["term"]["cols"], &header["term"]["rows"]),
        (&json!(3), &json!(120), &json!(40))
    );
    assert_eq!(data(&recording, "o").concat(), session.output, "{recording:?}");
    assert_eq!((data(&recording, "r"), data(&recording, "x")), (vec!["77x33".to_owned()], vec!["3".to_owned()]));
    assert!(data(&recording, "i").is_empty() && data(&recording, "k").contains(&"22".to_owned()), "{recording:?}");
    let whole = serde_json::to_string(&recording).expect("JSON");
    assert!(!whole.contains("correct-horse"), "{whole}");
    // Nobody reads it without the right, and others have none.
    let url = format!("http://{}/api/v1/commands/{}/recording", gated.address, session.id);
    assert_eq!(gated.send("GET", url, "", &[], None).await.status, 401);
    let plain = gated.execute("long").await;
    let answer = gated.get(&format!("/api/v1/commands/{}/recording", plain.text("command_id"))).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[tokio::test]
async fn recorded_input_is_only_that_of_a_rule_that_says_so_and_secrets_are_redacted() {
    let gated = gated(&[]).await;
    let mut session = Session::open(&gated, json!({"command": ["/bin/cat", "-u"]})).await;
    session.input("token=secret and more\n").await;
    session.until("and more\n").await;
    session.socket.send(r#"{"type":"stdin_eof"}"#).await;
    session.end().await;
    assert_eq!(session.output, "*** and more\n");
    let recording = recording(&gated, &session.id).await;
    assert_eq!(data(&recording, "i").concat(), "*** and more\n", "{recording:?}");
    let whole = serde_json::to_string(&recording).expect("JSON");
    assert!(!whole.contains("secret"), "{whole}");
    let ended = gated.ended(&session.id).await;
    assert_eq!(ended["stdout"], "*** and more\n", "{ended}");
}

#[tokio::test]
async fn a_client_of_hypeman_receives_bytes_and_the_exit_code_only() {
    let gated = gated(&["--compat-routes"]).await;
    let path = format!("/instances/web-1/exec?namespace={}", gated.case.namespace);
    let mut socket = Socket::open(&gated, &path).await;
    socket.send(&json!({"command": ["/bin/sh"], "tty": true, "env": {}, "timeout": 20}).to_string()).await;
    socket.send_bytes(b"echo by\"\"tes; exit 4\n").await;
    let mut output = String::new();
    let last = loop {
        match socket.next().await {
            Frame::Bytes(bytes) => output.push_str(&String::from_utf8_lossy(&bytes)),
            Frame::Message(message) => break message,
            other => panic!("{other:?} after {output}\n{}", gated.case.log()),
        }
    };
    assert_eq!((last, output.contains("bytes")), (json!({"exitCode": 4}), true), "{output}");
    assert_eq!(socket.next().await, Frame::Closed(1000));
}
