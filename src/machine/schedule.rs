//! Time of the next probe.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::Machine;
use crate::backoff::Backoff;

use super::{MachineObservation, ProbeResult};

/// Delay of the next probe after the first failure. Each further failure doubles the delay, up to the probe interval.
/// sshd locks out addresses that fail often (PerSourcePenalties, from version 9.8 on). While executions wait, the delay
/// does not grow.
const INITIAL_BACKOFF: Duration = Duration::from_secs(10);

/// Facts that determine the time of a Machine's next probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSchedule<'a> {
    /// The Machine, as just read from the API server.
    pub machine: &'a Machine,
    /// Last observation of the machine.
    pub observation: Option<&'a MachineObservation>,
    /// Number of consecutive failed observations.
    pub failures: u32,
    /// True if executions wait for the machine.
    pub is_waited_for: bool,
    /// True if queued executions wait for a successful probe, because the machine needed manual repair.
    pub needs_person: bool,
    /// Random number from 0 to 1, different for each probe. The number spreads the next probes of machines that were
    /// probed together.
    pub jitter: f64,
    /// Current time.
    pub now: Timestamp,
}

/// Returns the delay until the next probe. Zero means at once. Returns `None` if no probe is due, for example because
/// the machine is suspended. With `intervalSeconds: 0`, probes are due only while executions wait for the machine.
pub fn next_probe(schedule: &ProbeSchedule<'_>) -> Option<Duration> {
    let ProbeSchedule { machine, is_waited_for, .. } = *schedule;
    if machine.spec.suspend {
        return None;
    }
    let interval = Duration::from_secs(u64::from(machine.spec.probe.interval_seconds));
    let only_on_demand = interval.is_zero();
    if only_on_demand && !is_waited_for {
        return None;
    }
    let observation = schedule.observation.filter(|observation| observation.is_current_for(machine));
    let Some(observation) = observation else { return Some(Duration::ZERO) };
    let delay = match &observation.result {
        ProbeResult::Online { .. } if schedule.needs_person && is_waited_for => INITIAL_BACKOFF,
        ProbeResult::Online { .. } if only_on_demand => return None,
        ProbeResult::Online { .. } => interval,
        ProbeResult::Failed(_) if is_waited_for => INITIAL_BACKOFF,
        ProbeResult::Failed(_) => {
            Backoff::new(INITIAL_BACKOFF, interval).delay(schedule.failures.saturating_sub(1), 0.0)
        }
    };
    // The jitter only shortens the delay, by at most a tenth, because the interval is a maximum.
    let delay = delay.mul_f64(1.0 - 0.1 * schedule.jitter.clamp(0.0, 1.0));
    let passed = Duration::try_from(schedule.now.duration_since(observation.at)).unwrap_or(Duration::ZERO);
    Some(delay.saturating_sub(passed))
}
