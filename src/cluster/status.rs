//! Status writes. Before the claim, and the claim itself: a PUT with the resourceVersion of a live read. After the
//! claim: a JSON Patch that names UID and token, so that whoever keeps changing labels cannot keep a result out.

use std::fmt::Debug;

use json_patch::{Patch as JsonPatch, jsonptr::PointerBuf};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{CommandExecution, CommandExecutionStatus, Machine, MachineStatus};

use super::{Cluster, ClusterError, ExecutionKey, Operation, Slim};

/// The name under which Writ's writes stand in `managedFields`.
pub const FIELD_MANAGER: &str = "writ";

/// What became of a write that only the holder of a claim may make.
#[derive(Debug)]
pub enum WriteOutcome {
    /// It is stored.
    Stored,
    /// Somebody else holds the claim, the execution has finished otherwise, or it is gone: there is nothing to write.
    NotOurs(String),
    /// The content was refused.
    Refused(String),
    /// The object is too large with it.
    TooLarge(String),
    /// Not known; write it again.
    Again(ClusterError),
}

impl Cluster {
    /// Stores a status where the object is still the one that was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] where it is not; ambiguous ones have to be settled by a live read.
    pub async fn replace_status(
        &self,
        read: &CommandExecution,
        status: CommandExecutionStatus,
    ) -> Result<CommandExecution, ClusterError> {
        // The API server takes nothing but the status from it; what is read lean must not be written as if it were whole.
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

    /// Stores what was seen of a Machine where it is still the one that was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] where it is not.
    pub async fn replace_machine_status(&self, read: &Machine, status: MachineStatus) -> Result<Machine, ClusterError> {
        self.put_status(Operation::WriteMachine, Machine { status: Some(status), ..read.clone() }).await
    }

    /// With the resourceVersion that is in it.
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
        // Nothing of the answer is of use.
        let api: Api<Slim<CommandExecution>> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch: Patch<()> = Patch::Json(patch);
        let call = api.patch_status(&key.name, &parameters, &patch);
        match self.call(Operation::WriteResult, format!("result of {key}"), call).await {
            Ok(_) => WriteOutcome::Stored,
            Err(ClusterError::NotFound { .. }) => WriteOutcome::NotOurs("the object was deleted".to_owned()),
            Err(ClusterError::Invalid { message, .. }) => self.settle(key, token, WriteOutcome::Refused(message)).await,
            Err(ClusterError::TooLarge { message, .. }) => {
                self.settle(key, token, WriteOutcome::TooLarge(message)).await
            }
            Err(error) => WriteOutcome::Again(error),
        }
    }

    /// A refused write is either not ours any more, or its content is at fault: the live object tells.
    async fn settle(&self, key: &ExecutionKey, token: &str, refused: WriteOutcome) -> WriteOutcome {
        let live = match self.execution(&key.namespace, &key.name).await {
            Ok(live) => live,
            Err(ClusterError::NotFound { .. }) => {
                return WriteOutcome::NotOurs("the object was deleted".to_owned());
            }
            Err(error) => return WriteOutcome::Again(error),
        };
        let holds_token = live.claim().is_some_and(|claim| claim.token == token);
        if live.metadata.uid.as_deref() != Some(&key.uid) || !holds_token || live.phase().is_finished() {
            return WriteOutcome::NotOurs(format!(
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
    // The generation may have moved on since the claim (a cancel, a deletion). A status that says an older one counts as
    // not yet up to date for kubectl wait and kstatus, and a finished one could never be mended.
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
