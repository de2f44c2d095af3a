//! The queues of all machines, as plain data: who waits, who has a slot, which machine is not reached. No I/O; time
//! is an argument.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::cluster::ExecutionKey;
use crate::execution::{LaunchProblem, QueueFact, WorkFact};

use super::Work;
use super::attempt::AttemptEnd;
use super::waiting::{Turn, Waiting};

/// Connections to one machine that may be in the making: OpenSSH drops some of those that come at once over 10
/// (MaxStartups 10:30:100), and there may be other clients.
const MAXIMUM_CONNECTING: usize = 4;
/// The pause after the first failure to reach a machine; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// While executions wait, a machine is tried at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long it is remembered how many a machine bore. Then one more connection is tried.
const REMEMBER_ROOM: Duration = Duration::from_secs(300);
/// How long a refusal is remembered for a controller that never fetches it (the object was deleted).
const FORGET_REFUSALS_AFTER: Duration = Duration::from_secs(600);

/// Namespace and name of a Machine.
pub(super) type MachineKey = (String, String);

/// The queues of all machines.
#[derive(Default)]
pub(super) struct Queues {
    machines: HashMap<MachineKey, MachineQueue>,
    works: HashMap<ExecutionKey, State>,
}

#[derive(Default)]
struct MachineQueue {
    waiting: Waiting,
    /// Executions that have a slot, connecting or running.
    in_use: usize,
    /// Those of them that are connecting.
    connecting: usize,
    /// How many may have a slot.
    max_concurrent: usize,
    /// Whether nothing may start there (`spec.suspend`), as of the live read that put something in last.
    suspended: bool,
    /// How many it bore when it allowed no further connection, and when that was.
    bore: Option<(usize, Instant)>,
    /// Set while the machine is not reached, or not usable.
    offline: Option<Offline>,
}

struct Offline {
    problem: String,
    /// Whether a person has to mend it. Then nobody who waits tries, as that would be the end of him: it is tried by a
    /// [look](super::sights) at the machine.
    misconfigured: bool,
    failures: u32,
    /// When that was first seen.
    since: Instant,
    until: Instant,
}

enum State {
    Waiting { requester: String, turn: Turn, machine: MachineKey },
    Connecting { since: Instant, cancel: CancellationToken },
    Holding { cancel: CancellationToken },
    Refused { problem: LaunchProblem, since: Instant },
}

/// What follows from the end of a task.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Executions that the controller is to look at again.
    pub wake: Vec<ExecutionKey>,
    /// When the machine is to be tried again.
    pub pump_after: Option<Duration>,
}

impl Queues {
    /// Whether it is new here.
    pub fn add(&mut self, work: Work) -> bool {
        let machine_key = work.machine_key();
        let machine = self.machines.entry(machine_key.clone()).or_default();
        machine.max_concurrent = usize::try_from(work.max_concurrent).unwrap_or(1).max(1);
        machine.suspended = work.suspended;
        if self.works.contains_key(&work.key) {
            return false;
        }
        self.put_back(work, machine_key);
        true
    }

    /// How many wait in all queues, and how many have a slot.
    pub fn totals(&self) -> (usize, usize) {
        let machines = self.machines.values();
        machines.fold((0, 0), |(waiting, running), machine| (waiting + machine.waiting.len(), running + machine.in_use))
    }

    /// The next execution that may go on a machine, now holding a slot; and what tells its command to stop.
    /// `only_urgent`: nothing else starts yet.
    pub fn next(
        &mut self,
        machine_key: &MachineKey,
        only_urgent: bool,
        now: Instant,
    ) -> Option<(Work, CancellationToken)> {
        self.drop_if_idle(machine_key, now);
        let machine = self.machines.get_mut(machine_key)?;
        if machine.suspended || machine.in_use >= machine.places(now) || machine.connecting >= MAXIMUM_CONNECTING {
            return None;
        }
        let (requester, first) = machine.waiting.first()?;
        if first.patient && (only_urgent || !machine.may_be_tried(now)) {
            return None;
        }
        let work = machine.waiting.take(&requester, &first)?;
        machine.in_use += 1;
        machine.connecting += 1;
        let cancel = CancellationToken::new();
        self.works.insert(work.key.clone(), State::Connecting { since: now, cancel: cancel.clone() });
        Some((work, cancel))
    }

