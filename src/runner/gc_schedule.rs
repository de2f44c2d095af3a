//! When the launcher's directory on each machine is to be cleaned up.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::{MachineKey, lock};

/// How soon after it has failed.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(600);
/// How often.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// When machines are to be tidied next.
#[derive(Default)]
pub(super) struct GcSchedule {
    machines: Mutex<HashMap<MachineKey, Instant>>,
}

impl GcSchedule {
    /// Whether it is time, which is then taken for done.
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

    /// It was not done: the next one that runs there has it tried again, after a while.
    pub fn postpone(&self, machine: MachineKey) {
        lock(&self.machines).insert(machine, Instant::now() + RETRY_AFTER_FAILURE);
    }
}
