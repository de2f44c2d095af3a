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
//! Before the claim, the controller writes the status. From the claim on, only the task that holds the claim writes the
//! status.
//!
//! # Guarantees
//!
//! - Writ sends a command only after its claim is stored.
//! - Before the claim, with the connection open, an attempt reads policy, machine and credentials again. The claim fails
//!   if the execution has changed since it was read.
//! - `queueLimit` and `maxConcurrent` of a Machine limit its queued and running executions. Adopted commands can exceed
//!   `maxConcurrent`, because adopted commands already run.

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
mod execution_connection;
mod fair_queue;
mod gc_schedule;
mod messages;
mod queue;
mod queued_execution;
mod recent_reads;
mod record;
mod remote_gc;
mod shrink;
mod spool;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{CommandExecution, Machine};
use crate::cluster::{Cluster, EventPublisher, ExecutionKey, Membership, PolicyCache, RequesterTrustChecker};
use crate::execution::{QueueFact, RunnerFact};
use crate::fleet::{Fleet, LoginLimiter, MachineWakes, Machines, Prober, SettingsChange, choose, key_of};
use crate::interactive::InteractiveClients;
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
pub use queued_execution::{QueuedExecution, ReadExecution};
use recent_reads::RecentReads;
pub use spool::Spool;

/// Receiver of the executions that the controller must reconcile.
pub type Wakes = mpsc::Receiver<ObjectRef<CommandExecution>>;

/// Everything that [`Runner::new`] needs.
pub struct RunnerConfig {
    /// The API server.
    pub cluster: Cluster,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Checker that decides if Writ trusts `spec.requestedBy`.
    pub stamping: RequesterTrustChecker,
    /// Publisher of Kubernetes events.
    pub events: EventPublisher,
    /// Lease of this process among the `writ serve` processes. Each claim of this process contains the name of this
    /// Lease.
    pub holders: Arc<Membership>,
    /// Destinations of output.
    pub outputs: OutputSinks,
    /// Store on local disk for results of Direct mode that the API server does not have yet. `None` if Writ keeps no
    /// results on disk.
    pub spool: Option<Spool>,
    /// Time limits for claimed commands, see [`FollowLimits`].
    pub limits: FollowLimits,
    /// Addresses to which Writ may connect.
    pub network: AddressPolicy,
}

/// State of a Machine as this process knows it.
#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// Last observation of the machine, by a probe or by an attempt. `None` if nothing was observed yet.
    pub observation: Option<MachineObservation>,
    /// Number of consecutive observations that reported a failure.
    pub failures: u32,
    /// Random number in 0..1, drawn for each observation. The number spreads the probes of machines over time.
    pub jitter: f64,
    /// Time since the end of the last probe. `None` if no probe has ended.
    pub since_probe: Option<Duration>,
    /// Number of consecutive probes without a result, because the API server did not answer. Includes a running probe.
    pub inconclusive_probes: u32,
    /// True if the machine needs manual repair. Queued executions wait for the repair.
    pub needs_person: bool,
    /// Number of executions that have a slot.
    pub running: usize,
    /// Number of queued executions.
    pub queued: usize,
    /// True if the controller must write the status now, even if only `running` or `queued` has changed.
    pub is_recount: bool,
}

/// The runner of this process. Clones share one state.
#[derive(Clone)]
pub struct Runner {
    dispatcher: Dispatcher,
    prober: Arc<Prober>,
}

