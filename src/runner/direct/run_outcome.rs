//! The outcome of a run that has ended.

use crate::api::execution_status::OutputRecord;
use crate::execution::{CommandOutcome, Termination};
use crate::output::CapturedOutput;

use super::Run;
use super::drain::incomplete_reason;

impl Run {
    /// Returns the outcome. Storing the rest of the output ends early if `hurry` completes.
    pub(super) async fn outcome(mut self, ending: Termination, hurry: impl Future<Output = ()>) -> CommandOutcome {
        // sudo cannot forward KILL to the command, so the command perhaps still runs as the other user.
        let is_only_sudo =
            self.by_sudo && matches!((&ending, self.told), (Termination::Signalled { .. }, Some((_, _, true))));
        let ending = if is_only_sudo { Termination::StopNotConfirmed } else { ending };
        let ended = self.exit.as_ref().map(|(_, at)| *at);
        let duration_ms = match (self.started, ended) {
            (Some((_, started)), Some(ended)) => {
                i64::try_from(ended.saturating_duration_since(started).as_millis()).ok()
            }
            _ => None,
        };
        let stop_cause =
            self.told.map(|(cause, _, _)| cause).or_else(|| self.budget.is_exceeded().then(|| self.output_limit()));
        let incomplete_reason =
            incomplete_reason(self.budget.is_exceeded(), self.session.is_closed(), self.is_drain_over);
        let incomplete = incomplete_reason.is_some();
        // Only a command that ended by itself has written all of its output.
        let cut_off = incomplete || stop_cause.is_some() || !matches!(ending, Termination::Exited { .. });
        let exit_code = if let Termination::Exited { code } = &ending { Some(*code) } else { None };
        self.recorder.session_ended(exit_code);
        let CapturedOutput { stdout, stderr, stdout_record, stderr_record, recording } =
            self.recorder.finish(cut_off, hurry).await;
        CommandOutcome {
            ending,
            stop_cause,
            no_processes_left: false,
            started: self.started.map(|(timestamp, _)| timestamp),
            duration_ms,
            stdout,
            stderr,
            output: OutputRecord {
                stdout: stdout_record,
                stderr: stderr_record,
                incomplete,
                incomplete_reason,
                // Only the launcher can list the processes that hold the output, and Direct mode has no launcher.
                held_by: Vec::new(),
                recording,
            },
        }
    }
}
