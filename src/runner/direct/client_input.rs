//! The input and the terminal of an interactive execution, and its activity.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::api::Reason;
use crate::execution::LaunchProblem;
use crate::interactive::ClientInput;
use crate::output::SessionHeader;
use crate::policy::StandardInput;
use crate::ssh::{Signal, TerminalSize};

use super::super::claim::HeldClaim;
use super::Run;

/// Character that ends the input of a terminal in its usual mode (VEOF, Control-D).
const END_OF_TERMINAL_INPUT: &[u8] = b"\x04";

impl Run {
    /// Opens the client's terminal, and returns the standard input of the command.
    ///
    /// # Errors
    /// The machine gives no terminal, or the connection is lost. Nothing was sent.
    pub(super) async fn prepare_input(&mut self) -> Result<StandardInput, LaunchProblem> {
        let Some(client) = &self.client else { return Ok(StandardInput::Empty) };
        let Some(size) = client.terminal else { return Ok(StandardInput::Client) };
        match self.session.request_terminal(size).await {
            Ok(true) => Ok(StandardInput::Terminal),
            Ok(false) => Err(LaunchProblem {
                reason: Reason::LauncherUnsupported,
                message:
                    "the machine refused a terminal: allow it in sshd_config (PermitTTY yes) and for the key of Writ \
                          (no no-pty in authorized_keys), or use tty: false; nothing was sent"
                        .to_owned(),
            }),
            Err(error) => Err(LaunchProblem {
                reason: Reason::ExecRequestRefused,
                message: format!("the connection was lost before the terminal was open ({error}); nothing was sent"),
            }),
        }
    }

    /// Begins the recording of an interactive execution.
    pub(super) fn record_session(&mut self, held: &HeldClaim) {
        let Some(session) = held.execution.spec.session.filter(|_| self.client.is_some()) else { return };
        let (columns, rows) = if session.tty { (session.columns, session.rows) } else { (0, 0) };
        self.recorder.record_session(SessionHeader {
            columns,
            rows,
            tty: session.tty,
            command: held.decision.argv.join(" "),
            started: self.cluster.now(),
            records_input: held.decision.record_input,
        });
    }

    /// Returns true if the command can take input now.
    pub(super) fn may_take_input(&self) -> bool {
        let is_open = self.client.as_ref().is_some_and(|client| !client.has_ended_input);
        is_open && self.started.is_some() && self.may_be_told() && !self.session.is_writing()
    }

    /// Passes input of the client to the command.
    pub(super) async fn pass(&mut self, input: ClientInput) {
        let Some(client) = &mut self.client else { return };
        client.last_input = Instant::now();
        match input {
            ClientInput::Bytes(bytes) => {
                self.recorder.session_input(&bytes).await;
                self.session.start_write(bytes);
            }
            // SSH cannot end the input of a terminal.
            ClientInput::EndOfInput if client.terminal.is_some() => {
                self.session.start_write(Bytes::from_static(END_OF_TERMINAL_INPUT));
            }
            ClientInput::EndOfInput => {
                client.has_ended_input = true;
                // If this fails, the next event reports the lost connection.
                let _ = self.session.end_input().await;
            }
            ClientInput::Resize { columns, rows } => {
                if client.terminal.is_some() {
                    self.recorder.session_resized(columns, rows).await;
                    self.session.resize(TerminalSize { columns, rows }).await;
                }
            }
        }
    }

    /// Returns the signal that requests the end of the command.
    pub(super) fn stop_signal(&self) -> Signal {
        let has_terminal = self.client.as_ref().is_some_and(|client| client.terminal.is_some());
        if has_terminal { Signal::HangUp } else { Signal::Terminate }
    }

    /// Returns the time at which the command has had neither input nor output for too long, and this duration. Returns
    /// `None` without a client.
    pub(super) fn idle_end(&self) -> Option<(Instant, Duration)> {
        let client = self.client.as_ref()?;
        Some((client.last_input.max(self.last_output) + client.idle, client.idle))
    }
}
