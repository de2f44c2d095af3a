//! Live reads. Nothing is decided or claimed from a cache: a change that was committed before the read counts.

use std::collections::HashSet;

use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Resource};

use crate::api::{CommandExecution, Machine, Phase};

use super::{Cluster, ClusterError, Operation};

/// Objects in one page of a list: a few hundred KiB of metadata.
const PAGE: u32 = 500;

impl Cluster {
    /// Asks for one execution of each namespace that is served, to see that the API server answers, that the CRDs are there
    /// and that this user may read them.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] without the CRDs, [`ClusterError::Forbidden`] without the permission in any of them.
    pub async fn check(&self) -> Result<(), ClusterError> {
        self.may_list::<CommandExecution>(Operation::ListExecutions, "CommandExecutions").await
    }

    /// Asks for one object of a kind in each namespace that is served.
    pub(super) async fn may_list<K>(&self, operation: Operation, what: &str) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug,
    {
        let one = ListParams::default().limit(1);
        let (mut may, mut refused) = (false, None);
        for api in self.watched::<PartialObjectMeta<K>>() {
            match self.call(operation, what, api.list(&one)).await {
                Ok(_) => may = true,
                // One namespace that is gone, with the rights in it, must not keep the others from being served.
                Err(error @ ClusterError::Forbidden { .. }) => {
                    tracing::warn!(%error, "a namespace cannot be served");
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        refused.filter(|_| !may).map_or(Ok(()), Err)
    }

    /// Reads an execution.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn execution(&self, namespace: &str, name: &str) -> Result<CommandExecution, ClusterError> {
        let api: Api<CommandExecution> = Api::namespaced(self.client.clone(), namespace);
        self.call(Operation::GetExecution, format!("CommandExecution {namespace}/{name}"), api.get(name)).await
    }

    /// Which of some UIDs are those of executions on a Machine that have finished.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn finished_among(
        &self,
        namespace: &str,
        machine: &str,
        uids: &HashSet<&str>,
    ) -> Result<HashSet<String>, ClusterError> {
        let api: Api<PartialObjectMeta<CommandExecution>> = Api::namespaced(self.client.clone(), namespace);
        let unfinished = Phase::ALL.iter().filter(|phase| !phase.is_finished());
        let fields = unfinished.map(|phase| format!(",status.phase!={}", phase.as_str())).collect::<String>();
        let mut parameters =
            ListParams::default().fields(&format!("spec.machineRef.name={machine}{fields}")).limit(PAGE);
        let mut found = HashSet::new();
        loop {
            let page = self
                .call(Operation::ListExecutions, "finished CommandExecutions", api.list_metadata(&parameters))
                .await?;
            let all = page.items.into_iter().filter_map(|execution| execution.metadata.uid);
            found.extend(all.filter(|uid| uids.contains(uid.as_str())));
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) if found.len() < uids.len() => parameters = parameters.continue_token(&more),
                _ => return Ok(found),
            }
        }
    }

    /// Reads a Machine, without who wrote which of its fields: nobody asks for that, and it is larger than all the rest where
    /// the Machine is kept (as long as a connection is).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn machine(&self, namespace: &str, name: &str) -> Result<Machine, ClusterError> {
        let api: Api<Machine> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("Machine {namespace}/{name}");
        let mut machine = self.call(Operation::GetMachine, what, api.get(name)).await?;
        machine.metadata.managed_fields = None;
        Ok(machine)
    }
}
