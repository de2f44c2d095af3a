//! The launcher's short words, in sentences for people and words for the status.

use crate::api::Reason;
use crate::execution::LaunchProblem;
use crate::launcher::{NotStarted, Refusal};
use crate::policy::command_path;

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
        Refusal::Space => "the disk with the launcher's folder on the machine is full; make room there",
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
        Refusal::Directory | Refusal::NoProc | Refusal::NoClock | Refusal::Cut | Refusal::NoTool(_) => {
            Reason::MachineUnfit
        }
        Refusal::Space | Refusal::Unwritable => Reason::NotStarted,
    };
    LaunchProblem { reason, message: format!("{}; it was not started", refused(refusal)) }
}

/// Why the launcher did not start the command.
pub(super) fn not_started(why: NotStarted, run_as: Option<&str>) -> LaunchProblem {
    let message = match why {
        NotStarted::SudoSaid(words) => {
            let LaunchProblem { message, .. } = not_started(NotStarted::Sudo, run_as);
            format!("{words} (said by sudo); {message}")
        }
        NotStarted::Sudo => format!(
            "sudo on the machine does not let the login user run this as {} without a password (`sudo -n -l -u USER -- COMMAND` \
             there says so); docs/guides/run-as.md has the lines for sudoers; it was not started",
            run_as.unwrap_or("that user")
        ),
        NotStarted::Space => {
            "the machine could not make the files for the output: its disk is full; it was not started".to_owned()
        }
    };
    LaunchProblem { reason: Reason::NotStarted, message }
}

/// The name of a signal on Linux, without SIG; its number where it has none that is known.
pub(super) fn signal_name(number: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::from(number).checked_sub(1).and_then(|index| NAMES.get(index));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_linux_gives_them() {
        // signal(7), x86 and ARM.
        for (number, name) in
            [(1, "HUP"), (9, "KILL"), (11, "SEGV"), (13, "PIPE"), (15, "TERM"), (31, "SYS"), (34, "34")]
        {
            assert_eq!(signal_name(number), name);
        }
    }
}
