//! Errors of calls to the API server. Callers handle each variant differently.

use super::forbidden::{self, Caller};

/// Error of a call to the API server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object does not exist.
    #[error("{target} does not exist")]
    NotFound {
        /// The object.
        target: String,
    },
    /// The object has changed since it was read.
    #[error("{target} has changed in the meantime")]
    Conflict {
        /// The object to write.
        target: String,
    },
    /// The API server refuses the content because of the schema, a CEL rule or an admission policy. Also used for a
    /// failed `test` of a JSON Patch.
    #[error("{target} was refused: {message}")]
    Invalid {
        /// The object to write.
        target: String,
        /// Message of the API server.
        message: String,
    },
    /// The object is too large for the API server or etcd.
    #[error("{target} does not fit into the API server: {message}")]
    TooLarge {
        /// The object to write.
        target: String,
        /// Message of the API server.
        message: String,
    },
    /// This process, or its user, lacks a right.
    #[error("{who} may not access {target}: {message}")]
    Forbidden {
        /// Subject of the error message: `writ`, or `you (user NAME)`.
        who: String,
        /// The object or the list.
        target: String,
        /// Message of the API server. If known, also the command or the ClusterRoles that grant the missing right.
        message: String,
    },
    /// This version of Writ cannot decode the object.
    #[error("{target} cannot be read: {message}")]
    Undecodable {
        /// The object.
        target: String,
        /// Message of the decoder.
        message: String,
    },
    /// The API server did not answer, or its answer requests a retry. If the call was a write, the write has perhaps
    /// succeeded.
    #[error("the API server did not answer the call for {target}: {message}")]
    Unavailable {
        /// The object or the list.
        target: String,
        /// The cause.
        message: String,
    },
}

impl ClusterError {
    /// Returns the text with which a message about a missing object ends: the command that lists the existing objects of
    /// this kind. Empty for other errors.
    pub fn listing_hint(&self, namespace: &str, kind: &str) -> String {
        match self {
            ClusterError::NotFound { .. } => format!(
                " (kubectl -n {namespace} get {kind} lists the existing ones; -n NAMESPACE selects another namespace)"
            ),
            _ => String::new(),
        }
    }

    pub(super) fn from_kube(target: String, error: &kube::Error, caller: &Caller) -> Self {
        match error {
            kube::Error::Api(status) if is_too_large(status.code, &status.message) => {
                Self::TooLarge { target, message: status.message.clone() }
            }
            kube::Error::Api(status) => match status.code {
                404 => Self::NotFound { target },
                409 => Self::Conflict { target },
                400 | 422 => Self::Invalid { target, message: status.message.clone() },
                401 | 403 => Self::Forbidden {
                    who: forbidden::who(&status.message, caller),
                    target,
                    message: forbidden::explained(&status.message, caller),
                },
                _ => Self::Unavailable { target, message: format!("{} {}", status.code, status.message) },
            },
            kube::Error::SerdeError(error) => Self::Undecodable { target, message: error.to_string() },
            other => Self::Unavailable { target, message: other.to_string() },
        }
    }

    /// Returns true if a write has perhaps succeeded despite this error. For example, no answer came, or the answer
    /// cannot be decoded.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Undecodable { .. })
    }

    /// Returns true if the request was certainly not sent, because no connection could be opened.
    pub fn is_unsent(&self) -> bool {
        // The text of hyper-util's client for errors before a connection exists.
        matches!(self, Self::Unavailable { message, .. } if message.contains("client error (Connect)"))
    }

    /// Returns the error class for metrics and logs.
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

/// Returns true if an answer means that an object is too large to be stored, so that a retry is useless. These answers
/// are:
///
/// - status 413 from the API server
/// - status 500 with "request is too large" from etcd
/// - status 500 with "message larger than max" from gRPC, for a sent or a received message
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
