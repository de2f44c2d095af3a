//! Writes the status of objects. The status of an execution has two forms of writes:
//!
//! - The holder of the claim sends a JSON Patch that tests only the UID and the token of the claim. Frequent changes of
//!   labels by other users therefore cannot prevent this write.
//! - All other writes, for example the claim, are a PUT with the resourceVersion of a live read.

use std::fmt::Debug;

use json_patch::{Patch as JsonPatch, jsonptr::PointerBuf};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{CommandExecution, CommandExecutionStatus, Machine, MachineStatus};

use super::{Cluster, ClusterError, ExecutionKey, Operation, Slim};

/// Field manager of Writ's writes in `managedFields`.
pub const FIELD_MANAGER: &str = "writ";

/// Result of a write that only the holder of the claim may make.
#[derive(Debug)]
pub enum WriteOutcome {
    /// The API server has stored the status.
    Stored,
    /// Another process holds the claim, the execution has already finished, or the execution does not exist. The caller
    /// must not write again.
    ClaimLost(String),
    /// The API server refuses the content.
    Refused(String),
    /// The object would become too large.
    TooLarge(String),
    /// The outcome is unknown. The caller must write again.
    Unknown(ClusterError),
}

impl Cluster {
    /// Stores a status if the execution has not changed since it was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if the execution has changed. After an ambiguous error
    /// ([`ClusterError::is_ambiguous`]), the caller must find the outcome by a live read.
    pub async fn replace_status(
        &self,
        read: &CommandExecution,
        status: CommandExecutionStatus,
    ) -> Result<CommandExecution, ClusterError> {
        // Sends only the metadata that identifies the execution and its version, because the other metadata is
        // incomplete. The API server uses only the status of the sent object.
        let from = &read.metadata;
        let metadata = ObjectMeta {
            name: from.name.clone(),
            namespace: from.namespace.clone(),
            uid: from.uid.clone(),
            resource_version: from.resource_version.clone(),
            ..ObjectMeta::default()
        };
        let changed = CommandExecution { metadata, spec: read.spec.clone(), status: Some(status) };
        let (namespace, name) = (read.namespace().unwrap_or_default(), read.name_any());
        let what = format!("status of CommandExecution {namespace}/{name}");
        let put = async {
            let body = serde_json::to_vec(&changed).map_err(kube::Error::SerdeError)?;
            let request = self.execution_requests(&namespace).replace_subresource("status", &name, &post(), body);
            let request = request.map_err(kube::Error::BuildRequest)?;
            Ok(self.read_execution(request).await?.0)
        };
        self.call(Operation::WriteStatus, what, put).await
    }

    /// Stores the status of a Machine if the Machine has not changed since it was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if the Machine has changed.
    pub async fn replace_machine_status(&self, read: &Machine, status: MachineStatus) -> Result<Machine, ClusterError> {
        self.put_status(Operation::WriteMachine, Machine { status: Some(status), ..read.clone() }).await
    }

    /// Stores a status if the object still has the resourceVersion that was read.
    async fn put_status<K>(&self, operation: Operation, mut changed: K) -> Result<K, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        changed.meta_mut().managed_fields = None;
        let (namespace, name) = (changed.namespace().unwrap_or_default(), changed.name_any());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("status of {} {namespace}/{name}", K::kind(&()));
        self.call(operation, what, api.replace_status(&name, &post(), &changed)).await
    }

    /// Stores the status of a claimed execution, as the holder of `token`.
    pub async fn write_as_holder(
        &self,
        key: &ExecutionKey,
        token: &str,
        status: &CommandExecutionStatus,
    ) -> WriteOutcome {
        let patch = match holder_patch(key, token, status) {
            Ok(patch) => patch,
            Err(error) => return WriteOutcome::Refused(error.to_string()),
        };
        // `Slim` decodes almost nothing of the answer, because the answer is not needed.
        let api: Api<Slim<CommandExecution>> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch: Patch<()> = Patch::Json(patch);
        let call = api.patch_status(&key.name, &parameters, &patch);
        match self.call(Operation::WriteResult, format!("result of {key}"), call).await {
            Ok(_) => WriteOutcome::Stored,
            Err(ClusterError::NotFound { .. }) => WriteOutcome::ClaimLost("the object was deleted".to_owned()),
            Err(ClusterError::Invalid { message, .. }) => {
                self.classify_refusal(key, token, WriteOutcome::Refused(message)).await
            }
            Err(ClusterError::TooLarge { message, .. }) => {
                self.classify_refusal(key, token, WriteOutcome::TooLarge(message)).await
            }
            Err(error) => WriteOutcome::Unknown(error),
        }
    }

    /// Finds the cause of a refused write by a live read. Returns `Unknown` if the read fails. Returns `ClaimLost` if
    /// the execution has finished, or if `token` no longer holds its claim. Else returns `refused`.
    async fn classify_refusal(&self, key: &ExecutionKey, token: &str, refused: WriteOutcome) -> WriteOutcome {
        let live = match self.execution(&key.namespace, &key.name).await {
            Ok(live) => live,
            Err(ClusterError::NotFound { .. }) => {
                return WriteOutcome::ClaimLost("the object was deleted".to_owned());
            }
            Err(error) => return WriteOutcome::Unknown(error),
        };
        let holds_token = live.claim().is_some_and(|claim| claim.token == token);
        if live.metadata.uid.as_deref() != Some(&key.uid) || !holds_token || live.phase().is_finished() {
            return WriteOutcome::ClaimLost(format!(
                "the execution is {} and not claimed by this one",
                live.phase().as_str()
            ));
        }
        refused
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn holder_patch(
    key: &ExecutionKey,
    token: &str,
    status: &CommandExecutionStatus,
) -> Result<JsonPatch, serde_json::Error> {
    let test = |path: &[&str], value: &str| {
        json_patch::PatchOperation::Test(json_patch::TestOperation {
            path: PointerBuf::from_tokens(path.iter().copied()),
            value: serde_json::Value::String(value.to_owned()),
        })
    };
    let mut operations = vec![
        test(&["metadata", "uid"], &key.uid),
        test(&["status", "claim", "token"], token),
        json_patch::PatchOperation::Replace(json_patch::ReplaceOperation {
            path: PointerBuf::from_tokens(["status"]),
            value: serde_json::to_value(status)?,
        }),
    ];
    // Copies the current generation into the status, because a cancel or a deletion after the claim increases the
    // generation. Without the copy, kubectl wait and kstatus would ignore the status as outdated.
    let observed = |path: PointerBuf| {
        let from = PointerBuf::from_tokens(["metadata", "generation"]);
        json_patch::PatchOperation::Copy(json_patch::CopyOperation { from, path })
    };
    operations.push(observed(PointerBuf::from_tokens(["status", "observedGeneration"])));
    for index in 0..status.conditions.len() {
        let index = index.to_string();
        operations.push(observed(PointerBuf::from_tokens(["status", "conditions", &index, "observedGeneration"])));
    }
    Ok(JsonPatch(operations))
}
