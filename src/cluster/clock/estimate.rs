//! Estimate of the difference between a server's clock and this host's clock, with bounds. Pure: times are arguments.
//!
//! Each answer gives bounds, because the server writes its time in whole seconds. For example, this host sends a
//! request at 100.0 s, and receives the answer at 100.2 s. The answer contains the time 103 s. The server's clock is
//! then ahead:
//!
//! - by at least 103 s - 100.2 s = 2.8 s
//! - by at most 104 s - 100.0 s = 4.0 s
//!
//! The intersection of the bounds from several answers is narrower than a second.

/// Nanoseconds in a second.
pub(super) const SECOND: i128 = 1_000_000_000;
/// Maximum drift between the two clocks: 1 / `DRIFT` of the elapsed time, which is 1 ms per second. NTP slews a clock
/// by at most 0.5 ms per second.
const DRIFT: i128 = 1000;

/// Bounds for the difference between the clocks. The server's clock is ahead by at least `low` and at most `high`
/// nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Bounds {
    low: i128,
    high: i128,
}

impl Bounds {
    /// Returns the bounds from one answer. All times are in nanoseconds. `second` is the time that the server wrote,
    /// rounded down to a whole second.
    pub fn of(second: i128, sent: i128, received: i128) -> Self {
        let received = received.max(sent);
        Self { low: second - received, high: second + SECOND - sent }
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { low: self.low.max(other.low), high: self.high.min(other.high) };
        (both.low <= both.high).then_some(both)
    }

    fn widened(self, by: i128) -> Self {
        Self { low: self.low - by, high: self.high + by }
    }

    fn contain(self, ahead: i128) -> bool {
        (self.low..=self.high).contains(&ahead)
    }

    fn middle(self) -> i128 {
        self.low + (self.high - self.low) / 2
    }
}

/// Intersection of the bounds from one source, and the time of the last answer.
#[derive(Clone, Copy, Debug, Default)]
struct ProvenBounds(Option<(Bounds, i128)>);

impl ProvenBounds {
    fn at(self, now: i128) -> Option<Bounds> {
        let (bounds, at) = self.0?;
        Some(bounds.widened((now - at).max(0) / DRIFT))
    }

    /// Adds the bounds from one answer. If these bounds contradict the earlier bounds, replaces the earlier bounds and
    /// returns false. A contradiction means that somebody set one of the clocks.
    fn add(&mut self, bounds: Bounds, now: i128) -> bool {
        let before = self.at(now);
        let both = before.map_or(Some(bounds), |before| before.intersection(bounds));
        self.0 = Some((both.unwrap_or(bounds), now));
        both.is_some()
    }
}

/// Source of a time that the server wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cluster) enum Source {
    /// A time that the API server itself wrote into an object for this process.
    Write,
    /// The `Date` header of an answer. Perhaps a proxy has set this header by the proxy's own clock.
    Date,
}

/// Estimated difference, and the bounds from which it is computed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimate {
    writes: ProvenBounds,
    dates: ProvenBounds,
    /// True if the `Date` headers contradicted the time of this process's last write. A proxy then sets `Date` by its
    /// own clock, or replays old answers.
    are_dates_foreign: bool,
    ahead: Option<i128>,
}

impl Estimate {
    /// Adds the bounds from an answer. The new estimate is the first of these values that the bounds allow:
    ///
    /// 1. the earlier estimate
    /// 2. `own`: the difference according to this host's wall clock, in nanoseconds, which is more exact than whole
    ///    seconds
    /// 3. the bound that is nearest to the earlier estimate
    /// 4. for the first answer, the middle of the bounds
    pub fn add(&mut self, source: Source, bounds: Bounds, now: i128, own: i128) {
        match source {
            Source::Write if !self.writes.add(bounds, now) => self.dates = ProvenBounds::default(),
            Source::Date if !self.dates.add(bounds, now) && !self.are_dates_foreign => {
                self.writes = ProvenBounds::default()
            }
            Source::Write | Source::Date => {}
        }
        let (writes, dates) = (self.writes.at(now), self.dates.at(now));
        let both = match (writes, dates) {
            // If the bounds contradict each other, the bounds from writes count. The API server itself wrote these
            // times, like the creation times from which Writ computes ages.
            (Some(writes), Some(dates)) => {
                let both = writes.intersection(dates);
                if source == Source::Write {
                    self.are_dates_foreign = both.is_none();
                }
                both.or(Some(writes))
            }
            (writes, dates) => writes.or(dates),
        };
        let Some(bounds) = both else { return };
        self.ahead = Some(match self.ahead {
            Some(ahead) if bounds.contain(ahead) => ahead,
            _ if bounds.contain(own) => own,
            Some(ahead) => ahead.clamp(bounds.low, bounds.high),
            None => bounds.middle(),
        });
    }

