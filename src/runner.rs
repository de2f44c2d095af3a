//! Runs what was decided: a queue for each machine, a task for each execution that has a slot.
//!
//! The promises kept here: a command is sent only after the claim is stored, and the claim only after policy, machine
//! and credentials were read again, live, with the connection open; one slow or dead machine delays no other; what is
//! waiting or running is bounded by `maxConcurrent` and `queueLimit` of its Machine.
//!
//! ```text
//! controller --enqueue--> queue of the machine --slot free--> attempt: connect, open, read again, CLAIM
//!     ^                        ^                                  |            |
//!     |                        +--- machine offline: back off ----+            v
//!     +----- wake (look again) <-- refused: LaunchFailed ------------      follow: start, drain, stop
//!                                                                              |
//!                                                    record: JSON Patch <------+
//! ```
//!
//! Until the claim the controller writes the status. From the claim on only the task that made it does.

mod attempt;
mod claim;
mod follow;
mod queue;
mod record;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::CommandExecution;
use crate::cluster::{Cluster, EventPublisher, ExecutionKey, Holders, Policies, Stamping};
use crate::execution::{QueueFact, WorkFact};

use attempt::AttemptEnd;
use queue::{MachineKey, Queues};

/// References that wait to be looked at again. The controller takes them off at once, so this is only for bursts;
/// a task that finds it full waits, which delays nothing but itself.
const WAKE_QUEUE: usize = 1024;
/// How long after the drain results may still be written.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);

/// An execution that may go as soon as its machine has a slot.
#[derive(Clone, Debug)]
pub struct Work {
    /// The execution.
    pub key: ExecutionKey,
    /// The name of its Machine, in the same namespace.
    pub machine: String,
    /// When the execution was created: the oldest goes first.
    pub created: Timestamp,
    /// Whether it may not wait (`startingDeadlineSeconds: 0`).
    pub urgent: bool,
    /// How many may run on the machine at a time, as of the live read that allowed this.
    pub max_concurrent: u32,
}

impl Work {
    /// The queue that it belongs into.
    fn machine_key(&self) -> MachineKey {
        (self.key.namespace.clone(), self.machine.clone())
    }
}

/// The runner of this process. Clones are the same runner.
#[derive(Clone)]
pub struct Runner {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    events: EventPublisher,
    /// What is allowed, compiled.
    policies: Arc<Policies>,
    /// Tells whose names can be believed.
    stamping: Stamping,
    /// This process, as it stands in claims.
    holder: String,
    /// Whether this process may claim.
    holders: Arc<Holders>,
    queues: Mutex<Queues>,
    wake: mpsc::Sender<ObjectRef<CommandExecution>>,
    tasks: TaskTracker,
    /// Nothing new starts from here on.
    stopping: CancellationToken,
    /// What still runs is left to itself from here on.
    halted: CancellationToken,
}

impl Inner {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end of a runner: the executions that the controller is to look at again.
pub type Wakes = mpsc::Receiver<ObjectRef<CommandExecution>>;

impl Runner {
    /// A runner that claims in the name of this process, as it was announced.
    pub fn new(
        cluster: Cluster,
        policies: Arc<Policies>,
        stamping: Stamping,
        events: EventPublisher,
        holders: Arc<Holders>,
    ) -> (Self, Wakes) {
        let (wake, wakes) = mpsc::channel(WAKE_QUEUE);
        let inner = Inner {
            cluster,
            policies,
            stamping,
            events,
            holder: holders.own().to_owned(),
            holders,
            queues: Mutex::default(),
            wake,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            halted: CancellationToken::new(),
        };
        (Self { inner: Arc::new(inner) }, wakes)
    }

    /// Puts an execution into the queue of its machine; does nothing where it is there already or being run.
    pub fn enqueue(&self, work: Work) {
        if self.inner.stopping.is_cancelled() {
            return;
        }
        let machine = work.machine_key();
        self.inner.queues().add(work);
        self.pump(&machine);
    }

