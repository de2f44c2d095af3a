//! Live reads. Nothing is decided or claimed from a cache: a change that was committed before the read counts.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;

use crate::api::{CommandExecution, Machine};

use super::{Cluster, ClusterError};

impl Cluster {
    /// Asks for one execution, to see that the API server answers, that the CRDs are there and that this user may
    /// read them.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] without the CRDs, [`ClusterError::Forbidden`] without the permission.
    pub async fn check(&self) -> Result<(), ClusterError> {
        let api = self.watched::<PartialObjectMeta<CommandExecution>>();
        self.call("CommandExecutions", api.list(&ListParams::default().limit(1))).await.map(|_| ())
    }

    /// Reads an execution.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn execution(&self, namespace: &str, name: &str) -> Result<CommandExecution, ClusterError> {
        let api: Api<CommandExecution> = Api::namespaced(self.client.clone(), namespace);
        self.call(format!("CommandExecution {namespace}/{name}"), api.get(name)).await
    }

    /// Reads a Machine.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn machine(&self, namespace: &str, name: &str) -> Result<Machine, ClusterError> {
        let api: Api<Machine> = Api::namespaced(self.client.clone(), namespace);
        self.call(format!("Machine {namespace}/{name}"), api.get(name)).await
    }

    /// Reads one Secret by name (a list would read them all).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ClusterError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        self.call(format!("Secret {namespace}/{name}"), api.get(name)).await
    }
}
