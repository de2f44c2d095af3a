//! Whether the holder of a claim is still there. Each process renews a Lease of its own; the Lease fences nothing (the
//! claim does), it only tells whether a claim has been left behind.
//!
//! Whether another's Lease is over is judged by watching it not change for its duration on one's own monotonic clock,
//! never by comparing wall clocks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::execution::HolderFact;

use crate::telemetry::{Loop, health, metrics};

use super::clock::{Clock, Source};
use super::{Cluster, ClusterError, Operation, PAGE};

/// The label by which Leases of this kind are found.
const LABEL: &str = "writ.dev/holder";
/// A Lease that did not change for so many durations is removed: its process is gone, and did not say goodbye.
const SWEEP_AFTER_DURATIONS: u32 = 4;
/// Where a Lease was not looked at for so long, its clock starts anew: an API server that was away shows the version from
/// before, and its process may only now be able to renew. A claim that may be left behind is looked at every 5 s.
const LONGEST_BLINK: Duration = Duration::from_secs(8);
/// By whom the Leases are written.
const MANAGER: &str = "writ";
/// The version of a Lease that is not there.
const ABSENT: &str = "";

/// This process among the others.
pub struct Holders {
    cluster: Cluster,
    /// Where the Lease of this process is.
    namespace: String,
    /// Its name.
    name: String,
    /// Both, as they stand in claims: others may keep theirs elsewhere.
    own: String,
    duration: Duration,
    state: Mutex<State>,
}

/// An unbroken time in which the others took this process for alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing(u64);

#[derive(Default)]
struct State {
    /// When our own Lease was last renewed.
    renewed: Option<Renewed>,
    /// Counted up when a renewal came too late.
    standing: u64,
    /// Of the others' Leases: what was seen.
    seen: HashMap<String, Sighting>,
}

/// When a renewal was sent, by two clocks. The kernel's goes on while the host is suspended, and may stand still while a
/// hypervisor keeps it from running; the API server's is brought up to date by the next answer after that.
#[derive(Clone, Copy)]
struct Renewed {
    reading: i128,
    server: Timestamp,
}

/// What was seen of another's Lease.
struct Sighting {
    version: String,
    /// Since when it has been this version, without looking away for long.
    since: Instant,
    /// When it was last looked at.
    last: Instant,
}

impl Sighting {
    /// Looks again, and says for how long it has been seen to be this version.
    fn look(&mut self, version: String, now: Instant, longest_blink: Duration) -> Duration {
        if self.version != version || now.saturating_duration_since(self.last) > longest_blink {
            *self = Self { version, since: now, last: now };
        }
        self.last = now;
        now.saturating_duration_since(self.since)
    }
}

impl State {
    /// Whether the last renewal is younger than `duration`, by both clocks.
    fn is_current(&self, duration: Duration, clock: &Clock) -> bool {
        self.renewed.is_some_and(|renewed| {
            let elapsed = u64::try_from(clock.reading() - renewed.reading).map_or(Duration::MAX, Duration::from_nanos);
            // Less than nothing if the API server's clock was set back; then the other one counts.
            let by_server = Duration::try_from(clock.now().duration_since(renewed.server)).unwrap_or(Duration::ZERO);
            elapsed < duration && by_server < duration
        })
    }
}

