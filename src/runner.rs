//! Runs executions: a queue for each machine, a task for each execution that has a slot.
//!
//! ```text
//! controller --enqueue--> queue of the machine --free slot--> attempt: connect, open, read again, CLAIM
//!     ^                        ^                                  |            |
//!     |                        +--- unreachable: back off --------+            v
//!     +----- wake (reconcile) <-- refused: LaunchFailed ---------------- durable: launch, follow, reattach
//!                                                                        direct: start, drain, stop
//! controller --adopt--> adopt the claim --> durable: reattach                  |
//!                                                    record: JSON Patch <------+--> acknowledge, remote_gc
//! ```
//!
//! Until the claim the controller writes the status. From the claim on, only the task that made or adopted the claim does.
//!
//! # Guarantees
//!
//! - A command is sent only after the claim is stored. The claim is written only after policy, machine and credentials were read
//!   again, live, with the connection open.
//! - Queued and running executions are bounded by `queueLimit` and `maxConcurrent` of their Machine.

mod acknowledge;
mod acknowledgements;
mod adopt;
mod attempt;
mod audit;
mod claim;
mod context;
mod decision_input;
mod direct;
mod dispatch;
mod durable;
mod fair_queue;
mod gc_schedule;
mod messages;
mod queue;
mod queued_execution;
mod record;
mod remote_gc;
mod shrink;
mod spool;
mod transport;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{CommandExecution, Machine};
use crate::cluster::{Cluster, EventPublisher, ExecutionKey, Membership, PolicyCache, RequesterTrustChecker};
use crate::execution::{QueueFact, RunnerFact};
use crate::fleet::{Dialer, LoginLimiter, MachineWakes, Machines, Prober, SettingsChange, choose, key_of};
use crate::machine::MachineObservation;
use crate::ssh::AddressPolicy;
use crate::telemetry::metrics;

use acknowledgements::Acknowledgements;
pub use audit::log_end;
use context::Context;
pub use context::{FollowLimits, OutputSinks};
use dispatch::{Dispatcher, WAKE_QUEUE};
use gc_schedule::GcSchedule;
use queue::MachineQueues;
pub use queued_execution::QueuedExecution;
pub use spool::Spool;

/// Executions that the controller reconciles.
pub type Wakes = mpsc::Receiver<ObjectRef<CommandExecution>>;

/// What a runner works with.
pub struct RunnerConfig {
    /// The API server.
    pub cluster: Cluster,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Tells if `spec.requestedBy` can be trusted.
    pub stamping: RequesterTrustChecker,
    /// Publishes events.
    pub events: EventPublisher,
    /// The Lease of this process. Claims carry its name.
    pub holders: Arc<Membership>,
    /// Destinations of output.
    pub outputs: OutputSinks,
    /// Keeps Direct-mode results until they are stored.
    pub spool: Option<Spool>,
    /// How long Writ waits for the machines of claimed commands.
    pub limits: FollowLimits,
    /// Addresses that may be connected to.
    pub network: AddressPolicy,
}

/// What this process knows of a Machine.
#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// The last observation.
    pub observation: Option<MachineObservation>,
    /// Number of failed observations in a row.
    pub failures: u32,
    /// In 0..1, another for each observation.
    pub jitter: f64,
    /// Time since the last probe ended; `None` if there was none.
    pub since_probe: Option<Duration>,
    /// Number of probes in a row that observed nothing, because the API server did not answer.
    pub inconclusive_probes: u32,
    /// True if queued executions wait for a manual repair.
    pub needs_person: bool,
    /// Number of executions that have a slot.
    pub running: usize,
    /// Number of queued executions.
    pub queued: usize,
    /// True if these two numbers alone are worth a write now.
    pub is_recount: bool,
}

/// The runner of this process. Clones are the same runner.
#[derive(Clone)]
pub struct Runner {
    dispatcher: Dispatcher,
    prober: Arc<Prober>,
}

impl Runner {
    /// A runner, and the receivers of the executions and Machines that the controllers reconcile.
    pub fn new(config: RunnerConfig) -> (Self, Wakes, MachineWakes) {
        let RunnerConfig { cluster, policies, stamping, events, holders, outputs, spool, limits, network } = config;
        let (machines, machine_wakes) = Machines::new();
        let machines = Arc::new(machines);
        let dialer = Arc::new(Dialer {
            cluster: cluster.clone(),
            network,
            logins: LoginLimiter::default(),
            machines: Arc::clone(&machines),
        });
        let sweeper = Arc::clone(&dialer);
        // It ends with the process. It holds nothing that must be closed.
        tokio::spawn(async move { sweeper.evict_idle_loop().await });
        let context = Context {
            cluster,
            events,
            policies,
            stamping,
            holders,
            outputs,
            spool,
            dialer,
            limits,
            queues: Mutex::new(MachineQueues::new(machines)),
            acknowledgements: Acknowledgements::default(),
            gc_schedule: GcSchedule::default(),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
        };
        let (wake, wakes) = mpsc::channel(WAKE_QUEUE);
        let dispatcher = Dispatcher::new(Arc::new(context), wake);
        (Self { dispatcher, prober: Arc::default() }, wakes, machine_wakes)
    }

    fn context(&self) -> &Arc<Context> {
        &self.dispatcher.context
    }

    /// Puts an execution into the queue of its machine. Does nothing if it is there, or runs.
    pub fn enqueue(&self, queued: QueuedExecution) {
        self.dispatcher.enqueue(queued);
    }

