//! Compatibility routes: each path of the earlier systems, its fields and statuses, and that nothing else is permitted.

use serde_json::{Value, json};

use super::socket::Socket;
use super::{Answer, Gated, grant, make_key, rule};

/// Fields of a command of RemoteShell.
const COMMAND_FIELDS: [&str; 11] = [
    "command_id",
    "device_id",
    "command",
    "status",
    "created_at",
    "sent_at",
    "completed_at",
    "stdout",
    "stderr",
    "exit_code",
    "execution_time",
];

async fn gated() -> Gated {
    let gated = Gated::with(&["--compat-routes"]).await;
    let mut say = rule("say", "");
    say["match"] = json!("say {word}");
    say["run"] = json!(["/bin/echo", "{word}"]);
    say["parameters"] = json!({"word": {"enum": ["hello", "7"]}});
    let rules = json!([
        rule("both", "echo out; echo err >&2; exit 3"),
        rule("killed", "kill -9 $$"),
        rule("slow", "sleep 30"),
        rule("empty", "true"),
        say,
        {"name": "never", "match": "forbidden", "effect": "Deny"},
    ]);
    gated.case.apply_whitelist("api", rules).await;
    grant_machines(&gated);
    gated
}

fn grant_machines(gated: &Gated) {
    let (world, namespace) = (&gated.case.world, gated.case.namespace.as_str());
    let verbs = ["--verb=get,list", "--resource=machines.writ.dev"];
    world.kubectl_succeeds(&[&["-n", namespace, "create", "role", "jane-machines"][..], &verbs].concat());
    let bound = ["--role=jane-machines", "--user=jane"];
    world.kubectl_succeeds(&[&["-n", namespace, "create", "rolebinding", "jane-machines"][..], &bound].concat());
}

async fn read(gated: &Gated, path: &str) -> Answer {
    gated.send("GET", gated.url(path), &gated.jane, &[], None).await
}

