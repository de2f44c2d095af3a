//! Delays between retries. Each delay is twice the previous delay, up to a maximum. Pure.
//!
//! The caller counts the failures and passes a random number, so a test can expect exact delays.

use std::time::Duration;

/// Rule for delays that double. Define the rule as a constant: `const RECONNECT: Backoff =
/// Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF).with_jitter(0.25);`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: f64,
}

impl Backoff {
    /// Returns a rule with delays from `initial` to `max`, without jitter.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, jitter: 0.0 }
    }

    /// Returns the same rule with jitter: a random addition to each delay, at most `share` of the delay. Tasks that
    /// failed together then retry at different times. A delay with jitter can exceed the maximum.
    #[must_use]
    pub const fn with_jitter(self, share: f64) -> Self {
        Self { jitter: share, ..self }
    }

    /// Returns the delay after a failure. `earlier_failures` is the number of failures before this failure, 0 for the
    /// first. `random` is a number from 0 to 1 that determines the jitter.
    pub fn delay(&self, earlier_failures: u32, random: f64) -> Duration {
        let factor = 1_u32.checked_shl(earlier_failures).unwrap_or(u32::MAX);
        let delay = self.initial.saturating_mul(factor).min(self.max);
        delay.saturating_add(delay.mul_f64((self.jitter * random).clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

    #[test]
    fn delays_double_up_to_the_maximum_and_stay_there() {
        let seconds = [0, 1, 2, 3, 4, 31, 32, 33, u32::MAX].map(|failures| BACKOFF.delay(failures, 1.0).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10, 10, 10, 10]);
    }

    #[test]
    fn jitter_adds_up_to_its_share_to_the_maximum_too() {
        let backoff = BACKOFF.with_jitter(0.25);
        assert_eq!(backoff.delay(0, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(0, 1.0), Duration::from_millis(1250));
        assert_eq!(backoff.delay(9, 0.5), Duration::from_millis(11_250));
    }

    #[test]
    fn odd_numbers_break_nothing() {
        let huge = Backoff::new(Duration::MAX, Duration::MAX).with_jitter(0.5);
        assert_eq!(BACKOFF.with_jitter(0.5).delay(0, -1.0), Duration::from_secs(1));
        assert_eq!(BACKOFF.with_jitter(9.0).delay(0, 9.0), Duration::from_secs(2));
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).delay(40, 0.5), Duration::ZERO);
        assert!(huge.delay(3, 0.0) == Duration::MAX);
    }
}
