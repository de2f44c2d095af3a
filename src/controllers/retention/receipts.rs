//! Writes the receipt of an expired execution, before Writ deletes this execution. Removes the receipt if a user
//! deletes the execution.
//!
//! # Guarantees
//! - The receipt is stored before the execution is deleted. If Writ crashes in between, the same manifest still does
//!   not run again.
//! - If a user deletes an execution, no receipt of it stays. A receipt is removed for no other reason.
//! - During a rolling update, a process cannot remove a receipt that another process needs. Each process writes its own
//!   version of the receipt, and [`Receipts::undo`] removes only this version.

use crate::api::{CommandExecution, ExecutionReceipt};
use crate::cluster::{Cluster, ClusterError};
use crate::execution::{ReceiptKey, is_already_executed};

use super::problem::RemovalError;
use super::receipt_quota::ReceiptQuota;

/// Annotation with a random value. The value changes the receipt, so that each write gives the receipt a new version.
const NONCE_ANNOTATION: &str = "writ.dev/revision-nonce";

/// Writes and removes receipts.
pub(super) struct Receipts {
    cluster: Cluster,
    quota: ReceiptQuota,
}

/// Result of writing a receipt.
pub(super) enum ReceiptWrite {
    /// This attempt created the receipt, or wrote this execution's UID into it. The write can be undone.
    Written(Box<ExecutionReceipt>),
    /// The receipt already contained this execution's UID. Perhaps an earlier attempt or another process has already
    /// deleted the execution.
    AlreadyThere,
    /// The execution needs no receipt.
    NotNeeded,
}

impl Receipts {
    pub fn new(cluster: Cluster, limit: u64) -> Self {
        Self { cluster, quota: ReceiptQuota::new(limit) }
    }

    /// Stores the receipt of an execution. The caller deletes the execution next.
    ///
    /// # Errors
    /// The receipt is not stored, or the outcome is unknown. The caller must keep the execution.
    pub async fn write(&self, execution: &CommandExecution) -> Result<ReceiptWrite, RemovalError> {
        let Some(key) = ReceiptKey::of(execution) else { return Ok(ReceiptWrite::NotNeeded) };
        let no_end = || RemovalError::Unreadable("status.completionTime is missing".to_owned());
        let new = key.receipt(execution).ok_or_else(no_end)?;
        let Some(mut found) = self.cluster.receipt(&key).await.map_err(receipt_error)? else {
            // No receipt exists now. If a receipt prevented the run of this execution, a user has therefore deleted
            // that receipt to run the manifest again. A new receipt would prevent this run.
            if is_already_executed(execution) {
                return Ok(ReceiptWrite::NotNeeded);
            }
            return self.create(new).await;
        };
        let is_named = found.spec.expired_uid == new.spec.uid;
        if is_named {
            let word = uuid::Uuid::new_v4().simple().to_string();
            found.metadata.annotations.get_or_insert_default().insert(NONCE_ANNOTATION.to_owned(), word);
        }
        found.spec.expired_uid = new.spec.uid;
        let stored = self.cluster.replace_receipt(&found).await.map_err(receipt_error)?;
        Ok(if is_named { ReceiptWrite::AlreadyThere } else { ReceiptWrite::Written(Box::new(stored)) })
    }

    async fn create(&self, receipt: ExecutionReceipt) -> Result<ReceiptWrite, RemovalError> {
        let namespace = receipt.metadata.namespace.clone().unwrap_or_default();
        if !self.quota.try_reserve(&self.cluster, &namespace).await.map_err(receipt_error)? {
            return Err(RemovalError::ReceiptLimitReached { limit: self.quota.limit() });
        }
        match self.cluster.create_receipt(&receipt).await {
            Ok(stored) => Ok(ReceiptWrite::Written(Box::new(stored))),
            Err(error) => {
                if !error.is_ambiguous() {
                    self.quota.release(&namespace).await;
                }
                Err(receipt_error(error))
            }
        }
    }

    /// Removes the receipt that this attempt wrote, because somebody else deleted the execution first. The same
    /// manifest can then run again.
    ///
    /// # Errors
    /// The receipt could not be removed.
    pub async fn undo(&self, written: &ReceiptWrite) -> Result<(), RemovalError> {
        match written {
            ReceiptWrite::Written(receipt) => self.remove(receipt).await,
            ReceiptWrite::AlreadyThere | ReceiptWrite::NotNeeded => Ok(()),
        }
    }

    /// Removes the receipt of a finished execution that a user deleted, so that the same manifest can run again. Keeps
    /// the receipt if Writ deleted the execution after its TTL.
    ///
    /// # Errors
    /// The receipt could not be read or removed.
    pub async fn remove_after_manual_delete(&self, execution: &CommandExecution) -> Result<(), RemovalError> {
        let Some(key) = ReceiptKey::of(execution) else { return Ok(()) };
        match self.cluster.receipt(&key).await.map_err(receipt_error)? {
            Some(receipt) if Some(&receipt.spec.expired_uid) != execution.metadata.uid.as_ref() => {
                tracing::info!(
                    execution = format!("{}/{}", key.namespace, key.execution),
                    receipt = key.object_name(),
                    "receipt removed with an execution that somebody deleted; its manifest may run again"
                );
                self.remove(&receipt).await
            }
            _ => Ok(()),
        }
    }

    async fn remove(&self, receipt: &ExecutionReceipt) -> Result<(), RemovalError> {
        match self.cluster.delete_receipt(receipt).await {
            Ok(()) | Err(ClusterError::NotFound { .. }) => Ok(()),
            Err(error) => Err(receipt_error(error)),
        }
    }
}

/// Converts the error of a call for a receipt. Errors that need manual action become [`RemovalError::Receipt`]. Other
/// errors become [`RemovalError::Cluster`].
fn receipt_error(error: ClusterError) -> RemovalError {
    match error {
        ClusterError::Forbidden { .. }
        | ClusterError::Undecodable { .. }
        | ClusterError::NotFound { .. }
        | ClusterError::TooLarge { .. }
        | ClusterError::Invalid { .. } => RemovalError::Receipt(error),
        error => RemovalError::Cluster(error),
    }
}
