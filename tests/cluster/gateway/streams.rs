//! Streams of commands: WebSockets and NDJSON, from the first byte to the last message.

use serde_json::{Value, json};

use super::socket::{Frame, Socket};
use super::{Answer, Gated, grant, make_key, rule};

const STREAM: &str = "/api/v1/machines/web-1/commands/stream";
/// Output of the rule `many`.
const MANY_LINES: usize = 60_000;

async fn gated(flags: &[&str]) -> Gated {
    let gated = Gated::with(flags).await;
    let rules = json!([
        rule("both", "printf 'h\\303'; sleep 1; printf '\\251llo\\n'; echo err >&2; exit 3"),
        rule("binary", "printf 'a\\377\\000'"),
        rule("killed", "kill -9 $$"),
        rule("slow", "echo begun; sleep 4; echo done"),
        rule("long", "echo begun; sleep 60"),
        rule("many", &format!("seq 1 {MANY_LINES}; echo end >&2")),
    ]);
    gated.case.apply_whitelist("api", rules).await;
    gated
}

fn request(command: &str) -> String {
    json!({"command": command, "action_type": "shell"}).to_string()
}

async fn open(gated: &Gated, command: &str) -> Socket {
    let path = format!("{STREAM}?namespace={}", gated.case.namespace);
    let mut socket = Socket::open(gated, &path).await;
    socket.send(&request(command)).await;
    socket
}

/// Returns the text of a stream in messages, and checks that the offsets are without holes.
fn text(messages: &[Value], stream: &str) -> String {
    let mut text = String::new();
    for message in messages.iter().filter(|message| message["type"] == stream) {
        assert_eq!(message["offset"], text.len(), "{message}");
        text.push_str(message["data"].as_str().unwrap_or_else(|| panic!("{message}")));
    }
    text
}

fn many() -> String {
    (1..=MANY_LINES).map(|line| format!("{line}\n")).collect()
}

