//! Acknowledges stored results to the launchers on the machines, so that the launchers delete the output.
//!
//! If an acknowledgement is lost, a later cleanup (`remote_gc`) removes the output.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::fleet::{LauncherConnection, LauncherError, MachineKey, connect_current, request};
use crate::launcher::{self, Answer, Uid};

use super::context::Context;

/// Maximum duration of one acknowledgement request.
const DEADLINE: Duration = Duration::from_secs(20);
/// Pauses between attempts. If the last attempt fails, a later cleanup (`remote_gc`) removes the output.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];

/// Acknowledges all waiting results of this machine.
pub(super) async fn acknowledge_all(context: &Context, machine: &MachineKey) {
    tokio::select! {
        () = context.acknowledgements.gather(machine) => {}
        // The shutdown closes the connections soon, so the task does not wait for a larger batch.
        () = context.draining.cancelled() => {}
    }
    let mut reached: Option<Arc<LauncherConnection>> = None;
    while let Some(uids) = context.acknowledgements.next_batch(machine) {
        let mut pauses = PAUSES.iter();
        let mut told = acknowledge_batch(context, machine, &mut reached, &uids).await;
        while let Err(problem) = told {
            reached = None;
            let Some(pause) = pauses.next().filter(|_| !context.draining.is_cancelled()) else {
                tracing::warn!(
                    machine = %machine.1, error = problem, executions = uids.len(),
                    "output of finished commands stays on a machine for some days: it could not be told that it is stored"
                );
                break;
            };
            tokio::select! {
                () = sleep(*pause) => {}
                () = context.draining.cancelled() => {}
            }
            told = acknowledge_batch(context, machine, &mut reached, &uids).await;
        }
    }
}

async fn acknowledge_batch(
    context: &Context,
    machine: &MachineKey,
    reached: &mut Option<Arc<LauncherConnection>>,
    uids: &[Uid],
) -> Result<(), String> {
    let connection = match reached {
        Some(connection) => Arc::clone(connection),
        None => {
            let connection = Arc::new(connect_current(&context.fleet, machine).await?);
            *reached = Some(Arc::clone(&connection));
            connection
        }
    };
    let session = connection.open().await.map_err(|error| error.to_string())?;
    let facts = &connection.known.facts;
    let named: Vec<&Uid> = uids.iter().collect();
    match request(session, DEADLINE, |nonce| launcher::acknowledge(nonce, facts, &named)).await {
        Ok(Answer::Done) => Ok(()),
        Ok(other) => Err(format!("it answered {other:?}")),
        Err(error) => {
            if matches!(error, LauncherError::NoReply(_)) {
                connection.permit.discard().await;
            }
            Err(error.to_string())
        }
    }
}
