//! Records the renewals of this process's Lease, and counts the uninterrupted periods in which the Lease was valid.

use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::clock::Clock;

/// Sequence number of an uninterrupted period in which the other processes considered this process alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseEpoch(u64);

/// Time at which a renewal was sent, by two clocks:
///
/// - `reading`: the kernel's clock, which also runs while the host is suspended. This clock can stop while a hypervisor
///   pauses the host.
/// - `server`: the estimated time of the API server. After such a pause, the next response of the API server corrects
///   the estimate.
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

/// Last renewal and current epoch of this process's Lease.
#[derive(Default)]
pub(super) struct Renewals {
    last: Option<RenewalTime>,
    /// Increases with the first renewal and with each late renewal.
    epoch: u64,
}

/// State of this process's Lease just before a renewal was recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Renewed {
    /// The Lease was still valid.
    InTime,
    /// This is the first renewal of this process.
    First,
    /// The Lease had perhaps expired. A new epoch starts.
    Late,
}

impl Renewals {
    /// Returns true if the last renewal is younger than `duration`, by both clocks of [`RenewalTime`].
    pub fn is_current(&self, duration: Duration, clock: &Clock) -> bool {
        self.last.is_some_and(|last| {
            let elapsed = u64::try_from(clock.reading() - last.reading).map_or(Duration::MAX, Duration::from_nanos);
            // If the API server's clock was set back, the difference is negative. Only the kernel's clock then counts.
            let by_server = Duration::try_from(clock.now().duration_since(last.server)).unwrap_or(Duration::ZERO);
            elapsed < duration && by_server < duration
        })
    }

    /// Returns the current epoch, or `None` if this process's Lease has perhaps expired.
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
