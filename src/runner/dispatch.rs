//! Starts one task for each execution that gets a slot on its machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::api::CommandExecution;
use crate::cluster::ExecutionKey;
use crate::execution::LaunchProblem;
use crate::fleet::{ConnectFailure, MachineKey};
use crate::launcher::Uid;
use crate::machine::ProbeResult;
use crate::telemetry::{SPANS, metrics};
use crate::traces;

use super::acknowledge::acknowledge_all;
use super::adopt::adopt_claim;
use super::attempt::{Claimed, attempt};
use super::claim::HeldClaim;
use super::context::Context;
use super::durable::{self, Start};
use super::execution_connection::ExecutionConnection;
use super::queue::{Added, FinishResult, Now};
use super::queued_execution::{QueuedExecution, ReadExecution};
use super::remote_gc;
use super::{direct, record};

/// Capacity of the channel to the controller. If a burst fills the channel, only the sending task waits.
pub(super) const WAKE_QUEUE: usize = 1024;
/// Pause after a failed adoption of a claim.
const RETRY_AFTER_ADOPTION: Duration = Duration::from_secs(2);
/// Pause after a machine refused a further connection. During the pause, another command can end and free its
/// connection.
const RETRY_AFTER_FULL: Duration = Duration::from_millis(500);
/// Maximum time to write results after the drain time has passed.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);

/// Starter of the tasks. Clones share one state.
#[derive(Clone)]
pub(super) struct Dispatcher {
    pub context: Arc<Context>,
    tasks: TaskTracker,
    wake: mpsc::Sender<ObjectRef<CommandExecution>>,
    /// True after [`Self::start`]. At startup, queued executions wait, so that the oldest execution starts first.
    is_started: Arc<AtomicBool>,
}

impl Dispatcher {
    /// Returns a dispatcher without tasks. `wake` receives the executions that the controller must reconcile.
    pub fn new(context: Arc<Context>, wake: mpsc::Sender<ObjectRef<CommandExecution>>) -> Self {
        Self { context, tasks: TaskTracker::new(), wake, is_started: Arc::default() }
    }

    /// Returns the current time, by the clock of this process and by the API server's clock.
    pub fn now(&self) -> Now {
        Now { instant: Instant::now(), time: self.context.cluster.now() }
    }

    /// Puts an execution into the queue of its machine. Does nothing if the runner already has the execution, or shuts
    /// down. `read` is the execution as the caller has read it.
    pub fn enqueue(&self, queued: QueuedExecution, read: ReadExecution) {
        if self.context.draining.is_cancelled() {
            return;
        }
        let (machine, key) = (queued.machine_key(), queued.key.clone());
        self.context.recent_reads.keep(&key.uid, read, Instant::now());
        let added = self.context.queues().add(queued, self.now());
        if added != Added::Known {
            metrics().allowed();
        }
        if self.context.fleet.machines.entry(&machine).state().needs_person() {
            // The controller probes a faulty machine more often if executions wait for its repair.
            self.context.fleet.machines.wake(&machine);
            if added != Added::Known {
                // The controller writes the fault to the status of the execution.
                let dispatcher = self.clone();
                tokio::spawn(async move { dispatcher.wake(key).await });
            }
        }
        self.dispatch_ready(&machine);
    }

    /// Adopts a claim without waiting for a slot, see [`super::Runner::adopt`].
    pub fn adopt(&self, queued: QueuedExecution) {
        if self.context.draining.is_cancelled() {
            return;
        }
        let Some(cancel) = self.context.queues().adopt(&queued) else { return };
        let dispatcher = self.clone();
        let span = span(&queued);
        self.tasks.spawn(async move { dispatcher.adopt_task(queued, cancel).await }.instrument(span));
    }

