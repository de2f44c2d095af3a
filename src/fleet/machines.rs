//! Registry of the Machines that this process knows, with their states and their connections. The deletion of a Machine
//! removes its entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use crate::api::{Machine, MachinePhase};
use crate::machine::MachineObservation;
use crate::telemetry::metrics;

use super::connection_pool::ConnectionPool;
use super::lock::lock;
use super::machine_key::MachineKey;
use super::machine_state::MachineState;

/// Maximum number of Machines in the queue to the controller. If the queue is full, a further Machine is not queued.
/// The controller then reads the observation at the next reconcile of the Machine.
const WAKE_QUEUE: usize = 1024;

/// Receiver of the Machines that the controller must reconcile.
pub type MachineWakes = mpsc::Receiver<ObjectRef<Machine>>;

/// All Machines of this process. The number of Machines in the cluster limits the number of entries.
pub(crate) struct Machines {
    entries: Mutex<HashMap<MachineKey, Arc<ManagedMachine>>>,
    changed: mpsc::Sender<ObjectRef<Machine>>,
}

/// One Machine.
#[derive(Default)]
pub(crate) struct ManagedMachine {
    state: Mutex<MachineState>,
    /// Connections to the machine, for commands and for its use as a jump host.
    pub connections: ConnectionPool,
}

impl ManagedMachine {
    /// Locks the state. The caller must not await anything while it holds the lock.
    pub fn state(&self) -> MutexGuard<'_, MachineState> {
        lock(&self.state)
    }
}

impl Machines {
    /// Returns an empty registry, and the receiver of the Machines that the controller must reconcile.
    pub fn new() -> (Self, MachineWakes) {
        let (changed, wakes) = mpsc::channel(WAKE_QUEUE);
        (Self { entries: Mutex::default(), changed }, wakes)
    }

    /// Returns the entry of a Machine. Creates the entry if this process does not know the Machine.
    pub fn entry(&self, machine: &MachineKey) -> Arc<ManagedMachine> {
        Arc::clone(lock(&self.entries).entry(machine.clone()).or_default())
    }

    /// Returns the entry of a Machine, or `None` if this process does not know the Machine.
    pub fn get(&self, machine: &MachineKey) -> Option<Arc<ManagedMachine>> {
        lock(&self.entries).get(machine).cloned()
    }

    /// Calls `visit` for each Machine, while the registry is locked.
    pub fn for_each(&self, mut visit: impl FnMut(&MachineKey, &ManagedMachine)) {
        lock(&self.entries).iter().for_each(|(key, machine)| visit(key, machine));
    }

    /// Removes and returns the entry of a deleted Machine. The caller must close the connections in this entry.
    pub fn remove(&self, machine: &MachineKey) -> Option<Arc<ManagedMachine>> {
        lock(&self.entries).remove(machine)
    }

    /// Records an observation, and wakes the controller. Drops the observation if the Machine was deleted meanwhile.
    pub fn record(&self, machine: &Machine, observation: MachineObservation) {
        let metadata = &machine.metadata;
        let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let Some(known) = self.get(&key) else { return };
        known.state().record(observation, machine);
        self.wake(&key);
    }

    /// Requests a reconcile of a Machine.
    pub fn wake(&self, machine: &MachineKey) {
        let (namespace, name) = machine;
        let _ = self.changed.try_send(ObjectRef::new(name).within(namespace));
    }

    /// Updates the gauges of machines and of connections.
    pub fn update_gauges(&self) {
        let (mut phases, mut commands, mut proxies) = (Vec::new(), 0, 0);
        self.for_each(|_, machine| {
            let state = machine.state();
            let observation = state.observation.as_ref();
            phases.push(observation.map_or(MachinePhase::Unknown, |observation| observation.result.phase()));
            let (for_commands, through_it) = machine.connections.open_counts();
            (commands, proxies) = (commands + for_commands, proxies + through_it);
        });
        for phase in [MachinePhase::Unknown, MachinePhase::Online, MachinePhase::Offline, MachinePhase::Misconfigured] {
            metrics().machines(phase.as_str(), phases.iter().filter(|is| **is == phase).count());
        }
        metrics().connections(crate::telemetry::Purpose::Commands, commands);
        metrics().connections(crate::telemetry::Purpose::Jump, proxies);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::{MachineSpec, Reason};
    use crate::execution::LaunchProblem;
    use crate::machine::ProbeResult;

    /// A probe of an address that drops packets can end 10 s after its Machine was deleted. The observation of this
    /// probe is dropped.
    #[test]
    fn observation_of_a_deleted_machine_is_dropped() {
        let (machines, _wakes) = Machines::new();
        let key = ("team".to_owned(), "web-1".to_owned());
        let held = machines.entry(&key);
        assert!(held.state().start_probe() && !held.state().start_probe());
        machines.remove(&key);
        let problem = LaunchProblem { reason: Reason::MachineOffline, message: "gone".to_owned() };
        let seen = ProbeResult::Failed(problem);
        let mut machine = Machine::new("web-1", MachineSpec::new("192.0.2.1", "deploy", "web-ssh"));
        machine.metadata.namespace = Some("team".to_owned());
        machines.record(
            &machine,
            MachineObservation { uid: None, generation: None, at: Timestamp::UNIX_EPOCH, result: seen },
        );
        assert!(machines.get(&key).is_none());
    }
}
