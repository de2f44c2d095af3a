//! Attempts 53 to 56: tokens that the gateway refuses. The tokens are signed with the key of the API server, so that
//! each one differs from a valid token in one property.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};

use crate::gateway::{Gated, grant, rule};

/// Issuer of the control plane.
const ISSUER: &str = "https://kubernetes.default.svc";
/// Time in seconds by which an expired token is expired. The API server accepts a clock difference of one minute.
const EXPIRED_BY: i64 = 120;
const EXECUTE: &str = "/api/v1/machines/web-1/commands/execute";

/// Signs tokens for a ServiceAccount, as the API server does.
struct Signer {
    key: KeyPair,
    namespace: String,
    name: String,
    uid: String,
}

impl Signer {
    fn new(gated: &Gated, name: &str) -> Self {
        let (world, namespace) = (&gated.case.world, gated.case.namespace.clone());
        world.kubectl_succeeds(&["-n", &namespace, "create", "serviceaccount", name]);
        let get = ["-n", &namespace, "get", "serviceaccount", name, "-o", "jsonpath={.metadata.uid}"];
        let uid = world.kubectl_succeeds(&get);
        let key = std::fs::read_to_string(world.control_plane.folder().join("service-accounts.key")).expect("a key");
        Self { key: KeyPair::from_pem(&key).expect("a key"), namespace, name: name.to_owned(), uid }
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Returns a token for an audience that expires in `seconds` from now.
    fn token(&self, audience: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let now = i64::try_from(now).expect("a time");
        let account = json!({"name": self.name, "uid": self.uid});
        self.sign(&json!({
            "iss": ISSUER, "aud": [audience], "sub": self.user(), "iat": now - 3600, "nbf": now - 3600,
            "exp": now + seconds, "kubernetes.io": {"namespace": self.namespace, "serviceaccount": account},
        }))
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "typ": "JWT"})), encode(claims));
        let signature = self.key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(two_numbers(&signature)))
    }
}

/// Returns the two numbers of an ECDSA signature in the form of RFC 7518, 32 bytes each, from their DER form.
fn two_numbers(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        assert_eq!(rest[0], 2, "an integer");
        let (number, behind) = rest[2..].split_at(usize::from(rest[1]));
        let digits = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - digits.len()));
        numbers.extend(digits);
        rest = behind;
    }
    numbers
}

async fn refused(gated: &Gated, number: u32, what: &str, token: &str) {
    // The gateway reviews at most 10 unknown tokens per second.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let authorization = format!("Bearer {token}");
    let body = json!({"command": "empty", "action_type": "shell"}).to_string();
    for (method, path, body) in [("GET", "/api/v1/me", None), ("POST", EXECUTE, Some(body))] {
        let headers = [("authorization", authorization.as_str())];
        let answer = gated.send(method, gated.url(path), "", &headers, body).await;
        assert_eq!((answer.status, answer.text("reason")), (401, "Unauthenticated"), "{number} {what}: {answer:?}");
        let text = answer.body.to_string();
        assert!(token.len() < 8 || !text.contains(token), "{number} {what}: the answer has the token");
    }
}

#[tokio::test]
async fn tokens_with_one_wrong_property_are_refused() {
    let gated = Gated::new().await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true")])).await;
    let robot = Signer::new(&gated, "robot");
    grant(&gated.case, &robot.user(), &["create", "get", "list"]);
    let good = robot.token("writ-gateway", 600);
    let me = gated.send("GET", gated.url("/api/v1/me"), &good, &[], None).await;
    assert_eq!((me.status, me.text("user")), (200, robot.user().as_str()), "{me:?}");
    let body = Some(json!({"command": "empty", "action_type": "shell"}).to_string());
    let ran = gated.send("POST", gated.url(EXECUTE), &good, &[], body).await;
    assert_eq!(ran.status, 200, "{ran:?}");
    let before = gated.case.ledger().len();

    let create = ["-n", &robot.namespace, "create", "token", "robot", "--audience=other"];
    let other = gated.case.world.kubectl_succeeds(&create);
    refused(&gated, 53, "other audience", other.trim()).await;
    refused(&gated, 53, "audience of the API server", &robot.token(ISSUER, 600)).await;
    refused(&gated, 54, "expired", &robot.token("writ-gateway", -EXPIRED_BY)).await;
    let (claims, signature) = good.rsplit_once('.').expect("a token");
    let wrong = format!("{claims}.{}", signature.chars().rev().collect::<String>());
    refused(&gated, 55, "wrong signature", &wrong).await;
    let unsigned = claims.split_once('.').expect("a token").1;
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    refused(&gated, 55, "no signature", &format!("{header}.{unsigned}.")).await;
    for garbage in ["garbage", "a.b.c", "...", "eyJ"] {
        refused(&gated, 55, "garbage", garbage).await;
    }
    refused(&gated, 56, "empty", "").await;
    assert_eq!(gated.case.ledger().len(), before, "{:?}", gated.case.ledger());

    // A deleted ServiceAccount, after the caches of the gateway and of the API server.
    gated.case.world.kubectl_succeeds(&["-n", &robot.namespace, "delete", "serviceaccount", "robot"]);
    let started = std::time::Instant::now();
    let mut status = 200;
    while status == 200 && started.elapsed() < super::TIMEOUT {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        status = gated.send("GET", gated.url("/api/v1/me"), &good, &[], None).await.status;
    }
    assert_eq!(status, 401, "the token of a deleted ServiceAccount");
}