/// Returns the names of the fields of an object, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Waits for the end of a command with the route of RemoteShell.
async fn remote_ended(gated: &Gated, id: &str) -> Value {
    gated.ended(id).await;
    let answer = gated.get(&format!("/api/command/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[tokio::test]
async fn ogent_runs_a_command_with_its_own_fields_as_the_caller() {
    let gated = gated().await;
    for path in ["/api/command", "/api/execute"] {
        let body = json!({"command": "both", "machine": "web-1", "params": {}, "userId": "root"});
        let answer = gated.post(path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(fields(&answer.body), ["execTime", "executionId", "exitCode", "output", "status"]);
        assert_eq!((answer.text("status"), answer.text("output")), ("completed", "out\nerr\n"));
        assert_eq!(answer.body["exitCode"], 3);
        assert!(answer.body["execTime"].is_i64(), "{answer:?}");
        let (namespace, name) = answer.text("executionId").split_once(':').expect("namespace:name");
        assert_eq!(answer.header("writ-execution"), format!("{namespace}/{name}"));
        let execution = gated.case.executions().get(name).await.expect("the record");
        assert_eq!(execution.spec.requested_by.expect("a requester").username, "jane");
        let named = gated.post(path, json!({"command": "say", "machine": "web-1", "params": {"word": 7}})).await;
        assert_eq!((named.status, named.text("output")), (200, "7\n"), "{named:?}");
        let killed = gated.post(path, json!({"command": "killed", "machine": "web-1"})).await;
        assert_eq!((killed.status, &killed.body["exitCode"]), (200, &Value::Null), "{killed:?}");
    }
}

#[tokio::test]
async fn ogent_refuses_as_the_other_routes_and_nothing_is_run() {
    let gated = gated().await;
    let joe = make_key(&gated.case, "joe", &[]);
    let before = gated.case.ledger().len();
    for path in ["/api/command", "/api/execute"] {
        let body = |command: &str| json!({"command": command, "machine": "web-1"});
        let say = |word: &str| json!({"command": "say", "machine": "web-1", "params": {"word": word}});
        for refused in [
            body("rm -rf /"),
            body("forbidden"),
            say("goodbye"),
            json!({
                "command": "no-such-rule", "machine": "web-1", "params": {"a": "b"}
            }),
        ] {
            let answer = gated.post(path, refused.clone()).await;
            assert_eq!((answer.status, answer.text("error")), (403, "Command not permitted"), "{refused}: {answer:?}");
        }
        let sent = Some(body("empty").to_string());
        let none = gated.send("POST", gated.url(path), "", &[], sent.clone()).await;
        assert_eq!((none.status, none.text("reason")), (401, "Unauthenticated"), "{none:?}");
        // The credential decides, and not the body.
        let as_jane = Some(json!({"command": "empty", "machine": "web-1", "userId": "jane"}).to_string());
        let outsider = gated.send("POST", gated.url(path), &joe, &[], as_jane).await;
        assert_eq!((outsider.status, outsider.text("error")), (403, "Command not permitted"), "{outsider:?}");
        let missing = gated.post(path, json!({"command": "empty", "machine": "web-9"})).await;
        assert_eq!((missing.status, missing.text("reason")), (404, "MachineNotFound"), "{missing:?}");
        for (body, field) in [
            (json!({"command": "empty"}), "machine"),
            (json!({"command": "", "machine": "web-1"}), "command"),
            (json!({"command": "say hello", "machine": "web-1", "params": {"word": "x"}}), "command"),
            (json!({"command": "say", "machine": "web-1", "params": {"word": [1]}}), "params.word"),
            (json!({"machine": "web-1"}), "command"),
            (json!({"command": "empty", "machine": "web-1", "action_type": "shell"}), "action_type"),
            (json!({"command": "empty", "machine": "web-1", "device_id": "web-1"}), "device_id"),
        ] {
            let malformed = gated.post(path, body.clone()).await;
            assert_eq!(malformed.status, 422, "{body}: {malformed:?}");
            assert!(malformed.text("message").contains(field), "{body}: {malformed:?}");
        }
    }
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn ogent_follows_an_execution_to_its_end() {
    let gated = gated().await;
    let answer = gated.post("/api/execute", json!({"command": "both", "machine": "web-1"})).await;
    let id = answer.text("executionId");
    let path = format!("/api/executions/{id}");
    let (messages, code) = Socket::open(&gated, &path).await.all().await;
    assert_eq!(code, 1000, "{messages:?}");
    let (last, others) = messages.split_last().expect("messages");
    assert!(
        others.iter().all(|message| message["executionId"] == id && message["status"] == "running"),
        "{messages:?}"
    );
    let output: String = others.iter().map(|message| message["output"].as_str().expect("output")).collect();
    assert_eq!(output, "out\nerr\n");
    assert_eq!((&last["executionId"], &last["status"]), (&json!(id), &json!("completed")));
    assert!(last["exitCode"] == 3 && last["execTime"].is_i64(), "{last}");
    let (head, socket) = Socket::try_open(&gated, &path, &[]).await;
    assert!(socket.is_none() && head.starts_with("HTTP/1.1 401 "), "{head}");
    let bearer = format!("Bearer {}", gated.jane);
    let unknown = format!("/api/executions/{}:none", gated.case.namespace);
    let (head, socket) = Socket::try_open(&gated, &unknown, &[("Authorization", &bearer)]).await;
    assert!(socket.is_none() && head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(gated.get(&path).await.status, 426);
}

#[tokio::test]
async fn remote_shell_queues_reads_and_cancels_a_command() {
    let gated = gated().await;
    let queued = gated.post("/api/command", json!({"device_id": "web-1", "command": "both", "timeout": 20})).await;
    assert_eq!((queued.status, queued.text("status")), (202, "pending"), "{queued:?}");
    assert_eq!(fields(&queued.body), ["command_id", "message", "status"]);
    let ended = remote_ended(&gated, queued.text("command_id")).await;
    for field in COMMAND_FIELDS {
        assert!(ended.get(field).is_some(), "{field} in {ended}");
    }
    let of = |field: &str| ended[field].clone();
    assert_eq!((of("device_id"), of("command"), of("status")), (json!("web-1"), json!("both"), json!("completed")));
    assert_eq!((of("stdout"), of("stderr"), of("exit_code")), (json!("out\n"), json!("err\n"), json!(3)));
    assert!(ended["execution_time"].as_f64().is_some_and(|seconds| (0.0..20.0).contains(&seconds)), "{ended}");
    let time = |field: &str| ended[field].as_str().expect("a time").parse::<jiff::Timestamp>().expect("ISO 8601");
    assert!(time("created_at") <= time("sent_at") && time("sent_at") <= time("completed_at"), "{ended}");
    let execution = queued.text("command_id").split_once(':').expect("an id").1;
    let execution = gated.case.executions().get(execution).await.expect("the record");
    assert_eq!(execution.spec.timeout_seconds, Some(20));
    let slow = gated.post("/api/command", json!({"device_id": "web-1", "command": "slow"})).await;
    let path = format!("/api/command/{}", slow.text("command_id"));
    let url = format!("http://{}{path}", gated.address);
    let joe = make_key(&gated.case, "joe", &[]);
    assert_eq!(gated.send("DELETE", url.clone(), &joe, &[], None).await.status, 403);
    let cancelled = gated.send("DELETE", url.clone(), &gated.jane, &[], None).await;
    assert_eq!((cancelled.status, cancelled.text("device_id")), (202, "web-1"), "{cancelled:?}");
    assert_eq!(remote_ended(&gated, slow.text("command_id")).await["status"], "cancelled");
    let again = gated.send("DELETE", url, &gated.jane, &[], None).await;
    assert_eq!((again.status, again.text("status")), (200, "cancelled"), "{again:?}");
    for (id, status) in [(format!("{}:none", gated.case.namespace), 404), ("none".to_owned(), 422)] {
        assert_eq!(gated.get(&format!("/api/command/{id}")).await.status, status, "{id}");
    }
    for (body, field) in [
        (json!({"device_id": "web-1", "command": "both", "timeout": 0}), "timeout"),
        (json!({"device_id": "web-1", "command": ""}), "command"),
        (json!({"device_id": "web-1"}), "command"),
    ] {
        let malformed = gated.post("/api/command", body.clone()).await;
        assert!(malformed.status == 422 && malformed.text("message").contains(field), "{body}: {malformed:?}");
    }
}

#[tokio::test]
async fn remote_shell_queues_on_many_devices_and_lists_the_commands() {
    let gated = gated().await;
    let bulk = json!({"device_ids": ["web-1", "web-9"], "command": "empty", "timeout": 20});
    let answer = gated.post("/api/commands/bulk", bulk).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let (good, bad) = (&answer.body[0], &answer.body[1]);
    assert_eq!(fields(good), ["command_id", "device_id", "message", "status"]);
    assert_eq!((&good["device_id"], &good["status"]), (&json!("web-1"), &json!("pending")));
    assert_eq!((&bad["device_id"], &bad["status"]), (&json!("web-9"), &json!("failed")));
    assert_eq!((&bad["error"], &bad["reason"]), (&json!("Machine not found"), &json!("MachineNotFound")));
    for ids in [json!([]), json!(["web-1", "web-1"]), json!(vec!["web-1"; 101])] {
        let refused = gated.post("/api/commands/bulk", json!({"device_ids": ids, "command": "empty"})).await;
        assert!(refused.status == 422 && refused.text("message").starts_with("device_ids"), "{ids}: {refused:?}");
    }
    let first = good["command_id"].as_str().expect("an id").to_owned();
    remote_ended(&gated, &first).await;
    let second = gated.post("/api/command", json!({"device_id": "web-1", "command": "unlisted"})).await;
    let second = second.text("command_id").to_owned();
    assert_eq!(remote_ended(&gated, &second).await["status"], "failed");
    for (filter, expected) in [
        ("", vec![&second, &first]),
        ("?device_id=web-1&limit=1", vec![&second]),
        ("?device_id=web-2", vec![]),
        ("?status=completed", vec![&first]),
        ("?status=failed&start_date=2020-01-01&end_date=2100-01-01", vec![&second]),
        ("?start_date=2100-01-01", vec![]),
        ("?end_date=2020-01-01", vec![]),
    ] {
        let listed = read(&gated, &format!("/api/commands{filter}")).await;
        assert_eq!(listed.status, 200, "{filter}: {listed:?}");
        let items = listed.body["items"].as_array().expect("items");
        let ids: Vec<&str> = items.iter().map(|item| item["command_id"].as_str().expect("an id")).collect();
        assert_eq!(ids, expected, "{filter}");
        assert!(items.iter().all(|item| COMMAND_FIELDS.iter().all(|field| item.get(field).is_some())), "{listed:?}");
    }
    for (filter, field) in [
        ("device_id=a%3Db", "device_id"),
        ("status=running", "status"),
        ("limit=0", "limit"),
        ("start_date=x", "start_date"),
        ("machine=web-1", "machine"),
    ] {
        let malformed = read(&gated, &format!("/api/commands?{filter}")).await;
        assert!(malformed.status == 422 && malformed.text("message").contains(field), "{filter}: {malformed:?}");
    }
}

#[tokio::test]
async fn devices_are_machines_with_history_and_statistics() {
    let gated = gated().await;
    let id = gated.post("/api/execute", json!({"command": "both", "machine": "web-1"})).await;
    let id = id.text("executionId").to_owned();
    let list = read(&gated, "/api/devices?limit=5").await;
    assert_eq!((list.status, &list.body["items"][0]["device_id"]), (200, &json!("web-1")), "{list:?}");
    let device = read(&gated, "/api/devices/web-1").await;
    assert_eq!((device.status, device.text("device_id"), device.text("name")), (200, "web-1", "web-1"), "{device:?}");
    for field in ["status", "first_seen", "last_connected", "queue_size", "total_commands", "metadata"] {
        assert!(device.body.get(field).is_some(), "{field} in {device:?}");
    }
    assert_eq!(device.body["total_commands"], 1);
    let history = read(&gated, "/api/devices/web-1/history").await;
    assert_eq!((history.status, &history.body["items"][0]["command_id"]), (200, &json!(id)), "{history:?}");
    assert_eq!(history.body["items"][0]["device_id"], "web-1");
    let statistics = read(&gated, "/api/devices/web-1/statistics").await;
    let of = |field: &str| statistics.body[field].clone();
    assert_eq!((statistics.status, of("total_commands"), of("completed")), (200, json!(1), json!(1)), "{statistics:?}");
    assert_eq!((of("failed"), of("pending"), of("timeout")), (json!(0), json!(0), json!(0)));
    assert!(statistics.body["avg_execution_time"].is_f64(), "{statistics:?}");
    let joe = make_key(&gated.case, "joe", &[]);
    for path in ["", "/web-1", "/web-1/history", "/web-1/statistics"] {
        let path = format!("/api/devices{path}");
        assert_eq!(gated.send("GET", gated.url(&path), &joe, &[], None).await.status, 403, "{path}");
        assert_eq!(gated.send("GET", gated.url(&path), "", &[], None).await.status, 401, "{path}");
        let unknown = path.replace("web-1", "web-9");
        let expected = if unknown == path { 200 } else { 404 };
        assert_eq!(read(&gated, &unknown).await.status, expected, "{unknown}");
    }
}

#[tokio::test]
async fn a_repeated_call_of_an_earlier_system_runs_once_and_counts_in_the_rate_of_its_caller() {
    let gated = Gated::with(&["--compat-routes", "--commands-per-minute=2"]).await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    let body = json!({"command": "empty", "machine": "web-1"}).to_string();
    let headers = [("idempotency-key", "once")];
    let run = async || gated.send("POST", gated.url("/api/execute"), &gated.jane, &headers, Some(body.clone())).await;
    let (first, second) = (run().await, run().await);
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_eq!(first.text("executionId"), second.text("executionId"));
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(gated.post("/api/command", json!({"device_id": "web-1", "command": "empty"})).await.status, 202);
    for (path, body) in [
        ("/api/command", json!({"device_id": "web-1", "command": "empty"})),
        ("/api/execute", json!({"machine": "web-1", "command": "empty"})),
    ] {
        let limited = gated.post(path, body).await;
        assert_eq!((limited.status, limited.text("reason")), (429, "RateLimited"), "{limited:?}");
        assert!(!limited.header("retry-after").is_empty());
    }
}

#[tokio::test]
async fn without_the_flag_the_paths_do_not_exist() {
    let gated = Gated::new().await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    grant(&gated.case, "joe", &["create"]);
    let before = gated.case.ledger().len();
    for path in ["/api/command", "/api/execute", "/api/commands/bulk"] {
        let answer = gated.post(path, json!({"command": "empty", "machine": "web-1"})).await;
        assert_eq!((answer.status, answer.text("reason")), (404, "NoSuchRoute"), "{path}: {answer:?}");
    }
    for path in ["/api/commands", "/api/devices", "/api/devices/web-1", "/api/command/a:b", "/api/executions/a:b"] {
        let answer = read(&gated, path).await;
        assert_eq!((answer.status, answer.text("reason")), (404, "NoSuchRoute"), "{path}: {answer:?}");
    }
    assert_eq!(gated.case.ledger().len(), before);
    let document = gated.get("/api/openapi.json").await;
    assert_eq!(document.body["paths"]["/api/execute"]["post"]["tags"], json!(["compatibility"]));
    let tag = document.body["tags"].as_array().expect("tags").iter().find(|tag| tag["name"] == "compatibility");
    assert!(tag.expect("the tag")["description"].as_str().expect("text").contains("--compat-routes"));
}
