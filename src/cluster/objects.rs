//! Reads objects from the API server, never from a cache. Each read includes every change that was committed before the
//! read.

use std::collections::HashSet;

use kube::api::{GetParams, ListParams, ObjectList};
use kube::core::{NamespaceResourceScope, Request};
use kube::{Api, Resource, ResourceExt};

use crate::api::{CommandExecution, Machine, Phase};
use crate::execution::{ObjectSize, nearest};

use super::lean::LeanExecution;
use super::{Cluster, ClusterError, Operation, PAGE, Slim};

/// Maximum size of the labels of a Machine, in bytes. Writ keeps these labels in memory while a connection to the
/// Machine exists, because rules select Machines by label.
const MAX_MACHINE_LABEL_BYTES: usize = 65_536;
/// Maximum number of Machines that a command-line tool lists to suggest a similar name. The list contains only
/// metadata, usually less than 1 MiB.
const MAX_MACHINE_NAMES: u32 = 500;

impl Cluster {
    /// Lists one execution in each served namespace. The call checks that the API server answers, that the CRDs exist
    /// and that this user may list executions.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] if the CRDs do not exist. [`ClusterError::Forbidden`] if the user may not list
    /// executions in any served namespace.
    pub async fn check_access(&self) -> Result<(), ClusterError> {
        self.check_list_permission::<CommandExecution>(Operation::ListExecutions, "CommandExecutions").await
    }

    /// Lists one object of a kind in each served namespace. Succeeds if this user may list the kind in at least one of
    /// these namespaces.
    pub(super) async fn check_list_permission<K>(&self, operation: Operation, what: &str) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let one = ListParams::default().limit(1);
        let (mut may, mut refused) = (false, None);
        for api in self.watch_apis::<Slim<K>>() {
            match self.call(operation, what, api.list(&one)).await {
                Ok(_) => may = true,
                // A refusal in one namespace is no error, because Writ still serves the other namespaces.
                Err(error @ ClusterError::Forbidden { .. }) => {
                    tracing::warn!(%error, "namespace not served");
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
        self.execution_and_size(namespace, name).await.map(|(execution, _)| execution)
    }

    /// Reads an execution and its size. The metadata that users can make large is dropped (see `lean`).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn execution_and_size(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(CommandExecution, ObjectSize), ClusterError> {
        let get = async {
            let request = self.execution_requests(namespace).get(name, &GetParams::default());
            self.read_execution(request.map_err(kube::Error::BuildRequest)?).await
        };
        self.call(Operation::GetExecution, format!("CommandExecution {namespace}/{name}"), get).await
    }

    pub(super) fn execution_requests(&self, namespace: &str) -> Request {
        Request::new(CommandExecution::url_path(&(), Some(namespace)))
    }

    /// Sends a request whose response is an execution. Returns the execution and its size. The metadata is reduced as
    /// in `lean`.
    pub(super) async fn read_execution(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<(CommandExecution, ObjectSize), kube::Error> {
        let text = self.client.request_text(request).await?;
        let lean: LeanExecution = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        Ok(lean.with_size(text.len()))
    }

    /// Returns the UIDs from `uids` that belong to finished executions on a Machine.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn filter_finished(
        &self,
        namespace: &str,
        machine: &str,
        uids: &HashSet<&str>,
    ) -> Result<HashSet<String>, ClusterError> {
        let api: Api<Slim<CommandExecution>> = Api::namespaced(self.client.clone(), namespace);
        let unfinished = Phase::ALL.iter().filter(|phase| !phase.is_finished());
        let fields = unfinished.map(|phase| format!(",status.phase!={}", phase.as_str())).collect::<String>();
        let mut parameters =
            ListParams::default().fields(&format!("spec.machineRef.name={machine}{fields}")).limit(PAGE);
        let mut found = HashSet::new();
        loop {
            let list = self.list_metadata(&api, &parameters);
            let page = self.call(Operation::ListExecutions, "finished CommandExecutions", list).await?;
            let all = page.items.iter().filter_map(ResourceExt::uid);
            found.extend(all.filter(|uid| uids.contains(uid.as_str())));
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) if found.len() < uids.len() => parameters = parameters.continue_token(&more),
                _ => return Ok(found),
            }
        }
    }

    /// Reads a Machine. Writ keeps the Machine in memory while a connection to the Machine exists. To save memory, the
    /// returned Machine has no managed fields, annotations, finalizers and owners. Concurrent callers share a read,
    /// which starts after their calls.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn machine(&self, namespace: &str, name: &str) -> Result<Machine, ClusterError> {
        let key = format!("{namespace}/{name}");
        let (cluster, namespace, name) = (self.clone(), namespace.to_owned(), name.to_owned());
        let read = move || async move { cluster.read_machine(&namespace, &name).await };
        self.shared_reads.machines.call(&key, read).await
    }

    async fn read_machine(&self, namespace: &str, name: &str) -> Result<Machine, ClusterError> {
        let api: Api<Machine> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("Machine {namespace}/{name}");
        let mut machine = self.call(Operation::GetMachine, &what, api.get(name)).await?;
        (machine.metadata.managed_fields, machine.metadata.annotations) = (None, None);
        (machine.metadata.finalizers, machine.metadata.owner_references) = (None, None);
        let labels =
            machine.metadata.labels.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if labels > MAX_MACHINE_LABEL_BYTES {
            let message = format!(
                "its metadata.labels take {labels} bytes, at most {MAX_MACHINE_LABEL_BYTES}; remove some of them"
            );
            return Err(ClusterError::Undecodable { target: what, message });
        }
        Ok(machine)
    }

    /// Returns the Machine name in `namespace` that is most similar to `name`. Compares only the first
    /// `MAX_MACHINE_NAMES` Machines. Returns `None` if no name is similar, or if this user may not list Machines.
    pub async fn machine_like(&self, namespace: &str, name: &str) -> Option<String> {
        let api: Api<Slim<Machine>> = Api::namespaced(self.client.clone(), namespace);
        let parameters = ListParams::default().limit(MAX_MACHINE_NAMES);
        let list = self.list_metadata(&api, &parameters);
        let page = self.call(Operation::Cli, format!("the Machines of {namespace}"), list).await.ok()?;
        let names: Vec<String> = page.items.iter().map(ResourceExt::name_any).collect();
        nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
    }

    /// Lists one page. The API server sends only the metadata of the objects.
    pub(super) async fn list_metadata<K>(
        &self,
        api: &Api<Slim<K>>,
        parameters: &ListParams,
    ) -> Result<ObjectList<Slim<K>>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let request = Request::new(api.resource_url()).list_metadata(parameters).map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }
}
