//! Checks if Writ can trust `spec.requestedBy`. An admission policy must set this field to the authenticated user.
//!
//! # Guarantees
//! 1. While the API server accepts a forged requester in a namespace, no requester of this namespace counts as
//!    verified. Writ tries dry-run creates with forged requesters ([`dry_run`]) before it trusts a requester of a
//!    namespace, and then regularly.
//! 2. Writ does not trust the requester of an execution that is older than the admission policies. If Writ may not read
//!    the policies, the execution must be younger than the first successful check of its namespace.
//!
//! # Caveats
//! Writ does not detect that a policy was removed and restored between two checks. A user with the right to remove
//! policies does not need to forge a requester.

mod dry_run;
mod policy_age;
mod session_dry_run;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::api::CommandExecution;
use crate::policy::Identity;
use crate::telemetry::metrics;

use super::Cluster;
use dry_run::DryRunResult;
use policy_age::StampedKind;

pub(super) use policy_age::PROPAGATION_DELAY;

/// Interval between checks of a namespace whose requesters are not trusted. The interval is short, so that Writ soon
/// detects a repair by an administrator.
const UNTRUSTED_RECHECK: Duration = Duration::from_secs(5);
/// Number of recheck intervals without a new check after which Writ removes the result for a namespace.
const EVICT_AFTER_INTERVALS: u32 = 10;

/// Results of the checks of one kind, by namespace. Clones share the results.
#[derive(Clone)]
pub struct RequesterTrustChecker {
    inner: Arc<CheckerInner>,
}

