//! Writ: audited remote commands as Kubernetes objects.
//!
//! # The map
//!
//! The stages in the life of a CommandExecution, with the modules of each stage and the result for the user:
//!
//! 1. A user applies the execution. [`api`]: types, CRDs, the guards that the API server enforces. Result: phase
//!    Pending, or error 422 with the reason.
//! 2. A controller receives the execution. `controllers::command_execution`: `triggers` turns events into names;
//!    `reconcile` reads the execution, its receipt, its Machine and the Whitelists from the API server (`cluster`),
//!    calls [`execution::plan`], and applies the plan.
//! 3. Writ checks with the receipt that the execution did not run before. Stages 3 to 5 are one call of
//!    [`execution::plan`], without I/O. Result, if the execution ran: AlreadyExecuted, with the phase that the
//!    receipt contains.
//! 4. Writ matches the execution against the Whitelists. [`policy::decide`]. Result: `status.decision`, or Rejected.
//! 5. Writ plans the next step. [`execution`]: the state machine. Result: phase, reason, message, conditions.
//! 6. The execution waits for its machine. `runner::queue`: queues and slots, as data; `runner::dispatch`: starts a
//!    task for each slot; `fleet::machine_state`: back-off. Result: Queued.
//! 7. Writ opens a connection. `runner::attempt`: the order of the steps; `fleet::launcher_connection` (Durable mode,
//!    the default) or `fleet::connect` (Direct mode); `ssh::connection`: dial, verify the host key, log in. Result:
//!    LaunchFailed if, for example, the machine has another host key.
//! 8. Writ claims the execution. `runner::claim` reads Whitelists, Machine and Secret again and decides again, with the
//!    connection open; `cluster`: one PUT with the resourceVersion that was read. Result: Dispatched. From now on,
//!    the command has perhaps started.
//! 9. Writ launches the command, once. `launcher`: a fence against a second start, an own session, output to files;
//!    sent by `runner::durable`. In Direct mode, `runner::direct` starts the command without a launcher. Result:
//!    Running, after 2 s.
//! 10. The command runs, with or without a connection. `runner`, `ssh`, `output`: follow by offset, redact, count,
//!     digest, store, stop.
//! 11. If the process with the claim dies, another process adopts the claim. `runner`: adopt, read the journal on the
//!     machine; [`execution`] decides: launch the command, follow it, or close its journal.
//! 12. Writ records the result. [`execution`]: outcome to status; `cluster`: JSON Patch with the claim's token. Result:
//!     Succeeded, Failed, TimedOut, Cancelled or OutcomeUnknown.
//! 13. The TTL of the execution expires, or a user deletes the execution. `controllers`: retention: receipt, deletion;
//!     `output`: delete the stored output; `cluster`: remove the finalizer. Result: the execution is deleted, but not
//!     before its end is recorded. If its TTL expired, an ExecutionReceipt stays.
//!
//! The stages in the life of a Machine:
//!
//! 1. A probe of the machine is due. `machine::schedule`: the time; `controllers::machine` requests the probe;
//!    `fleet::prober` limits the concurrent probes.
//! 2. Writ probes the machine. `fleet::probe`: logs in, and requests the facts of the machine.
//! 3. A failure is classified. `fleet::connect_failure`: unreachable, wrong host key, refused login and others, by the
//!    error of `ssh`; `fleet::launcher_support`: by the reply of the launcher. Failed connections of executions are
//!    classified in the same way.
//! 4. The Machine gets a phase. `machine::observation`: Online, Offline or Misconfigured, by the last observation. A
//!    probe or an attempt to run a command makes the observation. `machine::report`: Suspended and Unknown.
//! 5. The state of the Machine is shared. `fleet::machines`: one value per Machine, with its connections and its
//!    `fleet::machine_state` (settings, last observation, back-off, counts).
//! 6. The status is written. `machine::report`: phase, conditions, facts; `controllers::machine`: the write.
//!
//! The code of each kind of object: a file in `api` (listed in `api::crds`), a watch in `controllers::watches`, a
//! `Reconcile` in `controllers`, the start of its controller in `src/bin/writ`, API calls in `cluster`, and permissions
//! in the chart. Whitelist is the shortest example. CONTRIBUTING.md has all steps for a kind, a field and a metric.
//!
//! # The modules
//!
//! Each module may use the modules above it in this list. `tests/architecture` holds the exact table. A pure
//! module uses no I/O, no clock and no randomness.
//!
//! - [`api`]: Machine, Whitelist, CommandExecution, ExecutionReceipt, GatewaySession, their CRDs, and the text of API
//!   keys. Pure.
//! - [`backoff`]: delays between retries. Pure.
//! - [`programs`]: knowledge about programs on machines: roles of their words, options, launchers. Pure.
//! - [`policy`]: decides which commands may run. Pure.
//! - [`execution`]: the state machine of an execution. Pure: time is an argument.
//! - [`machine`]: the phase of a Machine (Online, Offline, Misconfigured), its status, and the time of its next probe.
//!   Pure.
//! - [`placement`]: chooses the `writ serve` that owns a Machine (rendezvous hashing). Pure. Only
//!   `cluster::membership` uses it.
//! - [`telemetry`]: metrics, and the liveness and readiness of this process. Decides nothing.
//! - [`traces`]: spans of the work for an execution, sent to the configured collector.
//! - [`fairness`]: permits that namespaces receive in turns, so that no namespace delays the others.
//! - [`output`]: the output of commands: redacts it, counts all of it, keeps a bounded part in memory, shows it live,
//!   stores all of it.
//! - [`ssh`]: the SSH client: dial, verify the host key, log in, run sessions. Only this module uses russh, and this
//!   module does not depend on Kubernetes. A second transport would start at `fleet::connect`, and would need a POSIX
//!   sh on the machine.
//! - [`launcher`]: the shell program that starts commands on machines, and its protocol. Pure.
//! - [`cluster`]: calls to the API server, each with a deadline.
//! - [`interactive`]: connects the client of an interactive execution with the task that runs its command.
//! - [`fleet`]: connections to machines: credentials, pool, probes, the pin of a host key on first use, the state of
//!   each Machine. Runs no commands.
//! - [`runner`]: runs executions: queues, and tasks that claim, launch, follow, adopt and record.
//! - [`controllers`]: watch, read, decide, apply. They send nothing to a machine.
//! - [`gateway`]: the HTTP and WebSocket API. Creates executions as its callers, waits for their ends, and shows their
//!   output.
//! - [`cli`]: `writ explain`, `writ lint`, `writ output`, `writ api-key`: explains a decision, checks a policy, prints
//!   an output, manages API keys.
//! - [`cli::machine`]: `writ machine keyscan | check | setup`: helps a user to prepare and check a machine.
//! - [`operations`]: log lines, and the endpoints for metrics and health.
//!
//! The binaries are `src/bin/writ` (flags, wiring, run) and `src/bin/crdgen` (the CRDs in `crds/`).
//!
//! # Features
//!
//! - `operator` (default): everything that runs commands.
//! - `cli` (default): the subcommands for users.
//! - `gateway` (default): the HTTP and WebSocket API of `writ serve`.
//! - `aws` (default), `gcp`, `azure`: output stores in addition to a directory.
//! - `otlp` (default): traces.
//!
//! Without features the crate is the pure core, without tokio and russh. It is for tools that only read and write the
//! objects.

pub mod api;
pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod cluster;
#[cfg(feature = "operator")]
pub mod controllers;
pub mod execution;
#[cfg(feature = "client")]
pub mod fairness;
#[cfg(feature = "operator")]
pub mod fleet;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "operator")]
pub mod interactive;
#[cfg(feature = "operator")]
pub mod launcher;
pub mod machine;
#[cfg(feature = "operator")]
pub mod operations;
#[cfg(feature = "output")]
pub mod output;
pub mod placement;
pub mod policy;
pub mod programs;
#[cfg(feature = "operator")]
pub mod runner;
#[cfg(feature = "operator")]
pub mod ssh;
#[cfg(feature = "client")]
pub mod telemetry;
#[cfg(feature = "otlp")]
pub mod traces;
#[cfg(all(feature = "operator", not(feature = "otlp")))]
#[path = "traces/noop.rs"]
pub mod traces;
