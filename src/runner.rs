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
//!     +----- wake (look again) <-- refused: LaunchFailed ------------      durable: launch, follow, look again
//!                                                                          direct: start, drain, stop
//! controller --adopt--> take the claim over --> durable: look                  |
//!                                                    record: JSON Patch <------+--> acknowledge, tidy
//! ```
//!
//! Until the claim the controller writes the status. From the claim on only the task that made it does, or the one that
//! took it over.

mod acknowledge;
mod adopt;
mod asking;
mod attempt;
mod audit;
mod check;
mod claim;
mod connections;
mod declared;
mod direct;
mod durable;
mod first_use;
mod logins;
mod look;
mod opening;
mod probing;
mod queue;
mod reach;
mod record;
mod recount;
mod saying;
mod sights;
mod slot;
mod spool;
mod tidy;
mod turned_away;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::api::CommandExecution;
use crate::cluster::{Cluster, EventPublisher, ExecutionKey, Holders, Policies, Stamping};
use crate::execution::{LaunchProblem, QueueFact, WorkFact};
use crate::launcher::Uid;
use crate::machine::Seen;
use crate::output::{Hub, Store};
use crate::ssh::Network;
use crate::telemetry::{SPANS, metrics};
use crate::traces;

use acknowledge::Acknowledgements;
use attempt::{AttemptEnd, Claimed, Way};
pub use audit::log_end;
pub use check::{Step, check};
use claim::Holding;
use connections::Connections;
use durable::Begin;
use logins::Logins;
pub use opening::parse as parse_credentials;
use queue::{MachineKey, Queues, Settled};
pub use recount::RECOUNT_INTERVAL;
use sights::Sights;
pub use sights::{MachineFacts, MachineWakes};
use slot::SlotGuard;
pub use spool::Spool;
use tidy::Tidied;

/// References that wait to be looked at again. The controller takes them off at once, so this is only for bursts;
/// a task that finds it full waits, which delays nothing but itself.
const WAKE_QUEUE: usize = 1024;
/// The pause after a claim could not be taken over.
const AGAIN_AFTER_ADOPTION: Duration = Duration::from_secs(2);
/// The pause after a machine allowed no further connection: what has a place there may end meanwhile.
const AGAIN_AFTER_FULL: Duration = Duration::from_millis(500);
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
    /// Whether nothing may start on the machine, as of the same read.
    pub suspended: bool,
    /// Who asked for it, where that is known: they take turns.
    pub requester: String,
}

impl Work {
    /// The queue that it belongs into.
    fn machine_key(&self) -> MachineKey {
        (self.key.namespace.clone(), self.machine.clone())
    }
}

/// Where the output of commands goes, beside the status.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// To those who watch.
    pub hub: Hub,
    /// What the status cannot show whole; None: nowhere.
    pub store: Option<Store>,
}

/// How long the machine of a claimed command is waited for, see [`crate::execution::Deadlines`].
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long, beyond its timeout, it may be out of reach before the outcome of the command counts as unknown.
    pub unreachable: Duration,
    /// How long after a stop request the execution ends at the latest.
    pub stop: Duration,
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
    /// Where output goes.
    outputs: Outputs,
    queues: Mutex<Queues>,
    /// Where results are kept that are nowhere else, until they are stored.
    spool: Option<Spool>,
    /// Shared connections to machines.
    connections: Connections,
    /// Logins in the making.
    logins: Logins,
    /// Where may be connected to.
    network: Network,
    /// What was seen of machines.
    sights: Sights,
    /// What machines are still to be told.
    acknowledgements: Acknowledgements,
    /// Which machines were tidied.
    tidied: Tidied,
    /// How long machines of claimed commands are waited for.
    patience: Patience,
    wake: mpsc::Sender<ObjectRef<CommandExecution>>,
    tasks: TaskTracker,
    /// Whether what waited when this process started is known, so that the oldest can go first.
    begun: AtomicBool,
    /// Nothing new starts from here on.
    stopping: CancellationToken,
    /// What still runs is left to itself from here on.
    halted: CancellationToken,
}

impl Inner {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        lock(&self.queues)
    }
}

/// What is behind a lock is whole also where somebody panicked while he held it: each change is made at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other end of a runner: the executions that the controller is to look at again.
pub type Wakes = mpsc::Receiver<ObjectRef<CommandExecution>>;

