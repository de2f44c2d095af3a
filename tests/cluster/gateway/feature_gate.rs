//! Attempt 76: constrained impersonation is switched off and on again while the gateway runs.

use std::time::Instant;

use serde_json::json;

use super::socket::Socket;
use super::{Answer, Gated, PATIENCE, rule};
use crate::world::World;

const GATE_OFF: &str = "--feature-gates=ConstrainedImpersonation=false";

fn restart_api_server(world: &World, flags: &[&str]) {
    world.control_plane.stop_api_server();
    world.control_plane.start_api_server_with(flags).expect("the API server starts again");
}

/// Runs a command again and again until its answer fulfils `is_so`. The first answers after a restart of the API server
/// can differ.
async fn until(gated: &Gated, what: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
    let started = Instant::now();
    loop {
        let answer = gated.execute("empty").await;
        if is_so(&answer) {
            return answer;
        }
        assert!(answer.status >= 500, "not {what}: {answer:?}");
        assert!(started.elapsed() < PATIENCE, "not {what} in time: {answer:?}\n{}", gated.case.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn is_clear_refusal(answer: &Answer) -> bool {
    let message = answer.body["message"].as_str().unwrap_or_default();
    answer.status == 503 && message.contains("act for") && message.contains("its log has the missing right")
}

/// Checks that each call that needs impersonation is refused, and that reads work.
async fn is_for_reading_only(gated: &Gated, id: &str) {
    let queued = gated.post("/api/v1/commands", json!({"machine": "web-1", "command": "empty"})).await;
    assert!(is_clear_refusal(&queued) && !queued.header("retry-after").is_empty(), "{queued:?}");
    let url = format!("http://{}/api/v1/commands/{id}", gated.address);
    let cancelled = gated.send("DELETE", url, &gated.jane, &[], None).await;
    assert!(is_clear_refusal(&cancelled), "{cancelled:?}");
    let path = format!("/api/v1/machines/web-1/commands/stream?namespace={}", gated.case.namespace);
    let mut socket = Socket::open(gated, &path).await;
    socket.send(r#"{"command": "empty", "action_type": "shell"}"#).await;
    let (messages, code) = socket.all().await;
    assert_eq!((&messages[0]["error"], code), (&json!("Service unavailable"), 1011), "{messages:?}");
    for path in [format!("/api/v1/commands/{id}"), format!("/api/v1/commands/{id}/output"), "/api/v1/me".to_owned()] {
        let read = gated.get(&path).await;
        assert_eq!(read.status, 200, "{path}: {read:?}");
    }
    let list = gated.get(&format!("/api/v1/commands?namespace={}", gated.case.namespace)).await;
    assert_eq!(list.status, 200, "{list:?}");
}

#[tokio::test]
async fn without_impersonation_only_reads_work_until_it_is_back() {
    let world = World::start();
    let gated = Gated::start_in(world.clone(), &[]).await;
    let mut long = rule("long", "sleep 600");
    long["timeoutSeconds"] = json!({"default": 600, "maximum": 600});
    gated.case.apply_whitelist("api", json!([rule("empty", "true"), long])).await;
    assert_eq!(gated.execute("empty").await.status, 200);
    let long = gated.post("/api/v1/commands", json!({"machine": "web-1", "command": "long"})).await;
    let id = long.text("command_id").to_owned();
    assert_eq!(long.status, 202, "{long:?}");
    gated.case.in_phase(id.split_once(':').expect("an id").1, writ::api::Phase::Running).await;
    let before = gated.case.ledger().len();

    restart_api_server(&world, &[GATE_OFF]);
    until(&gated, "refused", is_clear_refusal).await;
    is_for_reading_only(&gated, &id).await;
    // The regular probe also finds it. Then the gateway refuses without a request.
    gated.case.has_logged("gateway may not act for callers").await;
    is_for_reading_only(&gated, &id).await;
    assert!(gated.case.whole_log().contains("Kubernetes 1.36"), "{}", gated.case.log());
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());

    restart_api_server(&world, &[]);
    until(&gated, "permitted", |answer| answer.status == 200).await;
    let url = format!("http://{}/api/v1/commands/{id}", gated.address);
    let cancelled = gated.send("DELETE", url, &gated.jane, &[], None).await;
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    assert_eq!(gated.ended(&id).await["status"], "cancelled");
    assert_eq!(gated.case.ledger().len(), before + 1, "{:?}", gated.case.ledger());
}
