//! Idempotent calls while `writ serve` is killed and started again.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{CALL_DEADLINE, Gated, PATIENCE, rule};

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";
/// Number of concurrent calls with one key.
const CALLS: usize = 50;
/// Times from the first calls to the kill, in milliseconds: before the create, around the claim, while the command
/// runs, and around its end.
const KILLS: [u64; 6] = [0, 30, 120, 400, 1_500, 2_600];

/// A caller who repeats a call until it has an answer that is no fault of the server.
#[derive(Clone)]
struct Persistent {
    http: reqwest::Client,
    url: String,
    credential: String,
    key: String,
    body: String,
}

impl Persistent {
    fn new(gated: &Gated, round: usize) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(CALL_DEADLINE).build().expect("a client"),
            url: gated.url(EXECUTE),
            credential: gated.jane.clone(),
            key: format!("restart-{round}"),
            body: json!({"command": format!("count-{round}"), "action_type": "shell", "timeout": 60}).to_string(),
        }
    }

    /// Makes one call. Returns `None` if the server did not answer, or asks for a repetition.
    async fn call(&self) -> Option<(u16, bool, Value)> {
        let request = self.http.post(&self.url).bearer_auth(&self.credential).header("idempotency-key", &self.key);
        let request = request.header("content-type", "application/json").body(self.body.clone());
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.ok()?;
        let is_replayed = headers.contains_key("idempotency-replayed");
        (![429, 503].contains(&status))
            .then(|| (status, is_replayed, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    async fn answer(&self) -> (u16, bool, Value) {
        let started = Instant::now();
        loop {
            if let Some(answer) = self.call().await {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "{} has no answer", self.key);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn start_calls(&self) -> Vec<JoinHandle<Option<(u16, bool, Value)>>> {
        let call = |_| {
            let own = self.clone();
            tokio::spawn(async move { own.call().await })
        };
        (0..CALLS).map(call).collect()
    }
}

async fn gated() -> Gated {
    let gated = Gated::with(&["--lease-seconds=3"]).await;
    let counting = |round: usize| {
        rule(&format!("count-{round}"), &format!("echo started >> $HOME/counted-{round}; sleep 2; echo $$"))
    };
    gated.case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}})).await;
    gated.case.apply_whitelist("api", (0..KILLS.len()).map(counting).collect()).await;
    gated
}

/// Returns the executions of a command.
async fn executions(gated: &Gated, command: &str) -> Vec<String> {
    let all = gated.case.executions().list(&ListParams::default()).await.expect("executions").items;
    let own = all.into_iter().filter(|execution| execution.spec.command.as_deref() == Some(command));
    own.map(|execution| execution.name_any()).collect()
}

#[tokio::test]
async fn a_restart_between_fifty_calls_with_one_key_starts_one_command() {
    let mut gated = gated().await;
    for (round, delay) in KILLS.into_iter().enumerate() {
        let before = Persistent::new(&gated, round);
        let calls = before.start_calls();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        gated.restart().await;
        let early: Vec<_> = join_all(calls).await.into_iter().filter_map(|call| call.expect("a call")).collect();
        let again = Persistent::new(&gated, round);
        let answers = join_all((0..CALLS).map(|_| again.answer())).await;
        let expected = &answers[0].2["stdout"];
        assert!(expected.as_str().is_some_and(|stdout| stdout.len() > 1), "{delay} ms: {:?}", answers[0]);
        for (status, _, body) in early.iter().chain(&answers) {
            let is_same = *status == 200 && body["stdout"] == *expected && body["exit_code"] == 0;
            assert!(is_same, "{delay} ms: {status} {body}, not {expected}\n{}", gated.case.log());
        }
        let fresh = early.iter().chain(&answers).filter(|(_, is_replayed, _)| !is_replayed).count();
        assert!(fresh <= 1, "{delay} ms: {fresh} answers are no replay");
        assert_eq!(executions(&gated, &format!("count-{round}")).await.len(), 1, "{delay} ms");
        let counted = std::fs::read_to_string(gated.case.sshd.home().join(format!("counted-{round}")));
        assert_eq!(counted.expect("it ran"), "started\n", "{delay} ms");
    }
}
