//! When to look at a machine.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::Machine;

use super::{Seen, Sight};

/// The pause after the first failure, and the longest while executions wait. It doubles up to the interval: from 9.8 on sshd
/// locks addresses out that fail often (PerSourcePenalties).
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// How long until the machine is to be looked at; zero: now; None: not at all, as it is suspended, or nobody
/// wants it (`intervalSeconds: 0`).
///
/// `is_blocked`: what waits for it waits until a look has come through. `failures` is how many there were in a row, `spread` a number in 0..1, another for each look, which keeps machines apart
/// that were seen together.
pub fn next_look(
    machine: &Machine,
    sight: Option<&Sight>,
    failures: u32,
    is_waited_for: bool,
    is_blocked: bool,
    spread: f64,
    now: Timestamp,
) -> Option<Duration> {
    if machine.spec.suspend {
        return None;
    }
    let interval = Duration::from_secs(u64::from(machine.spec.probe.interval_seconds));
    let only_for_who_waits = interval.is_zero();
    if only_for_who_waits && !is_waited_for {
        return None;
    }
    let Some(sight) = sight.filter(|sight| sight.is_of(machine)) else { return Some(Duration::ZERO) };
    let pause = match &sight.seen {
        Seen::Online { .. } if is_blocked && is_waited_for => FIRST_PAUSE,
        Seen::Online { .. } if only_for_who_waits => return None,
        Seen::Online { .. } => interval,
        Seen::Problem(_) if is_waited_for => FIRST_PAUSE,
        Seen::Problem(_) => FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(interval),
    };
    // Up to a tenth less: the interval is the longest that it may take.
    let pause = pause.mul_f64(1.0 - 0.1 * spread.clamp(0.0, 1.0));
    let passed = Duration::try_from(now.duration_since(sight.at)).unwrap_or(Duration::ZERO);
    Some(pause.saturating_sub(passed))
}
