//! Reasons for a failed connect, and their consequences for the execution.

use std::time::Duration;

use crate::api::Reason;
use crate::cluster::ClusterError;
use crate::execution::LaunchProblem;
use crate::machine::ProbeResult;
use crate::ssh::ConnectError;

/// Pause after an object changed during an attempt. The pause prevents a busy loop.
pub(crate) const RETRY_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// Pause after the API server did not answer.
pub(crate) const RETRY_AFTER_SILENCE: Duration = Duration::from_secs(1);
/// Pause after the API server denied a permission. An administrator must grant the permission.
const RETRY_AFTER_FORBIDDEN: Duration = Duration::from_secs(10);

/// Reason for a failed connect. No part of a command was sent.
#[derive(Clone, Debug)]
pub(crate) enum ConnectFailure {
    /// An object was deleted or changed, or the runner shuts down. The controller decides about the execution again.
    Obsolete,
    /// The attempt can be repeated after this pause.
    RetryAfter(Duration),
    /// The machine cannot be used now, for example because it did not answer. A later attempt can succeed.
    Unreachable(String),
    /// The machine allows no further connection, but still executes commands on the open connections.
    Full {
        /// Maximum number of concurrent commands on the open connections.
        room: usize,
        /// The text that the machine sent.
        problem: String,
    },
    /// The machine refuses the connection or the command, or its Machine or Secret is invalid. Without a change by a
    /// user, a retry fails again.
    Refused {
        /// The reason and the message for the status.
        problem: LaunchProblem,
        /// True if every execution on this machine would be refused in the same way.
        affects_machine: bool,
    },
}

impl ConnectFailure {
    /// Returns the failure for an invalid object in the cluster, for example a Secret. This failure starts no back-off
    /// for the machine.
    pub fn from_configuration(reason: Reason, message: String) -> Self {
        Self::Refused { problem: LaunchProblem { reason, message }, affects_machine: false }
    }

    /// Returns a failure for a machine that cannot run the launcher until a user changes the machine.
    pub fn unsupported(message: String) -> Self {
        Self::Refused { problem: LaunchProblem { reason: Reason::LauncherUnsupported, message }, affects_machine: true }
    }

    /// Returns the failure of a read from the API server:
    ///
    /// - If the API server did not answer or denied a permission, Writ repeats the attempt after a pause.
    /// - If the object was deleted or changed, the controller decides about the execution again.
    pub fn from_read(error: &ClusterError) -> Self {
        match error {
            ClusterError::Unavailable { .. } => {
                tracing::warn!(%error, category = error.category(), "an execution waits for the API server");
                Self::RetryAfter(RETRY_AFTER_SILENCE)
            }
            ClusterError::Forbidden { .. } => {
                tracing::warn!(%error, category = error.category(), "an execution waits for a permission");
                Self::RetryAfter(RETRY_AFTER_FORBIDDEN)
            }
            _ => Self::Obsolete,
        }
    }

    /// Returns the failure of a connect, a login or a session.
    pub fn from_ssh(error: &ConnectError) -> Self {
        let (reason, affects_machine) = match error {
            ConnectError::Unreachable(message)
            | ConnectError::ConnectionDropped(message)
            | ConnectError::Busy(message) => {
                return Self::Unreachable(message.clone());
            }
            ConnectError::HostKeyMismatch { .. }
            | ConnectError::HostKeyRevoked { .. }
            | ConnectError::HostCertificateRefused { .. }
            | ConnectError::HostKeyUnknown { .. } => (Reason::HostKeyMismatch, true),
            ConnectError::AuthenticationRefused { .. } | ConnectError::AccountRefused { .. } => {
                (Reason::AuthenticationRefused, true)
            }
            ConnectError::Handshake(_) => (Reason::HandshakeFailed, true),
            ConnectError::ForwardingRefused(_) => (Reason::MachineInvalid, true),
            ConnectError::AddressRefused { .. } => (Reason::AddressRefused, false),
            ConnectError::CredentialsUnusable(_) => (Reason::CredentialsInvalid, false),
        };
        Self::Refused { problem: LaunchProblem { reason, message: error.to_string() }, affects_machine }
    }

    /// Returns the same failure, with the jump host's name in the message.
    pub fn at_hop(self, name: &str) -> Self {
        let at = |message: String| format!("jump host {name}: {message}");
        match self {
            Self::Unreachable(message) => Self::Unreachable(at(message)),
            Self::Refused { problem: LaunchProblem { reason, message }, affects_machine } => {
                Self::Refused { problem: LaunchProblem { reason, message: at(message) }, affects_machine }
            }
            other => other,
        }
    }

    /// Returns the failure for other tasks that wait for the same connection. Returns `None` for `Obsolete` and
    /// `RetryAfter`, because these failures concern only one task.
    pub fn shared(&self) -> Option<Self> {
        match self {
            Self::Unreachable(_) | Self::Refused { .. } | Self::Full { .. } => Some(self.clone()),
            Self::Obsolete | Self::RetryAfter(_) => None,
        }
    }

    /// Returns the observation of the machine, or `None` if the failure contains no observation.
    pub fn probe_result(&self) -> Option<ProbeResult> {
        match self {
            Self::Unreachable(message) => {
                Some(ProbeResult::Failed(LaunchProblem { reason: Reason::MachineOffline, message: message.clone() }))
            }
            Self::Refused { problem, .. } => Some(ProbeResult::Failed(problem.clone())),
            Self::Obsolete | Self::RetryAfter(_) | Self::Full { .. } => None,
        }
    }

    /// Returns the message, for callers that only retry.
    pub fn into_problem(self) -> String {
        match self {
            Self::Unreachable(problem) | Self::Full { problem, .. } => problem,
            Self::Refused { problem, .. } => problem.message,
            Self::Obsolete | Self::RetryAfter(_) => "the API server does not answer".to_owned(),
        }
    }
}