    /// Gives a slot to what occupies the machine already, over the maximum if need be; None where it has one.
    pub fn adopt(&mut self, work: &Work) -> Option<CancellationToken> {
        match self.works.get(&work.key) {
            None => {}
            // Another process has claimed it, and is gone: it waits for nothing here any more.
            Some(State::Waiting { requester, turn, machine }) => {
                if let Some(machine) = self.machines.get_mut(machine) {
                    machine.waiting.remove(requester, turn);
                }
            }
            Some(_) => return None,
        }
        let machine = self.machines.entry(work.machine_key()).or_default();
        machine.in_use += 1;
        let cancel = CancellationToken::new();
        self.works.insert(work.key.clone(), State::Holding { cancel: cancel.clone() });
        Some(cancel)
    }

    /// The claim is about to be written: from here on only the task writes the status.
    pub fn hold(&mut self, key: &ExecutionKey) {
        if let Some(State::Connecting { cancel, .. }) = self.works.get(key) {
            let cancel = cancel.clone();
            self.works.insert(key.clone(), State::Holding { cancel });
        }
    }

    /// A machine was found to wait for a person by a command that had a slot there.
    pub fn found_unfit(&mut self, machine_key: &MachineKey, problem: &str, now: Instant) -> Settled {
        let mut settled = Settled::default();
        if let Some(machine) = self.machines.get_mut(machine_key) {
            machine.leave_alone(problem.to_owned(), true, now, &mut settled);
        }
        settled
    }

    /// A machine was looked at, and can be used.
    pub fn reached(&mut self, machine_key: &MachineKey) {
        if let Some(machine) = self.machines.get_mut(machine_key) {
            machine.offline = None;
        }
    }

    /// A machine was looked at, and is not as it should be: those who wait find what was seen last.
    pub fn not_reached(&mut self, machine_key: &MachineKey, problem: &str) {
        if let Some(offline) = self.machines.get_mut(machine_key).and_then(|machine| machine.offline.as_mut()) {
            problem.clone_into(&mut offline.problem);
        }
    }

    /// How many have a slot on a machine, and how many wait for it.
    pub fn busy(&self, machine_key: &MachineKey) -> (usize, usize) {
        self.machines.get(machine_key).map_or((0, 0), |machine| (machine.in_use, machine.waiting.len()))
    }

    /// Whether a change of a Machine may mean something to an execution: it waits there, or is not known here, and then it may
    /// wait for this very Machine to come.
    pub fn minds(&self, key: &ExecutionKey, machine_key: &MachineKey) -> bool {
        match self.works.get(key) {
            None => true,
            Some(State::Waiting { machine, .. }) => machine == machine_key,
            // Whoever connects reads it again before the claim.
            Some(State::Connecting { .. } | State::Holding { .. } | State::Refused { .. }) => false,
        }
    }

    /// All machines for which something waits or runs.
    pub fn machines(&self) -> Vec<MachineKey> {
        self.machines.keys().cloned().collect()
    }

    /// Whether a machine waits for a person.
    pub fn is_misconfigured(&self, machine_key: &MachineKey) -> bool {
        self.machines.get(machine_key).is_some_and(MachineQueue::is_misconfigured)
    }

    /// A machine was reached, and the connection is no longer in the making.
    pub fn connected(&mut self, machine_key: &MachineKey) {
        if let Some(machine) = self.machines.get_mut(machine_key) {
            machine.connecting = machine.connecting.saturating_sub(1);
            // It may have been by a connection from before a person has to mend something.
            if !machine.is_misconfigured() {
                machine.offline = None;
            }
        }
    }

