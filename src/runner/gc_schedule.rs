//! Schedule for the cleanup of the launcher's directory on each machine.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::{MachineKey, lock};

/// Time from a failed cleanup to the next attempt.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(600);
/// Time between two cleanups of one machine.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Time of the next cleanup of each machine.
#[derive(Default)]
pub(super) struct GcSchedule {
    machines: Mutex<HashMap<MachineKey, Instant>>,
}

impl GcSchedule {
    /// Returns true if a cleanup is due. The next cleanup is then due after [`INTERVAL`].
    pub fn is_due(&self, machine: &MachineKey) -> bool {
        let mut machines = lock(&self.machines);
        let now = Instant::now();
        machines.retain(|_, next| now < *next);
        if machines.contains_key(machine) {
            return false;
        }
        machines.insert(machine.clone(), now + INTERVAL);
        true
    }

    /// Records that the cleanup failed. After [`RETRY_AFTER_FAILURE`], another cleanup starts as soon as a command on
    /// the machine ends.
    pub fn postpone(&self, machine: MachineKey) {
        lock(&self.machines).insert(machine, Instant::now() + RETRY_AFTER_FAILURE);
    }
}
