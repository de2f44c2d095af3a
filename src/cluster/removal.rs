//! What becomes of executions at the end of their lives: held by a finalizer until they are over and what is stored of
//! them is removed, deleted when their time is over.
//!
//! The promise kept here: each of these writes is of the object that was read, by UID and, where it matters, by
//! resourceVersion, so that another one of the same name is never touched.

use std::fmt::Debug;

use json_patch::{Patch as JsonPatch, PatchOperation, jsonptr::PointerBuf};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{AUDIT_FINALIZER, CommandExecution, RETENTION_OVER_ANNOTATION};

use super::{Cluster, ClusterError, ExecutionKey, FIELD_MANAGER, Operation, Slim};

impl Cluster {
    /// Puts the audit finalizer on an execution, if it is still the one that was read: from then on it stays until Writ
    /// has seen its end. The API server refuses that for one that is being deleted.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`] also where it has changed since it was read.
    pub async fn protect(&self, read: &CommandExecution) -> Result<CommandExecution, ClusterError> {
        let metadata = &read.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let add = match metadata.finalizers.as_deref().unwrap_or_default() {
            [] => operation("add", &["metadata", "finalizers"], json!([AUDIT_FINALIZER])),
            _ => operation("add", &["metadata", "finalizers", "-"], json!(AUDIT_FINALIZER)),
        };
        let patch = vec![
            operation("test", &["metadata", "uid"], json!(metadata.uid)),
            operation("test", &["metadata", "resourceVersion"], json!(metadata.resource_version)),
            add,
        ];
        self.patch_metadata(namespace, name, "finalizer", patch).await
    }

    /// Takes the audit finalizer off an execution, where it stands at `index` of its finalizers: if nobody else holds it, it
    /// is gone.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`] also where it does not stand there any more, [`ClusterError::NotFound`] where it is gone.
    pub async fn release(&self, key: &ExecutionKey, index: usize) -> Result<(), ClusterError> {
        let index = index.to_string();
        let path = ["metadata", "finalizers", index.as_str()];
        let patch = vec![
            operation("test", &["metadata", "uid"], json!(key.uid)),
            operation("test", &path, json!(AUDIT_FINALIZER)),
            operation("remove", &path, Value::Null),
        ];
        self.patch_undecoded(Operation::PatchFinalizer, "finalizer", key, patch_of(patch)).await
    }

    /// Has the API server make `metadata.managedFields` anew: whoever may patch can write entries there by hand.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`] if another execution has this name now, [`ClusterError::NotFound`] if none has.
    pub async fn clear_managed_fields(&self, key: &ExecutionKey) -> Result<(), ClusterError> {
        let patch = vec![
            operation("test", &["metadata", "uid"], json!(key.uid)),
            // One empty entry clears the list: https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields
            operation("replace", &["metadata", "managedFields"], json!([{}])),
        ];
        self.patch_undecoded(Operation::ClearManagedFields, "managedFields", key, patch_of(patch)).await
    }

    /// Deletes an execution, if it is still what was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] where it has changed, [`ClusterError::NotFound`] where it is gone.
    pub async fn delete(&self, key: &ExecutionKey, resource_version: Option<String>) -> Result<(), ClusterError> {
        let preconditions = Preconditions { uid: Some(key.uid.clone()), resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        // What comes back is not decoded, as with `patch_undecoded`.
        let delete = async {
            let request = self.execution_requests(&key.namespace).delete(&key.name, &parameters);
            self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await
        };
        self.call(Operation::DeleteExecution, format!("CommandExecution {key}"), delete).await.map(drop)
    }

    /// Says of a finished execution that others may delete it from now on, if it is still what was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] where it has changed, [`ClusterError::NotFound`] where it is gone.
    pub async fn mark_retention_over(
        &self,
        key: &ExecutionKey,
        resource_version: Option<String>,
    ) -> Result<(), ClusterError> {
        let annotations = json!({RETENTION_OVER_ANNOTATION: "true"});
        let metadata = json!({"uid": key.uid, "resourceVersion": resource_version, "annotations": annotations});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        self.patch_undecoded(Operation::MarkRetentionOver, "annotation", key, Ok(patch)).await
    }

    /// Patches the metadata of an execution. What comes back is not decoded: an object that is not what this version can read
    /// has to go too.
    async fn patch_undecoded<P: Serialize + Debug>(
        &self,
        operation: Operation,
        what: &str,
        key: &ExecutionKey,
        patch: Result<Patch<P>, kube::Error>,
    ) -> Result<(), ClusterError> {
        let api: Api<Slim<CommandExecution>> = Api::namespaced(self.client.clone(), &key.namespace);
        let call = async { api.patch(&key.name, &parameters(), &patch?).await };
        self.call(operation, format!("{what} of {key}"), call).await.map(drop)
    }

    async fn patch_metadata(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        patch: Vec<Value>,
    ) -> Result<CommandExecution, ClusterError> {
        let call = async {
            let request = self.execution_requests(namespace).patch(name, &parameters(), &patch_of(patch)?);
            Ok(self.read_execution(request.map_err(kube::Error::BuildRequest)?).await?.0)
        };
        self.call(Operation::PatchFinalizer, format!("{what} of {namespace}/{name}"), call).await
    }
}

fn operation(op: &str, path: &[&str], value: Value) -> Value {
    let path = PointerBuf::from_tokens(path.iter().copied()).to_string();
    if op == "remove" { json!({"op": op, "path": path}) } else { json!({"op": op, "path": path, "value": value}) }
}

fn patch_of(operations: Vec<Value>) -> Result<Patch<()>, kube::Error> {
    let operations: Vec<PatchOperation> =
        serde_json::from_value(Value::Array(operations)).map_err(kube::Error::SerdeError)?;
    Ok(Patch::Json(JsonPatch(operations)))
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
