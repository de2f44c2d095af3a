//! Tests against a real API server, a real etcd and a real sshd. `writ serve` is a separate process.
//!
//! The tests share one control plane, except tests that would disturb others. Each test has its own namespace, sshd and
//! controller, so tests run in parallel and in any order. Tests read the events on a machine from that machine: from
//! the ledger of the login shell, and from the log of sshd.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what cannot be has to fail"
)]

#[path = "../../hack/lab/lab.rs"]
mod lab;

mod case;
mod clocks;
mod fake_sshd;
mod keys;
mod world;

mod acting;
mod addresses;
mod agreement;
mod api_keys;
mod audit;
mod bad_input;
mod brim;
mod bytes;
mod chaos;
mod chart;
mod crashes;
mod cutter;
mod durable;
mod examples;
mod explain;
mod fairness;
mod first_steps;
mod fleet;
mod freshness;
mod gateway;
mod gateway_identity;
mod gateway_sessions;
mod gitops;
mod guards;
mod guide;
mod host_keys;
mod hostile;
mod hostile_requests;
mod identity;
mod impostor;
mod interop;
mod key_forms;
mod kustomize;
mod large;
mod left_behind;
mod liars;
mod live_output;
mod load;
mod logins;
mod lost_answers;
mod lost_directory;
mod machines;
mod membership;
mod metadata;
mod nasty;
mod one_name;
mod operation;
mod output;
mod output_store;
mod policy;
mod protection;
mod proxy;
mod reading;
mod rebooted;
mod receipts;
mod refused_logins;
mod retention;
mod rights;
mod rotation;
mod run_as;
mod running;
mod secrets;
mod shared_watches;
mod stopping;
mod tenant;
mod tools;
mod trust;
mod unserved;
mod when_offline;
mod work;