/// What a runner works with.
pub struct Parts {
    /// The API server.
    pub cluster: Cluster,
    /// What is allowed, compiled.
    pub policies: Arc<Policies>,
    /// Tells whose names can be believed.
    pub stamping: Stamping,
    /// Tells people.
    pub events: EventPublisher,
    /// This process, as it was announced: in its name is claimed.
    pub holders: Arc<Holders>,
    /// Where output goes.
    pub outputs: Outputs,
    /// Where results are kept that are nowhere else, until they are stored.
    pub spool: Option<Spool>,
    /// How long machines of claimed commands are waited for.
    pub patience: Patience,
    /// Where may be connected to.
    pub network: Network,
}

impl Runner {
    /// A runner, and what it wakes the controllers with.
    pub fn new(parts: Parts) -> (Self, Wakes, MachineWakes) {
        let Parts { cluster, policies, stamping, events, holders, outputs, spool, patience, network } = parts;
        let (sights, machine_wakes) = Sights::new();
        let (wake, wakes) = mpsc::channel(WAKE_QUEUE);
        let inner = Inner {
            cluster,
            policies,
            stamping,
            events,
            holder: holders.own().to_owned(),
            holders,
            outputs,
            queues: Mutex::default(),
            spool,
            connections: Connections::default(),
            logins: Logins::default(),
            network,
            sights,
            acknowledgements: Acknowledgements::default(),
            tidied: Tidied::default(),
            patience,
            wake,
            tasks: TaskTracker::new(),
            begun: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            halted: CancellationToken::new(),
        };
        let inner = Arc::new(inner);
        let kept = Arc::clone(&inner);
        // Ends with the process: it holds nothing that would have to be put in order.
        tokio::spawn(async move { kept.connections.keep_tidy().await });
        (Self { inner }, wakes, machine_wakes)
    }

    /// Puts an execution into the queue of its machine; does nothing where it is there already or being run.
    pub fn enqueue(&self, work: Work) {
        if self.inner.stopping.is_cancelled() {
            return;
        }
        let machine = work.machine_key();
        self.inner.sights.expect(&machine);
        let is_misconfigured = {
            let mut queues = self.inner.queues();
            if queues.add(work) {
                metrics().allowed();
            }
            queues.is_misconfigured(&machine)
        };
        if is_misconfigured {
            // Somebody waits now for what a person has to mend: it is looked at more often.
            self.inner.sights.tell(&machine);
        }
        self.pump(&machine);
    }

    /// Takes over an execution whose holder is lost, and follows it to its end; does nothing where that is being done.
    /// What it may occupy on the machine it occupies already, so it does not wait for a slot.
    pub fn adopt(&self, work: Work) {
        if self.inner.stopping.is_cancelled() {
            return;
        }
        let Some(cancel) = self.inner.queues().adopt(&work) else { return };
        let runner = self.clone();
        let span = span(&work);
        self.inner.tasks.spawn(async move { runner.take_over(work, cancel).await }.instrument(span));
    }

    /// Forgets an execution that waits or was refused. One that is being run is not touched.
    pub fn withdraw(&self, key: &ExecutionKey) {
        self.inner.queues().withdraw(key, Instant::now());
    }

    /// Tells a running command to stop.
    pub fn cancel(&self, key: &ExecutionKey) {
        self.inner.queues().cancel(key);
    }

