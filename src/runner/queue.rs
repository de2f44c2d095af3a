//! Queues of all machines as plain data: queued executions and slots. No I/O. Time is an argument.
//!
//! [`ManagedMachine`](crate::fleet) has the facts about the machine itself: its settings, and the failures to reach it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::cluster::ExecutionKey;
use crate::execution::{AllowedWait, LaunchProblem, QueueFact, RunnerFact};
use crate::fleet::{ConnectFailure, MachineKey, Machines, ManagedMachine};

use super::fair_queue::{FairQueue, QueueKey};
use super::queued_execution::QueuedExecution;

/// Maximum number of concurrent connection attempts to one machine. OpenSSH drops some attempts if more than 10 are in
/// progress (MaxStartups 10:30:100). The limit leaves attempts for other clients.
const MAX_CONNECTING: usize = 4;
/// Time for which a machine gets fewer slots after the machine refused a further connection. After this time,
/// `maxConcurrent` applies again.
const REMEMBER_ROOM: Duration = Duration::from_secs(300);
/// Maximum time for which the queues keep a refused execution. Normally, the controller withdraws the execution
/// earlier.
const FORGET_REFUSALS_AFTER: Duration = Duration::from_secs(600);
/// Time after the detection of a fault. The fault also ends executions that are created during this time, for example
/// the other executions of one manifest. The time is 1 s, because creation times are whole seconds.
pub(super) const CREATED_TOGETHER: Duration = Duration::from_secs(1);

/// One moment, by two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Time by the clock of this process, for pauses.
    pub instant: Instant,
    /// Time by the API server's clock, to compare with creation times.
    pub time: Timestamp,
}

/// Queues of all machines.
pub(super) struct MachineQueues {
    registry: Arc<Machines>,
    queues: HashMap<MachineKey, MachineQueue>,
    executions: HashMap<ExecutionKey, State>,
}

/// Queue of one machine. The queue exists while executions are queued or have a slot, and until the pause after a
/// failure ends.
#[derive(Default)]
struct MachineQueue {
    waiting: FairQueue,
    /// Number of executions that have a slot, connecting or running.
    in_use: usize,
    /// Number of executions that are connecting.
    connecting: usize,
    /// Number of commands on the machine when it last refused a further connection, and the time of this refusal.
    room: Option<(usize, Instant)>,
}

enum State {
    Waiting { requester: String, queue_key: QueueKey, machine: MachineKey, since: Instant },
    Connecting { since: Instant, cancel: CancellationToken },
    Owned { cancel: CancellationToken },
    Refused { problem: LaunchProblem, since: Instant },
}

/// Result of [`MachineQueues::add`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Added {
    /// The execution is in the queue now, and was unknown before.
    Queued,
    /// The runner had the execution already.
    Known,
    /// The execution will not start. The controller reads the reason.
    Refused,
}

/// Actions that must follow the end of a task.
#[derive(Debug, Default)]
pub(super) struct FinishResult {
    /// Executions that the controller must reconcile now.
    pub wake: Vec<ExecutionKey>,
    /// Pause until the next attempt on the machine. `None` if no pause starts.
    pub dispatch_after: Option<Duration>,
}

impl MachineQueues {
    /// Returns queues without executions, for the Machines of this registry.
    pub fn new(registry: Arc<Machines>) -> Self {
        Self { registry, queues: HashMap::new(), executions: HashMap::new() }
    }

    /// Puts an execution into the queue of its machine, or refuses it because of a fault of the machine.
    pub fn add(&mut self, queued: QueuedExecution, now: Now) -> Added {
        if self.executions.contains_key(&queued.key) {
            return Added::Known;
        }
        let machine_key = queued.machine_key();
        match fault_for(&self.registry.entry(&machine_key), &queued) {
            Some(problem) => {
                self.refuse([queued.key], &problem, now.instant);
                Added::Refused
            }
            None => {
                self.put_back(queued, machine_key, now);
                Added::Queued
            }
        }
    }

