//! Stored results that Writ has not acknowledged to their machines yet. One request acknowledges many results, because
//! each request loads the machine like a command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::fleet::{MachineKey, lock};
use crate::launcher::Uid;

/// Time to collect results for one request. If the output of a result is redacted, Writ sends the request at once, so
/// that the machine soon deletes the unredacted output.
const BATCH_WINDOW: Duration = Duration::from_millis(500);
/// Maximum number of results in one request. Limits the standard input of the request, which contains the UID of each
/// result (36 bytes) twice.
pub(super) const MAX_BATCH: usize = 100;
/// Maximum number of waiting results for one machine. At this limit, a new result replaces the oldest result. A later
/// cleanup (`remote_gc`) removes the output of the oldest result.
const MAXIMUM_WAITING: usize = 10_000;
/// Results of each machine that wait for their acknowledgement.
#[derive(Default)]
pub(super) struct Acknowledgements {
    waiting: Mutex<HashMap<MachineKey, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    uids: Vec<Uid>,
    /// Wakes the task that collects a batch, so that the task sends the batch now.
    hurry: Arc<Notify>,
}

impl Acknowledgements {
    /// Adds a result. If `at_once` is true, the batch is sent without delay. If this function returns true, the caller
    /// must start a task that acknowledges the results of this machine.
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

    /// Waits until the batch window ends, or until a result is added that must be sent at once.
    pub async fn gather(&self, machine: &MachineKey) {
        let hurry = lock(&self.waiting).get(machine).map(|waiting| Arc::clone(&waiting.hurry));
        let Some(hurry) = hurry else { return };
        tokio::select! {
            () = sleep(BATCH_WINDOW) => {}
            () = hurry.notified() => {}
        }
    }

    /// Removes and returns the next batch of a machine. If no result waits, returns `None`, and the calling task must
    /// end. The next [`Self::add`] then requests a new task.
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
        // A result with `at_once` ends only the batch window of its own machine.
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
