//! The same call twice starts one command.

use futures::future::join_all;
use serde_json::{Value, json};

use super::{Answer, Gated, rule};

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";

async fn call(gated: &Gated, key: &str, body: Value) -> Answer {
    let headers = [("idempotency-key", key)];
    gated.send("POST", gated.url(EXECUTE), &gated.jane, &headers, Some(body.to_string())).await
}

async fn gated(flags: &[&str]) -> Gated {
    let gated = Gated::with(flags).await;
    gated.case.apply_whitelist("api", json!([rule("once", "sleep 1; echo $$"), rule("other", "true")])).await;
    gated
}

fn once() -> Value {
    json!({"command": "once", "action_type": "shell"})
}

#[tokio::test]
async fn fifty_calls_with_one_key_start_one_command() {
    let gated = gated(&[]).await;
    let answers = join_all((0..50).map(|_| call(&gated, "key-1", once()))).await;
    let first = answers[0].text("stdout").to_owned();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text("stdout") == first), "{answers:?}");
    let fresh = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
    assert_eq!(fresh, 1);
    let later = call(&gated, "key-1", once()).await;
    assert_eq!((later.text("stdout"), later.header("idempotency-replayed")), (first.as_str(), "true"));
    assert_eq!(gated.case.ledger().len(), 1, "{:?}", gated.case.ledger());
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let gated = gated(&[]).await;
    assert_eq!(call(&gated, "key-2", once()).await.status, 200);
    let other = call(&gated, "key-2", json!({"command": "other", "action_type": "shell"})).await;
    assert_eq!((other.status, other.text("reason")), (409, "IdempotencyKeyReused"), "{other:?}");
    for key in [&"x".repeat(129), "a b"] {
        let malformed = call(&gated, key, once()).await;
        assert_eq!(malformed.status, 422, "{malformed:?}");
    }
}

#[tokio::test]
async fn the_eleventh_command_in_a_minute_is_refused_and_replays_do_not_count() {
    let gated = gated(&["--commands-per-minute=10"]).await;
    let queue = |key: String| {
        let headers = [("idempotency-key".to_owned(), key)];
        let (gated, body) = (&gated, json!({"machine": "web-1", "command": "other"}).to_string());
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            gated.send("POST", gated.url("/api/v1/commands"), &gated.jane, &headers, Some(body)).await
        }
    };
    let answers = join_all((0..20).map(|index| queue(format!("k{index}")))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(accepted, 10, "{answers:?}");
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&seconds) && refused.text("error") == "Rate limit exceeded", "{refused:?}");
    let index = answers.iter().position(|answer| answer.status == 202).expect("an accepted one");
    let replay = queue(format!("k{index}")).await;
    assert_eq!((replay.status, replay.header("idempotency-replayed")), (202, "true"), "{replay:?}");
}