    /// Returns the number of queued executions and the number of slots in use, of all machines.
    pub fn totals(&self) -> (usize, usize) {
        let queues = self.queues.values();
        queues.fold((0, 0), |(waiting, running), queue| (waiting + queue.waiting.len(), running + queue.in_use))
    }

    /// Gives a slot on a machine to the next execution. Returns the execution, and the token that stops its command. If
    /// `only_urgent` is true, only executions with `startingDeadlineSeconds: 0` start. During the pause after a
    /// failure, only executions that do not wait for the machine start.
    pub fn next(
        &mut self,
        machine_key: &MachineKey,
        only_urgent: bool,
        now: Instant,
    ) -> Option<(QueuedExecution, CancellationToken)> {
        self.drop_if_idle(machine_key, now);
        let queue = self.queues.get_mut(machine_key)?;
        let machine = self.registry.entry(machine_key);
        let state = machine.state();
        let settings = state.settings.as_ref().filter(|settings| !settings.is_suspended)?;
        if queue.in_use >= queue.slots(settings.max_concurrent, now) || queue.connecting >= MAX_CONNECTING {
            return None;
        }
        let longest = match (only_urgent, state.allows_attempt(queue.connecting, now)) {
            (true, _) => AllowedWait::Nothing,
            // An execution that does not wait for the machine makes its attempt in spite of the pause.
            (false, false) => AllowedWait::Slot,
            (false, true) => AllowedWait::Machine,
        };
        let (requester, first) = queue.waiting.peek(longest)?;
        let queued = queue.waiting.pop(&requester, &first)?;
        queue.in_use += 1;
        queue.connecting += 1;
        let cancel = CancellationToken::new();
        self.executions.insert(queued.key.clone(), State::Connecting { since: now, cancel: cancel.clone() });
        Some((queued, cancel))
    }

    /// Gives a slot to a command that already occupies the machine, even above `maxConcurrent`. Returns `None` if the
    /// execution already has a slot or was refused.
    pub fn adopt(&mut self, queued: &QueuedExecution) -> Option<CancellationToken> {
        match self.executions.get(&queued.key) {
            None => {}
            // Another process claimed the execution, so its command already occupies the machine.
            Some(State::Waiting { requester, queue_key, machine, .. }) => {
                if let Some(queue) = self.queues.get_mut(machine) {
                    queue.waiting.remove(requester, queue_key);
                }
            }
            Some(_) => return None,
        }
        self.queues.entry(queued.machine_key()).or_default().in_use += 1;
        let cancel = CancellationToken::new();
        self.executions.insert(queued.key.clone(), State::Owned { cancel: cancel.clone() });
        Some(cancel)
    }

    /// Marks an execution before its task writes the claim. From then on, only the task writes the status.
    pub fn mark_claiming(&mut self, key: &ExecutionKey) {
        if let Some(State::Connecting { cancel, .. }) = self.executions.get(key) {
            let cancel = cancel.clone();
            self.executions.insert(key.clone(), State::Owned { cancel });
        }
    }

    /// Records that a machine needs manual repair, after the task of an execution with a slot found the fault.
    pub fn mark_faulty(&mut self, machine_key: &MachineKey, problem: &LaunchProblem, now: Now) -> FinishResult {
        let mut result = FinishResult::default();
        self.start_backoff(machine_key, problem, (true, None), now, &mut result);
        result
    }

    /// Returns the number of slots in use on a machine, and the number of executions that wait for the machine.
    pub fn counts(&self, machine_key: &MachineKey) -> (usize, usize) {
        self.queues.get(machine_key).map_or((0, 0), |queue| (queue.in_use, queue.waiting.len()))
    }

