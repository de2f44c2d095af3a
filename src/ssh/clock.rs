//! The clock by which the validity of certificates is judged: this host's, unless the process names a better one.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

static CLOCK: OnceLock<Clock> = OnceLock::new();

/// Judges certificates by this clock from now on, in seconds since 1970. Only the first call counts.
pub fn judge_certificates_by(clock: impl Fn() -> u64 + Send + Sync + 'static) {
    let _ = CLOCK.set(Box::new(clock));
}

/// Seconds since 1970.
pub(super) fn seconds_now() -> u64 {
    let of_this_host = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    CLOCK.get().map_or_else(of_this_host, |clock| clock())
}