    /// Returns the number of nanoseconds by which the server's clock is ahead. `None` before the first answer.
    pub fn ahead(&self) -> Option<i128> {
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: i128 = SECOND / 1000;
    /// Clearly wrong difference according to a host's clock. The estimate must not use this difference.
    const WRONG: i128 = -1_000_000 * SECOND;

    /// Server whose clock is ahead by `ahead` nanoseconds. Each of its answers takes 20 ms.
    struct Server {
        ahead: i128,
        estimate: Estimate,
    }

    impl Server {
        fn ahead(ahead: i128) -> Self {
            Self { ahead, estimate: Estimate::default() }
        }

        fn answers(&mut self, source: Source, at: i128) -> i128 {
            let written = (at + 10 * MILLISECOND + self.ahead).div_euclid(SECOND) * SECOND;
            let bounds = Bounds::of(written, at, at + 20 * MILLISECOND);
            self.estimate.add(source, bounds, at + 20 * MILLISECOND, WRONG);
            self.estimate.ahead().unwrap()
        }
    }

    #[test]
    fn one_answer_is_right_to_half_a_second_and_many_to_a_few_milliseconds() {
        for ahead in [-600 * SECOND - 1, 0, 333 * MILLISECOND, 600 * SECOND + 999 * MILLISECOND] {
            let mut server = Server::ahead(ahead);
            let first = server.answers(Source::Date, 5 * SECOND);
            assert!((first - ahead).abs() <= 520 * MILLISECOND, "{first} for {ahead}");
            for number in 0..200 {
                server.answers(Source::Date, 6 * SECOND + number * 37 * MILLISECOND);
            }
            let last = server.answers(Source::Write, 20 * SECOND);
            assert!((last - ahead).abs() <= 60 * MILLISECOND, "{last} for {ahead}");
        }
    }

    #[test]
    fn a_clock_of_the_host_that_may_be_right_is_taken_for_right() {
        let mut estimate = Estimate::default();
        let own = 400 * MILLISECOND;
        estimate.add(Source::Date, Bounds::of(0, 100, 200), 200, own);
        assert_eq!(estimate.ahead(), Some(own));
        // The estimate stays while the bounds include it, even if somebody sets the host's clock.
        estimate.add(Source::Date, Bounds::of(0, 300, 400), 400, own + SECOND / 4);
        assert_eq!(estimate.ahead(), Some(own));
        estimate.add(Source::Date, Bounds::of(SECOND, SECOND / 2, SECOND / 2), SECOND / 2, own + SECOND / 4);
        assert_eq!(estimate.ahead(), Some(own + SECOND / 4));
    }

    #[test]
    fn whole_seconds_are_no_jitter() {
        let mut server = Server::ahead(7 * SECOND + 420 * MILLISECOND);
        for number in 0..100 {
            server.answers(Source::Date, number * 37 * MILLISECOND);
        }
        let before = server.estimate.ahead();
        for number in 100..10_000 {
            let at = number * 37 * MILLISECOND;
            let moved = server.answers(Source::Date, at) - before.unwrap();
            assert!(moved.abs() <= 40 * MILLISECOND, "moved by {moved}");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_followed_by_the_next_answer_in_both_directions() {
        let mut server = Server::ahead(0);
        for (number, step) in [3600, -3600, 40, -40, 3].into_iter().enumerate() {
            let at = 100 * SECOND * i128::try_from(number).unwrap();
            server.answers(Source::Write, at);
            server.answers(Source::Date, at);
            server.ahead += step * SECOND;
            let ahead = server.answers(Source::Date, at + SECOND);
            assert!((ahead - server.ahead).abs() <= 520 * MILLISECOND + SECOND / 2, "{step}: {ahead}");
        }
    }

    #[test]
    fn a_slow_answer_moves_nothing() {
        let mut server = Server::ahead(90 * SECOND);
        server.answers(Source::Date, 0);
        let before = server.answers(Source::Date, 700 * MILLISECOND);
        let late = Bounds::of(92 * SECOND, SECOND, 9 * SECOND);
        server.estimate.add(Source::Date, late, 9 * SECOND, WRONG);
        assert_eq!(server.estimate.ahead(), Some(before));
    }

    #[test]
    fn a_proxy_with_a_clock_of_its_own_is_overruled_by_what_the_api_server_writes() {
        let mut server = Server::ahead(0);
        server.answers(Source::Write, 0);
        for number in 1..20 {
            server.ahead = 300 * SECOND;
            let ahead = server.answers(Source::Date, number * SECOND);
            assert!(ahead.abs() <= SECOND, "{ahead}");
            server.ahead = 0;
            let ahead = server.answers(Source::Write, number * SECOND + SECOND / 2);
            assert!(ahead.abs() <= SECOND, "{ahead}");
        }
        // A write overrules the `Date` headers even if it is the first write of this process.
        let mut server = Server::ahead(300 * SECOND);
        server.answers(Source::Date, 0);
        server.ahead = 0;
        assert!(server.answers(Source::Write, SECOND).abs() <= SECOND);
    }

    #[test]
    fn a_date_that_stands_still_is_overruled_whenever_it_comes() {
        let mut estimate = Estimate::default();
        for number in 0..100 {
            let at = number * 400 * MILLISECOND;
            estimate.add(Source::Date, Bounds::of(-900 * SECOND, at, at), at, WRONG);
            // The first estimate may be wrong, because this process has received only a wrong `Date` header and no
            // write yet.
            assert!(number == 0 || estimate.ahead().unwrap().abs() <= SECOND, "{number}: {:?}", estimate.ahead());
            if number % 10 == 0 {
                estimate.add(Source::Write, Bounds::of(at.div_euclid(SECOND) * SECOND, at, at), at, WRONG);
            }
        }
    }

    #[test]
    fn times_beyond_all_dates_are_no_overflow() {
        let mut estimate = Estimate::default();
        for second in [i128::from(i64::MAX), i128::from(i64::MIN), 0] {
            estimate.add(Source::Date, Bounds::of(second * SECOND, 0, -1), 0, WRONG);
            let now = i128::from(i64::MAX);
            estimate.add(Source::Write, Bounds::of(-second * SECOND, now, 1), now, WRONG);
        }
        assert!(estimate.ahead().is_some());
    }
}
