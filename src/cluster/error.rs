//! What can go wrong between here and the API server, by what to do about it.

use super::forbidden::{self, Caller};

/// A call that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no such object.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The object has changed since it was read.
    #[error("{what} has changed in the meantime")]
    Conflict {
        /// What was to be written.
        what: String,
    },
    /// The API server refuses the content: schema, CEL rule or admission.
    #[error("{what} was refused: {message}")]
    Invalid {
        /// What was to be written.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// The object is larger than the API server or etcd stores.
    #[error("{what} does not fit into the API server: {message}")]
    TooLarge {
        /// What was to be written.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// This process, or the person who runs it, lacks a right.
    #[error("{who} may not access {what}: {message}")]
    Forbidden {
        /// The one who lacks it: `writ`, or `you (user NAME)`.
        who: String,
        /// What was to be accessed.
        what: String,
        /// The API server's words, and the command that gives the right.
        message: String,
    },
    /// The object is not what this version can read.
    #[error("{what} cannot be read: {message}")]
    Undecodable {
        /// What was read.
        what: String,
        /// The decoder's words.
        message: String,
    },
    /// No answer, or one that says to come again. A write may have been done all the same.
    #[error("the API server did not answer the call for {what}: {message}")]
    Unavailable {
        /// What was called for.
        what: String,
        /// What was seen.
        message: String,
    },
}

impl ClusterError {
    pub(super) fn of(what: String, error: &kube::Error, caller: Caller) -> Self {
        match error {
            kube::Error::Api(status) if is_too_large(status.code, &status.message) => {
                Self::TooLarge { what, message: status.message.clone() }
            }
            kube::Error::Api(status) => match status.code {
                404 => Self::NotFound { what },
                409 => Self::Conflict { what },
                400 | 422 => Self::Invalid { what, message: status.message.clone() },
                401 | 403 => Self::Forbidden {
                    who: forbidden::who(&status.message, caller),
                    what,
                    message: forbidden::explained(&status.message, caller),
                },
                _ => Self::Unavailable { what, message: format!("{} {}", status.code, status.message) },
            },
            kube::Error::SerdeError(error) => Self::Undecodable { what, message: error.to_string() },
            other => Self::Unavailable { what, message: other.to_string() },
        }
    }

    /// Whether a write with this answer may have been done all the same: there was none, or none that can be read.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Undecodable { .. })
    }

    /// The class for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::Invalid { .. } => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::Forbidden { .. } => "forbidden",
            Self::Undecodable { .. } => "undecodable",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// Whether an answer says that an object is too large to be stored. etcd's refusals come as 500: of the server ("etcdserver:
/// request is too large"), and of gRPC on either side ("trying to send message larger than max", "received message larger
/// than max"). The API server's own bound is on the request, and comes as 413. Asked again, they answer the same.
fn is_too_large(code: u16, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let says_so = ["request is too large", "message larger than max", "entity too large"];
    code == 413 || (code >= 400 && says_so.iter().any(|words| message.contains(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_told_from_what_may_be_tried_again() {
        assert!(is_too_large(500, "etcdserver: request is too large"));
        let words =
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2306401 vs. 2097152)";
        assert!(is_too_large(500, words));
        assert!(is_too_large(413, "limit is 3145728"));
        assert!(!is_too_large(500, "etcdserver: request timed out"));
        assert!(!is_too_large(429, "too many requests"));
    }
}
