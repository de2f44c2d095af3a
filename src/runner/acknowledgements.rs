//! Results that are stored, and that the machines do not know of yet. Many go in one request: one request for each command would
//! cost as much as the command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::fleet::{MachineKey, lock};
use crate::launcher::Uid;

/// How long others are waited for, to be told together. Not for output of a rule that redacts: on the machine it lies as the
/// command wrote it.
const BATCH_WINDOW: Duration = Duration::from_millis(500);
/// How many are told in one request: their UIDs (36 bytes each) have to fit into it (dropbear takes 9,000 bytes in all).
pub(super) const MAX_BATCH: usize = 100;
/// Maximum number of results that wait to be acknowledged to one machine. The launcher's pruning removes the oldest of more.
const MAXIMUM_WAITING: usize = 10_000;
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
    pub async fn gather(&self, machine: &MachineKey) {
        let hurry = lock(&self.waiting).get(machine).map(|waiting| Arc::clone(&waiting.hurry));
        let Some(hurry) = hurry else { return };
        tokio::select! {
            () = sleep(BATCH_WINDOW) => {}
            () = hurry.notified() => {}
        }
    }

    /// Takes some of a machine's; None where there are none, and then the next one that is added is the first again.
    pub fn next_batch(&self, machine: &MachineKey) -> Option<Vec<Uid>> {
        let mut waiting = lock(&self.waiting);
        let uids = &mut waiting.get_mut(machine)?.uids;
        if uids.is_empty() {
            waiting.remove(machine);
            return None;
        }
        let rest = uids.split_off(uids.len().min(MAX_BATCH));
        Some(std::mem::replace(uids, rest))
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
        assert_eq!(waiting.next_batch(&both).map(|uids| uids.len()), Some(2));
        assert!(waiting.gather(&plain).now_or_never().is_none());
    }
}
