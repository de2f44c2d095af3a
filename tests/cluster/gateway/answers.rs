//! Synchronous and queued commands: the status codes, the fields and the records.

use serde_json::json;

use super::{Gated, grant, make_key, rule};

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";

async fn gated() -> Gated {
    let gated = Gated::new().await;
    let mut forbidden = rule("forbidden", "true");
    forbidden["effect"] = json!("Deny");
    let rules = json!([
        rule("both", "echo out; echo err >&2; exit 3"),
        rule("killed", "kill -9 $$"),
        rule("slow", "sleep 30"),
        rule("empty", "true"),
        rule("binary", "printf '\\377\\000x'"),
        {"name": "never", "match": "forbidden", "effect": "Deny"},
    ]);
    gated.case.apply_whitelist("api", rules).await;
    gated
}

#[tokio::test]
async fn a_command_is_answered_with_its_result_and_recorded_as_its_caller() {
    let gated = gated().await;
    let answer = gated.execute("both").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let of = |field: &str| answer.body[field].clone();
    assert_eq!((of("exit_code"), of("stdout"), of("stderr")), (json!(3), json!("out\n"), json!("err\n")));
    assert!(of("duration_ms").is_i64() && of("phase") == "Failed" && of("reason") == "NonZeroExitCode", "{answer:?}");
    let (namespace, name) = answer.header("writ-execution").split_once('/').expect("namespace/name");
    assert_eq!(namespace, gated.case.namespace);
    let execution = gated.case.executions().get(name).await.expect("the record");
    assert_eq!(execution.spec.requested_by.expect("a requester").username, "jane");
    assert_eq!(execution.metadata.annotations.expect("annotations")["writ.dev/via"], "gateway");
    assert!(!answer.header("x-request-id").is_empty());
    let killed = gated.execute("killed").await;
    assert_eq!((killed.status, killed.body["signal"].clone()), (200, json!("KILL")), "{killed:?}");
    let empty = gated.execute("empty").await;
    assert_eq!((empty.status, empty.body["exit_code"].clone(), empty.text("stdout")), (200, json!(0), ""));
    let binary = gated.execute("binary").await;
    assert_eq!((binary.text("stdout_encoding"), binary.text("stdout")), ("base64", "/wB4"), "{binary:?}");
}