impl Holders {
    /// Announces this process by a Lease `name`. Others take it for gone after `duration` without a sign of life.
    ///
    /// # Errors
    /// The Lease cannot be written.
    pub async fn announce(
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        duration: Duration,
    ) -> Result<Self, ClusterError> {
        let holders = Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            own: format!("{namespace}/{name}"),
            duration,
            state: Mutex::default(),
        };
        holders.renew().await?;
        Ok(holders)
    }

    /// The name of this process, as it stands in claims: namespace and name of its Lease.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// After how long without a sign of life the others take this process for gone.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Renews the Lease and removes others' that are long over, until it is dropped.
    pub async fn keep(&self) {
        tokio::join!(self.keep_own(), self.keep_clean());
    }

    async fn keep_own(&self) {
        // Three tries within the duration, none longer than its share, so that one lost call is no lost Lease.
        let share = self.duration / 3;
        let mut turns = interval(share);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            health().beat_for(Loop::Lease, self.duration.saturating_mul(2));
            match timeout(share, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease of this process could not be renewed"),
                Err(_) => tracing::warn!("the Lease of this process could not be renewed in time"),
            }
        }
    }

    async fn keep_clean(&self) {
        let mut turns = interval(self.duration);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::debug!(%error, "Leases that are over could not be removed");
            }
        }
    }

    /// Takes the Lease back.
    pub async fn leave(&self) {
        let api = self.api(&self.namespace);
        let parameters = DeleteParams::default();
        if let Err(error) = self
            .cluster
            .call(Operation::DeleteLease, "the Lease of this process", api.delete(&self.name, &parameters))
            .await
        {
            tracing::warn!(%error, "the Lease of this process could not be removed");
        }
    }

    /// Whether the others still take this process for alive: while they may not, it must claim and start nothing.
    /// Some other value than before says that there was a gap in between.
    pub fn standing(&self) -> Option<Standing> {
        let state = self.state();
        state.is_current(self.duration, &self.cluster.clock).then_some(Standing(state.standing))
    }

    /// Whether the holder of a claim is there.
    ///
    /// # Errors
    /// Its Lease cannot be read: nothing is known.
    pub async fn fact(&self, holder: &str) -> Result<HolderFact, ClusterError> {
        if holder == self.own {
            return Ok(HolderFact::Own);
        }
        let (namespace, name) = holder.split_once('/').unwrap_or((&self.namespace, holder));
        let (version, duration) = match self
            .cluster
            .call(Operation::ReadLeases, format!("the Lease {holder}"), self.api(namespace).get(name))
            .await
        {
            Ok(lease) => (lease.metadata.resource_version.clone().unwrap_or_default(), self.duration_of(&lease)),
            Err(ClusterError::NotFound { .. }) => (ABSENT.to_owned(), self.duration),
            Err(error) => return Err(error),
        };
        let unchanged = self.note(holder, version, LONGEST_BLINK);
        Ok(if unchanged > duration { HolderFact::Expired } else { HolderFact::MayBeAlive })
    }

    /// How long a Lease holds: what its process says, and at least what this one would say.
    fn duration_of(&self, lease: &Lease) -> Duration {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        self.duration.max(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    /// Notes the version of a Lease, and says for how long it has been seen to be this one.
    fn note(&self, holder: &str, version: String, longest_blink: Duration) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        let fresh = || Sighting { version: version.clone(), since: now, last: now };
        state.seen.entry(holder.to_owned()).or_insert_with(fresh).look(version, now, longest_blink)
    }

    async fn renew(&self) -> Result<(), ClusterError> {
        let clock = &self.cluster.clock;
        let (sent, renewing) = (Instant::now(), Renewed { reading: clock.reading(), server: clock.now() });
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.name.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                renew_time: Some(MicroTime(renewing.server)),
                ..LeaseSpec::default()
            }),
        };
        let parameters = PatchParams::apply(MANAGER).force();
        let api = self.api(&self.namespace);
        let patch = Patch::Apply(&lease);
        let call = api.patch(&self.name, &parameters, &patch);
        let renewed = self.cluster.call(Operation::RenewLease, "the Lease of this process", call).await?;
        if let Some(written) = written_by_us(&renewed) {
            clock.heard(Source::Write, written, renewing.reading);
        }
        let mut state = self.state();
        if !state.is_current(self.duration, clock) {
            if state.renewed.is_some() {
                metrics().lease_gap();
            }
            state.standing += 1;
        }
        state.renewed = Some(renewing);
        health().lease_renewed(sent.into_std(), self.duration);
        Ok(())
    }

    async fn sweep(&self) -> Result<(), ClusterError> {
        let api = self.api(&self.namespace);
        let mut selector = ListParams::default().labels(LABEL).limit(PAGE);
        loop {
            let call = api.list(&selector);
            let page = self.cluster.call(Operation::ReadLeases, "the Leases of all processes", call).await?;
            self.sweep_page(&api, page.items).await?;
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => selector = selector.continue_token(&more),
                None => break,
            }
        }
        // What is not looked at any more is forgotten; looking again starts its clock anew in any case.
        let longest = self.duration.saturating_mul(SWEEP_AFTER_DURATIONS);
        self.state().seen.retain(|_, seen| seen.last.elapsed() < longest);
        Ok(())
    }

    async fn sweep_page(&self, api: &Api<Lease>, leases: Vec<Lease>) -> Result<(), ClusterError> {
        for lease in leases {
            let duration = self.duration_of(&lease);
            let name = lease.metadata.name.unwrap_or_default();
            let version = lease.metadata.resource_version.unwrap_or_default();
            let unchanged = self.note(&format!("{}/{name}", self.namespace), version.clone(), self.duration * 2);
            if unchanged > duration.saturating_mul(SWEEP_AFTER_DURATIONS) && name != self.name {
                // Only if it still is what was seen: its process may have come back just now.
                let condition = Preconditions { resource_version: Some(version), uid: None };
                let parameters = DeleteParams::default().preconditions(condition);
                match self
                    .cluster
                    .call(Operation::DeleteLease, format!("the Lease {name}"), api.delete(&name, &parameters))
                    .await
                {
                    Ok(_) | Err(ClusterError::NotFound { .. } | ClusterError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, namespace: &str) -> Api<Lease> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }
}

/// When the API server stored the last renewal, by its own clock.
fn written_by_us(lease: &Lease) -> Option<Timestamp> {
    let writes = lease.metadata.managed_fields.iter().flatten();
    let ours = writes.filter(|write| write.manager.as_deref() == Some(MANAGER));
    ours.filter_map(|write| Some(write.time.as_ref()?.0)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at these versions at these seconds, and says how old the last one is then.
    fn age_after(looks: &[(u64, &str)]) -> Duration {
        let start = Instant::now();
        let mut sighting = Sighting { version: "1".to_owned(), since: start, last: start };
        let mut age = Duration::ZERO;
        for (second, version) in looks {
            age = sighting.look((*version).to_owned(), start + Duration::from_secs(*second), LONGEST_BLINK);
        }
        age
    }

    #[test]
    fn a_lease_that_is_seen_not_to_change_grows_old() {
        assert_eq!(age_after(&[(5, "1"), (10, "1"), (16, "1")]), Duration::from_secs(16));
    }

    #[test]
    fn a_lease_that_changes_is_young_again_and_so_is_one_that_goes_or_comes_back() {
        assert_eq!(age_after(&[(5, "1"), (10, "2"), (15, "2")]), Duration::from_secs(5));
        assert_eq!(age_after(&[(5, "1"), (10, ABSENT), (12, ABSENT)]), Duration::from_secs(2));
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        // The API server was away for 20 s: the first look after that still shows the version from before.
        assert_eq!(age_after(&[(5, "1"), (25, "1")]), Duration::ZERO);
        assert_eq!(age_after(&[(5, "1"), (25, "1"), (30, "2"), (31, "2")]), Duration::from_secs(1));
    }
}
