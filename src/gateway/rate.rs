//! Limits the number of commands that a caller creates in any 60 s, and of reads in any second. Pure: time is an
//! argument.
//!
//! A limiter keeps the time of each command of the last 60 s. A token bucket would be smaller, but it lets almost
//! twice the limit through: a full bucket at the start of a minute, and the refilled tokens at its end.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Time in which a caller may create its commands.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Time in which a caller may make its reads.
pub const READ_WINDOW: Duration = Duration::from_secs(1);
/// Number of callers after which the limiter removes callers without a command in its window. Each caller takes about
/// 400 bytes, or 1 KiB for reads.
const SWEEP_AT: usize = 4096;

/// Times of the commands, or of the reads, of each caller.
#[derive(Debug)]
pub struct RateLimiter {
    window: Duration,
    callers: HashMap<String, VecDeque<Instant>>,
    /// Number of callers at which the next sweep happens.
    sweep_at: usize,
}

impl Default for RateLimiter {
    /// Returns a limiter for commands.
    fn default() -> Self {
        Self::new(WINDOW)
    }
}

impl RateLimiter {
    /// Returns a limiter that counts the commands of the last `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, callers: HashMap::new(), sweep_at: 0 }
    }

    /// Counts `commands` commands of a caller, all or none.
    ///
    /// # Errors
    /// The caller would exceed `limit` commands in the window. Returns the time after which the same call succeeds, or
    /// the window if it never does because `commands` exceeds `limit`.
    pub fn take(&mut self, caller: &str, commands: usize, limit: usize, now: Instant) -> Result<(), Duration> {
        let window = self.window;
        if self.callers.len() >= self.sweep_at.max(SWEEP_AT) {
            self.callers.retain(|_, times| times.back().is_some_and(|last| now.duration_since(*last) < window));
            self.sweep_at = self.callers.len() * 2;
        }
        let times = self.callers.entry(caller.to_owned()).or_default();
        while times.front().is_some_and(|first| now.duration_since(*first) >= window) {
            times.pop_front();
        }
        if commands > limit {
            return Err(window);
        }
        let excess = (times.len() + commands).saturating_sub(limit);
        if let Some(freeing) = excess.checked_sub(1).and_then(|index| times.get(index)) {
            return Err(window.saturating_sub(now.duration_since(*freeing)));
        }
        times.extend(std::iter::repeat_n(now, commands));
        Ok(())
    }

    /// Returns the number of commands that the caller can still create now.
    pub fn remaining(&self, caller: &str, limit: usize, now: Instant) -> usize {
        let times = self.callers.get(caller).into_iter().flatten();
        limit.saturating_sub(times.filter(|time| now.duration_since(**time) < self.window).count())
    }

    /// Takes back one command of a caller that was counted at `counted`, because it created nothing.
    pub fn give_back(&mut self, caller: &str, counted: Instant) {
        let Some(times) = self.callers.get_mut(caller) else { return };
        if let Some(index) = times.iter().rposition(|time| *time == counted) {
            times.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 10;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_eleventh_in_any_minute_is_refused_with_the_time_that_is_left() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        for index in 0..10 {
            limiter.take("jane", 1, LIMIT, start + seconds(index)).unwrap();
        }
        assert_eq!(limiter.take("jane", 1, LIMIT, start + seconds(10)), Err(seconds(50)));
        assert_eq!(limiter.take("jane", 1, LIMIT, start + seconds(59)), Err(seconds(1)));
        limiter.take("jane", 1, LIMIT, start + seconds(60)).unwrap();
        assert_eq!(limiter.take("jane", 1, LIMIT, start + seconds(60)), Err(seconds(1)));
        limiter.take("joe", 1, LIMIT, start + seconds(60)).unwrap();
    }

    #[test]
    fn a_bulk_call_counts_all_of_its_commands_or_none() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        assert_eq!(limiter.take("jane", 11, LIMIT, start), Err(WINDOW));
        limiter.take("jane", 4, LIMIT, start).unwrap();
        limiter.take("jane", 4, LIMIT, start + seconds(20)).unwrap();
        assert_eq!(limiter.take("jane", 6, LIMIT, start + seconds(30)), Err(seconds(30)));
        assert_eq!(limiter.take("jane", 7, LIMIT, start + seconds(30)), Err(seconds(50)));
        limiter.take("jane", 2, LIMIT, start + seconds(30)).unwrap();
    }

    #[test]
    fn a_command_that_created_nothing_is_taken_back() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        limiter.take("jane", 10, LIMIT, start).unwrap();
        limiter.give_back("jane", start);
        limiter.give_back("jane", start + seconds(1));
        limiter.give_back("nobody", start);
        limiter.take("jane", 1, LIMIT, start).unwrap();
        assert!(limiter.take("jane", 1, LIMIT, start).is_err());
    }

    #[test]
    fn remaining_commands_count_only_the_window() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        assert_eq!(limiter.remaining("jane", LIMIT, start), 10);
        limiter.take("jane", 4, LIMIT, start).unwrap();
        assert_eq!(limiter.remaining("jane", LIMIT, start + seconds(59)), 6);
        assert_eq!(limiter.remaining("jane", 3, start), 0);
        assert_eq!(limiter.remaining("jane", LIMIT, start + seconds(60)), 10);
    }

    #[test]
    fn reads_count_in_a_window_of_their_own() {
        let (mut limiter, start) = (RateLimiter::new(READ_WINDOW), Instant::now());
        limiter.take("jane", 50, 50, start).unwrap();
        let half = Duration::from_millis(500);
        assert_eq!(limiter.take("jane", 1, 50, start + half), Err(half));
        limiter.take("jane", 50, 50, start + READ_WINDOW).unwrap();
    }

    #[test]
    fn callers_without_recent_commands_take_no_memory() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        for index in 0..20_000_u64 {
            let now = start + Duration::from_millis(index * 100);
            limiter.take(&format!("caller-{index}"), 1, LIMIT, now).unwrap();
        }
        assert!(limiter.callers.len() <= SWEEP_AT, "{}", limiter.callers.len());
    }
}
