//! Logs the claim and the end of each execution for auditors. Each line names requester, rule and machine, because the
//! execution can be deleted before an audit. The lines contain no arguments and no output.

use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use tracing::field;

use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::cluster::ExecutionKey;
use crate::execution::AuditFields;

/// Logs a stored claim. `previous_holder` is the holder from which this process adopted the claim.
pub(super) fn log_claim(execution: &CommandExecution, message: &'static str, previous_holder: Option<&str>) {
    let (key, status) = (key_of(execution), execution.status.clone().unwrap_or_default());
    let audit = AuditFields::of(execution, &status);
    tracing::info!(
        execution = %key, uid = key.uid, machine = execution.spec.machine_ref.name, machine_uid = audit.machine_uid,
        requester = audit.requester, whitelist = audit.whitelist, rule = audit.rule, argv_digest = audit.argv_digest,
        phase = status.phase.as_str(), previous_holder, "{message}"
    );
}

/// Logs the stored end of an execution. If the status does not contain the Machine's UID, the UID comes from `machine`.
pub fn log_end(execution: &CommandExecution, status: &CommandExecutionStatus, machine: Option<&ObjectMeta>) {
    let (key, audit) = (key_of(execution), AuditFields::of(execution, status).seen_on(machine));
    tracing::info!(
        execution = %key, uid = key.uid, machine = execution.spec.machine_ref.name, machine_uid = audit.machine_uid,
        requester = audit.requester, canceller = audit.canceller, whitelist = audit.whitelist, rule = audit.rule,
        argv_digest = audit.argv_digest, phase = status.phase.as_str(), reason = status.reason.map(field::debug),
        duration_ms = status.duration_ms, "execution finished"
    );
}

fn key_of(execution: &CommandExecution) -> ExecutionKey {
    ExecutionKey {
        namespace: execution.namespace().unwrap_or_default(),
        name: execution.name_any(),
        uid: execution.uid().unwrap_or_default(),
    }
}