    /// Stops accepting executions, and waits up to `drain` for running commands to end. The next `writ serve` adopts
    /// commands in Durable mode that still run. Commands in Direct mode that still run end with an unknown outcome.
    pub async fn shut_down(&self, drain: Duration) {
        self.context.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                executions = self.tasks.len(),
                "commands still run: the durable ones are left to the next writ, the outcome of the others is unknown"
            );
            self.context.aborting.cancel();
            if tokio::time::timeout(RECORD_DEADLINE, self.tasks.wait()).await.is_err() {
                tracing::error!(executions = self.tasks.len(), "results could not be written before the end");
            }
        }
        self.context.fleet.close().await;
    }

    /// Returns true after [`Self::start`]. Before [`Self::start`], only executions that must not be delayed
    /// (`startingDeadlineSeconds: 0`) start.
    pub fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Acquire)
    }

    /// Allows queued executions to start, and starts all executions that may start now.
    pub fn start(&self) {
        self.is_started.store(true, Ordering::Release);
        let machines = self.context.queues().machines();
        for machine in machines {
            self.dispatch_ready(&machine);
        }
    }

    /// Starts the tasks of all executions of a machine that may start now.
    pub fn dispatch_ready(&self, machine: &MachineKey) {
        let only_urgent = !self.is_started();
        while !self.context.draining.is_cancelled() {
            let next = self.context.queues().next(machine, only_urgent, Instant::now());
            let Some((queued, cancel)) = next else { return };
            let dispatcher = self.clone();
            let span = span(&queued);
            self.tasks.spawn(async move { dispatcher.run(queued, cancel).await }.instrument(span));
        }
    }

    /// Makes the controller reconcile an execution.
    pub async fn wake(&self, key: ExecutionKey) {
        // The send fails only if the controller has ended. In this case no reconcile is necessary.
        let _ = self.wake.send(ObjectRef::new(&key.name).within(&key.namespace)).await;
    }

    /// Makes the controller reconcile all executions that wait for a machine.
    pub fn wake_waiting(&self, machine: &MachineKey) {
        let waiting = self.context.queues().waiting(machine);
        let dispatcher = self.clone();
        // The shutdown does not wait for this task, so it is not tracked.
        tokio::spawn(async move {
            for key in waiting {
                dispatcher.wake(key).await;
            }
        });
    }

    /// Runs one execution, from its slot to its stored result.
    async fn run(self, queued: QueuedExecution, cancel: CancellationToken) {
        let machine = queued.machine_key();
        let mut slot = SlotGuard::new(&self, &queued);
        match Box::pin(attempt(&self.context, &queued)).await {
            Ok(claimed) => {
                self.context.queues().mark_connected(&machine, self.now());
                slot.is_connected = true;
                self.dispatch_ready(&machine);
                slot.is_recorded = self.run_claimed(claimed, &queued, cancel).await;
                slot.finish(None).await;
            }
            Err(failure) => slot.finish(Some(failure)).await,
        }
    }

    /// Runs a claimed command. Returns true if its result is stored.
    async fn run_claimed(&self, claimed: Claimed, queued: &QueuedExecution, cancel: CancellationToken) -> bool {
        let context = &self.context;
        let Claimed { mut held, connection, session } = claimed;
        match connection {
            ExecutionConnection::Direct(open) => {
                let (outcome, fault) = Box::pin(direct::run(context, queued, &mut held, (open, session), cancel)).await;
                let is_recorded = record::record(context, &mut held, outcome).await;
                if let Some(problem) = fault {
                    self.mark_faulty(queued, problem).await;
                }
                is_recorded
            }
            ExecutionConnection::Durable(reached) => {
                let start = Start::Launch { reached, session };
                self.run_durable(&mut held, queued, start, cancel).await
            }
        }
    }

    /// Records that a machine needs manual repair, after the task of an execution found the fault. Queued executions no
    /// longer try the machine.
    async fn mark_faulty(&self, queued: &QueuedExecution, problem: LaunchProblem) {
        let machine_key = queued.machine_key();
        let result = self.context.queues().mark_faulty(&machine_key, &problem, self.now());
        if let Ok(machine) = self.context.cluster.machine(&queued.key.namespace, &queued.machine).await {
            self.context.fleet.record(&machine, ProbeResult::Failed(problem));
        }
        self.apply(result, &machine_key).await;
    }

    /// Runs a claimed command in Durable mode. Returns true if its result is stored.
    async fn run_durable(
        &self,
        held: &mut HeldClaim,
        queued: &QueuedExecution,
        start: Start,
        cancel: CancellationToken,
    ) -> bool {
        let context = &self.context;
        let Some(outcome) = Box::pin(durable::run(context, queued, held, start, cancel)).await else { return false };
        if !record::record(context, held, outcome).await {
            return false;
        }
        let Some(uid) = Uid::new(&queued.key.uid) else { return true };
        let is_redacted = !held.decision.redact.is_empty();
        let machine = queued.machine_key();
        if context.acknowledgements.add(machine.clone(), uid, is_redacted) {
            let (context, machine) = (Arc::clone(context), machine.clone());
            self.tasks.spawn(async move { acknowledge_all(&context, &machine).await });
        }
        if context.gc_schedule.is_due(&machine) {
            let (context, queued) = (Arc::clone(context), queued.clone());
            self.tasks.spawn(async move { remote_gc::collect(&context, &queued).await });
        }
        true
    }

    async fn adopt_task(self, queued: QueuedExecution, cancel: CancellationToken) {
        let mut slot = SlotGuard::new(&self, &queued);
        slot.is_connected = true;
        match adopt_claim(&self.context, &queued).await {
            Some(mut held) => {
                slot.is_recorded = self.run_durable(&mut held, &queued, Start::Reattach, cancel).await;
            }
            // Without this pause, the controller would retry the failed adoption at once.
            None => tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER_ADOPTION) => {}
                () = self.context.draining.cancelled() => {}
            },
        }
        slot.finish(None).await;
    }

    /// Releases the slot of a task that has ended. If its result is stored, the controller has nothing to do.
    async fn finish(&self, queued: QueuedExecution, failure: Option<ConnectFailure>, is_recorded: bool) {
        let machine = queued.machine_key();
        let pause = match &failure {
            Some(ConnectFailure::RetryAfter(pause)) => Some(*pause),
            Some(ConnectFailure::Full { .. }) => Some(RETRY_AFTER_FULL),
            _ => None,
        };
        if let Some(pause) = pause {
            // The slot stays in use during the pause, because another execution would fail in the same way.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.context.draining.cancelled() => {}
            }
        }
        let key = queued.key.clone();
        let mut result = self.context.queues().finish(queued, failure, self.now());
        if is_recorded {
            result.wake.retain(|woken| *woken != key);
        }
        self.apply(result, &machine).await;
        self.dispatch_ready(&machine);
    }

    async fn apply(&self, result: FinishResult, machine: &MachineKey) {
        if let Some(pause) = result.dispatch_after {
            let dispatcher = self.clone();
            let machine = machine.clone();
            // The shutdown does not wait for the pause, so the task is not tracked.
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                dispatcher.dispatch_ready(&machine);
            });
        }
        for key in result.wake {
            self.wake(key).await;
        }
    }
}

