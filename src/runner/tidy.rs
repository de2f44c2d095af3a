//! Cleaning up on a machine after what was never acknowledged (a `writ` that was killed between a result and its
//! acknowledgement), and after journals that have had their time. Once a day for each machine that something runs on.
//!
//! The promise kept here: output is removed only where the API server says that this very execution has finished. Another
//! namespace, or another cluster, may use the same folder; theirs is not touched.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::launcher::{self, Answer, Uid};

use super::asking::ask_in;
use super::queue::MachineKey;
use super::reach::{Reached, reach_declared};
use super::{Inner, Work, lock};

/// How soon after it has failed.
const AGAIN: Duration = Duration::from_secs(600);
/// How often.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long journals, and output that nobody asks for, are kept after the last word in them. A journal is what keeps its
/// command from starting again; `startingDeadlineSeconds` is at most 7 days.
const JOURNAL_DAYS: u32 = 30;
/// How many are looked at each time: what one request can carry back.
const AT_ONCE: u32 = 100;
/// How long a machine may take for one request.
const DEADLINE: Duration = Duration::from_secs(60);

/// When machines are to be tidied next.
#[derive(Default)]
pub(super) struct Tidied {
    machines: Mutex<HashMap<MachineKey, Instant>>,
}

impl Tidied {
    /// Whether it is time, which is then taken for done.
    pub fn is_due(&self, machine: &MachineKey) -> bool {
        let mut machines = lock(&self.machines);
        let now = Instant::now();
        machines.retain(|_, next| now < *next);
        if machines.contains_key(machine) {
            return false;
        }
        machines.insert(machine.clone(), now + EVERY);
        true
    }

    /// It was not done: the next one that runs there has it tried again, after a while.
    fn postpone(&self, machine: MachineKey) {
        lock(&self.machines).insert(machine, Instant::now() + AGAIN);
    }
}

/// Tidies the machine of an execution. What fails is left for the next day.
pub(super) async fn tidy(inner: &Inner, work: &Work) {
    let tidied = async {
        let reached = reach_declared(inner, work).await?;
        remove_leftovers(inner, work, &reached).await?;
        match ask(&reached, |nonce, facts| launcher::reap(nonce, facts, JOURNAL_DAYS)).await? {
            Answer::Done => Ok(()),
            other => Err(format!("it answered {other:?}")),
        }
    };
    let outcome: Result<(), String> = tokio::select! {
        outcome = tidied => outcome,
        () = inner.stopping.cancelled() => return,
    };
    if let Err(problem) = outcome {
        tracing::warn!(machine = %work.machine, problem, "a machine could not be tidied; it is tried again later");
        inner.tidied.postpone(work.machine_key());
    }
}

async fn remove_leftovers(inner: &Inner, work: &Work, reached: &Reached) -> Result<(), String> {
    let left = match ask(reached, |nonce, facts| launcher::leftovers(nonce, facts, AT_ONCE)).await? {
        Answer::Leftovers(left) if left.is_empty() => return Ok(()),
        Answer::Leftovers(left) => left,
        other => return Err(format!("it answered {other:?}")),
    };
    let named: HashSet<&str> = left.iter().map(Uid::as_str).collect();
    let finished = inner.cluster.finished_among(&work.key.namespace, &work.machine, &named).await;
    let finished = finished.map_err(|error| error.to_string())?;
    let finished: Vec<&Uid> = left.iter().filter(|uid| finished.contains(uid.as_str())).collect();
    for uids in finished.chunks(super::acknowledge::AT_ONCE) {
        ask(reached, |nonce, facts| launcher::acknowledge(nonce, facts, uids)).await?;
    }
    Ok(())
}

async fn ask(
    reached: &Reached,
    request: impl FnOnce(&launcher::Nonce, &launcher::MachineFacts) -> launcher::ExecRequest,
) -> Result<Answer, String> {
    let session = reached.open().await.map_err(|error| error.to_string())?;
    let facts = &reached.known.facts;
    ask_in(session, DEADLINE, |nonce| request(nonce, facts)).await.map_err(|error| error.to_string())
}
