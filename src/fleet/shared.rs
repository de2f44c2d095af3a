//! The parts of the fleet that all tasks of this process share.

use std::sync::Arc;

use crate::api::Machine;
use crate::cluster::Cluster;
use crate::machine::{MachineObservation, ProbeResult};
use crate::ssh::AddressPolicy;

use super::connection_pool::close_all;
use super::login_limiter::LoginLimiter;
use super::machine_key::MachineKey;
use super::machines::{Machines, ManagedMachine};
use super::resolved_machine::ResolvedMachine;

/// State that every connection to a machine needs.
pub(crate) struct Fleet {
    /// The API server.
    pub cluster: Cluster,
    /// Addresses to which Writ may connect.
    pub network: AddressPolicy,
    /// Limits of concurrent logins.
    pub logins: LoginLimiter,
    /// The state of each Machine.
    pub machines: Arc<Machines>,
}

impl Fleet {
    /// Returns the state and the connections of the Machine in `resolved`.
    pub fn machine_of(&self, resolved: &ResolvedMachine) -> Arc<ManagedMachine> {
        self.machines.entry(&key_of(&resolved.machine))
    }

    /// Records the observation of an attempt or a probe. If the machine is in order, its queue may use the machine
    /// again.
    pub fn record(&self, machine: &Machine, seen: ProbeResult) {
        let metadata = &machine.metadata;
        let (uid, generation) = (metadata.uid.clone(), metadata.generation);
        self.machines.record(machine, MachineObservation { uid, generation, at: self.cluster.now(), result: seen });
    }

    /// Stops the use of connections to or through the Machine with this UID, except connections of the generation
    /// `except_generation`.
    pub fn invalidate(&self, uid: &str, except_generation: Option<i64>) {
        // All connections leave the pools first, so that no task uses a connection that is being closed.
        let mut removed = Vec::new();
        self.machines
            .for_each(|_, machine| removed.append(&mut machine.connections.invalidate(uid, except_generation)));
        // The caller does not wait for the disconnect messages. Each message has a deadline.
        tokio::spawn(async move { close_all(&removed).await });
    }

    /// Drops the state of a deleted Machine, and closes its unused connections.
    pub fn drop_machine(&self, machine: &MachineKey) {
        if let Some(machine) = self.machines.remove(machine) {
            let mut removed = machine.connections.take_all();
            removed.retain(|connection| Arc::strong_count(connection) == 1);
            tokio::spawn(async move { close_all(&removed).await });
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        let mut all = Vec::new();
        self.machines.for_each(|_, machine| all.append(&mut machine.connections.take_all()));
        close_all(&all).await;
    }
}

/// Returns the namespace and the name of a Machine.
pub(crate) fn key_of(machine: &Machine) -> MachineKey {
    let metadata = &machine.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
