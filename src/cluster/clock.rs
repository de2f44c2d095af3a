//! Estimates the API server's clock. Writ uses the estimate for each time that it stores, and for each age that it
//! computes (docs/design/20261129-one-clock.md).
//!
//! The API server writes the creation times of objects. A time from this host's wall clock must never be compared with
//! a creation time, because the two clocks can differ.
//!
//! The answers of the API server contain its time. Between two answers, the kernel's clock since boot measures the
//! elapsed time. Nobody can set the clock since boot, and the clock since boot also runs while the host is suspended.

mod dates;
mod estimate;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::telemetry::{health, metrics};

pub(super) use dates::Dates;
pub(super) use estimate::Source;
use estimate::{Bounds, Estimate, SECOND};

/// Maximum duration, in nanoseconds, of a call whose answer may correct the estimate. After a slower call, the time in
/// the answer is too inexact.
const MAX_ROUND_TRIP: i128 = 5 * SECOND;
/// Maximum backward correction without a jump, in nanoseconds. After such a correction, the returned time stands still
/// until the corrected clock has caught up. After a larger correction, the returned time jumps back.
const MAX_STANDSTILL: i128 = 2 * SECOND;
/// Limit for the difference between this host's clock and the API server's clock, in seconds. Above this limit, Writ
/// logs a warning. The chart's alert has the same limit.
const WARN_ABOVE: f64 = 5.0;
/// Limit for the difference between this host's clock and the API server's clock after a warning, in seconds. Below
/// this limit, Writ reports that the clocks agree again.
const AGREE_BELOW: f64 = 4.0;
/// Minimum time between two warnings that this host's clock and the API server's clock differ. Without this minimum,
/// several API servers with different clocks could fill the log.
const MIN_WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Time after which Writ repeats the warning that this host's clock and the API server's clock differ.
const REPEAT_WARNING_AFTER: Duration = Duration::from_secs(3600);

/// Estimate of the API server's clock.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    estimate: Estimate,
    /// Last returned time, in nanoseconds since 1970.
    latest: Option<i128>,
    warned: Option<Warned>,
}

#[derive(Clone, Copy, Debug)]
struct Warned {
    at: Instant,
    offset: f64,
}

/// Log message: this host's clock and the API server's clock differ, or they agree again.
#[derive(Debug, PartialEq)]
enum OffsetChange {
    Differ,
    AgreeAgain,
}

/// One moment, by two clocks:
///
/// - `reading`: the kernel's clock, which also runs while the host is suspended. This clock can stop while a hypervisor
///   pauses the host.
/// - `server`: the estimated time of the API server. After such a pause, the next response of the API server corrects
///   the estimate.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub reading: i128,
    pub server: Timestamp,
}

