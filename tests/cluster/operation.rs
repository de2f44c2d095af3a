//! Metrics, health, log lines and traces of a running Writ. Hostile requests to these endpoints disturb no execution.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::SshdOptions;
use crate::machines::CLOSED_PORT;
use crate::world::{World, world};

const LISTENING: [&str; 2] = ["--listen-operations", "127.0.0.1:0"];
/// Longer than any deadline of the endpoints.
const PATIENCE: Duration = Duration::from_secs(90);

/// Returns the port that `writ serve` chose, from its log.
pub fn port(case: &Case) -> u16 {
    let log = case.whole_log();
    let line = log.lines().rfind(|line| line.contains("metrics and health are served")).expect("it listens");
    let digits = line.rsplit("127.0.0.1:").next().expect("an address");
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a port")
}

/// Sends these bytes, and reads the answer to its end.
async fn send(port: u16, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // The server may answer and close the connection before it has received everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns the status code and the body of the response for a path.
pub async fn get(port: u16, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: writ\r\n\r\n");
    let answer = send(port, request.as_bytes()).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

/// Waits until a path responds with this status code, and returns the body.
async fn until(port: u16, path: &str, status: u16) -> String {
    let started = Instant::now();
    loop {
        let (is, body) = get(port, path).await;
        if is == status {
            return body;
        }
        assert!(started.elapsed() < PATIENCE, "{path} is still {is}:\n{body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the sum of all series of a metric whose labels contain this text.
pub async fn metric(port: u16, name: &str, labels: &str) -> f64 {
    let (status, text) = get(port, "/metrics").await;
    assert_eq!(status, 200);
    let is_it = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(labels);
    text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn what_happens_to_executions_is_counted_and_no_name_of_a_user_is_a_label() {
    let case = Case::durable_with(SshdOptions::default(), &LISTENING).await;
    let port = port(&case);
    case.execute("good-one", "say hello").await;
    case.ends("good-one", Phase::Succeeded, Reason::Completed).await;
    case.execute_with("bad-one", json!({"command": "say nothing of it", "startingDeadlineSeconds": 0})).await;
    case.ends("bad-one", Phase::Rejected, Reason::NoMatchingRule).await;
    case.apply_machine("gone", json!({"port": CLOSED_PORT})).await;
    let away = json!({"command": "say hello", "machineRef": {"name": "gone"}, "startingDeadlineSeconds": 0});
    case.execute_with("lost-one", away).await;
    case.ends("lost-one", Phase::Expired, Reason::MachineOffline).await;

    // Writ counts a result a moment after the result becomes readable.
    let started = Instant::now();
    while metric(port, "writ_executions_finished_total", "").await < 3.0 && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (name, labels, count) in [
        ("writ_executions_finished_total", "phase=\"Succeeded\",reason=\"Completed\"", 1.0),
        ("writ_executions_finished_total", "phase=\"Rejected\",reason=\"NoMatchingRule\"", 1.0),
        ("writ_executions_finished_total", "phase=\"Expired\",reason=\"MachineOffline\"", 1.0),
        ("writ_decisions_total", "verdict=\"allowed\"", 2.0),
        ("writ_decisions_total", "verdict=\"rejected\"", 1.0),
        ("writ_executions_claimed_total", "", 1.0),
        ("writ_execution_duration_seconds_count", "", 1.0),
        ("writ_execution_wait_seconds_count", "", 1.0),
        ("writ_output_bytes_total", "stream=\"stdout\"", 6.0),
        ("writ_ssh_connections", "purpose=\"commands\"", 1.0),
        ("writ_machines", "phase=\"Online\"", 1.0),
        ("writ_machines", "phase=\"Offline\"", 1.0),
        ("writ_executions_waiting", "", 0.0),
        ("writ_results_waiting", "", 0.0),
        ("writ_results_lost_total", "", 0.0),
        ("writ_requester_stamping", "state=\"stamped\"", 1.0),
    ] {
        assert_eq!(metric(port, name, labels).await, count, "{name} {labels}");
    }
    for (name, labels) in [
        ("writ_reconcile_duration_seconds_count", "controller=\"executions\""),
        ("writ_api_requests_total", "operation=\"write_status\",outcome=\"ok\""),
        ("writ_api_requests_total", "operation=\"write_result\",outcome=\"ok\""),
        ("writ_api_requests_total", "operation=\"renew_lease\",outcome=\"ok\""),
        ("writ_ssh_requests_total", "outcome=\"answered\""),
        ("writ_ssh_connect_attempts_total", "outcome=\"connected\""),
        ("writ_ssh_connect_attempts_total", "outcome=\"unreachable\""),
        ("process_resident_memory_bytes", ""),
    ] {
        assert!(metric(port, name, labels).await >= 1.0, "{name} {labels}");
    }
    let (_, text) = get(port, "/metrics").await;
    let user = case.sshd.user();
    for name in [&case.namespace, "good-one", "bad-one", "lost-one", "web-1", "gone", "web-ssh", "hello", "admin", user]
    {
        let named = text.lines().find(|line| !line.starts_with('#') && line.contains(&format!("\"{name}\"")));
        assert_eq!(named, None, "a label has the value {name}");
    }
    assert!(!text.contains(&case.namespace), "{text}");
}

#[tokio::test]
async fn an_api_server_that_is_away_makes_it_unready_and_is_no_reason_to_restart_it() {
    let world = tokio::task::spawn_blocking(World::start).await.expect("a world");
    let flags = [LISTENING[0], LISTENING[1], "--lease-seconds", "3"];
    let mut case = Case::with(world.clone(), SshdOptions::default(), &flags).await;
    let body = until(port(&case), "/readyz", 200).await;
    assert!(!body.contains("FAILED"), "{body}");

    world.control_plane.stop_api_server();
    let body = until(port(&case), "/readyz", 503).await;
    assert!(body.contains("FAILED  lease: last renewed"), "{body}");
    let (alive, body) = get(port(&case), "/healthz").await;
    assert_eq!(alive, 200, "{body}");

    // A process that has not reached the API server yet reports that it waits for the API server.
    case.kill_writ();
    let log = case.whole_log().len();
    case.start_writ();
    let started = Instant::now();
    while !case.whole_log()[log..].contains("waiting for the API server") {
        assert!(started.elapsed() < PATIENCE, "{}", case.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (ready, body) = get(port(&case), "/readyz").await;
    assert_eq!(ready, 503);
    assert!(body.contains("FAILED  api-server: no answer yet"), "{body}");
    assert_eq!(get(port(&case), "/healthz").await.0, 200);

    world.control_plane.start_api_server().expect("it starts again");
    until(port(&case), "/readyz", 200).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    world.control_plane.stop();
}

#[tokio::test]
async fn hostile_requests_cost_a_bounded_amount_and_disturb_no_execution() {
    let case = Case::durable_with(SshdOptions::default(), &LISTENING).await;
    let port = port(&case);
    // Connections that send nothing, or an incomplete request, and stay open.
    let mut held = Vec::new();
    for number in 0..1000 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await;
        }
        held.push(stream);
    }
    assert!(held.len() > 900, "{} connections", held.len());
    // Writ still serves later clients.
    assert_eq!(get(port, "/healthz").await.0, 200);
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    assert!(metric(port, "process_open_fds", "").await < 500.0, "connections are kept");
    // Writ closes all of them. The newest one reaches the deadline for the head of a request.
    let closed = async {
        for stream in &mut held {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("connections that say nothing are closed");

    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100_000));
    for hostile in
        [huge.as_bytes(), many.as_bytes(), b"\0\xff\x16\x03\x01\x02\0\x01", b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"]
    {
        let answer = send(port, hostile).await.unwrap_or_default();
        let said = ["HTTP/1.1 4", ""].iter().any(|start| answer.starts_with(start)) && !answer.contains("HTTP/1.1 200");
        assert!(said, "{answer}");
    }
    let posted = send(port, b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx").await.expect("an answer");
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    let body = send(port, b"GET /healthz HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx").await.expect("an answer");
    assert!(body.starts_with("HTTP/1.1 200"), "{body}");
    assert_eq!(get(port, "/nothing").await.0, 404);
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_by_the_name_of_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_writ"))
        .args(["serve", "--kubeconfig", "/nonexistent", "--listen-operations", &address])
        .output()
        .expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--listen-operations") && said.contains(&address), "{said}");
}

#[tokio::test]
async fn log_lines_in_json_say_which_execution_where_and_how_it_ended_and_no_more() {
    let case = Case::durable_with(SshdOptions::default(), &["--log-format", "json"]).await;
    case.execute("x", "sleep-one").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let lines = || -> Vec<Value> {
        let log = case.whole_log();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
    };
    let started = Instant::now();
    let find = |message: &str| lines().into_iter().find(|line| line["fields"]["message"] == message);
    while find("execution finished").is_none() && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let execution = format!("{}/x", case.namespace);
    for message in ["execution claimed", "command running", "execution finished"] {
        let line = find(message).unwrap_or_else(|| panic!("no line says that {message}:\n{}", case.log()));
        let fields = &line["fields"];
        assert_eq!(fields["execution"], execution, "{line}");
        assert_eq!((&fields["uid"], &fields["machine"]), (&json!(uid), &json!("web-1")), "{line}");
    }
    let ended = find("execution finished").expect("a line")["fields"].clone();
    assert_eq!((&ended["phase"], &ended["reason"]), (&json!("Succeeded"), &json!("Completed")));
    assert!(ended["duration_ms"].is_i64(), "{ended}");
    assert!(!case.whole_log().contains("echo done"), "arguments are in the log");
}

/// Starts a collector that responds to every request with 200. The receiver gets the path and the body of each request.
async fn collector() -> (u16, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let sender = sender.clone();
                async move {
                    use http_body_util::BodyExt as _;
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
                    let _ = sender.send([path.as_bytes(), b"\n", &body].concat());
                    Ok::<_, String>(http::Response::new(String::new()))
                }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
        }
    });
    (port, receiver)
}

#[tokio::test]
async fn spans_of_an_execution_reach_the_collector_under_its_uid_without_what_it_ran() {
    let (port, mut received) = collector().await;
    let endpoint = format!("http://127.0.0.1:{port}");
    let case = Case::durable_with(SshdOptions::default(), &["--otlp-endpoint", &endpoint]).await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let uid = case.executions().get("x").await.expect("it is there").metadata.uid.expect("a UID");
    let trace = uuid::Uuid::parse_str(&uid).expect("a UUID").into_bytes();
    let mut sent = Vec::new();
    let has = |sent: &[u8], what: &[u8]| sent.windows(what.len()).any(|window| window == what);
    let names = ["reconcile", "execute", "connect", "claim", "launch", "record"];
    let started = Instant::now();
    while !(names.iter().all(|name| has(&sent, name.as_bytes())) && has(&sent, &trace) && has(&sent, uid.as_bytes())) {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let batch = tokio::time::timeout(left, received.recv()).await;
        sent.extend(batch.expect("spans come").expect("a batch"));
    }
    assert!(sent.starts_with(b"/v1/traces\n"));
    for wanted in ["Succeeded", "web-1", case.namespace.as_str()] {
        assert!(has(&sent, wanted.as_bytes()), "{wanted}");
    }
    for secret in ["/bin/echo", "hello", "admin"] {
        assert!(!has(&sent, secret.as_bytes()), "{secret} is in a span");
    }
}

#[tokio::test]
async fn a_collector_that_says_nothing_delays_no_execution_and_no_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let case = Case::with(world(), SshdOptions::default(), &["--otlp-endpoint", &endpoint]).await;
    for index in 0..5 {
        let name = format!("x{index}");
        case.execute(&name, "say hello").await;
        case.ends(&name, Phase::Succeeded, Reason::Completed).await;
    }
    case.terminate_writ();
    assert!(case.writ_ended().await.success());
}