/// Guard that releases a slot when its task ends, even if the task panics.
struct SlotGuard {
    dispatcher: Dispatcher,
    queued: QueuedExecution,
    /// True if the attempt no longer counts as connecting.
    is_connected: bool,
    /// True if the result of the execution is stored.
    is_recorded: bool,
    is_finished: bool,
}

impl SlotGuard {
    fn new(dispatcher: &Dispatcher, queued: &QueuedExecution) -> Self {
        Self {
            dispatcher: dispatcher.clone(),
            queued: queued.clone(),
            is_connected: false,
            is_recorded: false,
            is_finished: false,
        }
    }

    /// Releases the slot now.
    async fn finish(mut self, failure: Option<ConnectFailure>) {
        self.is_finished = true;
        let dispatcher = self.dispatcher.clone();
        dispatcher.finish(self.queued.clone(), failure, self.is_recorded).await;
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if !self.is_finished {
            tracing::error!(execution = %self.queued.key, "the task of an execution ended by a panic");
            let (dispatcher, queued) = (self.dispatcher.clone(), self.queued.clone());
            let failure = (!self.is_connected).then_some(ConnectFailure::Obsolete);
            tokio::spawn(async move { dispatcher.finish(queued, failure, false).await });
        }
    }
}

/// Returns the trace span of an execution. The span starts when the execution gets a slot, and ends when its result is
/// stored.
fn span(queued: &QueuedExecution) -> tracing::Span {
    let QueuedExecution { key, machine, .. } = queued;
    let span = tracing::info_span!(
        target: SPANS, "execute", uid = key.uid, namespace = key.namespace, name = key.name, machine
    );
    traces::set_execution_trace(&span, &key.uid);
    span
}
