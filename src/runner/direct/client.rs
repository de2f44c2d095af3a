//! The client of an interactive execution.

use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::execution::{LaunchProblem, StopCause};
use crate::interactive::{ClientInput, ClientInputs};
use crate::ssh::TerminalSize;

use super::super::claim::HeldClaim;
use super::super::context::Context;

/// The client of an interactive execution.
pub(super) struct Client {
    inputs: ClientInputs,
    /// Size of the client's terminal. `None` without a terminal.
    pub terminal: Option<TerminalSize>,
    /// Maximum time without input and output.
    pub idle: Duration,
    /// Time of the last input.
    pub last_input: Instant,
    pub has_ended_input: bool,
}

impl Client {
    /// Takes the client of an execution. Returns `None` if the execution is not interactive, or has no client here.
    pub fn take(context: &Context, held: &HeldClaim) -> Option<Self> {
        let session = held.execution.spec.session?;
        let inputs = context.interactive.take(&held.key.namespace, &held.key.name)?;
        let terminal = session.tty.then_some(TerminalSize { columns: session.columns, rows: session.rows });
        let idle = context.limits.idle;
        Some(Self { inputs, terminal, idle, last_input: Instant::now(), has_ended_input: false })
    }

    /// Returns a token that is cancelled when the client leaves.
    pub fn left(&self) -> CancellationToken {
        self.inputs.left().clone()
    }
}

/// Returns the reason why an interactive execution must not start, or `None`.
pub(super) fn no_session(held: &HeldClaim, client: Option<&Client>) -> Option<LaunchProblem> {
    let is_interactive = held.execution.spec.session.is_some();
    let has_client = client.is_some_and(|client| !client.inputs.left().is_cancelled());
    (is_interactive && !has_client).then(|| LaunchProblem {
        reason: Reason::NoSession,
        message: "the client left before the command started; nothing was sent".to_owned(),
    })
}

/// Waits for a cancellation, or until the client leaves.
pub(super) async fn stop_requested(cancel: &CancellationToken, left: Option<&CancellationToken>) -> StopCause {
    let client_left = async {
        match left {
            Some(left) => left.cancelled().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = cancel.cancelled() => StopCause::Cancel,
        () = client_left => StopCause::ClientLeft,
    }
}

/// Waits for the next input. Never completes without a client.
pub(super) async fn next_input(client: &mut Option<Client>) -> ClientInput {
    match client {
        Some(client) => client.inputs.next().await,
        None => pending().await,
    }
}
