//! Why an execution could not be removed, when it is tried again, and who is told.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;

use crate::api::CommandExecution;
use crate::cluster::{ClusterError, EventPublisher, ExecutionKey};
use crate::output::StoreError;
use crate::telemetry::{BackgroundTask, metrics};

use super::told::Told;

/// When to look again at what has to stay until a person does something. Two calls each: ten thousand of them ask the API
/// server 70 times a second.
const WHERE_IT_STAYS: Duration = Duration::from_secs(300);

/// Why an execution could not be removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("its stored output could not be removed, so it stays")]
    Store(#[from] StoreError),
    /// Its receipt cannot be written or read, by lack of rights or a ResourceQuota.
    #[error("its receipt could not be written or read, so it stays: {0}")]
    Receipt(#[source] ClusterError),
    /// The namespace has as many receipts as it may have.
    #[error(
        "its time is over, but the namespace has {limit} ExecutionReceipts (writ serve --receipt-limit), so it stays: \
         without a receipt it would run again when it is applied again"
    )]
    NoRoom {
        /// How many that is.
        limit: u64,
    },
    /// It does not decode, so that no receipt of it can be made.
    #[error("it cannot be read, so it stays: {0}")]
    Unreadable(String),
}

impl Problem {
    /// Whether others would meet the same.
    pub fn concerns_all(&self) -> bool {
        matches!(self, Self::Cluster(ClusterError::Unavailable { .. }) | Self::Store(_))
    }

    /// One word for metrics, of a few.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(error) | Self::Receipt(error) => error.category(),
            Self::Store(_) => "store",
            Self::NoRoom { .. } => "receipt_limit",
            Self::Unreadable(_) => "undecodable",
        }
    }

    /// When to try again.
    pub fn pause(&self) -> Duration {
        match self {
            // It changed while it was looked at.
            Self::Cluster(ClusterError::Conflict { .. } | ClusterError::Invalid { .. }) => Duration::from_secs(2),
            Self::Cluster(ClusterError::Unavailable { .. } | ClusterError::NotFound { .. }) => Duration::from_secs(5),
            // A person has to do something.
            Self::Cluster(ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. }) => Duration::from_secs(30),
            Self::Store(_) => Duration::from_secs(10),
            Self::Cluster(ClusterError::TooLarge { .. })
            | Self::Receipt(_)
            | Self::NoRoom { .. }
            | Self::Unreadable(_) => WHERE_IT_STAYS,
        }
    }

    /// The reason of the event on the execution, where a person has to do something about it.
    fn event(&self) -> Option<&'static str> {
        match self {
            Self::NoRoom { .. } => Some("ReceiptLimitReached"),
            Self::Receipt(_) => Some("ReceiptRefused"),
            Self::Cluster(ClusterError::TooLarge { .. }) => Some("ObjectTooLarge"),
            Self::Cluster(_) | Self::Store(_) | Self::Unreadable(_) => None,
        }
    }
}

/// Tells what could not be removed.
pub(super) struct Teller {
    events: EventPublisher,
    /// Namespaces.
    logged: Told,
    /// Executions.
    published: Told,
}

impl Teller {
    pub fn new(events: EventPublisher) -> Self {
        Self { events, logged: Told::default(), published: Told::default() }
    }

    /// What stays for long is told once an hour: of each execution by an event, of each namespace in the log.
    pub fn tell(&mut self, key: &ExecutionKey, problem: &Problem) {
        metrics().reconcile_failed(BackgroundTask::Retention.as_str(), problem.category());
        let now = Instant::now();
        let event = problem.event();
        if event.is_none_or(|event| self.logged.is_news(&format!("{event} {}", key.namespace), now)) {
            let source = std::error::Error::source(problem).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                execution = %key, uid = key.uid, error = %problem, source,
                "a finished execution could not be removed; trying again"
            );
        }
        if let Some(event) = event.filter(|event| self.published.is_news(&format!("{event} {}", key.uid), now)) {
            self.events.publish_removal_blocked(reference(key), event, &problem.to_string());
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
