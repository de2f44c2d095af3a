//! Receipts of executions that their time to live deletes, and what becomes of them when a person deletes instead.
//!
//! The promises kept here: the receipt is stored before the execution is deleted, so that no crash in between lets it run
//! again; what a person deletes leaves none; none is removed for any other reason. Two processes that do this at a time (a
//! rolling update) cannot undo what the other relies on: who finds a receipt that is there already writes it anew before it
//! deletes, and undoing is only done to the version that was written by oneself.

use crate::api::{CommandExecution, ExecutionReceipt};
use crate::cluster::{Cluster, ClusterError};
use crate::execution::{ReceiptKey, is_already_executed};

use super::Problem;
use super::room::Room;

/// Annotation of a receipt with a random value. A new value forces a new resourceVersion, so that the next write of another
/// process conflicts.
const NONCE_ANNOTATION: &str = "writ.dev/revision-nonce";

/// Writes and removes receipts.
pub(super) struct Receipts {
    cluster: Cluster,
    room: Room,
}

/// A receipt that is there now.
pub(super) enum Written {
    /// It was not, or did not name this execution, before this look wrote it: it can be undone.
    Here(Box<ExecutionReceipt>),
    /// It named this execution before: a look before this one, or another process, may have deleted it by now.
    Before,
    /// None is needed.
    None,
}

impl Receipts {
    pub fn new(cluster: Cluster, limit: u64) -> Self {
        Self { cluster, room: Room::new(limit) }
    }

    /// Sees to it that there is a receipt of an execution that is to be deleted now.
    pub async fn write(&self, execution: &CommandExecution) -> Result<Written, Problem> {
        let Some(key) = ReceiptKey::of(execution) else { return Ok(Written::None) };
        let no_end = || Problem::Unreadable("it has no end".to_owned());
        let new = key.receipt(execution).ok_or_else(no_end)?;
        let Some(mut found) = self.cluster.receipt(&key).await.map_err(refused)? else {
            // Somebody deleted the receipt that this one was not run for, to have the next one run.
            if is_already_executed(execution) {
                return Ok(Written::None);
            }
            return self.create(new).await;
        };
        let is_named = found.spec.expired_uid == new.spec.uid;
        if is_named {
            let word = uuid::Uuid::new_v4().simple().to_string();
            found.metadata.annotations.get_or_insert_default().insert(NONCE_ANNOTATION.to_owned(), word);
        }
        found.spec.expired_uid = new.spec.uid;
        let stored = self.cluster.replace_receipt(&found).await.map_err(refused)?;
        Ok(if is_named { Written::Before } else { Written::Here(Box::new(stored)) })
    }

    async fn create(&self, receipt: ExecutionReceipt) -> Result<Written, Problem> {
        let namespace = receipt.metadata.namespace.clone().unwrap_or_default();
        if !self.room.take(&self.cluster, &namespace).await.map_err(refused)? {
            return Err(Problem::NoRoom { limit: self.room.limit() });
        }
        match self.cluster.create_receipt(&receipt).await {
            Ok(stored) => Ok(Written::Here(Box::new(stored))),
            Err(error) => {
                if !error.is_ambiguous() {
                    self.room.give_back(&namespace).await;
                }
                Err(refused(error))
            }
        }
    }

    /// Undoes what was written, as a person was quicker to delete the execution: it is theirs to have it run again.
    pub async fn undo(&self, written: &Written) -> Result<(), Problem> {
        match written {
            Written::Here(receipt) => self.remove(receipt).await,
            Written::Before | Written::None => Ok(()),
        }
    }

    /// Removes the receipt of an execution that is being deleted and has finished, unless it was its time to live that
    /// deleted it: whoever deletes one may want it to run again.
    pub async fn remove_where_a_person_deleted(&self, execution: &CommandExecution) -> Result<(), Problem> {
        let Some(key) = ReceiptKey::of(execution) else { return Ok(()) };
        match self.cluster.receipt(&key).await.map_err(refused)? {
            Some(receipt) if Some(&receipt.spec.expired_uid) != execution.metadata.uid.as_ref() => {
                tracing::info!(
                    execution = format!("{}/{}", key.namespace, key.execution),
                    receipt = key.object_name(),
                    "an execution was deleted by somebody: its receipt goes with it, and the next one of its name runs"
                );
                self.remove(&receipt).await
            }
            _ => Ok(()),
        }
    }

    async fn remove(&self, receipt: &ExecutionReceipt) -> Result<(), Problem> {
        match self.cluster.delete_receipt(receipt).await {
            Ok(()) | Err(ClusterError::NotFound { .. }) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }
}

/// What a person has to mend about receipts is told apart from the same about executions.
fn refused(error: ClusterError) -> Problem {
    match error {
        ClusterError::Forbidden { .. }
        | ClusterError::Undecodable { .. }
        | ClusterError::NotFound { .. }
        | ClusterError::TooLarge { .. }
        | ClusterError::Invalid { .. } => Problem::Receipt(error),
        error => Problem::Cluster(error),
    }
}
