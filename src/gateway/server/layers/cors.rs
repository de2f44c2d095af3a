//! Answers that let web pages of configured origins call the gateway. Without configured origins, browsers let no page
//! of another origin read an answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use super::origins::OriginPolicy;

/// Methods of the API.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// Headers of requests that the API reads.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, Range, X-API-Key, X-Request-Id, X-Writ-Session",
);
/// Headers of answers that pages need.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("Writ-Execution, Retry-After, Idempotency-Replayed, X-Request-Id");
/// Time for which a browser may reuse the answer to a preflight request, in seconds. An operator can remove an origin,
/// so the time is short.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Headers of requests on which the answer depends. A cache must not give one page's answer to another page.
const VARY_BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// The same for a preflight request.
const VARY_BY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// Answers preflight requests, and adds the headers of CORS to other answers.
pub(super) async fn answer_cors(State(origins): State<Arc<OriginPolicy>>, request: Request, next: Next) -> Response {
    if origins.is_empty() {
        return next.run(request).await;
    }
    let origin = origins.configured(request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight {
        return answer_preflight(origin);
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.append(VARY, VARY_BY_ORIGIN);
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
    response
}

fn answer_preflight(origin: Option<HeaderValue>) -> Response {
    let Some(origin) = origin else { return (StatusCode::FORBIDDEN, [(VARY, VARY_BY_PREFLIGHT)]).into_response() };
    let headers = [
        (VARY, VARY_BY_PREFLIGHT),
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
