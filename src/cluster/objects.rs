//! Live reads. Nothing is decided or claimed from a cache: a change that was committed before the read counts.

use std::collections::HashSet;

use kube::api::{GetParams, ListParams, ObjectList};
use kube::core::{NamespaceResourceScope, Request};
use kube::{Api, Resource, ResourceExt};

use crate::api::{CommandExecution, Machine, Phase};
use crate::execution::{ObjectSize, nearest};

use super::lean::LeanExecution;
use super::{Cluster, ClusterError, Operation, PAGE, Slim};

/// The longest labels of a Machine, in bytes: rules choose by them, and they are kept for as long as a connection.
const MACHINE_LABELS: usize = 65_536;
/// Machines that a person's tool lists for a hint at the one that may be meant: metadata alone, below 1 MiB as a rule.
const MOST_NAMES: u32 = 500;

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
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let one = ListParams::default().limit(1);
        let (mut may, mut refused) = (false, None);
        for api in self.watched::<Slim<K>>() {
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
        self.execution_and_size(namespace, name).await.map(|(execution, _)| execution)
    }

    /// Reads an execution, with lean metadata, and how large it is.
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

    /// Makes a request whose answer is an execution.
    pub(super) async fn read_execution(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<(CommandExecution, ObjectSize), kube::Error> {
        let text = self.client.request_text(request).await?;
        let lean: LeanExecution = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        Ok(lean.with_size(text.len()))
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

    /// Reads a Machine, without who wrote which of its fields: nobody asks for that, and it is larger than all the rest where
    /// the Machine is kept (as long as a connection is).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn machine(&self, namespace: &str, name: &str) -> Result<Machine, ClusterError> {
        let api: Api<Machine> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("Machine {namespace}/{name}");
        let mut machine = self.call(Operation::GetMachine, &what, api.get(name)).await?;
        (machine.metadata.managed_fields, machine.metadata.annotations) = (None, None);
        (machine.metadata.finalizers, machine.metadata.owner_references) = (None, None);
        let labels =
            machine.metadata.labels.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if labels > MACHINE_LABELS {
            let message =
                format!("its metadata.labels take {labels} bytes, at most {MACHINE_LABELS}; remove some of them");
            return Err(ClusterError::Undecodable { what, message });
        }
        Ok(machine)
    }

    /// The Machine whose name is nearest to one that does not exist, of the first [`MOST_NAMES`] of its namespace. `None` if none
    /// is near, or if this user may not list them.
    pub async fn machine_like(&self, namespace: &str, name: &str) -> Option<String> {
        let api: Api<Slim<Machine>> = Api::namespaced(self.client.clone(), namespace);
        let parameters = ListParams::default().limit(MOST_NAMES);
        let list = self.list_metadata(&api, &parameters);
        let page = self.call(Operation::Cli, format!("the Machines of {namespace}"), list).await.ok()?;
        let names: Vec<String> = page.items.iter().map(ResourceExt::name_any).collect();
        nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
    }

    /// A page of a list, of which the API server sends the metadata alone.
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