    /// Returns true if the controller must reconcile this execution after a change of the Machine:
    /// - An unknown execution perhaps waits for the creation of this Machine.
    /// - A queued execution must report the deletion of its Machine.
    pub fn is_affected_by(&self, key: &ExecutionKey, machine_key: &MachineKey, is_deleted: bool) -> bool {
        match self.executions.get(key) {
            None => true,
            Some(State::Waiting { machine, .. }) => is_deleted && machine == machine_key,
            // A connecting execution reads the Machine again before the claim. Owned and refused executions no longer
            // wait for the Machine.
            Some(State::Connecting { .. } | State::Owned { .. } | State::Refused { .. }) => false,
        }
    }

    /// Returns true if the execution is in the queue of its machine.
    pub fn is_waiting(&self, key: &ExecutionKey) -> bool {
        matches!(self.executions.get(key), Some(State::Waiting { .. }))
    }

    /// Returns true if the execution is in the queue of its machine, or a connection is being opened for it.
    pub fn is_waiting_or_connecting(&self, key: &ExecutionKey) -> bool {
        matches!(self.executions.get(key), Some(State::Waiting { .. } | State::Connecting { .. }))
    }

    /// Returns the executions that wait for a machine.
    pub fn waiting(&self, machine_key: &MachineKey) -> Vec<ExecutionKey> {
        self.queues.get(machine_key).map_or_else(Vec::new, |queue| queue.waiting.keys().cloned().collect())
    }

    /// Returns all machines that have a queue.
    pub fn machines(&self) -> Vec<MachineKey> {
        self.queues.keys().cloned().collect()
    }

    /// Records that an attempt has reached its machine. The attempt no longer counts as connecting.
    pub fn mark_connected(&mut self, machine_key: &MachineKey, now: Now) {
        if let Some(queue) = self.queues.get_mut(machine_key) {
            queue.connecting = queue.connecting.saturating_sub(1);
            self.registry.entry(machine_key).state().mark_reachable(now.time);
        }
    }

    /// Releases the slot of a task that has ended. `failure` is the reason why the task did not claim the execution.
    pub fn finish(&mut self, queued: QueuedExecution, failure: Option<ConnectFailure>, now: Now) -> FinishResult {
        let machine_key = queued.machine_key();
        let Some(queue) = self.queues.get_mut(&machine_key) else { return FinishResult::default() };
        queue.in_use = queue.in_use.saturating_sub(1);
        if failure.is_some() {
            queue.connecting = queue.connecting.saturating_sub(1);
        }
        let key = queued.key.clone();
        let began = match self.executions.remove(&key) {
            Some(State::Connecting { since, .. }) => Some(since),
            _ => None,
        };
        let mut result = FinishResult { wake: vec![key.clone()], dispatch_after: None };
        match failure {
            None | Some(ConnectFailure::Obsolete) => {}
            Some(ConnectFailure::RetryAfter(_)) => self.put_back(queued, machine_key.clone(), now),
            Some(ConnectFailure::Full { room, .. }) => {
                queue.room = Some((room, now.instant));
                self.put_back(queued, machine_key.clone(), now);
            }
            Some(ConnectFailure::Unreachable(message)) => {
                let is_ended = queued.wait.is_ended_by_failure();
                // If the status already reports an unreachable machine, no reconcile is necessary.
                if !is_ended && self.registry.entry(&machine_key).state().was_unreachable_before(began) {
                    result.wake.clear();
                }
                let problem = LaunchProblem { reason: Reason::MachineOffline, message };
                self.start_backoff(&machine_key, &problem, (false, began), now, &mut result);
                if is_ended {
                    self.refuse([key], &problem, now.instant);
                } else {
                    self.put_back(queued, machine_key.clone(), now);
                }
            }
            Some(ConnectFailure::Refused { problem, affects_machine: false }) => {
                self.refuse([key], &problem, now.instant);
            }
            Some(ConnectFailure::Refused { problem, affects_machine: true }) => {
                self.start_backoff(&machine_key, &problem, (true, began), now, &mut result);
                let since_online = self.registry.entry(&machine_key).state().is_created_since_online(queued.created);
                if queued.wait.is_ended_by_failure() || since_online {
                    self.refuse([key], &problem, now.instant);
                } else {
                    // The machine was in order after the creation of this execution, so the execution waits for the
                    // repair.
                    self.put_back(queued, machine_key.clone(), now);
                }
            }
        }
        self.drop_if_idle(&machine_key, now.instant);
        result
    }

