//! Errors as answers: a status code, a fixed text, a reason as one word, and a sentence for people.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use utoipa::ToSchema;

use crate::cluster::{ActingError, ClusterError};

/// Header with namespace and name of the execution of an answer: `namespace/name`.
pub const EXECUTION_HEADER: HeaderName = HeaderName::from_static("writ-execution");
/// Time after which a client should repeat a call that failed because the API server was not reachable.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// Body of an answer with an error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Kind of the error, a fixed text for each status code.
    #[schema(examples("Command not in whitelist"))]
    pub error: String,
    /// Cause as one word. For an execution this is the `reason` of its status.
    #[schema(examples("NoMatchingRule"))]
    pub reason: String,
    /// Cause and remedy, for people.
    pub message: String,
    /// Execution that the error is about, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    /// True if the command has perhaps run, although nobody observed its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_have_run: Option<bool>,
    /// Phase of the execution in its status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// An error as an answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// Status code.
    pub status: StatusCode,
    /// Body.
    pub body: Box<ErrorBody>,
    /// Time after which the client should repeat the call.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// Returns an error.
    pub fn new(status: StatusCode, error: &str, reason: &str, message: impl Into<String>) -> Self {
        let body = ErrorBody {
            error: error.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            execution: None,
            may_have_run: None,
            phase: None,
        };
        Self { status, body: Box::new(body), retry_after: None }
    }

    /// Returns an error about a part of the request. The message names the field.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Malformed request", "Malformed", message)
    }

    /// Returns the error for a caller without a valid credential. The message does not depend on the credential, so that
    /// nobody learns which part of it is right.
    pub fn unauthorized() -> Self {
        let message = "no valid credential: send an API key (X-API-Key, or Authorization: Bearer writ_...), a \
                       ServiceAccount token for the audience writ-gateway (Authorization: Bearer ...), or a session \
                       (X-Writ-Session: NAMESPACE/NAME/KEY)";
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthenticated", message)
    }

    /// Returns the error for a path that the gateway does not have.
    pub fn route_not_found() -> Self {
        let message = "there is no such path; GET /api/openapi.json describes all paths";
        Self::new(StatusCode::NOT_FOUND, "Not found", "NoSuchRoute", message)
    }

    /// Returns the error for a path that exists, but not with this method.
    pub fn method_not_allowed() -> Self {
        let message = "this path has other methods, which the header Allow lists";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "NoSuchMethod", message)
    }

    /// Returns the error for a caller who lacks a right in a namespace.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", "Forbidden", message)
    }

    /// Returns the error for a Machine that does not exist, or that the caller may not see.
    pub fn machine_not_found(name: &str, namespace: &str) -> Self {
        let message = format!(
            "there is no Machine {name:?} in namespace {namespace:?} that you may see; check the name, and select the \
             namespace with ?namespace="
        );
        Self::new(StatusCode::NOT_FOUND, "Machine not found", "MachineNotFound", message)
    }

    /// Returns the error for an execution that does not exist, or that the caller may not see.
    pub fn command_not_found(id: &str) -> Self {
        let message = format!("there is no command {id:?} that you may see; a command_id is NAMESPACE:NAME or a UID");
        Self::new(StatusCode::NOT_FOUND, "Command not found", "CommandNotFound", message)
    }

    /// Returns the error for a caller who has created too many commands.
    pub fn too_many(limit: u32, retry_after: Duration) -> Self {
        let message = format!("a caller may create {limit} commands in any 60 s; repeat the call after Retry-After");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded", "RateLimited", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Returns the error for a caller who reads too often.
    pub fn too_many_reads(limit: usize, retry_after: Duration) -> Self {
        let message = format!("a caller may read {limit} times per second; repeat the call after Retry-After");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded", "ReadsLimited", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Returns the error for a fault of the API server, or of another part that this process needs. Nothing was run.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", "Unavailable", message);
        Self { retry_after: Some(RETRY_UNAVAILABLE), ..error }
    }

    /// Returns the error for an execution that perhaps exists, or that exists and whose end could not be read. The
    /// command has perhaps run, so the client must not simply repeat the call.
    pub fn outcome_unknown() -> Self {
        let message = "the API server did not answer, so it is not known if the command runs: read the execution, or \
                       repeat the call with the same Idempotency-Key";
        let mut error =
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Outcome unknown", "ApiServerUnavailable", message);
        error.body.may_have_run = Some(true);
        error
    }

    /// Returns the error for a fault of this process. The log has the cause.
    pub fn internal() -> Self {
        let message = "the gateway failed; its log has the cause under the request id of this answer";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "Internal", message)
    }

    /// Returns the error with the execution that it is about.
    #[must_use]
    pub fn about(mut self, namespace: &str, name: &str) -> Self {
        self.body.execution = Some(format!("{namespace}/{name}"));
        self
    }
}

/// Returns the answer for a failed read. The log has the API server's message, because it can name objects that the
/// caller may not see.
impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        tracing::warn!(%error, "call of the gateway failed");
        match error {
            ClusterError::NotFound { .. } => {
                Self::new(StatusCode::NOT_FOUND, "Not found", "NotFound", "the object does not exist (any more)")
            }
            ClusterError::Unavailable { .. } | ClusterError::Conflict { .. } => {
                Self::unavailable("the API server did not answer; repeat the call")
            }
            _ => Self::internal(),
        }
    }
}

/// Returns the answer for a failed create or change on behalf of the caller.
impl From<ActingError> for ApiError {
    fn from(error: ActingError) -> Self {
        match error {
            ActingError::Requester(refused) => Self::forbidden(refused.to_string()),
            ActingError::Forbidden { message, .. } => Self::forbidden(message),
            ActingError::InvalidName { .. } => Self::malformed(error.to_string()),
            ActingError::Cluster(ClusterError::Invalid { message, .. }) => Self::malformed(message),
            ActingError::Cluster(ClusterError::TooLarge { message, .. }) => Self::malformed(message),
            ActingError::Impersonating(_) | ActingError::Cluster(ClusterError::Forbidden { .. }) => {
                tracing::error!(%error, "gateway lacks a right");
                Self::unavailable("the gateway lacks the right to act for you; its log has the missing right")
            }
            ActingError::Cluster(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let execution = self.body.execution.as_deref().and_then(|name| HeaderValue::from_str(name).ok());
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(execution) = execution {
            headers.insert(EXECUTION_HEADER, execution);
        }
        if let Some(after) = self.retry_after {
            // Rounded up, so that a client that waits for this time is not early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2 requires it.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // RFC 9110 section 15.5.9. Some clients and proxies repeat a 408 on the same connection.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_credential_names_the_scheme() {
        let headers = |error: ApiError| error.into_response().headers().clone();
        assert_eq!(headers(ApiError::unauthorized()).get(WWW_AUTHENTICATE).unwrap(), "Bearer");
        assert!(headers(ApiError::forbidden("no")).get(WWW_AUTHENTICATE).is_none());
    }
}
