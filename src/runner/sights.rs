//! What was seen of each machine last, by whoever tried to reach it, and looks at those that nobody tries.
//!
//! A look is a full login (`probe` in the Machine's spec): a bare connect tells little, and sshd 9.8 locks out who
//! connects without logging in. Where a shared connection is open the machine is asked over that.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::{Machine, MachinePhase};
use crate::execution::LaunchProblem;
use crate::fairness::{Pool, Size};
use crate::machine::{Seen, Sight};
use crate::telemetry::metrics;

use super::attempt::AttemptEnd;
use super::look::look;
use super::queue::{MachineKey, random_fraction};
use super::recount::Counted;
use super::{Inner, Runner, WAKE_QUEUE, lock};

/// How many machines are looked at at a time, of those that were away, and of the others: of those that swallow packets each
/// takes its whole deadline, and the others have to be seen meanwhile, those of other namespaces above all. Each costs a socket
/// and about 64 KiB.
const LOOKS: Size = Size { places: 64, share: 32 };

/// What was seen of all machines. Their number is bounded by that of the Machines: who is gone is forgotten.
pub(super) struct Sights {
    pub(super) known: Mutex<HashMap<MachineKey, Known>>,
    looks: Pool,
    looks_at_lost: Pool,
    changed: mpsc::Sender<ObjectRef<Machine>>,
}

#[derive(Default)]
pub(super) struct Known {
    sight: Option<Sight>,
    /// How many times in a row it was not reached.
    failures: u32,
    /// In 0..1, another for each sight.
    spread: f64,
    /// Whether somebody is looking, and when somebody did last.
    looking: bool,
    looked: Option<Instant>,
    /// How many looks in a row have seen nothing.
    blind: u32,
    /// What was told last of how many run and wait.
    pub counted: Counted,
}

/// What is known of a machine here.
#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// What was seen of it last.
    pub sight: Option<Sight>,
    /// How many times in a row it was not reached.
    pub failures: u32,
    /// In 0..1, another for each sight.
    pub spread: f64,
    /// How long ago the last look ended; None: there was none.
    pub since_look: Option<Duration>,
    /// How many looks in a row have seen nothing, as the API server did not let them.
    pub blind: u32,
    /// Whether what waits for it waits for a person.
    pub is_blocked: bool,
    /// How many executions have a slot there.
    pub running: usize,
    /// How many wait for it.
    pub queued: usize,
    /// Whether these numbers alone are worth a write now.
    pub is_recount: bool,
}

/// The other end of the sights: the Machines of which something new was seen.
pub type MachineWakes = mpsc::Receiver<ObjectRef<Machine>>;

impl Sights {
    pub fn new() -> (Self, MachineWakes) {
        let (changed, wakes) = mpsc::channel(WAKE_QUEUE);
        let [looks, looks_at_lost] = [(); 2].map(|()| Pool::new(LOOKS));
        (Self { known: Mutex::default(), looks, looks_at_lost, changed }, wakes)
    }

    /// Notes what was seen. Who reports it learns of it; where that is busy, it finds it when it looks next.
    pub fn note(&self, machine: &MachineKey, sight: Sight) {
        {
            let mut known = lock(&self.known);
            // A look may end after its Machine was deleted.
            let Some(known) = known.get_mut(machine) else { return };
            known.blind = 0;
            known.failures = match &sight.seen {
                Seen::Online { .. } => 0,
                Seen::Problem(_) => known.failures.saturating_add(1),
            };
            known.spread = random_fraction();
            known.sight = Some(sight);
        }
        self.tell(machine);
    }

    /// Has the Machine looked at by its controller.
    pub fn tell(&self, machine: &MachineKey) {
        let (namespace, name) = machine;
        let _ = self.changed.try_send(ObjectRef::new(name).within(namespace));
    }

    /// There is such a Machine: what is seen of it is kept until it is gone.
    pub fn expect(&self, machine: &MachineKey) {
        lock(&self.known).entry(machine.clone()).or_default();
    }

    fn begin(&self, machine: &MachineKey) -> bool {
        let mut known = lock(&self.known);
        let known = known.entry(machine.clone()).or_default();
        if known.looking {
            return false;
        }
        known.looking = true;
        // Whatever is seen sets it back.
        known.blind = known.blind.saturating_add(1);
        true
    }

    /// Whether it was not as it should be the last time.
    pub fn had_problem(&self, machine: &MachineKey) -> bool {
        let known = lock(&self.known);
        let sight = known.get(machine).and_then(|known| known.sight.as_ref());
        sight.is_some_and(|sight| matches!(sight.seen, Seen::Problem(_)))
    }

    /// A machine that was away the last time waits for others like it only.
    fn places(&self, machine: &MachineKey) -> Pool {
        if self.had_problem(machine) { self.looks_at_lost.clone() } else { self.looks.clone() }
    }