    /// A task has ended: its slot is free.
    pub fn settle(&mut self, work: Work, end: AttemptEnd, now: Instant) -> Settled {
        let machine_key = work.machine_key();
        let Some(machine) = self.machines.get_mut(&machine_key) else { return Settled::default() };
        machine.in_use = machine.in_use.saturating_sub(1);
        if !matches!(end, AttemptEnd::Done) {
            machine.connecting = machine.connecting.saturating_sub(1);
        }
        let key = work.key.clone();
        let began = match self.works.remove(&key) {
            Some(State::Connecting { since, .. }) => Some(since),
            _ => None,
        };
        let mut settled = Settled { wake: vec![key.clone()], pump_after: None };
        match end {
            AttemptEnd::Claimed(_) | AttemptEnd::Done | AttemptEnd::Obsolete => {}
            AttemptEnd::Again(_) => self.put_back(work, machine_key.clone()),
            AttemptEnd::Full { room, .. } => {
                machine.bore = Some((room, now));
                self.put_back(work, machine_key.clone());
            }
            AttemptEnd::Offline(problem) => {
                // Whose status says already that he waits for the machine goes on to.
                if !work.urgent && machine.was_offline_before(began) {
                    settled.wake.clear();
                }
                machine.leave_alone(problem.clone(), false, now, &mut settled);
                if work.urgent {
                    self.refuse(key, LaunchProblem { reason: Reason::MachineOffline, message: problem }, now);
                } else {
                    self.put_back(work, machine_key.clone());
                }
            }
            AttemptEnd::Refused { machine_at_fault: true, .. } if !work.urgent && machine.is_misconfigured() => {
                // Another one has met it already: it ends that one, the rest waits.
                self.put_back(work, machine_key.clone());
            }
            AttemptEnd::Refused { problem, machine_at_fault } => {
                if machine_at_fault {
                    machine.leave_alone(problem.message.clone(), true, now, &mut settled);
                }
                self.refuse(key, problem, now);
            }
        }
        self.drop_if_idle(&machine_key, now);
        settled
    }

    pub fn withdraw(&mut self, key: &ExecutionKey, now: Instant) {
        match self.works.get(key) {
            Some(State::Waiting { requester, turn, machine: machine_key }) => {
                let machine_key = machine_key.clone();
                if let Some(machine) = self.machines.get_mut(&machine_key) {
                    machine.waiting.remove(requester, turn);
                }
                self.works.remove(key);
                self.drop_if_idle(&machine_key, now);
            }
            Some(State::Refused { .. }) => {
                self.works.remove(key);
            }
            Some(State::Connecting { .. } | State::Holding { .. }) | None => {}
        }
    }

    pub fn cancel(&mut self, key: &ExecutionKey) {
        if let Some(State::Connecting { cancel, .. } | State::Holding { cancel }) = self.works.get(key) {
            cancel.cancel();
        }
    }

    pub fn facts(&self, key: &ExecutionKey, machine: &str, now: Instant) -> (WorkFact, QueueFact) {
        let queue = self.machines.get(&(key.namespace.clone(), machine.to_owned()));
        let offline = queue.and_then(|queue| queue.offline.as_ref());
        let work = match self.works.get(key) {
            None => WorkFact::Absent,
            Some(State::Waiting { .. }) => match offline {
                Some(offline) => WorkFact::WaitingForMachine {
                    problem: offline.problem.clone(),
                    misconfigured: offline.misconfigured,
                },
                None => WorkFact::WaitingForSlot,
            },
            Some(State::Connecting { since, .. }) => WorkFact::Connecting {
                since: now.saturating_duration_since(*since),
                problem: offline.map(|offline| offline.problem.clone()),
            },
            Some(State::Holding { .. }) => WorkFact::Holding,
            Some(State::Refused { problem, .. }) => WorkFact::Refused(problem.clone()),
        };
        let facts = QueueFact {
            waiting: queue.map_or(0, |queue| queue.waiting.len()),
            has_free_slot: queue.is_none_or(|queue| {
                let may_try = queue.offline.as_ref().is_none_or(|offline| now >= offline.until);
                may_try && !queue.suspended && queue.in_use < queue.places(now) && queue.waiting.is_empty()
            }),
        };
        (work, facts)
    }

