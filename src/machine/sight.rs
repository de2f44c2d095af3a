//! What was seen of a machine by who tried to reach it.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::machine_status::{KeyTrust, LoginKey, SystemFacts};
use crate::api::{Machine, MachinePhase, Reason};
use crate::execution::LaunchProblem;

/// What was seen of a machine, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// The UID of its Machine.
    pub uid: Option<String>,
    /// The generation of its Machine that it was reached by.
    pub generation: Option<i64>,
    /// When.
    pub at: Timestamp,
    /// What.
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It was logged in to.
    Online {
        /// How long that took.
        latency: Duration,
        /// The host key that it proved.
        key: ProvedKey,
        /// By which key it let Writ in.
        login: Box<LoginKey>,
        /// What it says of itself; None where it was not asked.
        system: Option<SystemFacts>,
    },
    /// It was not reached, or cannot be used.
    Problem(LaunchProblem),
}

/// A host key that a machine has proved to have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProvedKey {
    /// Its type.
    pub algorithm: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// By what it is trusted.
    pub trust: KeyTrust,
}

/// How far an attempt came that failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Stage {
    /// Nothing was connected to: the Machine or its Secret cannot be used.
    Declaration,
    /// There was no answer.
    Reach,
    /// sshd answered, and did not prove what it has to.
    HostKey,
    /// It is the right machine, and did not let us in.
    Login,
    /// It let us in, and commands cannot be started there.
    Use,
}

impl Seen {
    /// The phase that it means.
    pub fn phase(&self) -> MachinePhase {
        match self {
            Seen::Online { .. } => MachinePhase::Online,
            Seen::Problem(problem) if problem.reason == Reason::MachineOffline => MachinePhase::Offline,
            Seen::Problem(_) => MachinePhase::Misconfigured,
        }
    }
}

impl Stage {
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::MachineOffline => Stage::Reach,
            Reason::HostKeyMismatch | Reason::HandshakeFailed => Stage::HostKey,
            Reason::AuthenticationRefused => Stage::Login,
            Reason::LauncherUnsupported => Stage::Use,
            _ => Stage::Declaration,
        }
    }
}

impl Sight {
    /// Whether it is of this Machine as it is declared now.
    pub fn is_of(&self, machine: &Machine) -> bool {
        self.uid == machine.metadata.uid && self.generation == machine.metadata.generation
    }
}
