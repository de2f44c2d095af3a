//! Failures to remove an execution: the time of the next attempt, and the reports.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;

use crate::api::CommandExecution;
use crate::cluster::{ClusterError, EventPublisher, ExecutionKey};
use crate::output::StoreError;
use crate::telemetry::{BackgroundTask, metrics};

use super::event_dedup::RecentReports;

/// Delay before the next attempt if an execution needs manual action. Ten thousand such executions make about 70 calls
/// per second.
const BLOCKED_RETRY: Duration = Duration::from_secs(300);

/// Reason why an execution could not be removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemovalError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("execution kept: its stored output cannot be deleted; check the output store")]
    Store(#[from] StoreError),
    /// The receipt cannot be written or read, for example because of missing rights or a ResourceQuota.
    #[error("execution kept: its receipt cannot be written or read: {0}")]
    Receipt(#[source] ClusterError),
    /// The namespace has its maximum number of receipts.
    #[error(
        "execution kept although its TTL expired: the namespace has its maximum of {limit} ExecutionReceipts, and without \
         a receipt the same manifest would run again; delete receipts or raise --receipt-limit"
    )]
    ReceiptLimitReached {
        /// Maximum number of receipts.
        limit: u64,
    },
    /// The execution cannot be decoded, so its receipt cannot be written.
    #[error("execution kept: it cannot be read: {0}")]
    Unreadable(String),
}

impl RemovalError {
    /// Returns true if attempts for other executions would fail in the same way.
    pub fn is_systemic(&self) -> bool {
        matches!(self, Self::Cluster(ClusterError::Unavailable { .. }) | Self::Store(_))
    }

    /// Returns the error class for metrics, one of a fixed set.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(error) | Self::Receipt(error) => error.category(),
            Self::Store(_) => "store",
            Self::ReceiptLimitReached { .. } => "receipt_limit",
            Self::Unreadable(_) => "undecodable",
        }
    }

    /// Returns the delay before the next attempt.
    pub fn retry_after(&self) -> Duration {
        match self {
            // The execution changed during the attempt.
            Self::Cluster(ClusterError::Conflict { .. } | ClusterError::Invalid { .. }) => Duration::from_secs(2),
            Self::Cluster(ClusterError::Unavailable { .. } | ClusterError::NotFound { .. }) => Duration::from_secs(5),
            // The cause needs manual action.
            Self::Cluster(ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. }) => Duration::from_secs(30),
            Self::Store(_) => Duration::from_secs(10),
            Self::Cluster(ClusterError::TooLarge { .. })
            | Self::Receipt(_)
            | Self::ReceiptLimitReached { .. }
            | Self::Unreadable(_) => BLOCKED_RETRY,
        }
    }

    /// Returns the `reason` of the event that Writ publishes on the execution. Returns `None` if Writ only logs the
    /// failure.
    fn event(&self) -> Option<&'static str> {
        match self {
            Self::ReceiptLimitReached { .. } => Some("ReceiptLimitReached"),
            Self::Receipt(_) => Some("ReceiptRefused"),
            Self::Cluster(ClusterError::TooLarge { .. }) => Some("ObjectTooLarge"),
            Self::Cluster(_) | Self::Store(_) | Self::Unreadable(_) => None,
        }
    }
}

/// Reports executions that could not be removed.
pub(super) struct RemovalReporter {
    events: EventPublisher,
    /// Recently logged reports, by reason and namespace.
    logged: RecentReports,
    /// Recently published events, by reason and execution.
    published: RecentReports,
}

impl RemovalReporter {
    pub fn new(events: EventPublisher) -> Self {
        Self { events, logged: RecentReports::default(), published: RecentReports::default() }
    }

    /// Reports a failure:
    ///
    /// - A failure without an event reason: one log line for each attempt.
    /// - A failure with an event reason: per hour, one event for each execution, and one log line for each namespace.
    pub fn report(&mut self, key: &ExecutionKey, error: &RemovalError) {
        metrics().reconcile_failed(BackgroundTask::Retention.as_str(), error.category());
        let now = Instant::now();
        let event = error.event();
        if event.is_none_or(|event| self.logged.should_report(&format!("{event} {}", key.namespace), now)) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(execution = %key, uid = key.uid, %error, cause, "removal of an execution failed; retrying");
        }
        if let Some(event) = event.filter(|event| self.published.should_report(&format!("{event} {}", key.uid), now)) {
            self.events.publish_removal_blocked(reference(key), event, &error.to_string());
        }
    }
}

fn reference(key: &ExecutionKey) -> ObjectReference {
    ObjectReference {
        api_version: Some(CommandExecution::api_version(&()).into_owned()),
        kind: Some(CommandExecution::kind(&()).into_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(key.uid.clone()),
        ..ObjectReference::default()
    }
}