    /// Forgets an execution that waits or was refused. One that is being run is not touched.
    pub fn withdraw(&self, key: &ExecutionKey) {
        self.inner.queues().withdraw(key, Instant::now());
    }

    /// Tells a running command to stop.
    pub fn cancel(&self, key: &ExecutionKey) {
        self.inner.queues().cancel(key);
    }

    /// What is known here of an execution and of its machine.
    pub fn facts(&self, key: &ExecutionKey, machine: &str) -> (WorkFact, QueueFact) {
        self.inner.queues().facts(key, machine, Instant::now())
    }

    /// Starts nothing new, lets what runs end within `drain`, then records the rest as what it is: unknown.
    pub async fn shut_down(&self, drain: Duration) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(drain, self.inner.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            running = self.inner.tasks.len(),
            "commands still run; their outcome will be recorded as unknown"
        );
        self.inner.halted.cancel();
        if tokio::time::timeout(RECORD_DEADLINE, self.inner.tasks.wait()).await.is_err() {
            tracing::error!(lost = self.inner.tasks.len(), "results could not be written before the end");
        }
    }

    /// Starts what can be started on a machine.
    fn pump(&self, machine: &MachineKey) {
        while !self.inner.stopping.is_cancelled() {
            let Some((work, cancel)) = self.inner.queues().next(machine, Instant::now()) else { return };
            let runner = self.clone();
            self.inner.tasks.spawn(async move { runner.run(work, cancel).await });
        }
    }

    /// One execution, from the slot to the stored result.
    async fn run(self, work: Work, cancel: CancellationToken) {
        let machine = work.machine_key();
        // The slot must be given back whatever happens, a panic included.
        let mut slot = SlotGuard { runner: self.clone(), work: work.clone(), connected: false, settled: false };
        match attempt::attempt(&self.inner, &work).await {
            AttemptEnd::Claimed(claimed) => {
                self.inner.queues().connected(&machine);
                slot.connected = true;
                self.pump(&machine);
                let claimed = *claimed;
                let (holding, connection, outcome) = follow::follow(&self.inner, claimed, cancel).await;
                connection.close().await;
                record::record(&self.inner, holding, outcome).await;
                slot.settle(AttemptEnd::Done).await;
            }
            other => slot.settle(other).await,
        }
    }

    async fn settle(&self, work: Work, end: AttemptEnd) {
        let machine = work.machine_key();
        if let AttemptEnd::Again(pause) = end {
            // The slot stays taken meanwhile: nothing else on the machine would fare better.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.stopping.cancelled() => {}
            }
        }
        let settled = self.inner.queues().settle(work, end, Instant::now());
        if let Some(pause) = settled.pump_after {
            let runner = self.clone();
            let machine = machine.clone();
            // Not tracked: a pause is nothing to wait for at the end.
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                runner.pump(&machine);
            });
        }
        self.pump(&machine);
        for key in settled.wake {
            let reference = ObjectRef::new(&key.name).within(&key.namespace);
            // It fails only when the controller is gone, and then there is nobody to wake.
            let _ = self.inner.wake.send(reference).await;
        }
    }
}

/// Gives the slot back when the task ends, also when it ends by a panic.
struct SlotGuard {
    runner: Runner,
    work: Work,
    /// Whether its connection is no longer counted as one in the making.
    connected: bool,
    settled: bool,
}

impl SlotGuard {
    async fn settle(mut self, end: AttemptEnd) {
        self.settled = true;
        let runner = self.runner.clone();
        runner.settle(self.work.clone(), end).await;
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if !self.settled {
            tracing::error!(execution = %self.work.key, "the task of an execution ended by a panic");
            let runner = self.runner.clone();
            let work = self.work.clone();
            let end = if self.connected { AttemptEnd::Done } else { AttemptEnd::Obsolete };
            tokio::spawn(async move { runner.settle(work, end).await });
        }
    }
}
