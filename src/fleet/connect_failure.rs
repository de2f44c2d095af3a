//! Reasons why a machine was not reached, and what follows for an execution that wanted it.

use std::time::Duration;

use crate::api::Reason;
use crate::cluster::ClusterError;
use crate::execution::LaunchProblem;
use crate::machine::ProbeResult;
use crate::ssh::ConnectError;

/// Pause after a change under an attempt: long enough to be no loop, short enough not to be noticed.
pub(crate) const RETRY_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// Pause after the API server did not answer.
pub(crate) const RETRY_AFTER_SILENCE: Duration = Duration::from_secs(1);
/// Pause after the API server denied a permission. An administrator has to grant it.
const RETRY_AFTER_FORBIDDEN: Duration = Duration::from_secs(10);

/// Why a machine was not reached. Nothing of a command was sent.
#[derive(Clone, Debug)]
pub(crate) enum ConnectFailure {
    /// An object is gone or changed. The controller decides again.
    Obsolete,
    /// The attempt may be repeated after this pause.
    RetryAfter(Duration),
    /// The machine did not answer.
    Unreachable(String),
    /// The machine allows no further connection, and executes on the open ones.
    Full {
        /// Number of commands that the open connections carry.
        room: usize,
        /// The machine's own words.
        problem: String,
    },
    /// The machine, or its configuration, refuses. Waiting does not change that.
    Refused {
        /// The reason and the message for the status.
        problem: LaunchProblem,
        /// True if every execution on this machine would meet the same refusal.
        affects_machine: bool,
    },
}

impl ConnectFailure {
    /// A fault of the Machine's or the Secret's own text. Each execution finds it without a login.
    pub fn from_configuration(reason: Reason, message: String) -> Self {
        Self::Refused { problem: LaunchProblem { reason, message }, affects_machine: false }
    }

    /// The machine cannot run the launcher until somebody changes it.
    pub fn unsupported(message: String) -> Self {
        Self::Refused { problem: LaunchProblem { reason: Reason::LauncherUnsupported, message }, affects_machine: true }
    }

    /// A failed read before the claim. The controller judges what is gone or changed; a read without an answer is repeated.
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

    /// A failed connect, login or session.
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

    /// The same failure, said of a jump host on the way.
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

    /// Returns the failure for other tasks that wanted the same connection. `None` if it concerns one task only.
    pub fn shared(&self) -> Option<Self> {
        match self {
            Self::Unreachable(_) | Self::Refused { .. } | Self::Full { .. } => Some(self.clone()),
            Self::Obsolete | Self::RetryAfter(_) => None,
        }
    }

    /// Returns what the failure says of the machine. `None` if it says nothing.
    pub fn probe_result(&self) -> Option<ProbeResult> {
        match self {
            Self::Unreachable(message) => {
                Some(ProbeResult::Failed(LaunchProblem { reason: Reason::MachineOffline, message: message.clone() }))
            }
            Self::Refused { problem, .. } => Some(ProbeResult::Failed(problem.clone())),
            Self::Obsolete | Self::RetryAfter(_) | Self::Full { .. } => None,
        }
    }

    /// Returns the message, for callers that only try again.
    pub fn into_problem(self) -> String {
        match self {
            Self::Unreachable(problem) | Self::Full { problem, .. } => problem,
            Self::Refused { problem, .. } => problem.message,
            Self::Obsolete | Self::RetryAfter(_) => "the API server does not answer".to_owned(),
        }
    }
}