    fn end(&self, machine: &MachineKey) {
        if let Some(known) = lock(&self.known).get_mut(machine) {
            known.looking = false;
            known.looked = Some(Instant::now());
        }
    }

    /// Brings the metric of machines up to date.
    pub fn measure(&self) {
        let known = lock(&self.known);
        for phase in [MachinePhase::Unknown, MachinePhase::Online, MachinePhase::Offline, MachinePhase::Misconfigured] {
            let is = |known: &&Known| known.sight.as_ref().map_or(MachinePhase::Unknown, |it| it.seen.phase()) == phase;
            metrics().machines(phase.as_str(), known.values().filter(is).count());
        }
    }

    fn forget(&self, machine: &MachineKey) {
        lock(&self.known).remove(machine);
    }
}

/// What an attempt to reach a machine that failed says of it; None where it says nothing.
pub(super) fn problem_of(end: &AttemptEnd) -> Option<Seen> {
    match end {
        AttemptEnd::Offline(message) => {
            let problem = LaunchProblem { reason: crate::api::Reason::MachineOffline, message: message.clone() };
            Some(Seen::Problem(problem))
        }
        AttemptEnd::Refused { problem, .. } => Some(Seen::Problem(problem.clone())),
        AttemptEnd::Claimed(_)
        | AttemptEnd::Done
        | AttemptEnd::Obsolete
        | AttemptEnd::Again(_)
        | AttemptEnd::Full { .. } => None,
    }
}

impl Inner {
    /// Notes what was seen of a Machine. One that can be used is open to who waits for it.
    pub(super) fn saw(&self, machine: &Machine, seen: Seen) {
        let metadata = &machine.metadata;
        let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        match &seen {
            Seen::Online { .. } => self.queues().reached(&key),
            Seen::Problem(problem) => self.queues().not_reached(&key, &problem.message),
        }
        let sight = Sight { uid: metadata.uid.clone(), generation: metadata.generation, at: self.cluster.now(), seen };
        self.sights.note(&key, sight);
    }
}

impl Runner {
    /// Starts what may have become possible on a machine.
    pub fn go_on(&self, namespace: &str, name: &str) {
        self.pump(&(namespace.to_owned(), name.to_owned()));
    }

    /// What is known here of a Machine, which is there.
    pub fn machine_facts(&self, namespace: &str, name: &str) -> MachineFacts {
        let key = (namespace.to_owned(), name.to_owned());
        let (running, queued) = self.inner.queues().busy(&key);
        let is_blocked = self.inner.queues().is_misconfigured(&key);
        let mut known = lock(&self.inner.sights.known);
        let known = known.entry(key).or_default();
        let is_recount = std::mem::take(&mut known.counted.is_due);
        MachineFacts {
            sight: known.sight.clone(),
            failures: known.failures,
            spread: known.spread,
            since_look: known.looked.map(|looked| looked.elapsed()),
            blind: known.blind,
            is_blocked,
            running,
            queued,
            is_recount,
        }
    }

    /// Looks at a machine, unless somebody does. What is seen comes by [`MachineWakes`].
    pub fn look_at(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if self.inner.stopping.is_cancelled() || !self.inner.sights.begin(&key) {
            return;
        }
        let runner = self.clone();
        // Not tracked: there is nothing to wait for at the end.
        tokio::spawn(async move {
            let looking = Looking { runner: runner.clone(), key: key.clone() };
            let looks = runner.inner.sights.places(&key);
            let seen = async {
                let _place = looks.place(&key.0).await;
                look(&runner.inner, &key).await;
            };
            tokio::select! {
                () = seen => {}
                () = runner.inner.stopping.cancelled() => {}
            }
            drop(looking);
            runner.pump(&key);
        });
    }

    /// A Machine has this generation now, or is gone: connections that were made by what it said before are not used any
    /// more.
    pub fn machine_changed(&self, namespace: &str, name: &str, uid: &str, generation: Option<i64>) {
        if generation.is_none() {
            self.inner.sights.forget(&(namespace.to_owned(), name.to_owned()));
        }
        self.inner.connections.forget(uid, generation);
    }
}

/// Says that nobody looks any more, also where a look ends by a panic.
struct Looking {
    runner: Runner,
    key: MachineKey,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.runner.inner.sights.end(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// A look at a black hole ends 10 s after its Machine was deleted.
    #[test]
    fn what_is_seen_of_a_machine_that_is_gone_is_not_kept() {
        let (sights, _wakes) = Sights::new();
        let machine = ("team".to_owned(), "web-1".to_owned());
        assert!(sights.begin(&machine));
        sights.forget(&machine);
        let problem = LaunchProblem { reason: crate::api::Reason::MachineOffline, message: "gone".to_owned() };
        let sight = Sight { uid: None, generation: None, at: Timestamp::UNIX_EPOCH, seen: Seen::Problem(problem) };
        sights.note(&machine, sight);
        sights.end(&machine);
        assert_eq!(lock(&sights.known).len(), 0);
    }
}