    /// Removes a queued or refused execution.
    pub fn withdraw(&mut self, key: &ExecutionKey, now: Instant) {
        match self.executions.get(key) {
            Some(State::Waiting { requester, queue_key, machine: machine_key, .. }) => {
                let machine_key = machine_key.clone();
                if let Some(queue) = self.queues.get_mut(&machine_key) {
                    queue.waiting.remove(requester, queue_key);
                }
                self.executions.remove(key);
                self.drop_if_idle(&machine_key, now);
            }
            Some(State::Refused { .. }) => {
                self.executions.remove(key);
            }
            Some(State::Connecting { .. } | State::Owned { .. }) | None => {}
        }
    }

    /// Stops the command of an execution that has a slot.
    pub fn cancel(&mut self, key: &ExecutionKey) {
        if let Some(State::Connecting { cancel, .. } | State::Owned { cancel }) = self.executions.get(key) {
            cancel.cancel();
        }
    }

    /// Returns the state of an execution, and the load of its machine's queue.
    pub fn facts(&self, key: &ExecutionKey, machine: &str, now: Instant) -> (RunnerFact, QueueFact) {
        let machine_key = (key.namespace.clone(), machine.to_owned());
        let queue = self.queues.get(&machine_key);
        let known = self.registry.get(&machine_key);
        let state = known.as_ref().map(|machine| machine.state());
        let backoff = state.as_ref().and_then(|state| state.backoff.as_ref());
        let work = match self.executions.get(key) {
            None => RunnerFact::Idle,
            Some(State::Waiting { .. }) => match backoff {
                Some(backoff) => RunnerFact::WaitingForMachine {
                    problem: backoff.problem.message.clone(),
                    needs_person: backoff.needs_person,
                },
                None => RunnerFact::WaitingForSlot,
            },
            Some(State::Connecting { since, .. }) => RunnerFact::Connecting {
                since: now.saturating_duration_since(*since),
                problem: backoff.map(|backoff| backoff.problem.message.clone()),
            },
            Some(State::Owned { .. }) => RunnerFact::Owned,
            Some(State::Refused { problem, .. }) => RunnerFact::Refused(problem.clone()),
        };
        let settings = state.as_ref().and_then(|state| state.settings.as_ref());
        let has_free_slot = queue.is_none_or(|queue| {
            let may_try = backoff.is_none_or(|backoff| now >= backoff.until);
            let has_slot = settings.is_some_and(|settings| {
                !settings.is_suspended && queue.in_use < queue.slots(settings.max_concurrent, now)
            });
            may_try && has_slot && queue.waiting.is_empty()
        });
        (work, QueueFact { waiting: queue.map_or(0, |queue| queue.waiting.len()), has_free_slot })
    }

    fn put_back(&mut self, queued: QueuedExecution, machine_key: MachineKey, now: Now) {
        // Perhaps another task found the fault while this execution was connecting.
        if let Some(problem) = fault_for(&self.registry.entry(&machine_key), &queued) {
            return self.refuse([queued.key], &problem, now.instant);
        }
        let (requester, queue_key) = (queued.requester.clone(), QueueKey::of(&queued));
        let state = State::Waiting { requester, queue_key, machine: machine_key.clone(), since: now.instant };
        self.executions.insert(queued.key.clone(), state);
        self.queues.entry(machine_key).or_default().waiting.push(queued);
    }

