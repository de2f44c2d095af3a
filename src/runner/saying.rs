//! The launcher's short words, in sentences for people and words for the status.

use crate::api::{CommandExecution, Reason};
use crate::execution::{LaunchProblem, sudoers_line};
use crate::launcher::{NotStarted, Refusal};
use crate::policy::command_path;

/// What to do about a login with too low a limit of open files.
const FILES: &str = "the login's limit of open files is too low for the launcher, which needs about 20: see to `ulimit -n` in its \
    start-up files, limits.conf and sshd's service on the machine";

/// Why the machine refused a request, and what to do.
pub(super) fn refused(refusal: &Refusal) -> String {
    let why = match refusal {
        Refusal::Late => "the starting deadline was over when the machine was asked to start it",
        Refusal::OtherBoot => "the machine was booted anew after the claim",
        Refusal::Directory => {
            "the launcher's folder on the machine is not fit (execution.directory of the Machine; by default \
             .local/state/writ in the login user's home): it must be a folder of the login user's own, no symbolic link, \
             that nobody else may write to"
        }
        Refusal::Said(words) => {
            return format!(
                "{words} (said by the machine); the launcher's folder could not be made there: give the login user a home that it \
                 may write to, with room on its disk, or set execution.directory of the Machine to a folder of its own"
            );
        }
        Refusal::Space => {
            "the disk with the launcher's folder on the machine is full, or the login user's quota there is used up \
             (`df -h` and `df -i` of status.remote.directory, `quota`); make room there"
        }
        Refusal::Files => FILES,
        Refusal::Unwritable => "the launcher's folder on the machine cannot be written to",
        Refusal::NoProc => {
            "the machine has no /proc, which the launcher needs; set execution.mode: Direct on the Machine"
        }
        Refusal::NoClock => {
            "the machine's clock /proc/uptime cannot be read, or went back; make it readable for the login user (if lxcfs \
             provides it, restart lxcfs)"
        }
        Refusal::Cut => {
            "the request arrived cut or mixed with other text, so nothing of it was executed: a startup file of the login \
             reads standard input (a `read`, an `ssh` without -n, a question); let it do that in interactive shells only"
        }
        Refusal::NoTool(tool) => {
            return format!(
                "the machine has no {tool}, which the launcher needs: neither in {} nor in the PATH of the login; install it, or \
                 set execution.mode: Direct on the Machine",
                command_path()
            );
        }
    };
    why.to_owned()
}

/// The same as a problem of a launch.
pub(super) fn launch_refused(refusal: &Refusal) -> LaunchProblem {
    let reason = match refusal {
        Refusal::Late => Reason::StartingDeadlineExceeded,
        Refusal::OtherBoot => Reason::MachineChanged,
        Refusal::Directory
        | Refusal::Said(_)
        | Refusal::NoProc
        | Refusal::NoClock
        | Refusal::Cut
        | Refusal::NoTool(_) => Reason::MachineUnfit,
        Refusal::Space | Refusal::Files | Refusal::Unwritable => Reason::NotStarted,
    };
    LaunchProblem { reason, message: format!("{}; it was not started", refused(refusal)) }
}

/// Why the launcher did not start the command.
pub(super) fn not_started(why: &NotStarted, execution: &CommandExecution) -> LaunchProblem {
    let message = match why {
        NotStarted::SudoSaid(words) => return sudo_refused(words, execution),
        NotStarted::Sudo => return sudo_refused("", execution),
        NotStarted::Space => {
            "the machine could not make the files for the output: its disk is full, or the login user's quota is used up; make \
             room there; it was not started"
                .to_owned()
        }
        NotStarted::Files => format!("{FILES}; it was not started"),
    };
    LaunchProblem { reason: Reason::NotStarted, message }
}

/// sudo does not let the login user run a command. `words`: what it said, if it said something.
pub(super) fn sudo_refused(words: &str, execution: &CommandExecution) -> LaunchProblem {
    let said = if words.is_empty() { String::new() } else { format!("{words} (said by sudo); ") };
    let line = sudoers_line(execution).unwrap_or_default();
    let message = format!(
        "{said}sudo on the machine does not let the login user run this without a password; a line such as `{line}` in its sudoers \
         does (visudo; docs/guides/run-as.md); it was not started"
    );
    LaunchProblem { reason: Reason::NotStarted, message }
}

/// The only words with which sudo ends if it wants a password that it cannot ask for: of sudo, and of sudo-rs.
const ASKS: [&str; 2] = ["sudo: a password is required", "sudo: interactive authentication is required"];

/// Whether this is all that sudo writes then.
pub(super) fn is_sudo_asking(stderr: &[u8]) -> Option<&'static str> {
    ASKS.into_iter().find(|words| stderr.strip_suffix(b"\n") == Some(words.as_bytes()))
}

/// The name of a signal on Linux, without SIG; its number where it has none that is known.
pub(super) fn signal_name(number: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    /// The first one that programs may give a meaning: the C library keeps the two before it.
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
        // signal(7), x86 and ARM.
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