async fn lines(gated: &Gated, path: &str) -> Vec<Value> {
    let Answer { status, body, .. } = gated.get(path).await;
    assert_eq!(status, 200, "{body}");
    let text = body.as_str().map(str::to_owned).unwrap_or_else(|| body.to_string());
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn command_over_a_websocket_is_sent_as_produced_and_ends_with_its_exit_code() {
    let gated = gated(&[]).await;
    let (messages, code) = open(&gated, "both").await.all().await;
    let id = messages[0]["command_id"].as_str().expect("an id").to_owned();
    assert_eq!((&messages[0]["type"], code), (&json!("execution"), 1000), "{messages:?}");
    // The character that the command wrote in two parts stays text.
    assert_eq!((text(&messages, "stdout"), text(&messages, "stderr")), ("h\u{e9}llo\n".to_owned(), "err\n".to_owned()));
    assert!(messages.iter().filter(|message| message["type"] == "stdout").count() >= 2, "{messages:?}");
    assert_eq!(messages.last(), Some(&json!({"type": "exit", "data": 3})));
    let ended = gated.ended(&id).await;
    assert_eq!((&ended["phase"], &ended["requester"]), (&json!("Failed"), &json!("jane")), "{ended}");
    let (messages, _) = open(&gated, "binary").await.all().await;
    let output: Vec<_> = messages.iter().filter(|message| message["type"] == "stdout").collect();
    assert_eq!(output.iter().map(|message| &message["data"]).collect::<Vec<_>>(), [&json!("a"), &Value::Null]);
    assert_eq!(output[1]["data_base64"], "/wA=", "{output:?}");
    let (messages, code) = open(&gated, "killed").await.all().await;
    assert_eq!(messages.last(), Some(&json!({"type": "exit", "data": null, "signal": "KILL"})), "{messages:?}");
    assert_eq!(code, 1000);
}

#[tokio::test]
async fn refusals_come_as_http_before_the_upgrade_and_as_messages_after_it() {
    let gated = gated(&[]).await;
    let before = gated.case.ledger().len();
    let path = format!("{STREAM}?namespace={}", gated.case.namespace);
    let bearer = format!("Bearer {}", gated.jane);
    let credential = ("Authorization", bearer.as_str());
    grant(&gated.case, "joe", &["get"]);
    let joe = format!("Bearer {}", make_key(&gated.case, "joe", &[]));
    let missing = path.replace("web-1", "web-9");
    for (path, headers, status) in [
        (&path, vec![], 401),
        (&path, vec![credential, ("Origin", "https://evil.example")], 403),
        (&path, vec![("Authorization", joe.as_str())], 403),
        (&missing, vec![credential], 404),
        (&format!("{path}&machine=x"), vec![credential], 422),
        (&"/api/v1/commands/no-id/stream".to_owned(), vec![credential], 422),
        (&format!("/api/v1/commands/{}:nothing/stream", gated.case.namespace), vec![credential], 404),
    ] {
        let (head, socket) = Socket::try_open(&gated, path, &headers).await;
        assert!(socket.is_none() && head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
    }
    assert_eq!(gated.get(&path).await.status, 426);
    let own = format!("http://{}", gated.address);
    let protocol = [credential, ("Origin", own.as_str()), ("Sec-WebSocket-Protocol", "other, v1.writ.dev")];
    let (head, socket) = Socket::try_open(&gated, &path, &protocol).await;
    assert!(socket.is_some() && head.to_lowercase().contains("sec-websocket-protocol: v1.writ.dev\r\n"), "{head}");
    for (message, error, reason) in [
        (request("rm -rf /"), "Command not in whitelist", "NoMatchingRule"),
        (request(""), "Malformed request", "Malformed"),
        (r#"{"command": "both"}"#.to_owned(), "Malformed request", "Malformed"),
        ("[".to_owned(), "Malformed request", "Malformed"),
    ] {
        let mut socket = Socket::open(&gated, &path).await;
        socket.send(&message).await;
        let (messages, code) = socket.all().await;
        let last = messages.last().unwrap_or_else(|| panic!("{message}"));
        assert_eq!((&last["error"], &last["reason"], code), (&json!(error), &json!(reason), 1008), "{messages:?}");
    }
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_its_command_and_viewers_join_at_any_time() {
    let gated = gated(&[]).await;
    let mut socket = open(&gated, "slow").await;
    let Frame::Message(first) = socket.next().await else { panic!("no message\n{}", gated.case.log()) };
    let id = first["command_id"].as_str().expect("an id").to_owned();
    let Frame::Message(begun) = socket.next().await else { panic!("no output\n{}", gated.case.log()) };
    assert_eq!(begun["data"], "begun\n");
    drop(socket);
    let mut viewer = Socket::open(&gated, &format!("/api/v1/commands/{id}/stream")).await;
    let mut late = Socket::open(&gated, &format!("/api/v1/commands/{id}/stream?offset=2")).await;
    let running = lines(&gated, &format!("/api/v1/commands/{id}/events")).await;
    let (messages, code) = viewer.all().await;
    assert_eq!((text(&messages, "stdout"), code), ("begun\ndone\n".to_owned(), 1000));
    assert_eq!(text(&running, "stdout"), "begun\ndone\n");
    assert!(messages.iter().all(|message| message["executionId"] == id.as_str()), "{messages:?}");
    let (last, others) = messages.split_last().expect("messages");
    assert!(others.iter().all(|message| message["status"] == "running"), "{messages:?}");
    assert_eq!((&last["type"], &last["status"], &last["exitCode"]), (&json!("end"), &json!("completed"), &json!(0)));
    assert!(last["execTime"].as_i64().is_some_and(|time| time >= 3000), "{last}");
    let (messages, _) = late.all().await;
    let output = messages.iter().find(|message| message["type"] == "stdout").expect("output");
    assert_eq!((&output["offset"], &output["output"]), (&json!(2), &json!("gun\n")));
    let ended = gated.ended(&id).await;
    assert_eq!(ended["phase"], "Succeeded", "{ended}");
    let uid = ended["uid"].as_str().expect("a UID");
    let by_uid = lines(&gated, &format!("/api/v1/commands/{uid}/events")).await;
    assert_eq!(text(&by_uid, "stdout"), "begun\ndone\n");
}

#[tokio::test]
async fn a_long_output_is_the_same_bytes_in_every_form_and_after_a_restart() {
    let mut gated = gated(&[]).await;
    let (messages, code) = open(&gated, "many").await.all().await;
    assert!(text(&messages, "stdout") == many() && code == 1000, "{:?}", messages.last());
    let id = messages[0]["command_id"].as_str().expect("an id").to_owned();
    for round in ["live", "stored"] {
        let watched = lines(&gated, &format!("/api/v1/commands/{id}/events?stderr_offset=1")).await;
        assert!(text(&watched, "stdout") == many(), "{round}");
        let stderr = watched.iter().find(|message| message["type"] == "stderr").expect("the error");
        assert_eq!((&stderr["data"], &stderr["offset"]), (&json!("nd\n"), &json!(1)), "{round}");
        polled(&gated, &id).await;
        downloaded(&gated, &id).await;
        searched(&gated, &id).await;
        // Without the process that ran the command, the output comes from the store.
        gated.restart().await;
    }
}

async fn polled(gated: &Gated, id: &str) {
    let (mut text, mut offset) = (String::new(), 0);
    loop {
        let answer = gated.get(&format!("/api/v1/commands/{id}/output?stdout_offset={offset}")).await;
        let part = answer.text("stdout");
        assert!(part.len() <= 64 << 10 && answer.body["gaps"] == json!([]), "{answer:?}");
        text.push_str(part);
        offset = answer.body["stdout_offset"].as_u64().expect("an offset");
        assert_eq!(offset, text.len() as u64);
        if answer.body["is_finished"] == true {
            assert_eq!((answer.text("status"), answer.text("stderr")), ("completed", "end\n"));
            break;
        }
    }
    assert!(text == many());
}

async fn downloaded(gated: &Gated, id: &str) {
    let path = format!("http://{}/api/v1/commands/{id}/output/stdout", gated.address);
    let download = async |headers: &[(&str, &str)]| gated.send("GET", path.clone(), &gated.jane, headers, None).await;
    let (all, whole) = (many(), download(&[]).await);
    assert!(whole.status == 200 && whole.body.as_str() == Some(&all), "{:?}", whole.headers);
    assert_eq!((whole.header("accept-ranges"), whole.header("x-content-type-options")), ("bytes", "nosniff"));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert!(whole.header("content-disposition").starts_with("attachment;"), "{:?}", whole.headers);
    let part = download(&[("Range", "bytes=100000-100009")]).await;
    assert_eq!((part.status, part.header("content-length")), (206, "10"));
    assert_eq!(part.header("content-range"), format!("bytes 100000-100009/{}", all.len()));
    assert_eq!(body_text(&part), &all[100_000..100_010]);
    let end = download(&[("Range", "bytes=-4"), ("If-Range", whole.header("etag"))]).await;
    assert_eq!((end.status, body_text(&end).as_str()), (206, &all[all.len() - 4..]));
    assert_eq!(download(&[("Range", "bytes=-4"), ("If-Range", "\"other\"")]).await.status, 200);
    let beyond = download(&[("Range", &format!("bytes={}-", all.len()))]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, format!("bytes */{}", all.len()).as_str()));
}

/// Returns the body as text, although it perhaps looks like JSON.
fn body_text(answer: &Answer) -> String {
    answer.body.as_str().map_or_else(|| answer.body.to_string(), str::to_owned)
}

async fn searched(gated: &Gated, id: &str) {
    let search = async |query: &str| gated.get(&format!("/api/v1/commands/{id}/output/stdout?{query}")).await;
    let found = search("grep=%5E59999%24&before=1&after=1").await;
    let offset = many().find("59999\n").expect("the line");
    let line =
        json!({"offset": offset, "match_offset": offset, "line": "59999", "before": ["59998"], "after": ["60000"]});
    assert_eq!(found.body["matches"], json!([line]), "{found:?}");
    assert_eq!((&found.body["is_complete"], &found.body["searched_bytes"]), (&json!(true), &json!(many().len())));
    let limited = search("grep=9&limit=3").await;
    assert_eq!(limited.body["matches"].as_array().map(Vec::len), Some(3));
    assert_eq!(limited.body["is_complete"], false);
    for query in ["grep=(", "grep=", "limit=3", "grep=x&limit=1001", "grep=x&befor=1"] {
        assert_eq!(search(query).await.status, 422, "{query}");
    }
}

#[tokio::test]
async fn an_output_that_is_stored_nowhere_has_its_ends_and_announces_the_gap() {
    let mut gated = gated(&["--output-store=none"]).await;
    let (messages, _) = open(&gated, "many").await.all().await;
    let id = messages[0]["command_id"].as_str().expect("an id").to_owned();
    gated.restart().await;
    let all = many();
    let watched = lines(&gated, &format!("/api/v1/commands/{id}/events")).await;
    let parts: Vec<_> = watched.iter().filter(|message| message["type"] == "stdout").collect();
    let gap = watched.iter().find(|message| message["type"] == "gap").expect("a gap");
    assert_eq!((&gap["stream"], &gap["reason"]), (&json!("stdout"), &json!("not_stored")));
    let number = |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("an offset");
    let (start, end) = (number(&gap["offset"]), number(&gap["offset"]) + number(&gap["length"]));
    assert_eq!((parts[0]["data"].as_str(), parts[1]["data"].as_str()), (Some(&all[..start]), Some(&all[end..])));
    let polled = gated.get(&format!("/api/v1/commands/{id}/output?stdout_offset={start}")).await;
    assert_eq!(polled.body["gaps"][0]["length"], end - start, "{polled:?}");
    assert_eq!((polled.text("stdout"), &polled.body["is_finished"]), (&all[end..], &json!(true)));
    let path = format!("/api/v1/commands/{id}/output/stdout");
    assert_eq!(gated.get(&format!("{path}?grep=zzz")).await.body["is_complete"], false);
    let range = format!("bytes={start}-");
    let url = format!("http://{}{path}", gated.address);
    let missing = gated.send("GET", url.clone(), &gated.jane, &[("Range", &range)], None).await;
    assert_eq!((missing.status, missing.text("reason")), (410, "OutputNotAvailable"), "{missing:?}");
    let range = format!("bytes={end}-");
    let tail = gated.send("GET", url, &gated.jane, &[("Range", &range)], None).await;
    assert_eq!((tail.status, body_text(&tail).as_str()), (206, &all[end..]));
}

#[tokio::test]
async fn a_viewer_that_does_not_read_is_dropped_and_delays_nobody() {
    let gated = gated(&[]).await;
    let bytes = 48_000_000;
    let mut huge = rule("huge", &format!("yes 0123456789012345678901234567890123456789 | head -c {bytes}; sleep 50"));
    huge["output"] = json!({"maximumBytes": bytes * 2});
    huge["timeoutSeconds"] = json!({"default": 300, "maximum": 300});
    gated.case.apply_whitelist("huge", json!([huge])).await;
    let mut slow = open(&gated, "huge").await;
    let Frame::Message(first) = slow.next().await else { panic!("no message\n{}", gated.case.log()) };
    let id = first["command_id"].as_str().expect("an id").to_owned();
    // Another viewer receives everything while the first one does not read.
    let mut quick = Socket::open(&gated, &format!("/api/v1/commands/{id}/stream")).await;
    let mut read = 0;
    while read < bytes {
        let Frame::Message(message) = quick.next().await else { panic!("after {read}\n{}", gated.case.log()) };
        read += message["data"].as_str().map_or(0, str::len);
    }
    tokio::time::sleep(std::time::Duration::from_secs(40)).await;
    let (mut offset, mut end) = (0, slow.next().await);
    while let Frame::Message(message) = end {
        offset += message["data"].as_str().map_or(0, str::len);
        end = slow.next().await;
    }
    assert!(end == Frame::Lost && offset < bytes, "{end:?} after {offset}");
    let mut resumed = Socket::open(&gated, &format!("/api/v1/commands/{id}/stream?offset={offset}")).await;
    while offset < bytes {
        let Frame::Message(message) = resumed.next().await else { panic!("after {offset}\n{}", gated.case.log()) };
        if message["type"] == "stdout" {
            assert_eq!(message["offset"], offset, "{}", message["type"]);
            offset += message["data"].as_str().map_or(0, str::len);
        }
    }
    let (messages, code) = resumed.all().await;
    assert_eq!((&messages.last().expect("the end")["exitCode"], code), (&json!(0), 1000));
}

#[tokio::test]
async fn the_changes_of_executions_are_listed_and_then_sent() {
    let gated = gated(&[]).await;
    let path = format!("/api/v1/commands/watch?namespace={}", gated.case.namespace);
    let mut watch = Socket::open(&gated, &path).await;
    let Frame::Message(listed) = watch.next().await else { panic!("no list\n{}", gated.case.log()) };
    assert_eq!((&listed["type"], &listed["commands"]), (&json!("listed"), &json!([])), "{listed}");
    let (messages, _) = open(&gated, "both").await.all().await;
    let id = messages[0]["command_id"].clone();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&json!("completed")) {
        let Frame::Message(changed) = watch.next().await else { panic!("{statuses:?}\n{}", gated.case.log()) };
        assert_eq!((&changed["type"], &changed["command"]["command_id"]), (&json!("changed"), &id), "{changed}");
        statuses.push(changed["command"]["status"].clone());
    }
    let joe = make_key(&gated.case, "joe", &[]);
    let refused = gated.send("GET", format!("http://{}{path}", gated.address), &joe, &[], None).await;
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[tokio::test]
async fn a_stop_closes_sockets_with_going_away() {
    let gated = gated(&[]).await;
    let mut socket = open(&gated, "long").await;
    while socket.next().await != Frame::Message(json!({"type": "stdout", "data": "begun\n", "offset": 0})) {}
    gated.case.terminate_writ();
    let (messages, code) = socket.all().await;
    assert_eq!((messages, code), (vec![], 1001));
}
