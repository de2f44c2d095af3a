//! Probes of machines. Namespaces take turns.

use std::sync::Arc;

use tokio::time::Instant;

use crate::fairness::{Pool, Size};

use super::machine_key::MachineKey;
use super::machines::ManagedMachine;
use super::probe::probe;
use super::shared::Fleet;

/// Maximum number of concurrent probes: 64, at most 32 of them for the same namespace. Each probe needs a socket and
/// about 64 KiB of memory. A separate limit of the same size applies to machines with a problem, so that their slow
/// probes do not delay other machines.
const MAX_CONCURRENT_PROBES: Size = Size { places: 64, share: 32 };

/// Runs probes.
pub(crate) struct Prober {
    others: Pool,
    lost: Pool,
}

impl Default for Prober {
    fn default() -> Self {
        Self { others: Pool::new(MAX_CONCURRENT_PROBES), lost: Pool::new(MAX_CONCURRENT_PROBES) }
    }
}

impl Prober {
    /// Probes a machine, unless a probe of this machine is already running.
    pub async fn probe(&self, fleet: &Fleet, key: &MachineKey) {
        let machine = fleet.machines.entry(key);
        let has_problem = {
            let mut state = machine.state();
            if !state.start_probe() {
                return;
            }
            state.has_problem()
        };
        let _guard = ProbeGuard { machine };
        // A machine with a problem waits only for other machines with a problem.
        let pool = if has_problem { &self.lost } else { &self.others };
        let _permit = pool.place(&key.0).await;
        Box::pin(probe(fleet, key)).await;
    }
}

/// Marks the probe as ended, even if its task is cancelled or panics.
struct ProbeGuard {
    machine: Arc<ManagedMachine>,
}

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        self.machine.state().end_probe(Instant::now());
    }
}
