//! Decides the next step for a claimed execution after Writ has reached its machine again, for example after a reboot.
//!
//! # Guarantees
//!
//! Writ sends the command, for the first time or again, only under three conditions:
//!
//! 1. The machine is the machine of the claim.
//! 2. The machine reports that nothing of the command has started.
//! 3. The command may still start.
//!
//! If the command perhaps started and Writ cannot read its end, the outcome is unknown.

use std::time::Duration;

use crate::api::Reason;
use crate::api::execution_status::{MachineRecord, RemoteRecord};

use super::{LaunchProblem, Termination};

/// Identity of a machine, as a connection observed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedMachine<'a> {
    /// Address and port of the connection, in the form of [`MachineRecord::address`].
    pub address: &'a str,
    /// SHA-256 fingerprint of the host key that the machine proved to have.
    pub host_key_fingerprint: &'a str,
    /// Boot ID.
    pub boot_id: &'a str,
    /// Time since the boot.
    pub uptime: Duration,
    /// The launcher's directory.
    pub directory: &'a str,
    /// Random ID that is stored in the launcher's directory.
    pub directory_id: &'a str,
}

/// Result of the comparison of an observed machine with the record of the claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MachineMatch {
    /// The machine has the directory, the boot and the address that the claim records. All its reports about the
    /// command are reliable, even a missing journal.
    Exact,
    /// The machine is the host of the claim and has the directory of the claim, but it has rebooted. An existing record
    /// of the command is reliable. A missing record proves nothing, because a reboot can lose the last writes.
    Rebooted,
    /// The machine is the host of the claim, but its launcher's directory is another one. The journal is gone.
    OtherDirectory,
    /// The machine has another address or is perhaps another host. A missing journal or process on this machine proves
    /// nothing about the host of the claim.
    Different {
        /// True if the host has the launcher's directory of the claim, for example a shared home directory. Existing
        /// records in this directory are reliable.
        same_directory: bool,
    },
}

/// Compares an observed machine with the record of the claim, which was made `claim_age` ago.
///
/// A host that has rebooted counts as the host of the claim if the host has the host key of the claim, and also one of
/// these:
///
/// - the address of the claim
/// - an uptime shorter than `claim_age`
///
/// The host key alone is not enough, because several hosts behind one name can share a host key.
pub fn compare(
    machine: &MachineRecord,
    remote: &RemoteRecord,
    shown: &ObservedMachine<'_>,
    claim_age: Duration,
) -> MachineMatch {
    let same_directory = shown.directory_id == remote.directory_id && shown.directory == remote.directory;
    let same_boot = shown.boot_id == remote.boot_id;
    let same_address = shown.address == machine.address;
    let same_key = shown.host_key_fingerprint == machine.host_key_fingerprint;
    let booted_since = !same_boot && same_key && shown.uptime < claim_age;
    match (same_directory, same_boot) {
        (true, true) if same_address => MachineMatch::Exact,
        (true, false) if same_key && (same_address || booted_since) => MachineMatch::Rebooted,
        (false, true) if same_key && same_address => MachineMatch::OtherDirectory,
        // The directory of the launcher did not survive a reboot.
        (false, false) if booted_since => MachineMatch::OtherDirectory,
        _ => MachineMatch::Different { same_directory },
    }
}

/// State of the command in the launcher's journal. The fence is a file that the launcher creates before the start, so
/// that the command starts at most once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Journal {
    /// The machine has no journal of the command.
    Absent,
    /// The command runs, or its end is being written.
    Running,
    /// The command ended, and its end is recorded.
    Ended,
    /// The fence exists, but there is no further record. The command is about to start, or its launcher died.
    Starting,
    /// The fence was closed before the start. The command never starts.
    Tombstoned,
    /// The command was started. The end was not recorded, and the launcher's supervisor no longer runs.
    Lost {
        /// True if the machine rebooted after the start.
        rebooted: bool,
    },
}

/// Next step of the holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReattachStep {
    /// Read the remaining output from the last offset on, then the end of the command.
    Follow,
    /// Send the command. The fence on the machine ensures that it starts at most once.
    Launch,
    /// Close the fence, then finish the execution with this reason.
    Close(LaunchProblem),
    /// Try again to reach the host of the claim, until the deadline. This attempt reached another host.
    Retry,
    /// Finish the execution, because Writ cannot learn more about the command.
    Conclude(Termination),
}

/// Returns the next step. `start_confirmed` is true if the machine has already confirmed the start. `may_start` is an
/// error with the reason if the command must not start any more.
pub fn next_step(
    place: MachineMatch,
    journal: &Journal,
    start_confirmed: bool,
    may_start: Result<(), LaunchProblem>,
) -> ReattachStep {
    let unknown =
        |reason, problem: &str| ReattachStep::Conclude(Termination::Unknown { reason, problem: problem.to_owned() });
    match (place, journal) {
        (MachineMatch::OtherDirectory, _) => unknown(
            Reason::MachineChanged,
            "the launcher's directory on the machine is not the one to which the command was sent",
        ),
        (MachineMatch::Different { same_directory: false }, _) => ReattachStep::Retry,
        (_, Journal::Running | Journal::Ended) => ReattachStep::Follow,
        // The host of the claim can have a journal or a process that this host does not have.
        (MachineMatch::Different { .. }, Journal::Absent | Journal::Starting | Journal::Lost { .. }) => {
            ReattachStep::Retry
        }
        // A power failure can remove the last writes to the journal, so the command has perhaps started.
        (MachineMatch::Rebooted, Journal::Starting) => {
            unknown(Reason::Rebooted, "the machine rebooted when the command was about to start or had just started")
        }
        // The machine confirmed a start that this journal lacks. The journal of the started command is therefore gone.
        (_, Journal::Starting | Journal::Tombstoned) if start_confirmed => {
            unknown(Reason::RecordLost, "the command started, but its journal on the machine is gone")
        }
        (_, Journal::Starting) => ReattachStep::Close(LaunchProblem {
            reason: Reason::LauncherFailed,
            message:
                "the machine accepted the command and was interrupted before the start; the command will not start"
                    .to_owned(),
        }),
        (_, Journal::Tombstoned) => ReattachStep::Conclude(Termination::Refused(match may_start {
            Err(problem) => problem,
            Ok(()) => LaunchProblem {
                reason: Reason::LauncherFailed,
                message: "the journal on the machine was closed before the start; the command will not start"
                    .to_owned(),
            },
        })),
        (MachineMatch::Rebooted, Journal::Absent | Journal::Lost { .. }) | (_, Journal::Lost { rebooted: true }) => {
            unknown(Reason::Rebooted, "the machine rebooted before it recorded the end of the command")
        }
        (_, Journal::Lost { rebooted: false }) => unknown(
            Reason::RecordLost,
            "the launcher's supervisor on the machine ended before it recorded the end of the command: it was killed, ran out \
             of memory, or the command ended it (as `pkill -u USER` and `killall` do); the command may still run",
        ),
        (_, Journal::Absent) if start_confirmed => {
            unknown(Reason::RecordLost, "the command started, but the machine has no journal of it any more")
        }
        (_, Journal::Absent) => match may_start {
            Ok(()) => ReattachStep::Launch,
            Err(problem) => ReattachStep::Close(problem),
        },
    }
}

#[cfg(test)]
mod tests;
