//! What can go wrong between here and the API server, by what to do about it.

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
    /// This process may not do that.
    #[error("writ may not access {what}: {message}")]
    Forbidden {
        /// What was to be accessed.
        what: String,
        /// The API server's words.
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
    pub(super) fn of(what: String, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::NotFound { what },
                409 => Self::Conflict { what },
                400 | 413 | 422 => Self::Invalid { what, message: status.message.clone() },
                401 | 403 => Self::Forbidden { what, message: status.message.clone() },
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
            Self::Forbidden { .. } => "forbidden",
            Self::Undecodable { .. } => "undecodable",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}
