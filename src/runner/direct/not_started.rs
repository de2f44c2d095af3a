//! What is known of a command that was not seen to start.
//!
//! Without the permission, the machine has not started it and never will: it is over, or it may be tried again in another session.
//! With the permission it may have started, unless the machine shows the contrary.

use crate::api::{CommandExecution, Reason};
use crate::execution::{LaunchProblem, StopCause, Termination};
use crate::fleet::RefusalCause;

use super::super::messages::{is_sudo_asking, sudo_refused};
use super::launch_problem::not_started;
use super::{LOGIN_DEADLINE, PERMISSION_DEADLINE, Run, START_DEADLINE};

/// What to do if the session ends before the login shell came to the command.
const NOT_READY: &str = "the login did not start the command: its shell must be one that executes `exec` with quoted words, \
    no start-up file may end it or send its input or output elsewhere, and no ForceCommand may replace what is asked for";

/// Exit code of the sh in front of the command if sudo does not allow it.
const SUDO_REFUSES: u32 = 94;
impl Run {
    /// Takes an end by sudo for what it is: the command was not executed. Before, sudo wanted a password for the question whether
    /// it allows the command. Now its words for that are all that was written, and the exit code is that of sudo.
    pub(super) fn unless_sudo_asked(&mut self, ending: Termination, execution: &CommandExecution) -> Termination {
        if let Termination::Refused(problem) = &ending
            && self.by_sudo
            && problem.reason == Reason::LauncherUnsupported
            && self.unexpected.exit_code() == Some(SUDO_REFUSES)
        {
            return Termination::Refused(sudo_refused(&self.unexpected.words(), execution));
        }
        let is_asked =
            ending == (Termination::Exited { code: 1 }) && self.marks.sudo_asks() && !self.first_words.has_stdout;
        match is_sudo_asking(&self.first_words.stderr).filter(|_| is_asked) {
            Some(words) => {
                self.started = None;
                Termination::Refused(sudo_refused(words, execution))
            }
            None => ending,
        }
    }

    /// The end if the mark of the start did not come. An exit code is none of the command then.
    pub(super) fn not_started(&self) -> Termination {
        if self.permitted.is_some() {
            return self.start_not_confirmed(match (self.is_over(), self.is_lost) {
                (true, _) => "its session ended without showing that it did",
                (false, true) => "the connection was lost before it showed that it did",
                (false, false) => "this writ was told to end before it showed that it did",
            });
        }
        if let Some((StopCause::Cancel, _, _)) = self.told {
            let message = "cancelled before it started; the login was told to end".to_owned();
            return Termination::Refused(LaunchProblem { reason: Reason::CancelledBeforeStart, message });
        }
        match (self.is_over(), self.accepted) {
            (true, Some(_)) => not_started(Reason::LauncherUnsupported, &self.unexpected.explain(NOT_READY)),
            // As sshd does if it has no room for a process.
            (true, None) => not_started(
                Reason::ExecRequestRefused,
                "the machine closed the session that it had opened and did not answer the request to execute; look at sshd's log",
            ),
            (false, _) if self.is_lost => not_started(
                Reason::ExecRequestRefused,
                "the connection was lost before the login was ready for the command",
            ),
            (false, _) => not_started(Reason::HolderLost, "this writ was told to end before it had started it"),
        }
    }

    fn is_over(&self) -> bool {
        self.session.is_closed() || self.exit.is_some()
    }

    /// The end if the next step towards the start was not seen in time.
    pub(super) fn start_overdue(&self) -> Termination {
        let quoted = self.unexpected.quoted();
        match (self.permitted, self.accepted) {
            (Some(_), _) => {
                self.start_not_confirmed(&format!("nothing came of that within {} s", PERMISSION_DEADLINE.as_secs()))
            }
            (None, Some(_)) => not_started(
                Reason::LauncherUnsupported,
                &format!(
                    "{quoted}the login was not ready for the command within {} s: a start-up file takes longer, or waits for \
                     something (it reads standard input to its end, say); the login was told to end",
                    LOGIN_DEADLINE.as_secs()
                ),
            ),
            (None, None) => not_started(
                Reason::ExecRequestRefused,
                &format!("the machine did not answer the request to execute within {} s", START_DEADLINE.as_secs()),
            ),
        }
    }

    /// The start-up files alone print more than the command may.
    pub(super) fn prints_too_much(&self) -> Termination {
        not_started(
            Reason::LauncherUnsupported,
            &format!(
                "{}the start-up files of the login print more than decision.output.maximumBytes ({} bytes); let them print \
                 in interactive shells only",
                self.unexpected.quoted(),
                self.maximum_bytes
            ),
        )
    }

    fn start_not_confirmed(&self, what: &str) -> Termination {
        let problem = format!(
            "{}the login was ready and was told to start the command; {what}; the command may have run",
            self.unexpected.quoted()
        );
        Termination::Unknown { reason: Reason::StartNotConfirmed, problem }
    }

    /// Why the login did not execute, if that is how it ended. A login that was told to end has not refused anything.
    pub(super) fn cause(&self, ending: &Termination) -> Option<RefusalCause> {
        let Termination::Refused(problem) = ending else { return None };
        match problem.reason {
            _ if self.told.is_some() => None,
            Reason::LauncherUnsupported if self.accepted.is_some() => Some(self.unexpected.cause()),
            // It did not come to the login, or the connection was lost.
            Reason::ExecRequestRefused => Some(RefusalCause::Transient),
            _ => None,
        }
    }
}
