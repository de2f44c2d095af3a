//! The layers around each request: request ID, log, metrics, security headers, CORS, limits of the body, panics.

mod body;
mod cors;
mod origins;
mod request_id;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::gateway::error::ApiError;
use crate::telemetry::metrics;

use super::limits::ServerLimits;
use body::{BodyBounds, bound_body};
use cors::answer_cors;

pub use origins::{OriginError, OriginPolicy};
pub use request_id::RequestId;

use request_id::REQUEST_ID_HEADER;

/// Name of the route of a request that matches no route, in metrics and log lines.
const UNMATCHED: &str = "unmatched";
/// Headers of each answer, unless the route sets them itself. The content security policy lets a browser that shows an
/// answer load and run nothing.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];
/// Value for clients that use TLS: browsers refuse plain HTTP to this host for a year.
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Options of the layers.
#[derive(Clone, Debug)]
pub struct LayerOptions {
    /// Origins of web pages that may call the gateway.
    pub origins: OriginPolicy,
    /// True if clients use TLS, to the server or to a proxy in front of it.
    pub has_tls: bool,
    /// Limits of the server. The layers use those for bodies.
    pub limits: ServerLimits,
}

/// Returns the routes with all layers around each of them. Routes that are added later have no layers.
pub fn with_layers(router: Router, options: &LayerOptions) -> Router {
    let bounds = BodyBounds { max_bytes: options.limits.max_body_bytes, deadline: options.limits.body_deadline };
    // The last layer is the outermost one.
    router
        .layer(from_fn(catch_panic))
        .layer(DefaultBodyLimit::max(bounds.max_bytes))
        .layer(from_fn_with_state(bounds, bound_body))
        .layer(from_fn_with_state(Arc::new(options.origins.clone()), answer_cors))
        .layer(from_fn_with_state(options.has_tls, observe))
}

/// Gives the request an ID, and records the answer.
async fn observe(State(has_tls): State<bool>, mut request: Request, next: Next) -> Response {
    let since = Instant::now();
    let id = RequestId::for_request(request.headers());
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str);
    // The span contains no header and no query, because they can contain credentials.
    let span = tracing::info_span!(
        "gateway_request",
        request_id = id.as_str(),
        method,
        route,
        status = Empty,
        duration_ms = Empty
    );
    let in_progress = metrics().gateway().request_started(route, method);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    in_progress.answered(response.status().as_u16());
    span.record("status", response.status().as_u16());
    span.record("duration_ms", u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
    span.in_scope(|| tracing::debug!("request answered"));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID_HEADER, id.to_header());
    add_security_headers(headers, has_tls);
    response
}

fn add_security_headers(headers: &mut HeaderMap, has_tls: bool) {
    let transport_security = has_tls.then_some((STRICT_TRANSPORT_SECURITY, TRANSPORT_SECURITY));
    for (name, value) in SECURITY_HEADERS.into_iter().chain(transport_security) {
        headers.entry(name).or_insert(value);
    }
}

/// Answers 500 if a handler panics. Neither the answer nor the log line contains the message of the panic.
async fn catch_panic(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        tracing::error!("request handler panicked");
        ApiError::internal().into_response()
    })
}

/// Returns the method as a fixed word, because clients can send any word as the method.
fn method_word(method: &Method) -> &'static str {
    match method.as_str() {
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_headers_do_not_replace_those_of_a_route() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
        add_security_headers(&mut headers, false);
        assert_eq!(headers.get(CONTENT_SECURITY_POLICY).unwrap(), "default-src 'self'");
        assert_eq!(headers.get_all(CONTENT_SECURITY_POLICY).iter().count(), 1);
        assert_eq!(headers.get(X_FRAME_OPTIONS).unwrap(), "DENY");
        assert!(!headers.contains_key(STRICT_TRANSPORT_SECURITY));
        add_security_headers(&mut headers, true);
        assert!(headers.contains_key(STRICT_TRANSPORT_SECURITY));
    }

    #[test]
    fn methods_that_clients_invent_have_one_word() {
        for (method, word) in [("GET", "GET"), ("get", "other"), ("PROPFIND", "other"), ("DELETE", "DELETE")] {
            assert_eq!(method_word(&Method::from_bytes(method.as_bytes()).unwrap()), word);
        }
    }
}
