//! Converts the short codes of the launcher into messages and status reasons.

use crate::api::{CommandExecution, Reason};
use crate::execution::{LaunchProblem, sudoers};
use crate::fleet::{FILES, explain_refusal};
use crate::launcher::{NotStarted, RequestRefusal};

/// Returns the launch problem for a request that the launcher refused.
pub(super) fn launch_refused(refusal: &RequestRefusal) -> LaunchProblem {
    let reason = match refusal {
        RequestRefusal::DeadlinePassed => Reason::StartingDeadlineExceeded,
        RequestRefusal::Rebooted => Reason::MachineChanged,
        RequestRefusal::DirectoryUnsuitable
        | RequestRefusal::Said(_)
        | RequestRefusal::NoProc
        | RequestRefusal::NoClock
        | RequestRefusal::Cut
        | RequestRefusal::MissingTool(_) => Reason::LauncherUnsupported,
        RequestRefusal::DiskFull | RequestRefusal::Files | RequestRefusal::NotWritable => Reason::LauncherFailed,
    };
    LaunchProblem { reason, message: format!("{}; it was not started", explain_refusal(refusal)) }
}

/// Returns the launch problem for the launcher's reason not to start the command.
pub(super) fn not_started(why: &NotStarted, execution: &CommandExecution) -> LaunchProblem {
    let message = match why {
        NotStarted::SudoSaid(words) => return sudo_refused(words, execution),
        NotStarted::SudoRefused => return sudo_refused("", execution),
        NotStarted::DiskFull => {
            "the machine could not make the files for the output: its disk is full, or the login user's quota is used up; make \
             room there; it was not started"
                .to_owned()
        }
        NotStarted::Files => format!("{FILES}; it was not started"),
    };
    LaunchProblem { reason: Reason::LauncherFailed, message }
}

/// Returns the launch problem if sudo does not let the login user run the command. `words` is sudo's message, or empty.
pub(super) fn sudo_refused(words: &str, execution: &CommandExecution) -> LaunchProblem {
    let said = if words.is_empty() { String::new() } else { format!("{words} (said by sudo); ") };
    let line = match sudoers::line(execution) {
        Some(line) => format!("the line `{line}` in its sudoers does (visudo; docs/guides/run-as.md)"),
        None => "add a line to its sudoers (visudo; docs/guides/run-as.md)".to_owned(),
    };
    let message = format!(
        "{said}sudo on the machine does not let the login user run this without a password; {line}; it was not started"
    );
    LaunchProblem { reason: Reason::LauncherFailed, message }
}

/// The only output of sudo or sudo-rs if a password is necessary and there is no terminal to enter the password.
const ASKS: [&str; 2] = ["sudo: a password is required", "sudo: interactive authentication is required"];

/// Returns the message if `stderr` is exactly one message of [`ASKS`] and a newline.
pub(super) fn is_sudo_asking(stderr: &[u8]) -> Option<&'static str> {
    ASKS.into_iter().find(|words| stderr.strip_suffix(b"\n") == Some(words.as_bytes()))
}

/// Returns the Linux name of a signal, without SIG. Returns the number if the signal has no known name.
pub(super) fn signal_name(number: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    /// First real-time signal that programs may use. The C library reserves the two signals before this signal.
    const FIRST_REAL_TIME: u8 = 34;
    let name = usize::from(number).checked_sub(1).and_then(|index| NAMES.get(index));
    match (name, number.checked_sub(FIRST_REAL_TIME)) {
        (Some(name), _) => (*name).to_owned(),
        (None, Some(0)) => "RTMIN".to_owned(),
        (None, Some(above)) if number <= 64 => format!("RTMIN+{above}"),
        (None, _) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_linux_gives_them() {
        // Numbers of signal(7), for x86 and ARM.
        for (number, name) in [
            (1, "HUP"),
            (9, "KILL"),
            (11, "SEGV"),
            (13, "PIPE"),
            (15, "TERM"),
            (31, "SYS"),
            (34, "RTMIN"),
            (50, "RTMIN+16"),
            (64, "RTMIN+30"),
            (32, "32"),
        ] {
            assert_eq!(signal_name(number), name);
        }
    }
}
