//! What to do about a claimed execution whose machine was reached again: after a lost connection, a lost `writ`, a reboot.
//!
//! The promise kept here: the command is sent (again) only to the very machine that the claim names, only where the
//! machine itself says that nothing of it has begun, and only while it may still start; whatever cannot be known is said
//! to be unknown.

use std::time::Duration;

use crate::api::Reason;
use crate::api::execution_status::{MachineRecord, RemoteRecord};

use super::{Ending, LaunchProblem};

/// What a machine shows of itself to who is connected to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineShown<'a> {
    /// The address and port that were reached, as the claim has them.
    pub address: &'a str,
    /// SHA-256 fingerprint of the host key that it proved itself with.
    pub host_key_fingerprint: &'a str,
    /// Its boot id.
    pub boot_id: &'a str,
    /// How long ago that boot was.
    pub uptime: Duration,
    /// The launcher's folder.
    pub directory: &'a str,
    /// The random word in that folder.
    pub directory_id: &'a str,
}

/// How what is shown compares with what the claim recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Folder, boot and address are the same: what the machine says of the command is true, also that there is nothing.
    Same,
    /// The host of the claim with the same folder, booted since: what is recorded there is true, but that nothing is recorded
    /// says nothing.
    Rebooted,
    /// The host of the claim, with another folder: the record is gone.
    OtherFolder,
    /// Another address, or another host that answers under the same name. What it says of a command that it does not know,
    /// or whose processes it does not see, says nothing of the host of the claim.
    Elsewhere {
        /// Whether it has the folder of the claim (a home that hosts share, or the same host by another address): what is
        /// recorded there is true.
        same_folder: bool,
    },
}

/// Holds what a machine shows against what was recorded with the claim, which was made `claim_age` ago.
///
/// A reboot is another boot of the *same* host: it has the host key of the claim, and either the address of the claim or an
/// uptime that is shorter than the age of the claim. Several hosts may answer under one name.
pub fn compare(machine: &MachineRecord, remote: &RemoteRecord, shown: &MachineShown<'_>, claim_age: Duration) -> Place {
    let same_folder = shown.directory_id == remote.directory_id && shown.directory == remote.directory;
    let same_boot = shown.boot_id == remote.boot_id;
    let same_address = shown.address == machine.address;
    let same_key = shown.host_key_fingerprint == machine.host_key_fingerprint;
    let booted_since = !same_boot && same_key && shown.uptime < claim_age;
    match (same_folder, same_boot) {
        (true, true) if same_address => Place::Same,
        (true, false) if same_key && (same_address || booted_since) => Place::Rebooted,
        (false, true) if same_key && same_address => Place::OtherFolder,
        // A folder that does not outlive a boot.
        (false, false) if booted_since => Place::OtherFolder,
        _ => Place::Elsewhere { same_folder },
    }
}

/// What the launcher's journal says of the command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Journal {
    /// There is none: nothing has begun.
    Absent,
    /// It runs, or its end is being written.
    Running,
    /// It ended, and how is recorded.
    Ended,
    /// The fence is made and nothing more is recorded: it is about to start, or who would start it has died.
    Starting,
    /// It was closed before anything had begun: it never starts.
    Closed,
    /// It was started; how it ended was not recorded, and nothing is left of who would.
    Lost {
        /// Whether the machine was booted since.
        rebooted: bool,
    },
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Read the output from where it was left, and the end.
    Follow,
    /// Send the command; the fence on the machine lets it start once.
    Launch,
    /// Close the fence, and then say that it did not start for this reason.
    Close(LaunchProblem),
    /// The host of the claim was not reached: look for it again, until the deadline.
    LookOn,
    /// There is nothing more to be learned.
    Conclude(Ending),
}

/// Decides what to do. `has_run` where the start was confirmed before; `may_start` says whether it may still start.
pub fn next(place: Place, journal: &Journal, has_run: bool, may_start: Result<(), LaunchProblem>) -> Next {
    let unknown = |reason, problem: &str| Next::Conclude(Ending::Unknown { reason, problem: problem.to_owned() });
    match (place, journal) {
        (Place::OtherFolder, _) => unknown(
            Reason::MachineChanged,
            "the launcher's folder on the machine is not the one that the command was sent to",
        ),
        (Place::Elsewhere { same_folder: false }, _) => Next::LookOn,
        (_, Journal::Running | Journal::Ended) => Next::Follow,
        // What another host does not have, or does not see running, may be on the host of the claim.
        (Place::Elsewhere { .. }, Journal::Absent | Journal::Starting | Journal::Lost { .. }) => Next::LookOn,
        // What was written last before a power cut may not have reached the disk: that includes the line of the start.
        (Place::Rebooted, Journal::Starting) => unknown(
            Reason::Rebooted,
            "the machine was booted anew when the command had just been, or was about to be, started",
        ),
        // It is another journal than the one that the start was read from.
        (_, Journal::Starting | Journal::Closed) if has_run => {
            unknown(Reason::RecordLost, "the command had started, and the record of that on the machine is gone")
        }
        (_, Journal::Starting) => Next::Close(LaunchProblem {
            reason: Reason::LauncherFailed,
            message: "the machine accepted the command and was interrupted before it had started it; it will not start"
                .to_owned(),
        }),
        (_, Journal::Closed) => Next::Conclude(Ending::Refused(match may_start {
            Err(problem) => problem,
            Ok(()) => LaunchProblem {
                reason: Reason::LauncherFailed,
                message: "the machine was told never to start it before it had started".to_owned(),
            },
        })),
        (Place::Rebooted, Journal::Absent | Journal::Lost { .. }) | (_, Journal::Lost { rebooted: true }) => {
            unknown(Reason::Rebooted, "the machine was booted anew before the end of the command was recorded on it")
        }
        (_, Journal::Lost { rebooted: false }) => unknown(
            Reason::RecordLost,
            "the launcher's supervisor on the machine ended before it recorded the end of the command: it was killed, ran out \
             of memory, or the command ended it (as `pkill -u USER` and `killall` do); the command may still run",
        ),
        (_, Journal::Absent) if has_run => {
            unknown(Reason::RecordLost, "the command had started, and the machine has no record of it any more")
        }
        (_, Journal::Absent) => match may_start {
            Ok(()) => Next::Launch,
            Err(problem) => Next::Close(problem),
        },
    }
}

#[cfg(test)]
mod tests;
