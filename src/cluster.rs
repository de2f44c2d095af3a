//! The API server, with a deadline on every call: live reads, compiled policies, status writes, removal, receipts, events, leases, who asks.
//!
//! The promises kept here: no call waits for ever; a write whose answer was lost is told apart from one that was
//! refused ([`ClusterError::is_ambiguous`]), so that the caller can settle it by a live read; an object that does not
//! decode is that object's fault alone; answers are taken in by turns (`gate`), and of what others may fill nothing is kept
//! (`lean`, `slim`).

mod client;
mod clock;
mod error;
mod events;
mod forbidden;
mod gate;
mod lean;
mod lease;
mod objects;
mod operation;
mod policies;
mod receipts;
mod removal;
mod secret;
mod sharing;
mod slim;
mod stamping;
mod status;

pub use client::{ClientOptions, Cluster, ExecutionKey};
pub use error::ClusterError;
pub use events::EventPublisher;
pub use lean::{LeanExecution, LeanMetadata};
pub use lease::{Holders, Standing};
pub use operation::Operation;
pub use policies::{Policies, compile as compile_object};
pub use secret::{SshKey, SshSecret};
pub use slim::{PAGE, Slim};
pub use stamping::{Stamping, Trust};
pub use status::{FIELD_MANAGER, WriteOutcome};
