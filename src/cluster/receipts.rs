//! Receipts in the API server: live reads, and writes that fail if the receipt has changed since it was read.
//!
//! # Guarantees
//! 1. A receipt counts as absent only if the API server's 404 names this receipt. A 404 for a missing kind is an error.
//! 2. Each replacement or deletion affects only the version of the receipt that was read.

use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};

use crate::api::ExecutionReceipt;
use crate::execution::ReceiptKey;

use super::{Cluster, ClusterError, FIELD_MANAGER, Operation, PAGE, Slim};

impl Cluster {
    /// Lists one receipt in each served namespace. The call checks that the kind exists and that this user may list
    /// receipts.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] if the CRD does not exist. [`ClusterError::Forbidden`] if the user may not list
    /// receipts in any served namespace.
    pub async fn check_receipts(&self) -> Result<(), ClusterError> {
        self.check_list_permission::<ExecutionReceipt>(Operation::CountReceipts, "ExecutionReceipts").await
    }

    /// Reads the receipt of an execution, or returns `None` if the receipt does not exist.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] if the kind does not exist. [`ClusterError::Undecodable`] if the receipt cannot be
    /// decoded, or if the receipt with this name belongs to another execution.
    pub async fn receipt(&self, key: &ReceiptKey) -> Result<Option<ExecutionReceipt>, ClusterError> {
        let name = key.object_name();
        let api = self.receipts(&key.namespace);
        let get = async {
            match api.get(&name).await {
                Ok(receipt) => Ok(Some(receipt)),
                Err(kube::Error::Api(status)) if status.code == 404 && refers_to(&status, &name) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let what = format!("ExecutionReceipt {}/{name}", key.namespace);
        match self.call(Operation::GetReceipt, &what, get).await? {
            Some(receipt) if !key.matches(&receipt) => {
                let message = format!("it is not that of the execution {} with this spec", key.execution);
                Err(ClusterError::Undecodable { target: what, message })
            }
            found => Ok(found),
        }
    }

    /// Stores a new receipt.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if a receipt with this name exists.
    pub async fn create_receipt(&self, receipt: &ExecutionReceipt) -> Result<ExecutionReceipt, ClusterError> {
        let api = self.receipts(namespace_of(receipt));
        self.call(Operation::WriteReceipt, what(receipt), api.create(&parameters(), receipt)).await
    }

    /// Replaces a receipt if it still has the version that was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if its version has changed.
    pub async fn replace_receipt(&self, receipt: &ExecutionReceipt) -> Result<ExecutionReceipt, ClusterError> {
        let api = self.receipts(namespace_of(receipt));
        let name = receipt.metadata.name.as_deref().unwrap_or_default();
        self.call(Operation::WriteReceipt, what(receipt), api.replace(name, &parameters(), receipt)).await
    }

    /// Deletes a receipt if it still has the version that was read.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] if its version has changed. [`ClusterError::NotFound`] if the receipt does not exist.
    pub async fn delete_receipt(&self, receipt: &ExecutionReceipt) -> Result<(), ClusterError> {
        let metadata = &receipt.metadata;
        let preconditions =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let api = self.receipts(namespace_of(receipt));
        let name = metadata.name.as_deref().unwrap_or_default();
        self.call(Operation::WriteReceipt, what(receipt), api.delete(name, &parameters)).await.map(drop)
    }

    /// Returns the number of receipts in a namespace.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn count_receipts(&self, namespace: &str) -> Result<u64, ClusterError> {
        let api: Api<Slim<ExecutionReceipt>> = Api::namespaced(self.client.clone(), namespace);
        let mut parameters = ListParams::default().limit(1);
        let mut count = 0;
        loop {
            let list = self.list_metadata(&api, &parameters);
            let page = self.call(Operation::CountReceipts, "ExecutionReceipts", list).await?;
            count += u64::try_from(page.items.len()).unwrap_or(u64::MAX);
            let more = page.metadata.continue_.filter(|more| !more.is_empty());
            match (page.metadata.remaining_item_count, more) {
                (Some(remaining), _) => return Ok(count.saturating_add(u64::try_from(remaining).unwrap_or_default())),
                // If the API server sends no remaining count, all pages are read and counted.
                (None, Some(more)) => parameters = ListParams::default().limit(PAGE).continue_token(&more),
                (None, None) => return Ok(count),
            }
        }
    }

    fn receipts(&self, namespace: &str) -> Api<ExecutionReceipt> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Returns true if a 404 names this receipt. If the API server does not serve the kind, its 404 names no object.
fn refers_to(status: &kube::core::Status, name: &str) -> bool {
    let is_kind = |details: &kube::core::response::StatusDetails| details.kind == "executionreceipts";
    status.details.as_ref().is_some_and(|details| details.name == name && is_kind(details))
}

fn namespace_of(receipt: &ExecutionReceipt) -> &str {
    receipt.metadata.namespace.as_deref().unwrap_or_default()
}

fn what(receipt: &ExecutionReceipt) -> String {
    format!("ExecutionReceipt {}/{}", namespace_of(receipt), receipt.metadata.name.as_deref().unwrap_or_default())
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
