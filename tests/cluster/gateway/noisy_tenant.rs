//! A tenant of another namespace fills the spill files, guesses credentials and takes predictable names. The calls of
//! the first tenant work, and its output is whole.

use futures::future::join_all;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use writ::api::{ApiKey, CommandExecution, CommandExecutionSpec, Phase};

use super::socket::{Frame, Socket};
use super::{Gated, grant, make_key, rule};
use crate::case::Case;

/// Size of all spill files. A namespace may use half of it.
const SPILL_BYTES: usize = 8 << 20;
/// Number of lines of the first tenant in each part.
const LINES: usize = 20_000;
/// Number of parts, about 2.2 MB together.
const PARTS: usize = 20;
/// Number of commands of the attacker, each with more output than all spill files hold.
const FLOODS: usize = 3;
/// Number of guessed credentials of each kind.
const GUESSES: usize = 150;

/// A gateway of two namespaces: the first tenant is jane, the other one is joe.
struct Tenants {
    gated: Gated,
    other: Case,
    joe: String,
}

async fn tenants() -> Tenants {
    let mut gated = Gated::with(&[&format!("--spill-bytes={SPILL_BYTES}"), "--commands-per-minute=1000"]).await;
    let mut other = Case::new().await;
    other.kill_writ();
    gated.case.add_flags(&["--namespace", &other.namespace]);
    gated.restart().await;
    grant(&other, "joe", &["create", "get", "list", "patch"]);
    let joe = make_key(&other, "joe", &[]);
    let parts = format!("for part in $(seq {PARTS}); do seq {LINES}; sleep 0.3; done");
    gated.case.apply_whitelist("api", json!([rule("parts", &parts), rule("empty", "true")])).await;
    let mut flood = rule("flood", &format!("yes flood | head -c {}", 4 * SPILL_BYTES));
    flood["output"] = json!({"maximumBytes": 8 * SPILL_BYTES});
    other.apply_whitelist("api", json!([flood, rule("wait", "sleep 1")])).await;
    Tenants { gated, other, joe }
}

fn expected() -> String {
    let part: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    part.repeat(PARTS)
}

/// Returns the name of the execution of an idempotent call, which anybody can calculate.
fn name_of_key(user: &str, namespace: &str, key: &str) -> String {
    let text = format!("{}:{user}{}:{namespace}{}:{key}", user.len(), namespace.len(), key.len());
    let digest = Sha256::digest(text.as_bytes());
    format!("key-{}", digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>())
}

impl Tenants {
    async fn run(&self, namespace: &str, key: &str, command: &str) -> super::Answer {
        let url = format!("http://{}/api/v1/machines/web-1/commands/execute?namespace={namespace}", self.gated.address);
        let body = json!({"command": command, "action_type": "shell", "timeout": 120}).to_string();
        self.gated.send("POST", url, key, &[], Some(body)).await
    }

    /// Fills the spill files of the other namespace.
    async fn flood(&self) {
        let all = join_all((0..FLOODS).map(|_| self.run(&self.other.namespace, &self.joe, "flood"))).await;
        assert!(all.iter().all(|answer| answer.status == 200), "{all:?}");
    }

    /// Guesses credentials, and tries the other namespace with a valid one.
    async fn guess(&self) {
        let guess = |index: usize| {
            let mut random = [0; 32];
            random[..8].copy_from_slice(&index.to_be_bytes());
            if index.is_multiple_of(2) {
                ApiKey::from_random(random).text().to_owned()
            } else {
                format!("guess-{index}")
            }
        };
        for group in (0..2 * GUESSES).collect::<Vec<_>>().chunks(50) {
            let namespace = &self.gated.case.namespace;
            let guesses =
                group.iter().map(|index| async move { self.run(namespace, &guess(*index), "empty").await.status });
            let statuses = join_all(guesses).await;
            assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
        }
        let stranger = self.run(&self.gated.case.namespace, &self.joe, "empty").await;
        assert_eq!(stranger.status, 403, "{stranger:?}");
    }

