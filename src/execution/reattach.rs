//! Next step for a claimed execution whose machine was reached again: after a lost connection, a lost `writ`, a reboot.
//!
//! # Guarantees
//!
//! The command is sent (again) only if three conditions are true: the machine is the one in the claim, the machine
//! reports that nothing of the command has started, and the command may still start. In all other cases without a
//! recorded end, the outcome is unknown.

use std::time::Duration;

use crate::api::Reason;
use crate::api::execution_status::{MachineRecord, RemoteRecord};

use super::{LaunchProblem, Termination};

/// Identity of a machine, as a connection observed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedMachine<'a> {
    /// Address and port of the connection, in the form of the claim.
    pub address: &'a str,
    /// SHA-256 fingerprint of the host key that the machine proved to have.
    pub host_key_fingerprint: &'a str,
    /// Boot ID.
    pub boot_id: &'a str,
    /// Time since the boot.
    pub uptime: Duration,
    /// The launcher's directory.
    pub directory: &'a str,
    /// Random ID in that directory.
    pub directory_id: &'a str,
}

/// Result of the comparison of an observed machine with the record of the claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MachineMatch {
    /// Directory, boot and address are the same. All reports of the machine about the command are true, also that it
    /// has no journal of it.
    Exact,
    /// The host of the claim with the same directory, after a reboot. Its journal is true, but a missing journal proves
    /// nothing.
    Rebooted,
    /// The host of the claim, with another directory: the journal is gone.
    OtherDirectory,
    /// Another address, or another host that answers under the same name. If such a host has no journal or no processes
    /// of the command, this proves nothing about the host of the claim.
    Different {
        /// True if it has the directory of the claim (a home that several hosts share, or the same host by another
        /// address). Its journal is true.
        same_directory: bool,
    },
}

/// Compares an observed machine with the record of the claim, which was made `claim_age` ago.
///
/// A reboot is another boot of the *same* host: it has the host key of the claim, and either the address of the claim
/// or an uptime shorter than the age of the claim. Several hosts may answer under one name.
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
        // A directory that does not survive a reboot.
        (false, false) if booted_since => MachineMatch::OtherDirectory,
        _ => MachineMatch::Different { same_directory },
    }
}

/// State of the command in the launcher's journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Journal {
    /// There is no journal: nothing has started.
    Absent,
    /// The command runs, or its end is being written.
    Running,
    /// The command ended, and its end is recorded.
    Ended,
    /// The fence exists, without further records: the command is about to start, or its launcher died.
    Starting,
    /// The fence was closed before the start: the command never starts.
    Tombstoned,
    /// The command was started, its end was not recorded, and its supervisor is gone.
    Lost {
        /// True if the machine rebooted since.
        rebooted: bool,
    },
}

/// Next step of the holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReattachStep {
    /// Read the output from the last offset, and the end.
    Follow,
    /// Send the command. The fence on the machine lets it start once.
    Launch,
    /// Close the fence, then finish the execution with this reason.
    Close(LaunchProblem),
    /// The host of the claim was not reached: try to reach it again, until the deadline.
    Retry,
    /// Finish the execution: nothing more can be learned.
    Conclude(Termination),
}

/// Returns the next step. `start_confirmed` is true if the machine has confirmed the start before. `may_start` is the
/// reason why the command may not start any more, if there is one.
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
        // Another host may lack a journal or a process that the host of the claim has.
        (MachineMatch::Different { .. }, Journal::Absent | Journal::Starting | Journal::Lost { .. }) => {
            ReattachStep::Retry
        }
        // The last writes before a power failure may be lost, and the record of the start is one of them.
        (MachineMatch::Rebooted, Journal::Starting) => {
            unknown(Reason::Rebooted, "the machine rebooted when the command was about to start or had just started")
        }
        // This is another journal than the one with the start.
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