#[tokio::test]
async fn each_refusal_has_its_status_and_nothing_is_run() {
    let gated = gated().await;
    let before = gated.case.ledger().len();
    let refused = async |body: serde_json::Value| gated.post(EXECUTE, body).await;
    let unlisted = refused(json!({"command": "rm -rf /", "action_type": "shell"})).await;
    assert_eq!((unlisted.status, unlisted.text("reason")), (400, "NoMatchingRule"), "{unlisted:?}");
    assert_eq!(unlisted.text("error"), "Command not in whitelist");
    assert!(unlisted.text("execution").starts_with(&gated.case.namespace), "{unlisted:?}");
    let denied = refused(json!({"command": "forbidden", "action_type": "shell"})).await;
    assert_eq!((denied.status, denied.text("error")), (403, "Command not permitted"), "{denied:?}");
    let other_type = refused(json!({"command": "empty", "action_type": "other"})).await;
    assert_eq!((other_type.status, other_type.text("reason")), (403, "NotPermitted"), "{other_type:?}");
    for (body, field) in [
        (json!({"command": "", "action_type": "shell"}), "command"),
        (json!({"command": "empty"}), "action_type"),
        (json!({"command": "a\nb", "action_type": "shell"}), "command"),
        (json!({"command": "empty", "action_type": "shell", "timeout": 121}), "timeout"),
        (json!({"command": "empty", "action_type": "shell", "timeout": 0}), "timeout"),
        (json!({"command": "empty", "action_type": "shell", "timeot": 1}), "timeot"),
        (json!({"command": 1, "action_type": "shell"}), "command"),
        (json!([]), "invalid"),
    ] {
        let malformed = refused(body.clone()).await;
        assert_eq!(malformed.status, 422, "{body}: {malformed:?}");
        assert!(malformed.text("message").contains(field), "{body}: {malformed:?}");
    }
    let path = "/api/v1/machines/web-9/commands/execute";
    let missing = gated.post(path, json!({"command": "empty", "action_type": "shell"})).await;
    assert_eq!((missing.status, missing.text("reason")), (404, "MachineNotFound"), "{missing:?}");
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn outsiders_learn_nothing() {
    let gated = gated().await;
    let joe = make_key(&gated.case, "joe", &[]);
    let body = Some(json!({"command": "empty", "action_type": "shell"}).to_string());
    for machine in ["web-1", "web-9"] {
        let url = gated.url(&format!("/api/v1/machines/{machine}/commands/execute"));
        let none = gated.send("POST", url.clone(), "", &[], body.clone()).await;
        assert_eq!((none.status, none.text("reason")), (401, "Unauthenticated"), "{none:?}");
        let mut guessed = gated.jane.clone();
        let last = guessed.pop().expect("a character");
        guessed.push(if last == 'a' { 'b' } else { 'a' });
        for key in [guessed.as_str(), "writ_x", "eyJhbGciOiJub25lIn0.e30."] {
            let wrong = gated.send("POST", url.clone(), key, &[], body.clone()).await;
            assert_eq!((wrong.status, &wrong.body), (401, &none.body), "{key}: {wrong:?}");
        }
        let forbidden = gated.send("POST", url, &joe, &[], body.clone()).await;
        assert_eq!((forbidden.status, forbidden.text("reason")), (403, "Forbidden"), "{forbidden:?}");
    }
    let answer = gated.execute("empty").await;
    let view = gated.get(&format!("/api/v1/commands/{}", answer.text("command_id"))).await;
    assert_eq!(view.status, 200, "{view:?}");
    let uid = view.text("uid").to_owned();
    for id in [answer.text("command_id"), uid.as_str(), "00000000-0000-4000-8000-000000000000"] {
        let url = format!("http://{}/api/v1/commands/{id}", gated.address);
        let hidden = gated.send("GET", url, &joe, &[], None).await;
        let expected = if id.contains(':') { 403 } else { 404 };
        assert_eq!(hidden.status, expected, "{id}: {hidden:?}");
    }
    let log = gated.case.whole_log();
    assert!(!log.contains(&gated.jane) && !log.contains(&joe), "a key is in the log");
}

#[tokio::test]
async fn a_wait_that_is_over_is_a_timeout_and_the_command_is_stopped() {
    let gated = gated().await;
    let body = json!({"command": "slow", "action_type": "shell", "timeout": 3});
    let answer = gated.post(EXECUTE, body).await;
    assert_eq!((answer.status, answer.text("error")), (408, "Command execution timeout"), "{answer:?}");
    assert_eq!(answer.header("connection"), "close");
    let id = answer.text("execution").replacen('/', ":", 1);
    let view = gated.ended(&id).await;
    assert_eq!(view["status"], "timeout", "{view}");
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_an_error_after_one_attempt() {
    let gated = gated().await;
    gated.case.apply_machine("dead", json!({"port": 1})).await;
    let path = "/api/v1/machines/dead/commands/execute";
    let answer = gated.post(path, json!({"command": "empty", "action_type": "shell", "timeout": 60})).await;
    assert_eq!(
        (answer.status, answer.text("error"), answer.text("reason")),
        (500, "SSH error", "MachineOffline"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_queued_command_is_read_and_cancelled() {
    let gated = gated().await;
    let queued = gated.post("/api/v1/commands", json!({"machine": "web-1", "command": "slow", "timeout": 60})).await;
    assert_eq!((queued.status, queued.text("status")), (202, "pending"), "{queued:?}");
    let id = queued.text("command_id");
    let view = gated.get(&format!("/api/v1/commands/{id}")).await;
    assert_eq!((view.status, view.text("machine"), view.text("command")), (200, "web-1", "slow"), "{view:?}");
    let url = format!("http://{}/api/v1/commands/{id}", gated.address);
    // Another caller with the right to patch lacks the right to cancel for others.
    grant(&gated.case, "joe", &["create", "get", "patch"]);
    let joe = make_key(&gated.case, "joe", &[]);
    let refused = gated.send("DELETE", url.clone(), &joe, &[], None).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let cancelled = gated.send("DELETE", url.clone(), &gated.jane, &[], None).await;
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    let end = gated.ended(id).await;
    assert_eq!(end["status"], "cancelled", "{end}");
    let again = gated.send("DELETE", url, &gated.jane, &[], None).await;
    assert_eq!(again.status, 200, "{again:?}");
    let name = id.split_once(':').expect("namespace:name").1;
    let execution = gated.case.executions().get(name).await.expect("the record");
    assert_eq!(execution.spec.cancelled_by.expect("a canceller").username, "jane");
}

#[tokio::test]
async fn a_bulk_call_answers_for_each_machine() {
    let gated = gated().await;
    gated.case.apply_machine("web-2", json!({})).await;
    let body = json!({"machines": ["web-1", "web-9", "web-2"], "command": "empty"});
    let answer = gated.post("/api/v1/commands/bulk", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let [first, second, third] = answer.body.as_array().expect("a list").as_slice() else { panic!("{answer:?}") };
    assert_eq!((&first["status"], &third["status"]), (&json!("pending"), &json!("pending")));
    assert_eq!((&second["machine"], &second["reason"]), (&json!("web-9"), &json!("MachineNotFound")));
    for one in [first, third] {
        let end = gated.ended(one["command_id"].as_str().expect("an id")).await;
        assert_eq!((&end["status"], &end["exit_code"]), (&json!("completed"), &json!(0)), "{end}");
    }
    for machines in [json!([]), json!(["web-1", "web-1"]), json!(vec!["web-1"; 101])] {
        let refused = gated.post("/api/v1/commands/bulk", json!({"machines": machines, "command": "empty"})).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.text("message").starts_with("machines"), "{refused:?}");
    }
}