    /// Takes names in the other namespace: those of jane's keys, and one with the prefix of generated names.
    async fn take_names(&self) {
        let namespace = &self.gated.case.namespace;
        let names = [name_of_key("jane", namespace, "deploy"), name_of_key("jane", &self.other.namespace, "deploy")];
        for name in names.into_iter().chain(["run-01jzzzzzzzzzzzzzzzzzzzzzzzbcdfg".to_owned()]) {
            let spec =
                CommandExecutionSpec { command: Some("wait".to_owned()), ..CommandExecutionSpec::on_machine("web-1") };
            let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
            let execution = CommandExecution { metadata, spec, status: None };
            self.other.executions().create(&PostParams::default(), &execution).await.expect("it is stored");
        }
    }

    /// Runs a command of jane and reads its output as it is produced.
    async fn watch_parts(&self) -> (String, String) {
        let path = format!("/api/v1/machines/web-1/commands/stream?namespace={}", self.gated.case.namespace);
        let mut socket = Socket::open(&self.gated, &path).await;
        socket.send(r#"{"command": "parts", "action_type": "shell"}"#).await;
        let Frame::Message(first) = socket.next().await else { panic!("no message\n{}", self.gated.case.log()) };
        let id = first["command_id"].as_str().expect("an id").to_owned();
        (id, whole(socket).await)
    }
}

/// Reads a stream to its end. Panics if bytes are missing.
async fn whole(mut socket: Socket) -> String {
    let (messages, code) = socket.all().await;
    let mut text = String::new();
    for message in &messages {
        assert_ne!(message["type"], "gap", "{message}");
        if message["type"] == "stdout" {
            assert_eq!(message["offset"], text.len(), "a hole before {}", message["offset"]);
            text.push_str(message["data"].as_str().expect("text"));
        }
    }
    assert_eq!(code, 1000, "{:?}", messages.last());
    text
}

#[tokio::test]
async fn a_noisy_tenant_changes_nothing_for_the_other_one() {
    let tenants = tenants().await;
    let (gated, other) = (&tenants.gated, &tenants.other);
    tenants.take_names().await;
    let calls = async {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(tenants.run(&gated.case.namespace, &gated.jane, "empty").await.status);
        }
        statuses
    };
    let ((id, text), statuses, (), ()) = tokio::join!(tenants.watch_parts(), calls, tenants.flood(), tenants.guess());
    assert!(text == expected(), "the output has {} bytes", text.len());
    assert_eq!(statuses, [200; 20]);
    // A viewer after the flood reads the same bytes, from the spill file or from the store.
    let late = Socket::open(gated, &format!("/api/v1/commands/{id}/stream")).await;
    assert!(whole(late).await == expected());

    // The names of jane's keys are taken in the other namespace only.
    let headers = [("idempotency-key", "deploy")];
    let body = Some(json!({"command": "empty", "action_type": "shell"}).to_string());
    let url = gated.url("/api/v1/machines/web-1/commands/execute");
    let own = gated.send("POST", url, &gated.jane, &headers, body).await;
    assert_eq!((own.status, own.header("idempotency-replayed")), (200, ""), "{own:?}");
    let expected_id = format!("{}:{}", gated.case.namespace, name_of_key("jane", &gated.case.namespace, "deploy"));
    assert_eq!(own.body["command_id"], Value::String(expected_id), "the test calculates other names");
    for execution in gated.case.executions().list(&Default::default()).await.expect("executions").items {
        let requester = execution.spec.requested_by.as_ref().map(|requester| requester.username.as_str());
        assert_eq!((execution.phase(), requester), (Phase::Succeeded, Some("jane")), "{:?}", execution.metadata.name);
    }
    let seen =
        gated.send("GET", format!("http://{}/api/v1/commands/{id}", gated.address), &tenants.joe, &[], None).await;
    assert_eq!(seen.status, 403, "{seen:?}");
    assert!(other.ledger().len() >= FLOODS + 3, "the attack did not run");
}