    /// Starts a pause after a failed attempt. `began` is the start of the attempt, or `None` if a running command found
    /// the failure. Some queued executions end:
    ///
    /// - if the machine needs manual repair, the executions of `fault_for`,
    /// - the executions that do not wait for the machine and were in the queue when the attempt began. The attempt
    ///   counts for them too. Otherwise a burst of them would try a silent machine one after another.
    ///
    /// After the first failure, or if `needs_person` has changed, the controller reconciles the queued executions.
    /// Their statuses then report the failure.
    fn start_backoff(
        &mut self,
        machine_key: &MachineKey,
        problem: &LaunchProblem,
        (needs_person, began): (bool, Option<Instant>),
        now: Now,
        result: &mut FinishResult,
    ) {
        let Some(queue) = self.queues.get_mut(machine_key) else { return };
        let machine = self.registry.entry(machine_key);
        let mut state = machine.state();
        let is_news = state.backoff.as_ref().is_none_or(|backoff| backoff.needs_person != needs_person);
        result.dispatch_after = Some(state.start_backoff(problem.clone(), needs_person, now.instant, now.time));
        drop(state);
        let executions = &self.executions;
        let ended = queue.waiting.take_where(|queued| {
            let is_tried = queued.wait.is_ended_by_failure() && has_waited_since(executions.get(&queued.key), began);
            is_tried || fault_for(&machine, queued).is_some()
        });
        if is_news {
            result.wake.extend(queue.waiting.keys().cloned());
        }
        let ended: Vec<_> = ended.into_iter().map(|queued| queued.key).collect();
        result.wake.extend(ended.iter().cloned());
        self.refuse(ended, problem, now.instant);
    }

    fn refuse(&mut self, keys: impl IntoIterator<Item = ExecutionKey>, problem: &LaunchProblem, now: Instant) {
        self.executions.retain(|_, state| match state {
            State::Refused { since, .. } => now.saturating_duration_since(*since) < FORGET_REFUSALS_AFTER,
            _ => true,
        });
        let refused = |key| (key, State::Refused { problem: problem.clone(), since: now });
        self.executions.extend(keys.into_iter().map(refused));
    }

    /// Drops the queue of a machine without executions, except during the pause after a failure.
    fn drop_if_idle(&mut self, machine_key: &MachineKey, now: Instant) {
        let is_idle = self.queues.get(machine_key).is_some_and(|queue| queue.in_use == 0 && queue.waiting.is_empty());
        if !is_idle {
            return;
        }
        let machine = self.registry.entry(machine_key);
        let mut state = machine.state();
        if state.backoff.as_ref().is_none_or(|backoff| now >= backoff.until) {
            self.queues.remove(machine_key);
            state.forget_old_backoff(now);
        }
    }
}

/// Returns the fault of the machine, if the fault ends this execution. A fault that needs manual repair ends an
/// execution with both of these properties:
/// - The execution was created after the machine was last in order.
/// - The execution was created at most [`CREATED_TOGETHER`] after the fault became known.
///
/// Other executions wait for the repair. Executions that do not wait for the machine make an attempt instead.
fn fault_for(machine: &ManagedMachine, queued: &QueuedExecution) -> Option<LaunchProblem> {
    let state = machine.state();
    let may_wait = !queued.wait.is_ended_by_failure();
    let backoff = state.backoff.as_ref().filter(|backoff| backoff.needs_person && may_wait)?;
    let is_unaware =
        state.is_created_since_online(queued.created) && backoff.began_before(queued.created, CREATED_TOGETHER);
    is_unaware.then(|| backoff.problem.clone())
}

/// Returns true if an execution was in the queue at the time `began`, and has not left the queue since.
fn has_waited_since(execution: Option<&State>, began: Option<Instant>) -> bool {
    matches!((execution, began), (Some(State::Waiting { since, .. }), Some(began)) if *since <= began)
}

impl MachineQueue {
    /// Returns the maximum number of executions that may have a slot.
    fn slots(&self, max_concurrent: usize, now: Instant) -> usize {
        let room = self.room.filter(|(_, at)| now.saturating_duration_since(*at) < REMEMBER_ROOM);
        room.map_or(max_concurrent, |(room, _)| room.clamp(1, max_concurrent.max(1)))
    }
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod offline_tests;
#[cfg(test)]
mod tests;