impl Runner {
    /// Returns a runner, and the receivers of the executions and Machines that the controllers must reconcile.
    pub fn new(config: RunnerConfig) -> (Self, Wakes, MachineWakes) {
        let RunnerConfig { cluster, policies, stamping, events, holders, outputs, spool, limits, network } = config;
        let (machines, machine_wakes) = Machines::new();
        let machines = Arc::new(machines);
        let fleet = Arc::new(Fleet {
            cluster: cluster.clone(),
            network,
            logins: LoginLimiter::default(),
            machines: Arc::clone(&machines),
        });
        let sweeper = Arc::clone(&fleet);
        // The shutdown does not wait for this task, because the task never ends.
        tokio::spawn(async move { sweeper.evict_idle_loop().await });
        let context = Context {
            cluster,
            events,
            policies,
            stamping,
            holders,
            outputs,
            interactive: InteractiveClients::default(),
            spool,
            fleet,
            limits,
            queues: Mutex::new(MachineQueues::new(machines)),
            recent_reads: RecentReads::default(),
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

    /// Puts an execution into the queue of its machine. Does nothing if the runner already has the execution, or shuts
    /// down. `read` is the execution as the caller has read it.
    pub fn enqueue(&self, queued: QueuedExecution, read: ReadExecution) {
        self.dispatcher.enqueue(queued, read);
    }

    /// Returns true if the execution waits in the queue of its machine, or a connection is being opened for it.
    pub fn is_waiting_or_connecting(&self, key: &ExecutionKey) -> bool {
        self.context().queues().is_waiting_or_connecting(key)
    }

    /// Returns the version with which an execution entered the queue, if the execution still waits there. Returns `None`
    /// if the version is no longer kept.
    pub fn waiting_version(&self, key: &ExecutionKey) -> Option<ReadExecution> {
        let context = self.context();
        let is_waiting = context.queues().is_waiting(key);
        if is_waiting { context.recent_reads.get(&key.uid, Instant::now()) } else { None }
    }

    /// Forgets the version of an execution, because the execution has changed.
    pub fn forget_version(&self, key: &ExecutionKey) {
        let _ = self.context().recent_reads.take(&key.uid, Instant::now());
    }

    /// Returns the Machine to which a connection is open, as it was when the connection was opened. Returns `None` if no
    /// connection is open.
    pub fn connected_machine(&self, namespace: &str, name: &str) -> Option<Machine> {
        let machine = self.context().fleet.machines.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(machine.connections.last_spec()?.machine.clone())
    }

    /// Adopts the claim of a command whose holder is gone, and follows the command to its end. The adoption does not
    /// wait for a slot, because the command already occupies the machine.
    ///
    /// Does nothing in these cases:
    /// - The execution already has a slot.
    /// - The execution was refused.
    /// - The runner shuts down.
    pub fn adopt(&self, queued: QueuedExecution) {
        self.dispatcher.adopt(queued);
    }

    /// Returns the registry of the clients of interactive executions.
    pub fn interactive_clients(&self) -> &InteractiveClients {
        &self.context().interactive
    }

    /// Returns true if the client of an interactive execution is connected to this process.
    pub fn has_client(&self, namespace: &str, name: &str) -> bool {
        self.context().interactive.is_connected(namespace, name)
    }

    /// Removes a queued or refused execution. An execution that is connecting or running is not changed.
    pub fn withdraw(&self, key: &ExecutionKey) {
        self.context().queues().withdraw(key, Instant::now());
    }

    /// Cancels an execution that is connecting or running. Its task then stops the command.
    pub fn cancel(&self, key: &ExecutionKey) {
        self.context().queues().cancel(key);
    }

    /// Returns true if the controller must reconcile an execution after a change or deletion of this Machine. For
    /// queued executions, [`Self::configure`] handles a change.
    pub fn is_affected_by(&self, key: &ExecutionKey, machine: &str, is_deleted: bool) -> bool {
        self.context().queues().is_affected_by(key, &(key.namespace.clone(), machine.to_owned()), is_deleted)
    }

    /// Returns the state of an execution in this runner, and the load of its machine's queue.
    pub fn facts(&self, key: &ExecutionKey, machine: &str) -> (RunnerFact, QueueFact) {
        self.context().queues().facts(key, machine, Instant::now())
    }

    /// Stops accepting executions, and waits up to `drain` for running commands to end. The next `writ serve` adopts
    /// the remaining commands in Durable mode. The remaining commands in Direct mode end with an unknown outcome.
    pub async fn shut_down(&self, drain: Duration) {
        self.dispatcher.shut_down(drain).await;
    }

    /// Updates the gauges that are computed at each scrape.
    pub fn update_gauges(&self) {
        let (waiting, running) = self.context().queues().totals();
        metrics().executions(waiting, running);
        self.context().fleet.machines.update_gauges();
    }

    /// Returns true after [`Self::start`]. Before [`Self::start`], only executions that must not be delayed
    /// (`startingDeadlineSeconds: 0`) start.
    pub fn is_started(&self) -> bool {
        self.dispatcher.is_started()
    }

    /// Allows queued executions to start. The controller calls this function once at startup, after the reconcile of
    /// all older executions or after a deadline.
    pub fn start(&self) {
        self.dispatcher.start();
    }

    /// Stores `maxConcurrent` and `suspend` of a Machine that was just read, and starts the queued executions that may
    /// start now.
    pub fn configure(&self, machine: &Machine) {
        let key = key_of(machine);
        let change = self.context().fleet.machines.entry(&key).state().configure(machine);
        if change == SettingsChange::Suspension {
            self.dispatcher.wake_waiting(&key);
        }
        if change != SettingsChange::None {
            self.dispatcher.dispatch_ready(&key);
        }
    }

    /// Starts the queued executions of a machine that may start now.
    pub fn resume(&self, namespace: &str, name: &str) {
        self.dispatcher.dispatch_ready(&(namespace.to_owned(), name.to_owned()));
    }

    /// Returns the state of an existing Machine, and clears its recount flag (see [`Self::recount`]).
    pub fn machine_facts(&self, namespace: &str, name: &str) -> MachineFacts {
        let key = (namespace.to_owned(), name.to_owned());
        let (running, queued) = self.context().queues().counts(&key);
        let machine = self.context().fleet.machines.entry(&key);
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

    /// Probes a machine. Does nothing if a probe of this machine already runs, or if the runner shuts down. The result
    /// of the probe wakes the controller through [`MachineWakes`].
    pub fn request_probe(&self, namespace: &str, name: &str) {
        if self.context().draining.is_cancelled() {
            return;
        }
        let (runner, key) = (self.clone(), (namespace.to_owned(), name.to_owned()));
        // The shutdown does not wait for a probe, so the task is not tracked.
        tokio::spawn(async move {
            let context = runner.context();
            tokio::select! {
                () = runner.prober.probe(&context.fleet, &key) => {}
                () = context.draining.cancelled() => {}
            }
            runner.dispatcher.dispatch_ready(&key);
        });
    }

    /// Records the current generation of a Machine, or its deletion (`None`). Writ no longer uses connections of an
    /// earlier generation.
    pub fn machine_changed(&self, namespace: &str, name: &str, uid: &str, generation: Option<i64>) {
        let fleet = &self.context().fleet;
        if generation.is_none() {
            fleet.drop_machine(&(namespace.to_owned(), name.to_owned()));
        }
        fleet.invalidate(uid, generation);
    }

    /// Returns the Machines (namespace, name) whose status needs new numbers of running and queued executions. Must be
    /// called every [`RECOUNT_INTERVAL`](crate::fleet::RECOUNT_INTERVAL).
    pub fn recount(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let machines = &self.context().fleet.machines;
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

    /// Records that the status of a Machine contains these counts.
    pub fn record_counts(&self, namespace: &str, name: &str, running: usize, queued: usize) {
        if let Some(machine) = self.context().fleet.machines.get(&(namespace.to_owned(), name.to_owned())) {
            machine.state().counts.counts = Some((running, queued));
        }
    }
}
