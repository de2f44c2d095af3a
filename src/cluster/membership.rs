//! Manages the members: `writ serve` processes that work together. Each process renews its own Lease, and reads the
//! Leases of the other processes.
//!
//! The Lease of a claim's holder shows if the holder is alive. All Leases together list the living members. Only the
//! claim, and not the Lease, prevents a second run of a command.
//!
//! The Lease of another process counts as expired if this process observed no change for the Lease's duration. This
//! process measures the time with its own monotonic clock. Wall clocks of different hosts are never compared.
//!
//! ```text
//! every third of the duration   renewal       own Lease: renewTime, address, view (digest of the members), leaving
//! once per duration             sweep         list of all Leases -> living members -> the view to publish (placement)
//! while a claim is checked      holder_fact   the holder's Lease, read every 5 s -> can the claim be adopted?
//! ```

mod leases;
mod observation;
mod renewal;
mod sweep;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::execution::HolderFact;
use crate::placement::Handover;
use crate::telemetry::{BackgroundTask, health, metrics};

use super::clock::{Clock, Source};
use super::{Cluster, ClusterError};
use leases::{Announcement, Leases};
use observation::{NO_VERSION, Observations};
use renewal::{Renewals, Renewed};

pub use leases::Member;
pub use renewal::LeaseEpoch;

/// Maximum gap between two reads of the Lease of a claim's holder. The usual gap is 5 s. During a longer gap, the API
/// server was perhaps unavailable, so that the holder could not renew the Lease. The measured time without a change
/// then restarts at 0.
const MAX_OBSERVATION_GAP: Duration = Duration::from_secs(8);

/// This process as one of the members.
pub struct Membership {
    leases: Leases,
    /// Identity of this process in its claims: namespace and name of its Lease. Leases of other processes can be in
    /// other namespaces.
    own_identity: String,
    /// Host and port at which this process serves requests of the other members.
    address: Option<String>,
    state: Mutex<State>,
    observations: Mutex<Observations>,
    /// Wakes the renewal when this process has new content for its Lease.
    announce: Notify,
}

struct State {
    renewals: Renewals,
    handover: Handover,
    members: Vec<Member>,
    is_leaving: bool,
}

/// Parameters of this process's Lease, for [`Membership::join`].
#[derive(Clone, Debug)]
pub struct OwnLease<'a> {
    /// Namespace of the Lease. The members are the processes with a Lease in this namespace.
    pub namespace: &'a str,
    /// Name of the Lease, unique for each process.
    pub name: &'a str,
    /// Time without a renewal after which the other processes consider this process dead.
    pub duration: Duration,
    /// Host and port at which this process serves requests of the other members. `None` if it serves no such requests.
    pub address: Option<String>,
}

