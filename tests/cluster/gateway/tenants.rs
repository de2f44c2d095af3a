//! One caller changes nothing for another.

use futures::{StreamExt as _, stream};
use serde_json::json;

use super::{Gated, grant, make_key, rule};

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";

#[tokio::test]
async fn a_caller_at_its_limit_and_a_flood_of_guessed_keys_change_nothing_for_others() {
    let gated = Gated::with(&["--commands-per-minute=2"]).await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    grant(&gated.case, "joe", &["create"]);
    let joe = make_key(&gated.case, "joe", &[]);
    let body = Some(json!({"command": "empty", "action_type": "shell"}).to_string());
    for expected in [200, 200, 429] {
        let answer = gated.send("POST", gated.url(EXECUTE), &joe, &[], body.clone()).await;
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert_eq!(gated.execute("empty").await.status, 200);
    let guesses = (0..300).map(|index| {
        let guess = format!("not-a-token-{index}");
        let (gated, body) = (&gated, body.clone());
        async move { gated.send("POST", gated.url(EXECUTE), &guess, &[], body).await.status }
    });
    // The gateway drops the oldest connections without a request if one address opens more than 256.
    let guesses = stream::iter(guesses).buffer_unordered(100).collect::<Vec<u16>>();
    let (statuses, answer) = tokio::join!(guesses, gated.execute("empty"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn the_key_of_another_caller_is_another_key() {
    let gated = Gated::new().await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    grant(&gated.case, "joe", &["create"]);
    let joe = make_key(&gated.case, "joe", &[]);
    let body = Some(json!({"command": "empty", "action_type": "shell"}).to_string());
    let headers = [("idempotency-key", "same")];
    let first = gated.send("POST", gated.url(EXECUTE), &joe, &headers, body.clone()).await;
    let second = gated.send("POST", gated.url(EXECUTE), &gated.jane, &headers, body).await;
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_ne!(first.text("command_id"), second.text("command_id"));
    assert!(second.header("idempotency-replayed").is_empty());
}
