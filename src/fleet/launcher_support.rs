//! Decides if the launcher can start commands on a machine, based on the facts that the machine reports.

use crate::api::Machine;
use crate::api::execution_status::{MAX_DIRECTORY_LENGTH, MAX_ID_LENGTH};
use crate::launcher::LauncherFacts;

use super::connect_failure::ConnectFailure;
use super::connection_pool::ConnectionPool;
use super::inspect::TimedFacts;
use super::launcher_request::LauncherError;

/// Converts [`LauncherError::Refused`] to the temporary error [`LauncherError::SessionRefused`]. The machine can lack
/// resources for a moment. For example, sshd cannot fork.
pub(crate) fn refused_for_now(connections: &ConnectionPool, pool_key: &str, error: LauncherError) -> LauncherError {
    match error {
        LauncherError::Refused(message) if connections.has_executed(pool_key) => LauncherError::SessionRefused(
            format!("{message}; it has executed there before, so it may have no room for a further process"),
        ),
        LauncherError::Refused(message) => LauncherError::SessionRefused(format!(
            "{message}; it may have no room for a further process, so it is tried again"
        )),
        other => other,
    }
}

/// Returns the facts of a machine, if the launcher can start commands on the machine.
pub(crate) fn check_support(
    known: Result<TimedFacts, LauncherError>,
    machine: &Machine,
) -> Result<TimedFacts, ConnectFailure> {
    match known {
        Ok(known) if known.facts.kills_user_processes && machine.spec.user != "root" => {
            Err(ConnectFailure::unsupported(
                "systemd on the machine ends what a login leaves behind (KillUserProcesses=yes in logind.conf), so no \
             command would outlive its connection; set it to no, or set execution.mode: Direct on the Machine"
                    .to_owned(),
            ))
        }
        Ok(known) => match unrecordable(&known.facts) {
            Some(problem) => Err(ConnectFailure::unsupported(problem)),
            None => Ok(known),
        },
        Err(LauncherError::Connect(error)) => Err(ConnectFailure::from_ssh(&error)),
        Err(LauncherError::NoReply(problem) | LauncherError::SessionRefused(problem)) => {
            Err(ConnectFailure::Unreachable(problem))
        }
        Err(LauncherError::Refused(message) | LauncherError::Account(message) | LauncherError::BadReply(message)) => {
            Err(ConnectFailure::unsupported(message))
        }
    }
}

/// Returns the problem if a fact is too long for its field in the claim. The API server would refuse a claim with such
/// a fact.
fn unrecordable(facts: &LauncherFacts) -> Option<String> {
    let length = |text: &str| text.chars().count();
    if length(&facts.directory) > MAX_DIRECTORY_LENGTH {
        return Some(format!(
            "the launcher's directory on the machine has a path of {} characters, and at most {MAX_DIRECTORY_LENGTH} can be recorded; set \
             spec.execution.directory of the Machine to a shorter one",
            length(&facts.directory)
        ));
    }
    for (what, id) in [("file id in the launcher's directory", &facts.directory_id), ("boot id", &facts.boot_id)] {
        if length(id) > MAX_ID_LENGTH {
            return Some(format!(
                "the {what} has {} characters on the machine, and at most {MAX_ID_LENGTH} can be recorded; find out what has written \
                 it, or set spec.execution.directory to another directory",
                length(id)
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_recorded_is_told_with_the_bound() {
        let facts = |directory: usize, id: usize, boot: usize| LauncherFacts {
            boot_id: "b".repeat(boot),
            uptime_centiseconds: 1,
            directory: format!("/{}", "ä".repeat(directory - 1)),
            directory_id: "d".repeat(id),
            login_shell_is_posix: true,
            kills_user_processes: false,
        };
        assert_eq!(unrecordable(&facts(MAX_DIRECTORY_LENGTH, MAX_ID_LENGTH, MAX_ID_LENGTH)), None);
        for (facts, bound, remedy) in [
            (facts(MAX_DIRECTORY_LENGTH + 1, 1, 1), "1024", "spec.execution.directory"),
            (facts(2, MAX_ID_LENGTH + 1, 1), "64", "file id"),
            (facts(2, 1, MAX_ID_LENGTH + 1), "64", "boot id"),
        ] {
            let said = unrecordable(&facts).unwrap();
            assert!(said.contains(bound) && said.contains(remedy), "{said}");
        }
    }
}