    /// Whether a change of a Machine may mean something to an execution.
    pub fn minds(&self, key: &ExecutionKey, machine: &str) -> bool {
        self.inner.queues().minds(key, &(key.namespace.clone(), machine.to_owned()))
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
            self.inner.connections.close().await;
            return;
        }
        tracing::warn!(
            running = self.inner.tasks.len(),
            "commands still run: the durable ones are left to the next writ, the outcome of the others is unknown"
        );
        self.inner.halted.cancel();
        if tokio::time::timeout(RECORD_DEADLINE, self.inner.tasks.wait()).await.is_err() {
            tracing::error!(lost = self.inner.tasks.len(), "results could not be written before the end");
        }
        self.inner.connections.close().await;
    }

    /// Brings the metrics up to date that are only counted when somebody asks.
    pub fn measure(&self) {
        let (waiting, running) = self.inner.queues().totals();
        metrics().executions(waiting, running);
        self.inner.connections.measure();
        self.inner.sights.measure();
    }

    /// Whether anything starts yet.
    pub fn has_begun(&self) -> bool {
        self.inner.begun.load(Ordering::Acquire)
    }

    /// What waited when this process started is in its queues: from here on it starts.
    pub fn begin(&self) {
        self.inner.begun.store(true, Ordering::Release);
        let machines = self.inner.queues().machines();
        machines.iter().for_each(|machine| self.pump(machine));
    }

    /// Starts what can be started on a machine.
    fn pump(&self, machine: &MachineKey) {
        while !self.inner.stopping.is_cancelled() {
            let only_urgent = !self.has_begun();
            let next = self.inner.queues().next(machine, only_urgent, Instant::now());
            let Some((work, cancel)) = next else { return };
            let runner = self.clone();
            let span = span(&work);
            self.inner.tasks.spawn(async move { runner.run(work, cancel).await }.instrument(span));
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
                self.carry_out(*claimed, &work, cancel).await;
                slot.settle(AttemptEnd::Done).await;
            }
            other => slot.settle(other).await,
        }
    }

    async fn carry_out(&self, claimed: Claimed, work: &Work, cancel: CancellationToken) {
        let inner = &self.inner;
        let Claimed { mut holding, way, session } = claimed;
        match way {
            Way::Direct(open) => {
                let (outcome, unfit) = direct::run(inner, work, &mut holding, (open, session), cancel).await;
                record::record(inner, &holding, outcome).await;
                if let Some(problem) = unfit {
                    self.blame(work, problem).await;
                }
            }
            Way::Durable(reached) => {
                let begin = Begin::Launch { reached, session };
                self.carry_out_durably(&mut holding, work, begin, cancel).await;
            }
        }
    }

    /// A command that had a slot has found that a person has to see to its machine: what waits there waits for that.
    async fn blame(&self, work: &Work, problem: LaunchProblem) {
        let machine_key = work.machine_key();
        let settled = self.inner.queues().found_unfit(&machine_key, &problem.message, Instant::now());
        if let Ok(machine) = self.inner.cluster.machine(&work.key.namespace, &work.machine).await {
            self.inner.saw(&machine, Seen::Problem(problem));
        }
        self.tell(settled, &machine_key).await;
    }

    async fn carry_out_durably(&self, holding: &mut Holding, work: &Work, begin: Begin, cancel: CancellationToken) {
        let Some(outcome) = durable::run(&self.inner, work, holding, begin, cancel).await else { return };
        if !record::record(&self.inner, holding, outcome).await {
            return;
        }
        let Some(uid) = Uid::new(&work.key.uid) else { return };
        let is_redacted = !holding.decision.redact.is_empty();
        if self.inner.acknowledgements.add(work.machine_key(), uid, is_redacted) {
            let (inner, work) = (Arc::clone(&self.inner), work.clone());
            self.inner.tasks.spawn(async move { acknowledge::tell(&inner, &work).await });
        }
        if self.inner.tidied.is_due(&work.machine_key()) {
            let (inner, work) = (Arc::clone(&self.inner), work.clone());
            self.inner.tasks.spawn(async move { tidy::tidy(&inner, &work).await });
        }
    }

    async fn take_over(self, work: Work, cancel: CancellationToken) {
        let slot = SlotGuard { runner: self.clone(), work: work.clone(), connected: true, settled: false };
        match adopt::take_over(&self.inner, &work).await {
            Some(mut holding) => self.carry_out_durably(&mut holding, &work, Begin::Look, cancel).await,
            // The controller looks again at once; what stands in the way may take a moment.
            None => tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER_ADOPTION) => {}
                () = self.inner.stopping.cancelled() => {}
            },
        }
        slot.settle(AttemptEnd::Done).await;
    }

    async fn settle(&self, work: Work, end: AttemptEnd) {
        let machine = work.machine_key();
        let pause = match &end {
            AttemptEnd::Again(pause) => Some(*pause),
            AttemptEnd::Full { .. } => Some(AGAIN_AFTER_FULL),
            _ => None,
        };
        if let Some(pause) = pause {
            // The slot stays taken meanwhile: nothing else on the machine would fare better.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.stopping.cancelled() => {}
            }
        }
        let settled = self.inner.queues().settle(work, end, Instant::now());
        self.tell(settled, &machine).await;
        self.pump(&machine);
    }

    /// Has done what follows.
    async fn tell(&self, settled: Settled, machine: &MachineKey) {
        if let Some(pause) = settled.pump_after {
            let runner = self.clone();
            let machine = machine.clone();
            // Not tracked: a pause is nothing to wait for at the end.
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                runner.pump(&machine);
            });
        }
        for key in settled.wake {
            let reference = ObjectRef::new(&key.name).within(&key.namespace);
            // It fails only when the controller is gone, and then there is nobody to wake.
            let _ = self.inner.wake.send(reference).await;
        }
    }
}

/// What is done for an execution by this process, from its slot to its stored result.
fn span(work: &Work) -> tracing::Span {
    let Work { key, machine, .. } = work;
    let span = tracing::info_span!(
        target: SPANS, "execute", uid = key.uid, namespace = key.namespace, name = key.name, machine
    );
    traces::of_execution(&span, &key.uid);
    span
}
