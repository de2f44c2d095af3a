//! When this process last renewed its own Lease, and the unbroken times in which it held one.

use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::clock::Clock;

/// An unbroken time in which the other processes considered this one alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseEpoch(u64);

/// The moment in which a renewal was sent, by two clocks. The kernel's clock runs while the host is suspended, but may
/// stand still while a hypervisor stops the host. The next answer of the API server corrects the other one after that.
#[derive(Clone, Copy)]
pub(super) struct RenewalTime {
    pub reading: i128,
    pub server: Timestamp,
}

impl RenewalTime {
    pub fn now(clock: &Clock) -> Self {
        Self { reading: clock.reading(), server: clock.now() }
    }
}

/// The renewals of the own Lease.
#[derive(Default)]
pub(super) struct Renewals {
    last: Option<RenewalTime>,
    /// Increases with each renewal that came too late.
    epoch: u64,
}

/// Result of a renewal for the time before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Renewed {
    /// The Lease was still valid.
    InTime,
    /// The first one of this process.
    First,
    /// The Lease may have been over: a new epoch starts.
    Late,
}

impl Renewals {
    /// Returns true if the last renewal is younger than `duration`, by both clocks.
    pub fn is_current(&self, duration: Duration, clock: &Clock) -> bool {
        self.last.is_some_and(|last| {
            let elapsed = u64::try_from(clock.reading() - last.reading).map_or(Duration::MAX, Duration::from_nanos);
            // Negative if the API server's clock was set back; then only the kernel's clock counts.
            let by_server = Duration::try_from(clock.now().duration_since(last.server)).unwrap_or(Duration::ZERO);
            elapsed < duration && by_server < duration
        })
    }

    /// Returns the current epoch; `None` if the Lease may be over.
    pub fn current_epoch(&self, duration: Duration, clock: &Clock) -> Option<LeaseEpoch> {
        self.is_current(duration, clock).then_some(LeaseEpoch(self.epoch))
    }

    /// Records a renewal that the API server has stored.
    pub fn record(&mut self, renewal: RenewalTime, duration: Duration, clock: &Clock) -> Renewed {
        let renewed = match self.last {
            Some(_) if self.is_current(duration, clock) => Renewed::InTime,
            Some(_) => Renewed::Late,
            None => Renewed::First,
        };
        if renewed != Renewed::InTime {
            self.epoch += 1;
        }
        self.last = Some(renewal);
        renewed
    }
}