impl Membership {
    /// Joins the members: creates the Lease of this process.
    ///
    /// # Errors
    /// The Lease cannot be written.
    pub async fn join(cluster: &Cluster, own: OwnLease<'_>) -> Result<Self, ClusterError> {
        let OwnLease { namespace, name, duration, address } = own;
        let own_identity = format!("{namespace}/{name}");
        let handover = Handover::new(own_identity.clone());
        let state = State { renewals: Renewals::default(), handover, members: Vec::new(), is_leaving: false };
        let membership = Self {
            leases: Leases {
                cluster: cluster.clone(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                duration,
            },
            own_identity,
            address,
            state: Mutex::new(state),
            observations: Mutex::default(),
            announce: Notify::new(),
        };
        membership.renew().await?;
        Ok(membership)
    }

    /// Returns the identity of this process in claims: namespace and name of its Lease.
    pub fn own_identity(&self) -> &str {
        &self.own_identity
    }

    /// Returns the time without a renewal after which the other processes consider this process dead.
    pub fn duration(&self) -> Duration {
        self.leases.duration
    }

    /// Returns the living members of the last list, including this process, sorted by identity. Empty before the first
    /// list. A crashed member stays listed for up to three Lease durations.
    pub fn members(&self) -> Vec<Member> {
        self.state().members.clone()
    }

    /// Renews the Lease, lists the members and removes expired Leases, until the future is dropped.
    pub async fn run(&self) {
        tokio::join!(self.renew_loop(), self.sweep_loop());
    }

    /// Announces to the other members that this process starts no more commands. An immediate renewal of the Lease
    /// publishes the announcement. The renewals continue until [`release`](Self::release), because commands can still
    /// run.
    pub fn leave(&self) {
        self.state().is_leaving = true;
        self.announce.notify_one();
    }

    /// Deletes this process's Lease. A failure is only logged.
    pub async fn release(&self) {
        if let Err(error) = self.leases.delete_own().await {
            tracing::warn!(%error, "own Lease not removed");
        }
    }

    /// Returns the current epoch: the number of the current period without a gap in the renewals. Two different results
    /// mean that the renewals had a gap between the two calls.
    ///
    /// Returns `None` while other processes perhaps consider this process dead. This process must then not claim an
    /// execution or start a command.
    pub fn current_epoch(&self) -> Option<LeaseEpoch> {
        self.state().renewals.current_epoch(self.leases.duration, self.clock())
    }

    /// Returns the state of a claim's holder, from a live read of the holder's Lease.
    ///
    /// # Errors
    /// The Lease cannot be read. The state of the holder is then unknown.
    pub async fn holder_fact(&self, holder: &str) -> Result<HolderFact, ClusterError> {
        if holder == self.own_identity {
            return Ok(HolderFact::Own);
        }
        let (namespace, name) = holder.split_once('/').unwrap_or((&self.leases.namespace, holder));
        let missing = || (NO_VERSION.to_owned(), self.leases.duration);
        let (version, duration) = self.leases.read(namespace, name).await?.unwrap_or_else(missing);
        let unchanged = self.observations().record(holder, &version, MAX_OBSERVATION_GAP);
        Ok(if unchanged > duration { HolderFact::Expired } else { HolderFact::MayBeAlive })
    }

    async fn renew_loop(&self) {
        // Each attempt takes at most a third of the Lease's duration. If one attempt fails, the next attempt still
        // renews the Lease in time.
        let share = self.leases.duration / 3;
        let mut turns = interval(share);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.announce.notified() => {}
            }
            health().heartbeat_within(BackgroundTask::Lease, self.leases.duration.saturating_mul(2));
            match timeout(share, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "own Lease not renewed"),
                Err(_) => tracing::warn!(timeout_ms = share.as_millis(), "own Lease not renewed in time"),
            }
        }
    }

    async fn sweep_loop(&self) {
        let mut turns = interval(self.leases.duration);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match sweep::sweep(&self.leases, &self.observations).await {
                Ok(members) => self.apply_members(members),
                Err(error) => tracing::debug!(%error, "Leases of all processes not listed"),
            }
        }
    }

    /// Records the listed members. If the digest of these members (the view) is not published yet, wakes the renewal,
    /// which publishes the view.
    fn apply_members(&self, members: Vec<Member>) {
        let mut state = self.state();
        let is_agreed = state.handover.is_agreed();
        state.handover.observe(&members.iter().map(Member::as_listed).collect::<Vec<_>>());
        if state.handover.unpublished().is_some() {
            self.announce.notify_one();
        }
        if state.handover.is_agreed() && !is_agreed {
            tracing::debug!(members = members.len(), "members agreed");
        }
        state.members = members;
    }

    async fn renew(&self) -> Result<(), ClusterError> {
        let (clock, duration) = (self.clock(), self.leases.duration);
        let (sent, renewal) = (Instant::now(), clock.moment());
        let announcement = self.prepare_announcement();
        let view = announcement.view.clone();
        if let Some(stored) = self.leases.write_own(renewal.server, announcement).await? {
            clock.record(Source::Write, stored, renewal.reading);
        }
        let mut state = self.state();
        match state.renewals.record(renewal, duration, clock) {
            Renewed::InTime => {
                if let Some(view) = view {
                    state.handover.confirm_published(&view);
                }
            }
            Renewed::First => {}
            Renewed::Late => {
                state.handover.restart();
                metrics().lease_gap();
            }
        }
        health().lease_renewed(sent.into_std(), duration);
        Ok(())
    }

    /// Returns the content of the next renewal.
    ///
    /// If this process's Lease has perhaps expired, other members have perhaps taken over this process's Machines and
    /// tasks. In this case, this function first gives up these Machines and tasks.
    fn prepare_announcement(&self) -> Announcement {
        let mut state = self.state();
        if !state.renewals.is_current(self.leases.duration, self.clock()) {
            state.handover.restart();
        }
        Announcement { address: self.address.clone(), view: state.handover.view(), is_leaving: state.is_leaving }
    }

    fn clock(&self) -> &Clock {
        &self.leases.cluster.clock
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observations(&self) -> MutexGuard<'_, Observations> {
        self.observations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
