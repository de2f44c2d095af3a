//! Errors of the compatibility routes that create executions, for the documentation.

use utoipa::IntoResponses;

use crate::gateway::error::ErrorBody;

/// Errors of calls that create executions.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the documentation uses the variants")]
pub enum CreateErrors {
    /// The call has no valid credential.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The caller may not run commands here, or no rule permits this one.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such machine.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body did not arrive in time. Calls that wait: the command or the wait timed out.
    #[response(status = 408)]
    Timeout(ErrorBody),
    /// The Idempotency-Key belongs to another request. Calls that wait: somebody cancelled the command.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The request is malformed. The message names the field.
    #[response(status = 422)]
    Malformed(ErrorBody),
    /// The caller sends too many commands or requests. Repeat the call after `Retry-After`.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// The machine could not be used, the outcome is unknown, or the gateway failed.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// Nothing was run. Repeat the call after `Retry-After`.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}
