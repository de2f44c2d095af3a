//! Reads Secrets with SSH credentials.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::{Cluster, ClusterError, Operation, SshSecret};

impl Cluster {
    /// Reads one Secret by name. A list would read all Secrets. Concurrent callers share a read, which starts after
    /// their calls.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn ssh_secret(&self, namespace: &str, name: &str) -> Result<SshSecret, ClusterError> {
        let key = format!("{namespace}/{name}");
        let (cluster, namespace, name) = (self.clone(), namespace.to_owned(), name.to_owned());
        let read = move || async move {
            let api: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);
            let read = cluster.call(Operation::GetSecret, format!("Secret {namespace}/{name}"), api.get(&name)).await;
            read.map(SshSecret::from_secret)
        };
        self.shared_reads.secrets.call(&key, read).await
    }
}
