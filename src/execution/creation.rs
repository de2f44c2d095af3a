//! Records the metadata of an execution at its creation.
//!
//! # Guarantees
//!
//! Changes of the metadata do not change a stored record. Anyone who may patch executions can change the metadata, but
//! only Writ writes the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::api::execution_status::CreationRecord;
use crate::api::{CommandExecution, RESTORED_ANNOTATION, RUN_AGAIN_ANNOTATION};

/// Number of random characters that the API server appends to `metadata.generateName`.
const NAME_SUFFIX_LENGTH: usize = 5;
/// Random characters that the API server may append: no vowels, and no characters that look alike.
const NAME_SUFFIX_CHARACTERS: &str = "bcdfghjklmnpqrstvwxz2456789";
/// Phases of Argo CD's hooks, in lower case (documentation of Argo CD, "Sync Phases and Waves").
const ARGO_CD_PHASES: [&str; 6] = ["presync", "sync", "postsync", "syncfail", "predelete", "postdelete"];
/// Annotation that `kubectl apply` sets on an applied object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Maximum length of the prefix that the API server takes from `metadata.generateName`, in characters. The API server
/// cuts a longer prefix.
const MAX_NAME_PREFIX: usize = 58;

/// Returns the stored creation record. If no record is stored yet, returns a record of the current metadata. The
/// chart's admission policies protect this metadata until Writ has stored a record.
pub fn creation(execution: &CommandExecution) -> CreationRecord {
    if let Some(stored) = execution.status.as_ref().and_then(|status| status.creation) {
        return stored;
    }
    let annotation = |name: &str| execution.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    CreationRecord {
        name_generated: is_name_generated(&execution.metadata),
        restored_copy: annotation(RESTORED_ANNOTATION).is_some(),
        run_again: annotation(RUN_AGAIN_ANNOTATION).is_some_and(|value| value == "true"),
    }
}

/// Returns true if the API server or Argo CD generated the name from `metadata.generateName`. A generated name is not
/// used again.
fn is_name_generated(metadata: &ObjectMeta) -> bool {
    let (Some(name), Some(start)) = (&metadata.name, &metadata.generate_name) else { return false };
    if name.strip_prefix(start.as_str()).is_some_and(is_argo_cd_generated) {
        return !start.is_empty();
    }
    // An applied object can be applied again under the same name, so its name counts as not generated.
    let is_applied = |entry: &ManagedFieldsEntry| entry.operation.as_deref() == Some("Apply");
    let annotations = metadata.annotations.iter().flatten();
    if metadata.managed_fields.iter().flatten().any(is_applied)
        || annotations.into_iter().any(|(name, _)| name == LAST_APPLIED)
    {
        return false;
    }
    let start: String = start.chars().take(MAX_NAME_PREFIX).collect();
    let own = name.strip_prefix(&start).unwrap_or_default();
    !start.is_empty() && own.len() == NAME_SUFFIX_LENGTH && own.chars().all(|own| NAME_SUFFIX_CHARACTERS.contains(own))
}

/// Returns true if `own` has the form of the suffix that Argo CD appends to `generateName` of a hook: revision, phase,
/// and Unix time in seconds. Example: `0123abc-presync-1795219200` (gitops-engine, `pkg/sync/sync_context.go`).
fn is_argo_cd_generated(own: &str) -> bool {
    let Some((before, time)) = own.rsplit_once('-') else { return false };
    let Some((revision, phase)) = before.rsplit_once('-') else { return false };
    (10..=11).contains(&time.len())
        && time.chars().all(|digit| digit.is_ascii_digit())
        && ARGO_CD_PHASES.contains(&phase)
        && !revision.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(metadata: serde_json::Value, status: serde_json::Value) -> CommandExecution {
        let spec = serde_json::json!({"machineRef": {"name": "web-1"}, "command": "say hello"});
        serde_json::from_value(serde_json::json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": metadata, "spec": spec,
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn stored_creation_record_wins_over_metadata() {
        let marks = serde_json::json!({RESTORED_ANNOTATION: "true", RUN_AGAIN_ANNOTATION: "true"});
        let changed = serde_json::json!({"name": "m-x7k2p", "generateName": "m-", "annotations": marks});
        let unstored = creation(&execution(changed.clone(), serde_json::json!({})));
        assert_eq!(unstored, CreationRecord { name_generated: true, restored_copy: true, run_again: true });
        let stored = serde_json::json!({"creation": {"nameGenerated": false}});
        assert_eq!(creation(&execution(changed, stored)), CreationRecord::default());
        let stored = serde_json::json!({"creation": {"nameGenerated": true}});
        assert!(creation(&execution(serde_json::json!({"name": "m"}), stored)).name_generated);
    }
}
