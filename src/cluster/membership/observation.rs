//! Measures the time for which Leases of other processes have been unchanged, by this process's monotonic clock.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Version that stands for a Lease that does not exist.
pub(super) const NO_VERSION: &str = "";

/// Observed Leases, by `namespace/name`.
#[derive(Default)]
pub(super) struct Observations {
    by_holder: HashMap<String, LeaseObservation>,
}

/// Current version of a Lease, and the time since which the Lease has had this version.
struct LeaseObservation {
    version: String,
    /// Time of the first observation of this version. After a gap of more than `max_gap`, time of the first observation
    /// after the gap.
    since: Instant,
    /// Time of the last observation.
    last: Instant,
}

impl LeaseObservation {
    /// Records a version. Returns the time for which the Lease has had this version.
    ///
    /// If the last observation was more than `max_gap` ago, the returned time restarts at 0. During such a gap, the API
    /// server was perhaps unavailable, so that the holder could not renew the Lease.
    fn observe(&mut self, version: String, now: Instant, max_gap: Duration) -> Duration {
        if self.version != version || now.saturating_duration_since(self.last) > max_gap {
            *self = Self { version, since: now, last: now };
        }
        self.last = now;
        now.saturating_duration_since(self.since)
    }
}

impl Observations {
    /// Records the version of a Lease. Returns the time for which the Lease has been observed with this version.
    pub fn record(&mut self, holder: &str, version: &str, max_gap: Duration) -> Duration {
        let now = Instant::now();
        let first = || LeaseObservation { version: version.to_owned(), since: now, last: now };
        self.by_holder.entry(holder.to_owned()).or_insert_with(first).observe(version.to_owned(), now, max_gap)
    }

    /// Removes the entries of Leases that were not observed for `age`. `age` must be at least the maximum gap of
    /// [`Self::record`], so that the removal changes no result.
    pub fn evict_older_than(&mut self, age: Duration) {
        self.by_holder.retain(|_, observation| observation.last.elapsed() < age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_GAP: Duration = Duration::from_secs(8);

    /// Observes versions of a Lease, each at the given number of seconds. Returns the result of the last observation:
    /// the time for which the Lease was unchanged.
    fn age_after(observations: &[(u64, &str)]) -> Duration {
        let start = Instant::now();
        let mut lease = LeaseObservation { version: "1".to_owned(), since: start, last: start };
        let mut age = Duration::ZERO;
        for (second, version) in observations {
            age = lease.observe((*version).to_owned(), start + Duration::from_secs(*second), MAX_GAP);
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
        assert_eq!(age_after(&[(5, "1"), (10, NO_VERSION), (12, NO_VERSION)]), Duration::from_secs(2));
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        // The API server was unavailable for 20 s. The first observation after the outage still shows the old version,
        // but the measured time restarts at 0.
        assert_eq!(age_after(&[(5, "1"), (25, "1")]), Duration::ZERO);
        assert_eq!(age_after(&[(5, "1"), (25, "1"), (30, "2"), (31, "2")]), Duration::from_secs(1));
    }
}
