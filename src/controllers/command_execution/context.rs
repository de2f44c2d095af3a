//! Dependencies of the reconciles of executions.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::cluster::{Cluster, EventPublisher, ExecutionKey, Membership, PolicyCache, RequesterTrustChecker};
use crate::runner::Runner;

/// Dependencies of a reconcile.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// The compiled Whitelists.
    pub policies: Arc<PolicyCache>,
    /// Checks if `spec.requestedBy` can be trusted.
    pub stamping: RequesterTrustChecker,
    /// Runs the executions.
    pub runner: Runner,
    /// The living `writ serve` processes, by their Leases.
    pub holders: Arc<Membership>,
    /// Publishes events.
    pub events: EventPublisher,
    /// Time to wait for a missing Machine or rule before the execution is Rejected.
    pub grace_for_missing: Duration,
}

/// Returns the key that identifies an execution in the runner. `execution` can be the metadata alone.
pub(super) fn key_of(execution: &impl ResourceExt) -> ExecutionKey {
    ExecutionKey {
        namespace: execution.namespace().unwrap_or_default(),
        name: execution.name_any(),
        uid: execution.uid().unwrap_or_default(),
    }
}
