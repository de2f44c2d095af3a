//! The names of the Machines that the watch has shown, for the hint at the one that may be meant. Nothing is decided by them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use crate::api::Machine;
use crate::cluster::Slim;
use crate::execution;

/// Names by namespace. A clone has the same ones. As many as there are Machines, of which the watch keeps more already.
#[derive(Clone, Default)]
pub(super) struct MachineNames(Arc<Mutex<HashMap<String, BTreeSet<String>>>>);

impl MachineNames {
    /// Takes in what the watch shows.
    pub fn note(&self, event: &Event<Slim<Machine>>) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(machine) | Event::InitApply(machine) => {
                names.entry(machine.namespace().unwrap_or_default()).or_default().insert(machine.name_any());
            }
            Event::Delete(machine) => {
                let namespace = machine.namespace().unwrap_or_default();
                let left = names.get_mut(&namespace).is_some_and(|names| {
                    names.remove(&machine.name_any());
                    !names.is_empty()
                });
                if !left {
                    names.remove(&namespace);
                }
            }
            Event::Init => names.clear(),
            Event::InitDone => {}
        }
    }

    /// The Machine of the namespace whose name is nearest to this one, if one is near.
    pub fn nearest(&self, namespace: &str, name: &str) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get(namespace)?.iter().map(String::as_str);
        execution::nearest(name, names).map(str::to_owned)
    }
}
