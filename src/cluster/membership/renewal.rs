//! Records the renewals of this process's Lease, and counts the uninterrupted periods in which the Lease was valid.

use std::time::Duration;

use crate::cluster::clock::{Clock, Moment};

/// Sequence number of an uninterrupted period in which the other processes considered this process alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseEpoch(u64);

/// Last renewal and current epoch of this process's Lease.
#[derive(Default)]
pub(super) struct Renewals {
    /// Time at which the last stored renewal was sent.
    last: Option<Moment>,
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
    /// Returns true if the last renewal is younger than `duration`, by both clocks of [`Moment`].
    pub fn is_current(&self, duration: Duration, clock: &Clock) -> bool {
        self.last.is_some_and(|last| clock.elapsed(last) < duration)
    }

    /// Returns the current epoch, or `None` if this process's Lease has perhaps expired.
    pub fn current_epoch(&self, duration: Duration, clock: &Clock) -> Option<LeaseEpoch> {
        self.is_current(duration, clock).then_some(LeaseEpoch(self.epoch))
    }

    /// Records a renewal that the API server has stored.
    pub fn record(&mut self, renewal: Moment, duration: Duration, clock: &Clock) -> Renewed {
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
