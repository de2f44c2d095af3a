//! Closes connections that no task uses. docs/design/20261130-idle-connections.md explains the limits.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection_pool::close_all;
use super::memory::is_scarce;
use super::shared::Fleet;

/// Time after which an unused connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

impl Fleet {
    /// Closes unused connections at each [`SWEEP_INTERVAL`]: those that were unused for [`IDLE_TIMEOUT`], and, if
    /// memory is scarce, the half that was unused for longest. Never returns.
    pub async fn evict_idle_loop(&self) {
        let mut was_scarce = false;
        loop {
            sleep(SWEEP_INTERVAL).await;
            let mut unused = Vec::new();
            let is_scarce = is_scarce();
            if is_scarce && !was_scarce {
                tracing::warn!("memory is scarce: closing unused connections early; raise the memory limit");
            }
            was_scarce = is_scarce;
            if is_scarce {
                self.machines.for_each(|_, machine| unused.append(&mut machine.connections.unused_since()));
            }
            let Some(last_use) = last_use_to_close(unused, Instant::now()) else { continue };
            let mut idle = Vec::new();
            self.machines.for_each(|_, machine| idle.append(&mut machine.connections.take_unused(last_use)));
            close_all(&idle).await;
        }
    }
}

/// Returns the time so that each unused connection is closed whose last use was then or before. `surplus` contains the
/// last uses of the connections of which the older half must be closed. Returns `None` if nothing must be closed.
fn last_use_to_close(mut surplus: Vec<Instant>, now: Instant) -> Option<Instant> {
    surplus.sort_unstable();
    let half = surplus.len().div_ceil(2);
    let middle = half.checked_sub(1).and_then(|last| surplus.get(last)).copied();
    // The subtraction fails only within a minute of the boot of the host.
    middle.max(now.checked_sub(IDLE_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_half_is_closed_before_the_timeout() {
        let now = Instant::now() + IDLE_TIMEOUT * 2;
        let used = |seconds: u64| now - Duration::from_secs(seconds);
        let timeout = Some(now - IDLE_TIMEOUT);
        assert_eq!(last_use_to_close(Vec::new(), now), timeout);
        assert_eq!(last_use_to_close(vec![used(1)], now), Some(used(1)));
        assert_eq!(last_use_to_close(vec![used(1), used(40), used(3), used(30)], now), Some(used(30)));
        assert_eq!(last_use_to_close(vec![used(5), used(4), used(3)], now), Some(used(4)));
        assert_eq!(last_use_to_close(vec![used(90), used(80), used(3)], now), timeout);
    }
}
