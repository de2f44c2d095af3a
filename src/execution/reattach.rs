//! What to do about a claimed execution whose machine was reached again: after a lost connection, a lost `writ`, a reboot.
//!
//! The promise kept here: the command is sent (again) only to the very machine that the claim names, only where the
//! machine itself says that nothing of it has begun, and only while it may still start; whatever cannot be known is said
//! to be unknown.

use crate::api::Reason;
use crate::api::execution_status::{MachineRecord, RemoteRecord};

use super::{Ending, LaunchProblem};

/// What a machine shows of itself to who is connected to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineShown<'a> {
    /// The address and port that were reached, as the claim has them.
    pub address: &'a str,
    /// Its boot id.
    pub boot_id: &'a str,
    /// The launcher's folder.
    pub directory: &'a str,
    /// The random word in that folder.
    pub directory_id: &'a str,
}

/// How what is shown compares with what the claim recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// All of it is the same: what the machine says of the command is true, also that there is nothing.
    Same,
    /// The same folder, on a machine that was booted since or has another address: what is recorded there is true, but
    /// that nothing is recorded says nothing.
    SameFolder {
        /// Whether it was booted since.
        rebooted: bool,
    },
    /// Another folder: nothing that is or is not in it is of account.
    Another,
}

/// Holds what a machine shows against what was recorded with the claim.
pub fn compare(machine: &MachineRecord, remote: &RemoteRecord, shown: &MachineShown<'_>) -> Place {
    if shown.directory_id != remote.directory_id || shown.directory != remote.directory {
        return Place::Another;
    }
    let rebooted = shown.boot_id != remote.boot_id;
    if shown.address == machine.address && !rebooted { Place::Same } else { Place::SameFolder { rebooted } }
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
    /// There is nothing more to be learned.
    Conclude(Ending),
}

