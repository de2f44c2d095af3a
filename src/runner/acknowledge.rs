//! Tells machines that results are stored, so that the output there can go. Many at a time: one request for each command
//! would cost as much as the command.
//!
//! What is not told (this process dies, the machine is gone) is removed by the launcher's own `reap` after days; nothing
//! but disk space hangs on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::launcher::{self, Answer, Uid};

use super::asking::{AskError, ask_in};
use super::queue::MachineKey;
use super::reach::{Reached, reach_declared};
use super::{Inner, Work, lock};

/// How long others are waited for, to be told together. Not for output of a rule that redacts: on the machine it lies as the
/// command wrote it.
const GATHER: Duration = Duration::from_millis(500);
/// How many are told in one request: their UIDs (36 bytes each) have to fit into it (dropbear takes 9,000 bytes in all).
pub(super) const AT_ONCE: usize = 100;
/// How many may wait to be told for one machine; of more, the oldest are left to `reap`.
const MAXIMUM_WAITING: usize = 10_000;
/// How long the machine may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// The pauses between tries; after the last one the rest is left to `reap`.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];

/// What waits to be told, for each machine.
#[derive(Default)]
pub(super) struct Acknowledgements {
    waiting: Mutex<HashMap<MachineKey, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    uids: Vec<Uid>,
    /// Others are not waited for any more.
    hurry: Arc<Notify>,
}

impl Acknowledgements {
    /// Notes one; true where nobody is about to tell this machine, so that somebody has to. `at_once`: without waiting for
    /// others.
    pub fn add(&self, machine: MachineKey, uid: Uid, at_once: bool) -> bool {
        let mut waiting = lock(&self.waiting);
        let is_first = !waiting.contains_key(&machine);
        let Waiting { uids, hurry } = waiting.entry(machine).or_default();
        if uids.len() >= MAXIMUM_WAITING {
            uids.remove(0);
        }
        uids.push(uid);
        if at_once {
            hurry.notify_one();
        }
        is_first
    }

    /// Waits for others to be told of together, unless one is to be told of at once.
    async fn gather(&self, machine: &MachineKey) {
        let hurry = lock(&self.waiting).get(machine).map(|waiting| Arc::clone(&waiting.hurry));
        let Some(hurry) = hurry else { return };
        tokio::select! {
            () = sleep(GATHER) => {}
            () = hurry.notified() => {}
        }
    }

    /// Takes some of a machine's; None where there are none, and then the next one that is added is the first again.
    fn take(&self, machine: &MachineKey) -> Option<Vec<Uid>> {
        let mut waiting = lock(&self.waiting);
        let uids = &mut waiting.get_mut(machine)?.uids;
        if uids.is_empty() {
            waiting.remove(machine);
            return None;
        }
        let rest = uids.split_off(uids.len().min(AT_ONCE));
        Some(std::mem::replace(uids, rest))
    }
}

/// Tells a machine of all that waits for it.
pub(super) async fn tell(inner: &Inner, work: &Work) {
    let machine = work.machine_key();
    tokio::select! {
        () = inner.acknowledgements.gather(&machine) => {}
        // The connections go soon: now or never.
        () = inner.stopping.cancelled() => {}
    }
    let mut reached: Option<Arc<Reached>> = None;
    while let Some(uids) = inner.acknowledgements.take(&machine) {
        let mut pauses = PAUSES.iter();
        let mut told = tell_some(inner, work, &mut reached, &uids).await;
        while let Err(problem) = told {
            reached = None;
            let Some(pause) = pauses.next().filter(|_| !inner.stopping.is_cancelled()) else {
                tracing::warn!(
                    machine = %machine.1, problem, count = uids.len(),
                    "output of finished commands stays on a machine for some days: it could not be told that it is stored"
                );
                break;
            };
            tokio::select! {
                () = sleep(*pause) => {}
                () = inner.stopping.cancelled() => {}
            }
            told = tell_some(inner, work, &mut reached, &uids).await;
        }
    }
}

async fn tell_some(inner: &Inner, work: &Work, reached: &mut Option<Arc<Reached>>, uids: &[Uid]) -> Result<(), String> {
    let way = match reached {
        Some(way) => Arc::clone(way),
        None => {
            let way = Arc::new(reach_declared(inner, work).await?);
            *reached = Some(Arc::clone(&way));
            way
        }
    };
    let session = way.open().await.map_err(|error| error.to_string())?;
    let facts = &way.known.facts;
    let named: Vec<&Uid> = uids.iter().collect();
    match ask_in(session, DEADLINE, |nonce| launcher::acknowledge(nonce, facts, &named)).await {
        Ok(Answer::Done) => Ok(()),
        Ok(other) => Err(format!("it answered {other:?}")),
        Err(error) => {
            if matches!(error, AskError::Silence(_)) {
                way.line.give_up().await;
            }
            Err(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;
    use futures::poll;

    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(&format!("00000000-0000-4000-8000-{number:012}")).unwrap()
    }

    fn machine(name: &str) -> MachineKey {
        ("team".to_owned(), name.to_owned())
    }

    #[tokio::test]
    async fn output_of_a_rule_that_redacts_is_acknowledged_without_waiting_for_others() {
        let waiting = Acknowledgements::default();
        let (plain, secret, both) = (machine("plain"), machine("secret"), machine("both"));
        assert!(waiting.add(plain.clone(), uid(1), false));
        assert!(waiting.add(secret.clone(), uid(2), true));
        assert!(waiting.gather(&plain).now_or_never().is_none());
        assert!(waiting.gather(&secret).now_or_never().is_some());
        // It comes while others are waited for; it does not hurry those of other machines.
        assert!(waiting.add(both.clone(), uid(3), false));
        let mut gathering = pin!(waiting.gather(&both));
        assert!(poll!(&mut gathering).is_pending());
        assert!(!waiting.add(plain.clone(), uid(4), false));
        assert!(poll!(&mut gathering).is_pending());
        assert!(!waiting.add(both.clone(), uid(5), true));
        assert!(poll!(&mut gathering).is_ready());
        assert_eq!(waiting.take(&both).map(|uids| uids.len()), Some(2));
        assert!(waiting.gather(&plain).now_or_never().is_none());
    }
}
