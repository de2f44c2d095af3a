//! Delays between retries: each is twice the one before it, up to a maximum. Pure.
//!
//! The caller counts its failures and brings the random number, so the delays of a test are exact.

use std::time::Duration;

/// Delays that double, as a constant: `const RECONNECT: Backoff = Backoff::new(INITIAL_BACKOFF,
/// MAX_BACKOFF).with_jitter(0.25);`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: f64,
}

impl Backoff {
    /// Returns delays from `initial` to `max`, without jitter.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, jitter: 0.0 }
    }

    /// Returns the same delays with jitter: up to this share of a delay is added to it. Jitter keeps those apart that
    /// failed together, and is added to the maximum, too.
    #[must_use]
    pub const fn with_jitter(self, share: f64) -> Self {
        Self { jitter: share, ..self }
    }

    /// Returns the delay after a number of failures before this one: 0 for the first failure. `random` is a number from
    /// 0 to 1, and chooses the jitter.
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
