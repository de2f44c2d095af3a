//! Sets and removes the finalizer of executions, and deletes executions after their TTL. The finalizer keeps an
//! execution until it has finished and its stored output is removed.
//!
//! # Guarantees
//! No write changes a later execution with the same name, because each write names the UID of the execution. If a write
//! depends on the content of the execution, the write also names the resourceVersion that was read.

use std::fmt::Debug;

use json_patch::{Patch as JsonPatch, PatchOperation, jsonptr::PointerBuf};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{AUDIT_FINALIZER, CommandExecution, RETENTION_OVER_ANNOTATION};
use crate::execution::ObjectSize;

use super::{Cluster, ClusterError, ExecutionKey, FIELD_MANAGER, Operation, Slim};

impl Cluster {
    /// Adds the audit finalizer to an execution. The execution then stays at least until Writ has recorded the final
    /// status. Returns the changed execution and its size.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`], for example if the execution has changed since it was read, or is being deleted.
    pub async fn add_finalizer(&self, read: &CommandExecution) -> Result<(CommandExecution, ObjectSize), ClusterError> {
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

    /// Removes the audit finalizer from an execution. `index` is the finalizer's position in `metadata.finalizers`. If
    /// the execution is being deleted and has no other finalizer, the execution then disappears.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`], for example if another finalizer is at this index. [`ClusterError::NotFound`] if the
    /// execution does not exist.
    pub async fn remove_finalizer(&self, key: &ExecutionKey, index: usize) -> Result<(), ClusterError> {
        let index = index.to_string();
        let path = ["metadata", "finalizers", index.as_str()];
        let patch = vec![
            operation("test", &["metadata", "uid"], json!(key.uid)),
            operation("test", &path, json!(AUDIT_FINALIZER)),
            operation("remove", &path, Value::Null),
        ];
        self.patch_undecoded(Operation::PatchFinalizer, "finalizer", key, patch_of(patch)).await
    }

    /// Clears `metadata.managedFields`. Without this call, a user who may patch the execution could fill this list
    /// until the object has no space for the result. Writ would then reject the execution.
    ///
    /// # Errors
    /// [`ClusterError::Invalid`] if another execution has this name now. [`ClusterError::NotFound`] if no execution has
    /// this name.
    pub async fn clear_managed_fields(&self, key: &ExecutionKey) -> Result<(), ClusterError> {
        let patch = vec![
            operation("test", &["metadata", "uid"], json!(key.uid)),
            // An entry without content clears the list:
            // https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields
            operation("replace", &["metadata", "managedFields"], json!([{}])),
        ];
        self.patch_undecoded(Operation::ClearManagedFields, "managedFields", key, patch_of(patch)).await
    }

    /// Deletes an execution. With a `resource_version`, deletes the execution only if it still has this version.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if the execution has changed. [`ClusterError::NotFound`] if it does not exist.
    pub async fn delete(&self, key: &ExecutionKey, resource_version: Option<String>) -> Result<(), ClusterError> {
        let preconditions = Preconditions { uid: Some(key.uid.clone()), resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        // The answer is not decoded, because Writ must also delete executions that it cannot decode.
        let delete = async {
            let request = self.execution_requests(&key.namespace).delete(&key.name, &parameters);
            self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await
        };
        self.call(Operation::DeleteExecution, format!("CommandExecution {key}"), delete).await.map(drop)
    }

    /// Adds the annotation that allows others to delete a finished execution. With a `resource_version`, adds the
    /// annotation only if the execution still has this version.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if the execution has changed. [`ClusterError::NotFound`] if it does not exist.
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

    /// Patches the metadata of an execution. The answer is not decoded, because Writ must also remove executions that
    /// it cannot decode.
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
    ) -> Result<(CommandExecution, ObjectSize), ClusterError> {
        let call = async {
            let request = self.execution_requests(namespace).patch(name, &parameters(), &patch_of(patch)?);
            self.read_execution(request.map_err(kube::Error::BuildRequest)?).await
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
