//! The clock for checks of certificates: the clock of this host, unless the process sets another clock.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

static CLOCK: OnceLock<Clock> = OnceLock::new();

/// Sets the clock for checks of certificates. `clock` returns seconds since 1970. Only the first call has an effect.
pub fn use_certificate_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) {
    let _ = CLOCK.set(Box::new(clock));
}

/// Returns the time in seconds since 1970.
pub(super) fn seconds_now() -> u64 {
    let of_this_host = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    CLOCK.get().map_or_else(of_this_host, |clock| clock())
}
