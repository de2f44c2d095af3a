//! Creates receipts of executions, and matches new executions with the receipts of deleted executions.
//!
//! # Guarantees
//!
//! - The digest of a spec depends only on the request. Absent fields do not count, so a later version of Writ with more
//!   fields computes the same digest. A field of a later version does not count with its default, because the API
//!   server adds the default to the executions of earlier versions.
//! - A receipt belongs to an execution only if both name and digest match.

use kube::ResourceExt as _;
use serde_json::Value;

use crate::api::{
    CommandExecution, CommandExecutionSpec, ExecutionReceipt, ExecutionReceiptSpec, FirstExecution, Reason,
    ReceiptRequester,
};
use crate::policy::canonical;

use super::audit::{AuditFields, hexadecimal};
use super::creation::creation;

/// Fields of a spec that are not part of the request: requester, cancellation, and TTL. The digest does not cover them.
const FIELDS_OUTSIDE_DIGEST: [&str; 4] = ["requestedBy", "cancelRequested", "cancelledBy", "ttlSecondsAfterFinished"];
/// Fields that earlier versions of Writ did not have, with their defaults. The digest covers such a field only if it
/// has another value. An execution then keeps the digest that an earlier version computed.
const LATER_FIELDS: [(&str, &str); 1] = [("whenOffline", "Wait")];
/// Maximum number of characters of an execution's name in the name of its receipt. With a dash and a hash (33
/// characters), the name of the receipt stays below Kubernetes' limit of 253.
const MAX_NAME_PREFIX: usize = 200;

/// Key that an execution and its receipt have in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReceiptKey {
    /// Namespace of the execution.
    pub namespace: String,
    /// Name of the execution.
    pub execution: String,
    /// Digest of the execution's spec.
    pub digest: String,
}

impl ReceiptKey {
    /// Returns the key of an execution. Returns `None` if the API server or Argo CD generated its name, because a
    /// generated name is not used again.
    pub fn of(execution: &CommandExecution) -> Option<Self> {
        if creation(execution).name_generated {
            return None;
        }
        let namespace = execution.namespace().unwrap_or_default();
        Some(Self { namespace, execution: execution.name_any(), digest: digest(&execution.spec) })
    }

    /// Returns the name of the receipt: the start of the execution's name, and 32 hexadecimal digits of a hash of name
    /// and digest.
    pub fn object_name(&self) -> String {
        let hash = hexadecimal(format!("{}\0{}", self.execution, self.digest).as_bytes());
        let start: String = self.execution.chars().take(MAX_NAME_PREFIX).collect();
        // A dot before the dash is not allowed in a DNS name.
        let start = start.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
        format!("{start}-{}", hash.get(..32).unwrap_or(&hash))
    }

    /// Returns true if a receipt belongs to this execution. The name of the receipt alone proves nothing.
    pub fn matches(&self, receipt: &ExecutionReceipt) -> bool {
        receipt.spec.execution_name == self.execution && receipt.spec.digest == self.digest
    }

    /// Returns the receipt of a finished execution with this key. Returns `None` if the execution has not finished.
    pub fn receipt(&self, execution: &CommandExecution) -> Option<ExecutionReceipt> {
        let status = execution.status.as_ref().filter(|status| status.phase.is_finished())?;
        let uid = execution.uid()?;
        let audit = AuditFields::of(execution, status);
        let requested_by = execution.spec.requested_by.as_ref();
        let spec = ExecutionReceiptSpec {
            execution_name: self.execution.clone(),
            digest: self.digest.clone(),
            uid: uid.clone(),
            phase: status.phase,
            reason: status.reason,
            exit_code: status.exit_code,
            start_time: status.start_time.clone(),
            completion_time: status.completion_time.clone()?,
            expired_uid: uid,
            machine: execution.spec.machine_ref.name.clone(),
            machine_uid: audit.machine_uid,
            requested_by: requested_by
                .map(|requester| ReceiptRequester { username: requester.username.clone(), uid: requester.uid.clone() }),
            whitelist: audit.whitelist,
            rule: audit.rule,
            argv_digest: audit.argv_digest,
        };
        let mut receipt = ExecutionReceipt::new(&self.object_name(), spec);
        receipt.metadata.namespace = Some(self.namespace.clone());
        Some(receipt)
    }
}

/// Returns true if an execution did not run, because an earlier execution of the same name and spec was finished
/// already.
pub fn is_already_executed(execution: &CommandExecution) -> bool {
    execution.status.as_ref().is_some_and(|status| status.reason == Some(Reason::AlreadyExecuted))
}

/// Returns the record of the first execution, for the status of the new execution.
pub(super) fn first_execution(receipt: &ExecutionReceipt) -> FirstExecution {
    let spec = &receipt.spec;
    FirstExecution { uid: spec.uid.clone(), completion_time: spec.completion_time.clone(), exit_code: spec.exit_code }
}

/// Returns the message about the first execution, with the remedies.
pub(super) fn message(receipt: &ExecutionReceipt) -> String {
    let spec = &receipt.spec;
    let exit = spec.exit_code.map_or_else(|| "no exit code observed".to_owned(), |code| format!("exit code {code}"));
    let why = spec.reason.map_or_else(String::new, |reason| format!(", reason {reason:?}"));
    format!(
        "already executed: the execution of the same name and spec with UID {} finished at {} ({}{why}, {exit}) and was \
         deleted when its TTL expired; nothing was sent now. To run the command again, change the spec (for example \
         spec.reason) or the name, or delete this object and apply it again, or delete the ExecutionReceipt {} before you \
         create the next execution",
        spec.uid,
        spec.completion_time.0,
        spec.phase.as_str(),
        receipt.name_any(),
    )
}

/// Returns the SHA-256 of the request, in hexadecimal.
pub fn digest(spec: &CommandExecutionSpec) -> String {
    // Serialization cannot fail, because all keys are text.
    let mut fields = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        fields.retain(|name, value| {
            let is_default =
                LATER_FIELDS.iter().any(|(later, default)| name == later && value.as_str() == Some(*default));
            !FIELDS_OUTSIDE_DIGEST.contains(&name.as_str()) && !value.is_null() && !is_default
        });
    }
    let mut text = String::new();
    canonical(&fields, &mut text);
    hexadecimal(text.as_bytes())
}

#[cfg(test)]
mod tests;
