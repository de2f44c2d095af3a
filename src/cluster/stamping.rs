//! Whether `spec.requestedBy` can be believed: the API server's admission has to stamp it, and Writ does not take that
//! on trust.
//!
//! The promise kept here: while a forged name is neither overwritten nor refused in a namespace, every requester there
//! counts as nobody. Before the first name of a namespace is believed, and again and again after that, dry-run creates
//! with forged names are made in it ([`probe`]).
//!
//! What was created before stamping was in force is not believed either: its age is that of the admission policies,
//! where they may be read, else it begins with this process. What this cannot see is a policy that is taken away and
//! put back between two checks; who can do that needs no forged name.

mod age;
mod probe;

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
use probe::Finding;

/// How long a finding that names cannot be believed holds: somebody may be mending it.
const LONGEST_DOUBT: Duration = Duration::from_secs(5);
/// After how many pauses a namespace that nobody asks about is forgotten.
const FORGOTTEN_AFTER: u32 = 10;

/// What is known of stamping. Clones share it.
#[derive(Clone)]
pub struct Stamping {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    /// How long a finding holds.
    pause: Duration,
    namespaces: Mutex<HashMap<String, Known>>,
    /// One namespace is checked at a time: those that wait for the same find it known.
    checking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Known {
    at: Instant,
    trust: Trust,
}

/// Whose names can be believed in a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Nobody's: a forged name got through.
    None(&'static str),
    /// It could not be tried, so it is not known: nobody is believed, and nothing is decided by it for good.
    Undecided(&'static str),
    /// Those of what was created after this time, by the API server's clock.
    Since(Timestamp),
}

impl Stamping {
    /// Knows nothing yet. A finding holds for `pause`.
    pub fn new(cluster: Cluster, pause: Duration) -> Self {
        let inner = Inner { cluster, pause, namespaces: Mutex::default(), checking: tokio::sync::Mutex::new(()) };
        Self { inner: Arc::new(inner) }
    }

    /// How long a finding holds.
    pub fn pause(&self) -> Duration {
        self.inner.pause
    }

    /// Who asks for an execution, as far as it can be believed.
    pub async fn identity<'a>(&self, execution: &'a CommandExecution) -> Identity<'a> {
        let Some(requester) = execution.spec.requested_by.as_ref().filter(|requester| !requester.username.is_empty())
        else {
            return Identity::Unknown;
        };
        let namespace = execution.namespace().unwrap_or_default();
        let created = execution.metadata.creation_timestamp.as_ref().map(|time| time.0);
        match self.trust(&namespace).await {
            Trust::Since(since) if created.is_some_and(|created| created > since) => Identity::Known(requester),
            Trust::Since(_) | Trust::None(_) => Identity::Unknown,
            Trust::Undecided(_) => Identity::Undecided,
        }
    }

    /// Whose names can be believed in a namespace, checked now or within the last pause.
    pub async fn trust(&self, namespace: &str) -> Trust {
        if let Some(known) = self.known(namespace).filter(|known| self.holds(known)) {
            return known.trust;
        }
        let _one_at_a_time = self.inner.checking.lock().await;
        let before = self.known(namespace);
        if let Some(known) = before.as_ref().filter(|known| self.holds(known)) {
            return known.trust.clone();
        }
        let before = before.map(|known| known.trust);
        let found = self.find_out(namespace, before.as_ref()).await;
        if before.as_ref() != Some(&found) {
            tell(namespace, &found);
        }
        self.remember(namespace, found.clone());
        found
    }

    /// Brings the metric of namespaces up to date.
    pub fn measure(&self) {
        let namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |is: fn(&Trust) -> bool| namespaces.values().filter(|known| is(&known.trust)).count();
        metrics().namespaces_by_stamping(
            count(|trust| matches!(trust, Trust::Since(_))),
            count(|trust| matches!(trust, Trust::None(_))),
            count(|trust| matches!(trust, Trust::Undecided(_))),
        );
    }

    fn known(&self, namespace: &str) -> Option<Known> {
        let namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace).cloned()
    }

    fn holds(&self, known: &Known) -> bool {
        let pause = match known.trust {
            Trust::Since(_) => self.inner.pause,
            Trust::None(_) | Trust::Undecided(_) => self.inner.pause.min(LONGEST_DOUBT),
        };
        known.at.elapsed() < pause
    }

    fn remember(&self, namespace: &str, trust: Trust) {
        let mut namespaces = self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.inner.pause.saturating_mul(FORGOTTEN_AFTER);
        namespaces.retain(|_, known| known.at.elapsed() < oldest);
        namespaces.insert(namespace.to_owned(), Known { at: Instant::now(), trust });
    }

    async fn find_out(&self, namespace: &str, before: Option<&Trust>) -> Trust {
        let now = match probe::find_out(&self.inner.cluster, namespace).await {
            Ok(Finding::Works { now }) => now,
            Ok(Finding::DoesNot(why)) => return Trust::None(why),
            Ok(Finding::CouldNotBeTried { why, refusal }) => {
                tracing::warn!(
                    namespace,
                    error = refusal,
                    "it could not be tried whether the API server stamps who asks"
                );
                return Trust::Undecided(why);
            }
            Err(error) => {
                tracing::warn!(namespace, %error, "it could not be tried whether the API server stamps who asks");
                // Nothing can be claimed either while it does not answer.
                return match before {
                    Some(before) => before.clone(),
                    None => Trust::Undecided("the API server did not answer"),
                };
            }
        };
        match age::in_force_since(&self.inner.cluster).await {
            Some(since) if since >= now => {
                Trust::Undecided("the admission policies that stamp who asks are being rolled out")
            }
            Some(since) => Trust::Since(since),
            // Not to be read: what was believed before still is, all else only from now on.
            None => match before {
                Some(Trust::Since(since)) => Trust::Since(*since),
                _ => Trust::Since(now),
            },
        }
    }
}

fn tell(namespace: &str, trust: &Trust) {
    match trust {
        Trust::None(why) | Trust::Undecided(why) => tracing::warn!(
            namespace,
            error = why,
            "who asks is not established: every requester counts as nobody, rules with subjects allow nothing; \
             install the chart with admission.install=true, or apply deploy/requester-1.36.yaml (deploy/requester-1.31.yaml on \
             Kubernetes 1.31 to 1.35)"
        ),
        Trust::Since(since) => {
            tracing::info!(namespace, %since, "the API server stamps who asks: subjects are in force");
        }
    }
}
