//! Randomness that spreads retries.

/// Returns a random number in 0..1. Not for cryptographic use.
pub(crate) fn jitter() -> f64 {
    fastrand::f64()
}