impl Moment {
    /// Returns the later one of two moments.
    pub fn later(self, other: Self) -> Self {
        if other.reading > self.reading { other } else { self }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

impl Clock {
    /// Returns the time by the API server's clock. Before the API server's first answer, returns the time by this
    /// host's clock.
    pub fn now(&self) -> Timestamp {
        let reading = self.reading();
        self.state().now(reading).unwrap_or_else(Timestamp::now)
    }

    /// Returns the nanoseconds since an arbitrary start, by a clock that nobody can set.
    pub(super) fn reading(&self) -> i128 {
        boot_time().unwrap_or_else(|| nanoseconds(self.began.elapsed()))
    }

    /// Returns the present moment.
    pub(super) fn moment(&self) -> Moment {
        Moment { reading: self.reading(), server: self.now() }
    }

    /// Returns the time since a moment, by the clock of [`Moment`] that shows the longer time.
    pub(super) fn elapsed(&self, since: Moment) -> Duration {
        let by_kernel = u64::try_from(self.reading() - since.reading).map_or(Duration::MAX, Duration::from_nanos);
        // If the API server's clock was set back, the difference is negative. Only the kernel's clock then counts.
        let by_server = Duration::try_from(self.now().duration_since(since.server)).unwrap_or(Duration::ZERO);
        by_kernel.max(by_server)
    }

    /// Corrects the estimate with `time` from an answer of the API server. Only the whole seconds of `time` count.
    /// `sent` is the [`Clock::reading`] before the request.
    pub(super) fn record(&self, source: Source, time: Timestamp, sent: i128) {
        let received = self.reading();
        if received - sent > MAX_ROUND_TRIP {
            return;
        }
        let bounds = Bounds::of(time.as_nanosecond().div_euclid(SECOND) * SECOND, sent, received);
        let own_clock = Timestamp::now();
        let (api_server_clock, offset, news) = {
            let mut state = self.state();
            state.estimate.add(source, bounds, received, own_clock.as_nanosecond() - received);
            let Some(server) = state.now(received) else { return };
            let offset = own_clock.duration_since(server).as_secs_f64();
            (server, offset, state.offset_change(offset, Instant::now()))
        };
        metrics().clock_offset(offset);
        health().clock_offset(offset);
        match news {
            Some(OffsetChange::Differ) => tracing::warn!(
                %own_clock, %api_server_clock, offset_seconds = offset,
                "the clock of this host differs from the API server's: ages, deadlines and recorded times go by the API \
                 server's; correct the wrong one (NTP)"
            ),
            Some(OffsetChange::AgreeAgain) => tracing::info!(
                %own_clock, %api_server_clock, offset_seconds = offset,
                "the clock of this host agrees with the API server's again"
            ),
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&mut self, reading: i128) -> Option<Timestamp> {
        let now = reading + self.estimate.ahead()?;
        let now = self.latest.filter(|latest| (now..=now + MAX_STANDSTILL).contains(latest)).unwrap_or(now);
        self.latest = Some(now);
        let is_before_all = now < Timestamp::MIN.as_nanosecond();
        Some(Timestamp::from_nanosecond(now).unwrap_or(if is_before_all { Timestamp::MIN } else { Timestamp::MAX }))
    }

    fn offset_change(&mut self, offset: f64, now: Instant) -> Option<OffsetChange> {
        let Some(warned) = self.warned else {
            return (offset.abs() > WARN_ABOVE).then(|| self.warn(offset, now));
        };
        let since = now.saturating_duration_since(warned.at);
        if offset.abs() < AGREE_BELOW && since >= MIN_WARNING_INTERVAL {
            self.warned = None;
            return Some(OffsetChange::AgreeAgain);
        }
        let has_moved = (offset - warned.offset).abs() > WARN_ABOVE && since >= MIN_WARNING_INTERVAL;
        (offset.abs() > WARN_ABOVE && (has_moved || since >= REPEAT_WARNING_AFTER)).then(|| self.warn(offset, now))
    }

    fn warn(&mut self, offset: f64, at: Instant) -> OffsetChange {
        self.warned = Some(Warned { at, offset });
        OffsetChange::Differ
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX >> 1)
}

/// Returns the time since boot by the kernel's clock, including the time for which the host was suspended.
#[cfg(target_os = "linux")]
fn boot_time() -> Option<i128> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some(i128::from(time.tv_sec) * SECOND + i128::from(time.tv_nsec))
}

/// Returns `None`, so that [`Clock::reading`] uses [`Instant`] instead. [`Instant`] is sufficient, because only
/// short-lived command-line tools run on systems other than Linux.
#[cfg(not(target_os = "linux"))]
fn boot_time() -> Option<i128> {
    None
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn after(time: Timestamp, milliseconds: i64) -> Timestamp {
        time + SignedDuration::from_millis(milliseconds)
    }

    #[test]
    fn before_the_first_answer_it_is_this_hosts_clock_and_then_the_servers() {
        let clock = Clock::default();
        assert!(clock.now().duration_since(Timestamp::now()).abs() < SignedDuration::from_secs(5));
        let server = "2001-02-03T04:05:06Z".parse::<Timestamp>().unwrap();
        clock.record(Source::Date, server, clock.reading());
        let now = clock.now();
        assert!(now >= server && now < after(server, 60_000), "{now}");
    }

    #[test]
    fn an_answer_that_took_long_says_nothing() {
        let clock = Clock::default();
        let server = "2001-02-03T04:05:06Z".parse::<Timestamp>().unwrap();
        clock.record(Source::Date, server, clock.reading() - 6 * SECOND);
        assert!(clock.now() > after(server, 60_000));
    }

    #[test]
    fn a_small_correction_never_turns_time_back_and_a_large_one_does() {
        let (mut state, start) = (State::default(), 1_000_000 * SECOND);
        let take = |state: &mut State, ahead: i128, reading: i128| {
            state.estimate.add(Source::Date, Bounds::of(ahead, 0, 0), reading, i128::MAX);
            state.now(reading).unwrap()
        };
        let first = take(&mut state, start, 0);
        assert_eq!(take(&mut state, start - 2 * SECOND, SECOND / 2), first);
        assert!(take(&mut state, start - 2 * SECOND, 3 * SECOND) > first);
        assert!(take(&mut state, start - 600 * SECOND, 4 * SECOND) < first);
    }

    #[test]
    fn times_that_no_date_can_say_are_the_first_or_the_last() {
        for (ahead, expected) in [(i128::MAX >> 8, Timestamp::MAX), (i128::MIN >> 8, Timestamp::MIN)] {
            let mut state = State::default();
            state.estimate.add(Source::Date, Bounds::of(ahead, 0, 0), 0, 0);
            assert_eq!(state.now(0), Some(expected));
        }
    }

    #[test]
    fn a_difference_is_warned_of_once_and_again_after_an_hour_or_once_it_has_moved() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut news = |offset: f64, seconds: u64| state.offset_change(offset, start + Duration::from_secs(seconds));
        assert_eq!(news(4.9, 0), None);
        assert_eq!(news(-600.0, 1), Some(OffsetChange::Differ));
        assert_eq!(news(-600.4, 2), None);
        assert_eq!(news(600.0, 3), None);
        assert_eq!(news(600.0, 62), Some(OffsetChange::Differ));
        assert_eq!(news(600.0, 3000), None);
        assert_eq!(news(600.0, 3700), Some(OffsetChange::Differ));
        assert_eq!(news(4.5, 4000), None);
        assert_eq!(news(0.1, 4001), Some(OffsetChange::AgreeAgain));
        assert_eq!(news(0.1, 4002), None);
    }
}
