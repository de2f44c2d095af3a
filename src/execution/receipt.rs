//! Receipts: by what an execution that its time to live deleted is known again, and what is said to the next one.
//!
//! The promises kept here: the digest of a spec hangs on nothing but what was asked for, and stays the same in later
//! versions (a field that is absent is not in it); a receipt is one of an execution only where name and digest are.

use kube::ResourceExt as _;
use serde_json::Value;

use crate::api::{
    CommandExecution, CommandExecutionSpec, ExecutionReceipt, ExecutionReceiptSpec, FirstExecution, Reason,
    ReceiptRequester,
};
use crate::policy::canonical;

use super::audit::{AuditFields, hexadecimal};
use super::creation::creation;

/// Fields of a spec that do not say what is to run: who asks, who cancelled, and how long it is kept.
const NOT_ASKED_FOR: [&str; 4] = ["requestedBy", "cancelRequested", "cancelledBy", "ttlSecondsAfterFinished"];
/// How much of an execution's name is in that of its receipt: with 33 characters of digest it stays below the 253 that a
/// name may have.
const NAME_CHARACTERS: usize = 200;

/// What an execution and its receipt have in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReceiptKey {
    /// The execution's namespace.
    pub namespace: String,
    /// The execution's name.
    pub execution: String,
    /// The digest of its spec.
    pub digest: String,
}

impl ReceiptKey {
    /// Of an execution; None where its name was made up by the API server or Argo CD, and so does not come again.
    pub fn of(execution: &CommandExecution) -> Option<Self> {
        if creation(execution).name_generated {
            return None;
        }
        let namespace = execution.namespace().unwrap_or_default();
        Some(Self { namespace, execution: execution.name_any(), digest: digest(&execution.spec) })
    }

    /// The name of the receipt: the execution's, as far as it goes, and 32 digits of a hash of name and digest.
    pub fn object_name(&self) -> String {
        let hash = hexadecimal(format!("{}\0{}", self.execution, self.digest).as_bytes());
        let start: String = self.execution.chars().take(NAME_CHARACTERS).collect();
        // A dot before the dash would make it no DNS name.
        let start = start.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
        format!("{start}-{}", hash.get(..32).unwrap_or(&hash))
    }

    /// Whether a receipt is that of this execution: its name alone does not say so.
    pub fn is_of(&self, receipt: &ExecutionReceipt) -> bool {
        receipt.spec.execution_name == self.execution && receipt.spec.digest == self.digest
    }

    /// The receipt of an execution that has finished and has this key; None where it has no end.
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

/// Whether an execution was not run because one of its name and spec had been before.
pub fn is_repetition(execution: &CommandExecution) -> bool {
    execution.status.as_ref().is_some_and(|status| status.reason == Some(Reason::AlreadyExecuted))
}

/// What a status says of the first one.
pub(super) fn first(receipt: &ExecutionReceipt) -> FirstExecution {
    let spec = &receipt.spec;
    FirstExecution { uid: spec.uid.clone(), completion_time: spec.completion_time.clone(), exit_code: spec.exit_code }
}

/// What a person is told of the first one, and what to do.
pub(super) fn sentence(receipt: &ExecutionReceipt) -> String {
    let spec = &receipt.spec;
    let exit = spec.exit_code.map_or_else(|| "no exit code observed".to_owned(), |code| format!("exit code {code}"));
    let why = spec.reason.map_or_else(String::new, |reason| format!(", reason {reason:?}"));
    format!(
        "this was handled before, by the execution of the same name and spec with UID {}, which finished at {} ({}{why}, \
         {exit}) and was deleted when its time to live was over; nothing was sent now. To run it again, change its spec \
         (spec.reason will do) or its name; or delete this object and apply it again; or delete the ExecutionReceipt {}, \
         which lets the next one run",
        spec.uid,
        spec.completion_time.0,
        spec.phase.as_str(),
        receipt.name_any(),
    )
}

/// SHA-256 of what was asked for, in hexadecimal.
pub fn digest(spec: &CommandExecutionSpec) -> String {
    // It cannot fail: all keys are text. What is null hashes like nothing that can be asked for.
    let mut fields = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        fields.retain(|name, value| !NOT_ASKED_FOR.contains(&name.as_str()) && !value.is_null());
    }
    let mut text = String::new();
    canonical(&fields, &mut text);
    hexadecimal(text.as_bytes())
}

#[cfg(test)]
mod tests;
