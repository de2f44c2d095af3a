//! Observations of a machine, made by probes and by attempts to run a command.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::machine_status::{KeyTrust, LoginKey, SystemInfo};
use crate::api::{Machine, MachinePhase, Reason};
use crate::execution::LaunchProblem;

/// Observation of a machine at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineObservation {
    /// UID of the Machine object.
    pub uid: Option<String>,
    /// Generation of the Machine object that Writ used for this observation.
    pub generation: Option<i64>,
    /// Time of the observation.
    pub at: Timestamp,
    /// Result of the observation.
    pub result: ProbeResult,
}

/// Result of an attempt to reach a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeResult {
    /// The login succeeded.
    Online {
        /// Time from the start of the name lookup to the end of the login.
        latency: Duration,
        /// Host key that the machine proved to have.
        key: VerifiedKey,
        /// SSH key from the Secret with which the login succeeded.
        login: Box<LoginKey>,
        /// System information from the machine. `None` if Writ did not request this information.
        system: Option<SystemInfo>,
    },
    /// Writ did not reach the machine, or cannot use it.
    Failed(LaunchProblem),
}

/// Host key that a machine has proved to have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedKey {
    /// Type of the key.
    pub algorithm: String,
    /// SHA-256 fingerprint of the key.
    pub fingerprint: String,
    /// Field or policy of the Machine by which Writ accepts the key.
    pub trust: KeyTrust,
}

/// Stage at which an attempt failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum ProbeStage {
    /// Writ did not connect, because it cannot use the Machine or its Secret.
    Spec,
    /// The machine did not answer.
    Connect,
    /// sshd answered, but did not prove its identity.
    HostKey,
    /// The machine proved its identity, but refused the login.
    Login,
    /// The machine accepted the login, but Writ cannot start commands on it.
    Launcher,
}

impl ProbeResult {
    /// Returns the phase of the Machine for this result.
    pub fn phase(&self) -> MachinePhase {
        match self {
            ProbeResult::Online { .. } => MachinePhase::Online,
            ProbeResult::Failed(problem) if problem.reason == Reason::MachineOffline => MachinePhase::Offline,
            ProbeResult::Failed(_) => MachinePhase::Misconfigured,
        }
    }
}

impl ProbeStage {
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::MachineOffline => ProbeStage::Connect,
            Reason::HostKeyMismatch | Reason::HandshakeFailed => ProbeStage::HostKey,
            Reason::AuthenticationRefused => ProbeStage::Login,
            Reason::LauncherUnsupported => ProbeStage::Launcher,
            _ => ProbeStage::Spec,
        }
    }
}

impl MachineObservation {
    /// Returns true if the observation belongs to this Machine and to its current generation.
    pub fn is_current_for(&self, machine: &Machine) -> bool {
        self.uid == machine.metadata.uid && self.generation == machine.metadata.generation
    }
}