    /// Follows a command whose holder is gone to its end. Does nothing if that is being done. The command occupies the
    /// machine already, so it waits for no slot.
    pub fn adopt(&self, queued: QueuedExecution) {
        self.dispatcher.adopt(queued);
    }

    /// Forgets an execution that waits or was refused. A running one is not changed.
    pub fn withdraw(&self, key: &ExecutionKey) {
        self.context().queues().withdraw(key, Instant::now());
    }

    /// Stops a running command.
    pub fn cancel(&self, key: &ExecutionKey) {
        self.context().queues().cancel(key);
    }

    /// Returns true if the controller must reconcile an execution after a change of this Machine, or after its deletion. The
    /// settings of a Machine reach its queue by [`Self::configure`].
    pub fn is_affected_by(&self, key: &ExecutionKey, machine: &str, is_deleted: bool) -> bool {
        self.context().queues().is_affected_by(key, &(key.namespace.clone(), machine.to_owned()), is_deleted)
    }

    /// Returns what is known of an execution and of the queue of its machine.
    pub fn facts(&self, key: &ExecutionKey, machine: &str) -> (RunnerFact, QueueFact) {
        self.context().queues().facts(key, machine, Instant::now())
    }

    /// Stops taking executions, lets running commands end within `drain`, then records the outcome of the rest as unknown.
    pub async fn shut_down(&self, drain: Duration) {
        self.dispatcher.shut_down(drain).await;
    }

    /// Updates the gauges that are computed at each scrape.
    pub fn update_gauges(&self) {
        let (waiting, running) = self.context().queues().totals();
        metrics().executions(waiting, running);
        self.context().dialer.machines.update_gauges();
    }

    /// Returns true if executions start.
    pub fn is_started(&self) -> bool {
        self.dispatcher.is_started()
    }

    /// Starts queued executions from here on: those from before this process started are in their queues.
    pub fn start(&self) {
        self.dispatcher.start();
    }

    /// Stores `maxConcurrent` and `suspend` of a Machine that was just read, and starts the executions that may go now.
    pub fn configure(&self, machine: &Machine) {
        let key = key_of(machine);
        let change = self.context().dialer.machines.entry(&key).state().configure(machine);
        if change == SettingsChange::Suspension {
            self.dispatcher.wake_waiting(&key);
        }
        if change != SettingsChange::None {
            self.dispatcher.dispatch_ready(&key);
        }
    }

    /// Starts the executions of a machine that may go now.
    pub fn resume(&self, namespace: &str, name: &str) {
        self.dispatcher.dispatch_ready(&(namespace.to_owned(), name.to_owned()));
    }

    /// Returns what this process knows of a Machine that exists.
    pub fn machine_facts(&self, namespace: &str, name: &str) -> MachineFacts {
        let key = (namespace.to_owned(), name.to_owned());
        let (running, queued) = self.context().queues().counts(&key);
        let machine = self.context().dialer.machines.entry(&key);
        let mut state = machine.state();
        let is_recount = std::mem::take(&mut state.counts.is_due);
        MachineFacts {
            observation: state.observation.clone(),
            failures: state.failures,
            jitter: state.jitter,
            since_probe: state.probed.map(|probed| probed.elapsed()),
            inconclusive_probes: state.inconclusive_probes,
            needs_person: state.needs_person(),
            running,
            queued,
            is_recount,
        }
    }

    /// Probes a machine, unless a probe of it runs. The observation comes by [`MachineWakes`].
    pub fn request_probe(&self, namespace: &str, name: &str) {
        if self.context().draining.is_cancelled() {
            return;
        }
        let (runner, key) = (self.clone(), (namespace.to_owned(), name.to_owned()));
        // Not tracked: the shutdown does not wait for a probe.
        tokio::spawn(async move {
            let context = runner.context();
            tokio::select! {
                () = runner.prober.probe(&context.dialer, &key) => {}
                () = context.draining.cancelled() => {}
            }
            runner.dispatcher.dispatch_ready(&key);
        });
    }

    /// A Machine has this generation now, or is deleted (`None`): connections by an earlier generation are not used any more.
    pub fn machine_changed(&self, namespace: &str, name: &str, uid: &str, generation: Option<i64>) {
        let dialer = &self.context().dialer;
        if generation.is_none() {
            dialer.drop_machine(&(namespace.to_owned(), name.to_owned()));
        }
        dialer.invalidate(uid, generation);
    }

    /// Returns the Machines (namespace, name) whose numbers are to be written now. Call it every
    /// [`RECOUNT_INTERVAL`](crate::fleet::RECOUNT_INTERVAL).
    pub fn recount(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let machines = &self.context().dialer.machines;
        let queues = self.context().queues();
        let mut due = Vec::new();
        machines.for_each(|key, machine| {
            if let Some(since) = machine.state().counts.due_since(queues.counts(key), now) {
                due.push((since, key.clone()));
            }
        });
        drop(queues);
        let chosen = choose(due);
        for machine in chosen.iter().filter_map(|key| machines.get(key)) {
            let mut state = machine.state();
            (state.counts.is_due, state.counts.at) = (true, Some(now));
        }
        chosen
    }

    /// The status of a Machine has these numbers now.
    pub fn record_counts(&self, namespace: &str, name: &str, running: usize, queued: usize) {
        if let Some(machine) = self.context().dialer.machines.get(&(namespace.to_owned(), name.to_owned())) {
            machine.state().counts.counts = Some((running, queued));
        }
    }
}