struct CheckerInner {
    cluster: Cluster,
    kind: StampedKind,
    /// Maximum time for which a result is valid. A result without trust is valid for at most [`UNTRUSTED_RECHECK`].
    recheck_interval: Duration,
    namespaces: Mutex<HashMap<String, CachedTrust>>,
    /// Locked during a check, so that only one check runs. If a task that waits for the lock needs the same namespace,
    /// the task uses the result of this check.
    checking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct CachedTrust {
    at: Instant,
    trust: RequesterTrust,
}

/// Trust in the requesters of a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequesterTrust {
    /// No requester is trusted, because the API server accepted a forged requester.
    Untrusted(&'static str),
    /// The check was not possible. No requester is trusted, and Writ must not make a final decision.
    Undecided(&'static str),
    /// Requesters are trusted if their execution was created after this time, by the API server's clock.
    Since(Timestamp),
}

impl RequesterTrustChecker {
    /// Returns a checker of CommandExecutions, without results. A result is valid for at most `recheck_interval`.
    pub fn new(cluster: Cluster, recheck_interval: Duration) -> Self {
        Self::of(StampedKind::Execution, cluster, recheck_interval)
    }

    /// Returns a checker of GatewaySessions, with the same rights and the same interval. `trust` is its only use.
    #[must_use]
    pub fn for_sessions(&self) -> Self {
        Self::of(StampedKind::Session, self.inner.cluster.clone(), self.inner.recheck_interval)
    }

    fn of(kind: StampedKind, cluster: Cluster, recheck_interval: Duration) -> Self {
        let inner = CheckerInner {
            cluster,
            kind,
            recheck_interval,
            namespaces: Mutex::default(),
            checking: tokio::sync::Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the maximum time for which a result is valid.
    pub fn recheck_interval(&self) -> Duration {
        self.inner.recheck_interval
    }

    /// Returns the requester of an execution: `Known` if the requester is verified, `Undecided` if the check was not
    /// possible, else `Unknown`.
    pub async fn identity<'a>(&self, execution: &'a CommandExecution) -> Identity<'a> {
        let Some(requester) = execution.spec.requested_by.as_ref().filter(|requester| !requester.username.is_empty())
        else {
            return Identity::Unknown;
        };
        let namespace = execution.namespace().unwrap_or_default();
        let created = execution.metadata.creation_timestamp.as_ref().map(|time| time.0);
        match self.trust(&namespace).await {
            RequesterTrust::Since(since) if created.is_some_and(|created| created > since) => {
                Identity::Known(requester)
            }
            RequesterTrust::Since(_) | RequesterTrust::Untrusted(_) => Identity::Unknown,
            RequesterTrust::Undecided(_) => Identity::Undecided,
        }
    }

    /// Returns the trust in a namespace's requesters. Checks the namespace first if the last result is no longer valid.
    pub async fn trust(&self, namespace: &str) -> RequesterTrust {
        if let Some(known) = self.known(namespace).filter(|known| self.holds(known)) {
            return known.trust;
        }
        let _one_at_a_time = self.inner.checking.lock().await;
        let before = self.known(namespace);
        if let Some(known) = before.as_ref().filter(|known| self.holds(known)) {
            return known.trust.clone();
        }
        let before = before.map(|known| known.trust);
        let found = self.verify(namespace, before.as_ref()).await;
        if before.as_ref() != Some(&found) {
            log_change(self.inner.kind, namespace, &found);
        }
        self.remember(namespace, found.clone());
        found
    }

    /// Updates the gauges that count namespaces by their trust.
    pub fn measure(&self) {
        let namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |is: fn(&RequesterTrust) -> bool| namespaces.values().filter(|known| is(&known.trust)).count();
        metrics().namespaces_by_stamping(
            count(|trust| matches!(trust, RequesterTrust::Since(_))),
            count(|trust| matches!(trust, RequesterTrust::Untrusted(_))),
            count(|trust| matches!(trust, RequesterTrust::Undecided(_))),
        );
    }

    fn known(&self, namespace: &str) -> Option<CachedTrust> {
        let namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace).cloned()
    }

    fn holds(&self, known: &CachedTrust) -> bool {
        let pause = match known.trust {
            RequesterTrust::Since(_) => self.inner.recheck_interval,
            RequesterTrust::Untrusted(_) | RequesterTrust::Undecided(_) => {
                self.inner.recheck_interval.min(UNTRUSTED_RECHECK)
            }
        };
        known.at.elapsed() < pause
    }

    fn remember(&self, namespace: &str, trust: RequesterTrust) {
        let mut namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.inner.recheck_interval.saturating_mul(EVICT_AFTER_INTERVALS);
        namespaces.retain(|_, known| known.at.elapsed() < oldest);
        namespaces.insert(namespace.to_owned(), CachedTrust { at: Instant::now(), trust });
    }

    async fn verify(&self, namespace: &str, before: Option<&RequesterTrust>) -> RequesterTrust {
        let verified = match self.inner.kind {
            StampedKind::Execution => dry_run::verify(&self.inner.cluster, namespace).await,
            StampedKind::Session => session_dry_run::verify(&self.inner.cluster, namespace).await,
        };
        let now = match verified {
            Ok(DryRunResult::Enforced { now }) => now,
            Ok(DryRunResult::Forgeable(why)) => return RequesterTrust::Untrusted(why),
            Ok(DryRunResult::Inconclusive { why, refusal }) => {
                tracing::warn!(namespace, error = refusal, "requester check inconclusive");
                return RequesterTrust::Undecided(why);
            }
            Err(error) => {
                tracing::warn!(namespace, %error, "requester check inconclusive");
                // Keeps the earlier result. Writ cannot claim an execution anyway while the API server does not answer.
                return match before {
                    Some(before) => before.clone(),
                    None => RequesterTrust::Undecided("the API server did not answer"),
                };
            }
        };
        match policy_age::in_force_since(&self.inner.cluster, self.inner.kind).await {
            Some(since) if since >= now => {
                RequesterTrust::Undecided("the admission policies that stamp who asks are being rolled out")
            }
            Some(since) => RequesterTrust::Since(since),
            // The policies cannot be read. If Writ already trusted requesters of the namespace, this trust stays. If
            // not, Writ trusts the requesters of executions that are created from now on.
            None => match before {
                Some(RequesterTrust::Since(since)) => RequesterTrust::Since(*since),
                _ => RequesterTrust::Since(now),
            },
        }
    }
}

fn log_change(kind: StampedKind, namespace: &str, trust: &RequesterTrust) {
    match trust {
        RequesterTrust::Untrusted(why) | RequesterTrust::Undecided(why) if kind == StampedKind::Session => {
            tracing::warn!(
                namespace,
                error = why,
                "creators of GatewaySessions not verified: the gateway accepts no session; install the chart with \
                 admission.install=true, or apply deploy/guards.yaml and deploy/requester-1.36.yaml"
            );
        }
        RequesterTrust::Since(since) if kind == StampedKind::Session => {
            tracing::info!(namespace, %since, "creators of GatewaySessions verified");
        }
        RequesterTrust::Untrusted(why) | RequesterTrust::Undecided(why) => tracing::warn!(
            namespace,
            error = why,
            "requesters not verified: rules with subjects allow nothing, and a Deny with subjects applies to everybody; \
             install the chart with admission.install=true, or apply deploy/requester-1.36.yaml (deploy/requester-1.31.yaml on \
             Kubernetes 1.31 to 1.35)"
        ),
        RequesterTrust::Since(since) => {
            tracing::info!(namespace, %since, "requesters verified: rules with subjects are in force");
        }
    }
}
