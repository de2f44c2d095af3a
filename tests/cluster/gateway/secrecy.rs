//! Credentials of callers appear in no log, no metric, no Event, no record and no answer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use writ::api::ApiKey;

use super::socket::Socket;
use super::{Answer, Gated, grant, make_key, rule};
use crate::operation;
use crate::world::HOME;

const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";
/// Log level of the test: more of the libraries than an administrator would set.
const LOG_LEVEL: &str = "debug";

/// A secret text and its name for messages.
struct Secret {
    what: &'static str,
    text: String,
}

impl Secret {
    /// Panics if a text has the secret, or the part of it that an attacker needs.
    fn is_not_in(&self, place: &str, text: &str) {
        let encoded = URL_SAFE_NO_PAD.encode(&self.text);
        // A key without its prefix, and the signature of a token.
        let part = self.text.rsplit(['.', '_']).next().expect("a part");
        for form in [self.text.as_str(), encoded.as_str(), part] {
            assert!(form.len() < 8 || !text.contains(form), "{} is in {place}", self.what);
        }
    }
}

/// Changes the last character.
fn changed(credential: &str) -> String {
    let (rest, last) = credential.split_at(credential.len() - 1);
    format!("{rest}{}", if last == "a" { "b" } else { "a" })
}

async fn events(gated: &Gated, namespace: &str) -> String {
    let api: Api<Event> = Api::namespaced(gated.case.client.clone(), namespace);
    let events = api.list(&ListParams::default()).await.expect("events").items;
    serde_json::to_string(&events).expect("JSON")
}

/// Makes each kind of call with a credential, in each place that a credential can have. Returns the answers as text.
async fn use_everywhere(gated: &Gated, credential: &str) -> String {
    let mut seen = String::new();
    let mut add = |answer: Answer| seen.push_str(&format!("{:?} {}\n", answer.headers, answer.body));
    let body = |command: &str| Some(json!({"command": command, "action_type": "shell"}).to_string());
    let bearer = format!("Bearer {credential}");
    for header in [("authorization", bearer.as_str()), ("x-api-key", credential)] {
        for command in ["empty", "not listed", "", "bad\nline"] {
            add(gated.send("POST", gated.url(EXECUTE), "", &[header], body(command)).await);
        }
        add(gated.send("POST", gated.url(EXECUTE), "", &[header], Some("{".to_owned())).await);
        let machine = gated.url("/api/v1/machines/web-9/commands/execute");
        add(gated.send("POST", machine, "", &[header], body("empty")).await);
        for path in ["/api/v1/me", "/api/v1/commands", "/api/v1/commands/x", "/api/v1/nothing"] {
            add(gated.send("GET", gated.url(path), "", &[header], None).await);
        }
    }
    // Places in which the gateway reads no credential.
    let query = gated.url(&format!("/api/v1/me?access_token={credential}"));
    add(gated.send("GET", query, "", &[], None).await);
    add(gated.send("GET", gated.url("/api/v1/me"), "", &[("cookie", credential)], None).await);
    add(gated
        .send("GET", gated.url("/api/v1/me"), "", &[("authorization", &format!("Basic {credential}"))], None)
        .await);
    let protocol = format!("v1.writ.dev, base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(credential));
    let path = format!("/api/v1/machines/web-1/commands/stream?namespace={}", gated.case.namespace);
    let (head, socket) = Socket::try_open(gated, &path, &[("Sec-WebSocket-Protocol", &protocol)]).await;
    seen.push_str(&head);
    if let Some(mut socket) = socket {
        socket.send(r#"{"command": "empty", "action_type": "shell"}"#).await;
        seen.push_str(&format!("{:?}", socket.all().await));
    }
    seen
}

#[tokio::test]
async fn credentials_appear_in_no_log_no_metric_no_event_and_no_record() {
    let mut gated = Gated::with(&["--listen-operations=127.0.0.1:0"]).await;
    gated.case.log_level = LOG_LEVEL.to_owned();
    gated.restart().await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    let namespace = gated.case.namespace.clone();
    gated.case.world.kubectl_succeeds(&["-n", &namespace, "create", "serviceaccount", "robot"]);
    grant(&gated.case, &format!("system:serviceaccount:{namespace}:robot"), &["create", "get", "list"]);
    let create = |audience: &str| {
        let audience = format!("--audience={audience}");
        let create = ["-n", &namespace, "create", "token", "robot", &audience];
        gated.case.world.kubectl_succeeds(&create).trim().to_owned()
    };
    let (token, foreign) = (create("writ-gateway"), create("other"));
    let joe = make_key(&gated.case, "joe", &[]);
    let secrets = [
        ("a key", gated.jane.clone()),
        ("a key without rights", joe),
        ("a wrong key", changed(&gated.jane)),
        ("an unknown key", ApiKey::from_random([7; 32]).text().to_owned()),
        ("a token", token.clone()),
        ("a token of another audience", foreign),
        ("a wrong token", changed(&token)),
    ]
    .map(|(what, text)| Secret { what, text });

    let mut answers = String::new();
    for secret in &secrets {
        answers.push_str(&use_everywhere(&gated, &secret.text).await);
    }
    let ran = gated.case.ledger().len();
    assert!(ran >= 4, "only {ran} commands ran");
    let (status, metrics) = operation::get(operation::port(&gated.case), "/metrics").await;
    assert_eq!(status, 200);
    let executions = gated.case.executions().list(&ListParams::default()).await.expect("executions").items;
    assert!(executions.len() > ran, "{}", executions.len());
    let places = [
        ("the log", gated.case.whole_log()),
        ("the metrics", metrics),
        ("the Events of the namespace", events(&gated, &namespace).await),
        ("the Events of the release", events(&gated, HOME).await),
        ("the records", serde_json::to_string(&executions).expect("JSON")),
        ("the answers", answers),
        ("the ledger of the machine", gated.case.ledger().join("\n")),
    ];
    assert!(places[0].1.contains("DEBUG"), "the log is not detailed");
    for (place, text) in &places {
        secrets.iter().for_each(|secret| secret.is_not_in(place, text));
    }
}
