//! Returns the end of a command whose start was not observed.
//!
//! - Without the permission to start, the command never starts. The execution ends, or the task retries in another
//!   session.
//! - After the permission, the command has perhaps started. If its output proves a refusal by sudo, the command has not
//!   started.

use crate::api::{CommandExecution, Reason};
use crate::execution::{LaunchProblem, StopCause, Termination};
use crate::fleet::RefusalCause;

use super::super::messages::{is_sudo_asking, sudo_refused};
use super::launch_problem::not_started;
use super::{LOGIN_DEADLINE, PERMISSION_DEADLINE, Run, START_DEADLINE};

/// Remedy if the session ended before the login shell had started the script.
const NOT_READY: &str = "the login did not start the command: its shell must be one that executes `exec` with quoted words, \
    no start-up file may end it or send its input or output elsewhere, and no ForceCommand may replace what is asked for";

/// Exit code of the script if sudo does not allow the command.
const SUDO_REFUSES: u32 = 94;
impl Run {
    /// Returns a refusal if sudo refused the command, or else `ending`. sudo refuses in two ways:
    ///
    /// 1. `sudo -l` in the script refuses before the start. The script then ends with exit code 94.
    /// 2. `sudo -l` requires a password, so the script cannot check the command and starts it. Then sudo requires a
    ///    password again. The message of sudo is the only output, and the exit code of sudo is 1.
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

    /// Returns the end of a run whose start mark did not arrive. An exit code of such a run is not the exit code of the
    /// command.
    pub(super) fn not_started(&self) -> Termination {
        if self.permitted.is_some() {
            return self.start_not_confirmed(match (self.is_over(), self.is_lost) {
                (true, _) => "its session ended without showing that it did",
                (false, true) => "the connection was lost before it showed that it did",
                (false, false) => "this writ serve shut down before the session showed that it did",
            });
        }
        let stopped = match self.told {
            Some((StopCause::Cancel, _, _)) => Some((Reason::CancelledBeforeStart, "cancelled before it started")),
            Some((StopCause::ClientLeft, _, _)) => {
                Some((Reason::NoSession, "the client left before the command started"))
            }
            _ => None,
        };
        if let Some((reason, why)) = stopped {
            return Termination::Refused(LaunchProblem { reason, message: format!("{why}; Writ ended the login") });
        }
        match (self.is_over(), self.accepted) {
            (true, Some(_)) => not_started(Reason::LauncherUnsupported, &self.unexpected.explain(NOT_READY)),
            // If sshd cannot create a process, it closes the session without an answer to the exec request.
            (true, None) => not_started(
                Reason::ExecRequestRefused,
                "the machine closed the session that it had opened and did not answer the request to execute; look at sshd's log",
            ),
            (false, _) if self.is_lost => not_started(
                Reason::ExecRequestRefused,
                "the connection was lost before the login was ready for the command",
            ),
            (false, _) => {
                not_started(Reason::HolderLost, "this writ serve shut down before it had started the command")
            }
        }
    }

    fn is_over(&self) -> bool {
        self.session.is_closed() || self.exit.is_some()
    }

    /// Returns the end of a run that missed a deadline before the start.
    pub(super) fn start_overdue(&self) -> Termination {
        let quoted = self.unexpected.quoted();
        match (self.permitted, self.accepted) {
            (Some(_), _) => self.start_not_confirmed(&format!(
                "no sign of the start arrived within {} s",
                PERMISSION_DEADLINE.as_secs()
            )),
            (None, Some(_)) => not_started(
                Reason::LauncherUnsupported,
                &format!(
                    "{quoted}the login was not ready for the command within {} s: a start-up file takes longer, or waits for \
                     something (it reads standard input to its end, say); Writ ended the login",
                    LOGIN_DEADLINE.as_secs()
                ),
            ),
            (None, None) => not_started(
                Reason::ExecRequestRefused,
                &format!("the machine did not answer the request to execute within {} s", START_DEADLINE.as_secs()),
            ),
        }
    }

    /// Returns the end of a run in which the start-up files of the login print more than the output limit of the
    /// command.
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
            "{}the login was ready, and Writ sent it the order to start the command; {what}; the command may have run",
            self.unexpected.quoted()
        );
        Termination::Unknown { reason: Reason::StartNotConfirmed, problem }
    }

    /// Returns the cause of a refusal if the login did not execute the command. Returns `None` after a stop request,
    /// because Writ then ended the login itself.
    pub(super) fn cause(&self, ending: &Termination) -> Option<RefusalCause> {
        let Termination::Refused(problem) = ending else { return None };
        match problem.reason {
            _ if self.told.is_some() => None,
            Reason::LauncherUnsupported if self.accepted.is_some() => Some(self.unexpected.cause()),
            // The machine did not start the login shell, or the connection was lost.
            Reason::ExecRequestRefused => Some(RefusalCause::Transient),
            _ => None,
        }
    }
}
