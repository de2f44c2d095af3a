//! Answers with errors that all reads have in common, for the documentation.

use utoipa::IntoResponses;

use crate::gateway::error::ErrorBody;

/// Errors of calls that read.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the documentation uses the variants")]
pub enum ReadErrors {
    /// The call has no valid credential.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The caller lacks the right in the namespace.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// A parameter is malformed. The message names it.
    #[response(status = 422)]
    Malformed(ErrorBody),
    /// The caller reads too often. Repeat the call after `Retry-After`.
    #[response(status = 429)]
    TooManyReads(ErrorBody),
    /// The gateway failed. Its log has the cause.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The API server did not answer. Repeat the call after `Retry-After`.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}
