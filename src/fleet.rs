//! Connects to machines, probes machines, and holds the state of each Machine. This module runs no commands.
//!
//! ```text
//! Machine, Secret, jump hosts --resolve--> ResolvedMachine --connect--> Open --pool--> SessionPermit
//!                                               |            (login limiter, pinned host key)   |
//!                                               +--probe--> observation                  inspect: TimedFacts
//!                                                               |                               |
//! ManagedMachine (settings, observation, back-off, connections) <-------------------- LauncherConnection
//! ```
//!
//! # Guarantees
//!
//! - Writ uses credentials only if the type, the label and the annotations of their Secret permit the use.
//! - Writ offers credentials only to a host that has proved its key.
//! - A slow or dead machine delays no other machine. Namespaces take turns for logins, for probes and for decrypting
//!   keys.
//! - Each Machine has one `ManagedMachine`. The queue and the Machine's status both read its state.

mod check;
mod connect;
mod connect_failure;
mod connection_pool;
mod counts;
mod credentials;
mod idle_connections;
mod inspect;
mod jitter;
mod launcher_connection;
mod launcher_refusal;
mod launcher_request;
mod launcher_support;
mod lock;
mod login_limiter;
mod machine_key;
mod machine_state;
mod machines;
mod memory;
mod pooled_connection;
mod probe;
mod prober;
mod resolved_machine;
mod shared;
mod system_info;
mod trust_on_first_use;
mod unexpected_output;

pub use check::{Step, check};
pub(crate) use connect::{CONNECT_DEADLINE, connect, online};
pub(crate) use connect_failure::{ConnectFailure, RETRY_AFTER_CHANGE, RETRY_AFTER_SILENCE};
pub use counts::RECOUNT_INTERVAL;
pub(crate) use counts::choose;
pub use credentials::parse as parse_credentials;
pub(crate) use inspect::TimedFacts;
pub(crate) use jitter::jitter;
pub(crate) use launcher_connection::{
    LauncherConnection, connect_and_open, connect_current, connect_launcher, open_control_session, try_open_existing,
};
pub(crate) use launcher_refusal::{FILES, explain_refusal};
pub(crate) use launcher_request::{LauncherError, REFUSED, closed, is_refused_cut, new_nonce, request, send};
pub(crate) use lock::lock;
pub(crate) use login_limiter::LoginLimiter;
pub(crate) use machine_key::MachineKey;
#[cfg(test)]
pub(crate) use machine_state::{INITIAL_BACKOFF, MAX_BACKOFF};
pub(crate) use machine_state::{SettingsChange, max_concurrent};
pub use machines::MachineWakes;
pub(crate) use machines::{Machines, ManagedMachine};
pub(crate) use pooled_connection::{OPEN_DEADLINE, Open};
pub(crate) use prober::Prober;
pub(crate) use resolved_machine::{ResolvedMachine, read_again, read_and_resolve};
pub(crate) use shared::{Fleet, key_of};
pub(crate) use unexpected_output::{RefusalCause, UnexpectedOutput};
