//! Headers of answers about an execution that the call created or joined.

use axum::response::Response;
use http::header::{HeaderName, HeaderValue};

use crate::gateway::error::EXECUTION_HEADER;

/// Header of an answer that an earlier call with the same Idempotency-Key has caused.
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Adds the name of the execution to an answer. Marks the answer if an earlier call created the execution.
pub fn with_execution(mut response: Response, namespace: &str, name: &str, is_replay: bool) -> Response {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("{namespace}/{name}")) {
        headers.insert(EXECUTION_HEADER, value);
    }
    if is_replay {
        headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    response
}