/// Decides what to do. `has_run` where the start was confirmed before; `may_start` says whether it may still start.
pub fn next(place: &Place, journal: &Journal, has_run: bool, may_start: Result<(), LaunchProblem>) -> Next {
    let unknown = |reason, problem: &str| Next::Conclude(Ending::Unknown { reason, problem: problem.to_owned() });
    match (place, journal) {
        (Place::Another, _) => unknown(
            Reason::MachineChanged,
            "the machine, or the launcher's folder on it, is not the one that the command was sent to",
        ),
        (_, Journal::Running | Journal::Ended) => Next::Follow,
        // What was written last before a power cut may not have reached the disk: that includes the line of the start.
        (Place::SameFolder { rebooted: true }, Journal::Starting) => unknown(
            Reason::Rebooted,
            "the machine was booted anew when the command had just been, or was about to be, started",
        ),
        // It is another journal than the one that the start was read from.
        (_, Journal::Starting | Journal::Closed) if has_run => {
            unknown(Reason::RecordLost, "the command had started, and the record of that on the machine is gone")
        }
        (_, Journal::Starting) => Next::Close(LaunchProblem {
            reason: Reason::NotStarted,
            message: "the machine accepted the command and was interrupted before it had started it; it will not start"
                .to_owned(),
        }),
        (_, Journal::Closed) => Next::Conclude(Ending::Refused(match may_start {
            Err(problem) => problem,
            Ok(()) => LaunchProblem {
                reason: Reason::NotStarted,
                message: "the machine was told never to start it before it had started".to_owned(),
            },
        })),
        (Place::SameFolder { rebooted: true }, Journal::Absent | Journal::Lost { .. })
        | (_, Journal::Lost { rebooted: true }) => {
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
        (Place::SameFolder { rebooted: false }, Journal::Absent) => unknown(
            Reason::MachineChanged,
            "the machine has another address than the one that the command was sent to, and no record of the command",
        ),
        (Place::Same, Journal::Absent) => match may_start {
            Ok(()) => Next::Launch,
            Err(problem) => Next::Close(problem),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: (&str, &str, &str, &str) = ("10.0.0.1:22", "boot", "/home/a", "word");

    fn place(address: &str, boot_id: &str, directory: &str, directory_id: &str) -> Place {
        let machine = MachineRecord {
            name: "web-1".to_owned(),
            uid: "u".to_owned(),
            generation: 1,
            address: RECORDED.0.to_owned(),
            user: "deploy".to_owned(),
            host_key_fingerprint: String::new(),
        };
        let remote = RemoteRecord {
            directory: RECORDED.2.to_owned(),
            directory_id: RECORDED.3.to_owned(),
            boot_id: RECORDED.1.to_owned(),
            not_after_uptime_ms: 0,
        };
        compare(&machine, &remote, &MachineShown { address, boot_id, directory, directory_id })
    }

    fn problem() -> LaunchProblem {
        LaunchProblem { reason: Reason::PolicyChanged, message: "no".to_owned() }
    }

    #[test]
    fn a_place_is_the_same_only_where_all_of_it_is() {
        assert_eq!(place("10.0.0.1:22", "boot", "/home/a", "word"), Place::Same);
        assert_eq!(place("10.0.0.2:22", "boot", "/home/a", "word"), Place::SameFolder { rebooted: false });
        // Another port may lead to another machine behind the same address.
        assert_eq!(place("10.0.0.1:23", "boot", "/home/a", "word"), Place::SameFolder { rebooted: false });
        assert_eq!(place("10.0.0.1:22", "later", "/home/a", "word"), Place::SameFolder { rebooted: true });
        assert_eq!(place("10.0.0.1:22", "boot", "/home/b", "word"), Place::Another);
        assert_eq!(place("10.0.0.1:22", "boot", "/home/a", "other"), Place::Another);
    }

    #[test]
    fn it_is_launched_only_where_nothing_has_begun_on_the_very_machine_and_it_may_start() {
        let places =
            [Place::Same, Place::SameFolder { rebooted: false }, Place::SameFolder { rebooted: true }, Place::Another];
        let journals = [
            Journal::Absent,
            Journal::Running,
            Journal::Ended,
            Journal::Closed,
            Journal::Starting,
            Journal::Lost { rebooted: false },
            Journal::Lost { rebooted: true },
        ];
        for place in &places {
            for journal in &journals {
                for has_run in [false, true] {
                    for may_start in [Ok(()), Err(problem())] {
                        let launches = next(place, journal, has_run, may_start.clone()) == Next::Launch;
                        let may =
                            (place, journal, has_run, may_start) == (&Place::Same, &Journal::Absent, false, Ok(()));
                        assert_eq!(launches, may, "{place:?} {journal:?} {has_run}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_may_not_start_any_more_is_closed_before_it_is_said_so() {
        assert_eq!(next(&Place::Same, &Journal::Absent, false, Err(problem())), Next::Close(problem()));
        let concluded = next(&Place::Same, &Journal::Closed, false, Err(problem()));
        assert_eq!(concluded, Next::Conclude(Ending::Refused(problem())));
    }

    #[test]
    fn what_is_recorded_is_read_also_after_a_reboot_and_what_is_not_is_unknown() {
        let rebooted = Place::SameFolder { rebooted: true };
        assert_eq!(next(&rebooted, &Journal::Ended, true, Ok(())), Next::Follow);
        for (place, journal, has_run, expected) in [
            (&rebooted, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
            (&Place::Same, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
            (&rebooted, Journal::Starting, false, Reason::Rebooted),
            (&rebooted, Journal::Absent, false, Reason::Rebooted),
            (&Place::Same, Journal::Lost { rebooted: false }, true, Reason::RecordLost),
            (&Place::Same, Journal::Absent, true, Reason::RecordLost),
            (&Place::Same, Journal::Starting, true, Reason::RecordLost),
            (&Place::Same, Journal::Closed, true, Reason::RecordLost),
            (&Place::SameFolder { rebooted: false }, Journal::Absent, false, Reason::MachineChanged),
            (&Place::Another, Journal::Ended, true, Reason::MachineChanged),
        ] {
            match next(place, &journal, has_run, Ok(())) {
                Next::Conclude(Ending::Unknown { reason, .. }) => assert_eq!(reason, expected),
                other => panic!("{place:?} {journal:?}: {other:?}"),
            }
        }
    }
}
