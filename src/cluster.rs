//! Calls to the API server, each with a deadline. The submodules:
//!
//! - read and write objects, and scan the executions of a namespace
//! - compile policies
//! - publish events
//! - renew the Lease of this process
//! - check if requesters can be trusted
//! - make calls on behalf of a requester, or as another ServiceAccount
//! - review the rights and the tokens of callers
//! - read and write the Secrets of API keys, and read and delete sessions of the gateway
//!
//! # Guarantees
//! 1. No call waits longer than its deadline. A task that shares a read (`coalesce`) perhaps waits for two of them.
//! 2. [`ClusterError::is_ambiguous`] distinguishes a write without an answer from a refused write. After a write
//!    without an answer, the caller reads the object to find the outcome.
//! 3. An object that cannot be decoded never affects other objects.
//! 4. The memory for answers is bounded (`gate`). Most metadata that users can make large is dropped (`lean`, `slim`).

mod acting;
mod api_key_admission;
mod api_keys;
mod client;
mod clock;
mod coalesce;
mod delivered;
mod error;
mod events;
mod execution_list;
mod forbidden;
mod gate;
mod gateway_sessions;
mod lean;
mod membership;
mod multi_namespace_watch;
mod objects;
mod operation;
mod own_token;
mod policies;
mod receipts;
mod removal;
mod requester_trust;
mod reviews;
mod secret;
mod self_review;
mod service_account;
mod shared_reads;
mod shared_watch;
mod slim;
mod ssh_secret;
mod status;
mod stored_api_key;

pub use acting::{Acting, ActingError, AsRequester, RequesterError, RequesterKind};
pub use api_key_admission::ApiKeyAdmission;
pub use api_keys::ListedApiKey;
pub use client::{ClientOptions, Cluster, ExecutionKey};
pub use delivered::DeliveredExecutions;
pub use error::ClusterError;
pub use events::EventPublisher;
pub use execution_list::{ExecutionRow, ExecutionScans, ExecutionSelection, RowContent};
pub use lean::{LeanExecution, LeanMetadata};
pub use membership::{LeaseEpoch, Member, Membership, OwnLease};
pub use multi_namespace_watch::log_watch_failure;
pub use operation::Operation;
pub use policies::{MAX_LIST_AGE, PolicyCache, compile as compile_object};
pub use requester_trust::{RequesterTrust, RequesterTrustChecker};
pub use reviews::{Right, TokenOwner};
pub use shared_watch::{Change, Removal, SharedWatch};
pub(crate) use slim::execution_resource;
pub use slim::{PAGE, Slim};
pub use ssh_secret::{SshKey, SshSecret};
pub use status::{FIELD_MANAGER, WriteOutcome};
pub use stored_api_key::{ApiKeyGrant, MAX_API_KEY_GROUPS, StoredApiKey, StoredKeyError, is_api_key_name};
