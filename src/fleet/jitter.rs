//! Randomness that spreads retries.

use std::hash::{BuildHasher as _, RandomState};

/// Returns a number in 0..1, as random as the seed of a hash map.
pub(crate) fn jitter() -> f64 {
    let hash = RandomState::new().hash_one(0u8);
    f64::from(u32::try_from(hash & 0xffff_ffff).unwrap_or(0)) / f64::from(u32::MAX)
}
