//! Headers of answers, request IDs, CORS, panics and metrics.

use writ::gateway::server::ServerLimits;
use writ::telemetry::metrics;

use crate::client::{fetch, header, send, status};
use crate::{ORIGIN, start};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_security_headers_and_an_id() {
    let running = start(ServerLimits::default(), None).await;
    for (path, code) in [("/hello", "200"), ("/missing", "404"), ("/length", "405"), ("/panic", "500")] {
        let answer = fetch(running.address(), path).await;
        assert_eq!(status(&answer), code, "{path}");
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Frame-Options", "DENY"),
        ] {
            assert_eq!(header(&answer, name), Some(value), "{path} {name}");
        }
        assert_eq!(header(&answer, "X-Request-Id").map(str::len), Some(32), "{path}");
        assert_eq!(header(&answer, "Strict-Transport-Security"), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_id_of_the_client_returns_only_if_it_is_plain() {
    let running = start(ServerLimits::default(), None).await;
    for (sent, is_kept) in [
        ("X-Request-Id: build-7.step_2", true),
        ("X-Request-Id: a, Set-Cookie: b=c", false),
        ("X-Request-Id: <script>", false),
        ("X-Request-Id: a\r\nX-Request-Id: b", false),
        ("X-Request-Id:", false),
    ] {
        let answer = send(running.address(), &format!("GET /hello HTTP/1.1\r\n{sent}"), b"").await;
        let id = header(&answer, "X-Request-Id").unwrap();
        assert_eq!(id == "build-7.step_2", is_kept, "{sent:?} became {id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)), "{id}");
        assert_eq!(header(&answer, "Set-Cookie"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_of_a_handler_is_a_500_without_detail() {
    let running = start(ServerLimits::default(), None).await;
    let answer = fetch(running.address(), "/panic").await;
    assert_eq!(status(&answer), "500");
    assert!(answer.contains("Internal error") && !answer.contains("secret"), "{answer}");
    assert_eq!(status(&fetch(running.address(), "/hello").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_page_may_call_and_others_may_not() {
    let running = start(ServerLimits::default(), None).await;
    let ask = |origin: &str| {
        format!("OPTIONS /api/v1/things/1 HTTP/1.1\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: DELETE")
    };
    let answer = send(running.address(), &ask(ORIGIN), b"").await;
    assert_eq!(status(&answer), "204");
    assert_eq!(header(&answer, "Access-Control-Allow-Origin"), Some(ORIGIN));
    assert!(header(&answer, "Access-Control-Allow-Methods").is_some_and(|methods| methods.contains("DELETE")));
    assert!(header(&answer, "Access-Control-Allow-Headers").is_some_and(|headers| headers.contains("X-API-Key")));
    assert!(header(&answer, "Vary").is_some_and(|vary| vary.starts_with("Origin")));
    assert_eq!(header(&answer, "Access-Control-Allow-Credentials"), None);
    let answer = send(running.address(), &format!("GET /hello HTTP/1.1\r\nOrigin: {ORIGIN}"), b"").await;
    assert_eq!(header(&answer, "Access-Control-Allow-Origin"), Some(ORIGIN));
    let exposed = "Writ-Execution, Retry-After, Idempotency-Replayed, X-Request-Id";
    assert_eq!(header(&answer, "Access-Control-Expose-Headers"), Some(exposed));
    for origin in ["https://evil.example", "null", "https://console.example.evil.example", "HTTPS://console.example"] {
        let answers = [
            send(running.address(), &ask(origin), b"").await,
            send(running.address(), &format!("GET /hello HTTP/1.1\r\nOrigin: {origin}"), b"").await,
        ];
        assert_eq!(status(&answers[0]), "403", "{origin}");
        for answer in answers {
            assert_eq!(header(&answer, "Access-Control-Allow-Origin"), None, "{origin}");
            assert!(header(&answer, "Vary").is_some(), "{origin}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_templates_of_routes_and_no_paths() {
    let running = start(ServerLimits::default(), None).await;
    fetch(running.address(), "/api/v1/things/my-secret-thing?token=my-secret-token").await;
    fetch(running.address(), "/nothing/my-secret-path").await;
    send(running.address(), "MYSECRET /hello HTTP/1.1", b"").await;
    let text = metrics().text();
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    for labels in [
        "route=\"/api/v1/things/{id}\",method=\"GET\",status=\"2xx\"",
        "route=\"unmatched\",method=\"GET\",status=\"4xx\"",
        "route=\"/hello\",method=\"other\",status=\"4xx\"",
    ] {
        assert!(text.contains(&format!("writ_gateway_requests_total{{{labels}}}")), "{labels} in:\n{text}");
    }
}
