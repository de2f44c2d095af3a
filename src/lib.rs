//! Writ: audited remote commands as Kubernetes objects.
//!
//! # The map
//!
//! The life of a CommandExecution, stage by stage: where it is in the source, and what its user sees.
//!
//! | stage | module | what the user sees |
//! |---|---|---|
//! | somebody applies it | [`api`]: types, CRDs, the guards that the API server enforces | a 422 that says what is wrong, or phase Pending |
//! | it is noticed | `controllers`: watch, read live, decide, apply | |
//! | was it executed before? | `cluster`: its receipt, read live; [`execution`] | AlreadyExecuted, in the phase of the first |
//! | it is held against the Whitelists | [`policy`]: compile, decide, quote | Rejected, or `status.decision` |
//! | what to do next is decided | [`execution`]: the state machine, pure | phase, reason, message, conditions |
//! | it waits for its machine | `runner`: queues, slots; `fleet`: back-off | Queued |
//! | a connection is opened | `fleet`: pool, probes; `ssh`: pinned host key, login, session | LaunchFailed where the machine is not the right one |
//! | it is claimed | `runner`, `cluster`: one PUT with the resourceVersion that was read | Dispatched: the point of no return |
//! | it is launched, once | `launcher`: fence, session of its own, output to files; sent by `runner::durable` | Running, after 2 s |
//! | it runs, whoever watches | `runner`, `ssh`, `output`: follow by offset, redact, count, digest, store, stop | |
//! | who watched is lost | `runner`: take the claim over, ask the machine; [`execution`]: launch, follow or close | |
//! | its result is written | [`execution`]: outcome to status; `cluster`: JSON Patch with the claim's token | Succeeded, Failed, TimedOut, Cancelled, OutcomeUnknown |
//! | its time is over, or somebody deletes it | `controllers`: retention: receipt, deletion; `output`: remove what is stored; `cluster`: let go | it is gone, once its end is recorded; an ExecutionReceipt stays |
//!
//! # The modules
//!
//! Each may use those above it in this list; `tests/architecture` holds the exact table.
//!
//! - [`api`]: Machine, Whitelist, CommandExecution, ExecutionReceipt, and their CRDs. Pure.
//! - [`backoff`]: delays between retries. Pure.
//! - [`programs`]: knowledge about programs on machines: roles of their words, options, launchers. Pure.
//! - [`policy`]: what may run. Pure.
//! - [`execution`]: the state machine; time is an argument. Pure.
//! - [`machine`]: what is said of a Machine, and when it is looked at. Pure.
//! - [`placement`]: which of several `writ serve` owns a Machine (rendezvous hashing). Pure; nothing depends on it yet.
//! - [`telemetry`]: what happened, in numbers, and whether this process is alive and ready. Decides nothing.
//! - [`traces`]: spans of what is done for an execution, to a collector that was asked for.
//! - [`fairness`]: places that all namespaces share, so that none keeps the others waiting. Knows nothing of what they are for.
//! - [`output`]: what a command writes, redacted, counted whole, kept in bounded memory, shown live, stored whole.
//! - [`ssh`]: the only place that knows SSH. Knows no Kubernetes.
//! - [`launcher`]: what runs on the machine, in sh, and the words that it speaks. Pure.
//! - [`cluster`]: the API server, with a deadline on every call.
//! - [`fleet`]: reaching machines: connections, host trust, probes, what is known of each Machine. Runs no commands.
//! - [`runner`]: running executions: queues and tasks; claims, launches, follows, adopts, records.
//! - [`controllers`]: watch, read, decide, apply. Send nothing to a machine.
//! - [`cli`]: `writ explain`, `writ lint`, `writ output`: what a policy allows, whether it is sound, what a command wrote.
//! - [`cli::machine`]: `writ machine keyscan | check | setup`: what a person asks of a machine.
//! - [`operations`]: log lines, and the endpoints for who operates Writ.
//!
//! The binaries are `src/bin/writ` (flags, wiring, run) and `src/bin/crdgen` (the CRDs in `crds/`).
//!
//! # Features
//!
//! `operator` (default) is everything that runs commands, `cli` (default) what a person asks, `aws` (default), `gcp` and
//! `azure` are stores of whole outputs beside a folder, `otlp` (default) sends traces. Without features the crate is the pure core, for tools that
//! only read and write the objects: no tokio, no russh.

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
