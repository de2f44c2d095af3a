//! Writ: audited remote commands as Kubernetes objects.
//!
//! # The map
//!
//! The stages in the life of a CommandExecution, with the modules of each stage and the result for the user:
//!
//! 1. A user applies it. [`api`]: types, CRDs, the guards that the API server enforces. Result: phase Pending, or error
//!    422 with the reason.
//! 2. A controller receives it. `controllers`: watch, read live, decide, apply.
//! 3. Writ checks that it was not executed before. `cluster`: read its receipt live; [`execution`]. Result, if it was:
//!    AlreadyExecuted, in the phase of the first execution.
//! 4. It is matched against the Whitelists. [`policy`]: compile, decide, quote. Result: `status.decision`, or Rejected.
//! 5. The next step is planned. [`execution`]: the state machine, pure. Result: phase, reason, message, conditions.
//! 6. It waits for its machine. `runner`: queues, slots; `fleet`: back-off. Result: Queued.
//! 7. A connection is opened. `fleet`: connection pool; `ssh`: dial, host key, login, session. Result: LaunchFailed if,
//!    for example, the machine has another host key.
//! 8. It is claimed. `runner::claim` reads Whitelists, Machine and Secret again and decides again, with the connection
//!    open; `cluster`: one PUT with the resourceVersion that was read. Result: Dispatched. From now on the command may
//!    have started.
//! 9. Its command is launched, once. `launcher`: fence, own session, output to files; sent by `runner::durable`.
//!    Result: Running, after 2 s.
//! 10. Its command runs, with or without a connection. `runner`, `ssh`, `output`: follow by offset, redact, count,
//!     digest, store, stop.
//! 11. If the process with the claim dies, another one adopts the claim. `runner`: adopt, read the journal on the
//!     machine; [`execution`]: launch, follow or close.
//! 12. Its result is recorded. [`execution`]: outcome to status; `cluster`: JSON Patch with the claim's token. Result:
//!     Succeeded, Failed, TimedOut, Cancelled or OutcomeUnknown.
//! 13. Its TTL expires, or a user deletes it. `controllers`: retention: receipt, deletion; `output`: delete the stored
//!     output; `cluster`: remove the finalizer. Result: it is deleted after its end is recorded. If its TTL expired, an
//!     ExecutionReceipt stays.
//!
//! The stages in the life of a Machine:
//!
//! 1. Its probe is due. [`machine::schedule`]: the time; `fleet::prober`: one task for all Machines.
//! 2. It is probed. `fleet::probe`: connects, inspects the machine, or reads the answer of its sshd.
//! 3. A failure is classified. `fleet::connect_failure`: unreachable, wrong host key, refused login and others, by the
//!    error of `ssh`. Failures of executions are classified there, too.
//! 4. It gets a phase. [`machine::observation`]: Online, Offline or Misconfigured, by the result of the last probe.
//! 5. Its state is shared. `fleet::machine_state`: one value per Machine with pool, probe result and counts.
//! 6. Its status is written. [`machine::report`]: phase, conditions, facts; `controllers::machine`: the write.
//!
//! To add a kind, a metric or a field, read "Add a kind" and "Add a metric" in CONTRIBUTING.md.
//!
//! # The modules
//!
//! Each module may use the modules above it in this list. `tests/architecture` holds the exact table.
//!
//! - [`api`]: Machine, Whitelist, CommandExecution, ExecutionReceipt, and their CRDs. Pure.
//! - [`backoff`]: delays between retries. Pure.
//! - [`programs`]: knowledge about programs on machines: roles of their words, options, launchers. Pure.
//! - [`policy`]: what may run. Pure.
//! - [`execution`]: the state machine of an execution. Pure: time is an argument.
//! - [`machine`]: the phase of a Machine (Online, Offline, Misconfigured), its status, and the time of its next probe.
//!   Pure.
//! - [`placement`]: which of several `writ serve` owns a Machine (rendezvous hashing). Pure. Only
//!   `cluster::membership` uses it.
//! - [`telemetry`]: metrics, and the liveness and readiness of this process. Decides nothing.
//! - [`traces`]: spans of the work for an execution, sent to the configured collector.
//! - [`fairness`]: places that all namespaces share, so that no namespace delays the others.
//! - [`output`]: the output of commands: redacts it, counts all of it, keeps a bounded part in memory, shows it live,
//!   stores all of it.
//! - [`ssh`]: the SSH client: dial, verify the host key, log in, run sessions. Only this module uses russh. It knows no
//!   Kubernetes. `fleet` and `runner` use its `Connection` and `Session` directly; there is no other transport.
//! - [`launcher`]: the shell program that starts commands on machines, and its protocol. Pure.
//! - [`cluster`]: calls to the API server, each with a deadline.
//! - [`fleet`]: connections to machines: credentials, pool, probes, the stored host key of the first use, the state of
//!   each Machine. Runs no commands.
//! - [`runner`]: runs executions: queues, and tasks that claim, launch, follow, adopt and record.
//! - [`controllers`]: watch, read, decide, apply. They send nothing to a machine.
//! - [`cli`]: `writ explain`, `writ lint`, `writ output`: explains a decision, checks a policy, prints an output.
//! - [`cli::machine`]: `writ machine keyscan | check | setup`: helps a user to prepare and check a machine.
//! - [`operations`]: log lines, and the endpoints for metrics and health.
//!
//! The binaries are `src/bin/writ` (flags, wiring, run) and `src/bin/crdgen` (the CRDs in `crds/`).
//!
//! # Features
//!
//! - `operator` (default): everything that runs commands.
//! - `cli` (default): the subcommands for users.
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