    fn put_back(&mut self, work: Work, machine_key: MachineKey) {
        let (requester, turn) = (work.requester.clone(), Turn::of(&work));
        self.works.insert(work.key.clone(), State::Waiting { requester, turn, machine: machine_key.clone() });
        self.machines.entry(machine_key).or_default().waiting.add(work);
    }

    fn refuse(&mut self, key: ExecutionKey, problem: LaunchProblem, now: Instant) {
        self.works.retain(|_, state| match state {
            State::Refused { since, .. } => now.saturating_duration_since(*since) < FORGET_REFUSALS_AFTER,
            _ => true,
        });
        self.works.insert(key, State::Refused { problem, since: now });
    }

    /// Machines with nothing to do are not kept: their number is bounded by what waits and runs.
    fn drop_if_idle(&mut self, machine_key: &MachineKey, now: Instant) {
        if self.machines.get(machine_key).is_some_and(|machine| {
            machine.in_use == 0
                && machine.waiting.is_empty()
                && machine.offline.as_ref().is_none_or(|offline| now >= offline.until)
        }) {
            self.machines.remove(machine_key);
        }
    }
}

impl MachineQueue {
    /// After a failure nobody tries for a while. Those who wait say so, when it is the first.
    fn leave_alone(&mut self, problem: String, misconfigured: bool, now: Instant, settled: &mut Settled) {
        if self.offline.as_ref().is_none_or(|offline| offline.misconfigured != misconfigured) {
            settled.wake.extend(self.waiting.keys().cloned());
        }
        settled.pump_after = Some(self.back_off(problem, misconfigured, now));
    }

    /// How many may have a slot.
    fn places(&self, now: Instant) -> usize {
        let bore = self.bore.filter(|(_, at)| now.saturating_duration_since(*at) < REMEMBER_ROOM);
        bore.map_or(self.max_concurrent, |(room, _)| room.clamp(1, self.max_concurrent.max(1)))
    }

    /// Whether it was known not to be reached before that time.
    fn was_offline_before(&self, began: Option<Instant>) -> bool {
        let offline = self.offline.as_ref().filter(|offline| !offline.misconfigured);
        offline.is_some_and(|offline| began.is_some_and(|began| offline.since < began))
    }

    fn is_misconfigured(&self) -> bool {
        self.offline.as_ref().is_some_and(|offline| offline.misconfigured)
    }

    /// A machine that was not reached is tried by one at a time, after the pause; what may not wait does not ask.
    fn may_be_tried(&self, now: Instant) -> bool {
        let allows = |offline: &Offline| !offline.misconfigured && now >= offline.until && self.connecting == 0;
        self.offline.as_ref().is_none_or(allows)
    }

    /// Notes a failure, and says how long to leave the machine alone.
    fn back_off(&mut self, problem: String, misconfigured: bool, now: Instant) -> Duration {
        let failures = self.offline.as_ref().map_or(0, |offline| offline.failures);
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
        // Up to a quarter more, so that machines that failed together are not tried together.
        let jitter = pause.mul_f64(0.25 * random_fraction());
        let failures = failures.saturating_add(1);
        let same = self.offline.as_ref().filter(|offline| offline.misconfigured == misconfigured);
        let since = same.map_or(now, |offline| offline.since);
        self.offline = Some(Offline { problem, misconfigured, failures, since, until: now + pause + jitter });
        pause + jitter
    }
}

/// A number in 0..1, as random as a hash map's seed: good enough to spread retries.
pub(super) fn random_fraction() -> f64 {
    let hash = RandomState::new().hash_one(0u8);
    f64::from(u32::try_from(hash & 0xffff_ffff).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
