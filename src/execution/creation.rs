//! What was so at the creation of an execution.
//!
//! The promise kept here: once it is stored in the status, nothing that somebody does to the metadata changes it. Metadata
//! can be written by whoever may patch executions; the status only by Writ.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::api::execution_status::CreationRecord;
use crate::api::{CommandExecution, RESTORED_ANNOTATION, RUN_AGAIN_ANNOTATION};

/// How many characters the API server adds to `metadata.generateName`, and which: no vowels, nothing that looks alike.
const GENERATED: usize = 5;
const GENERATED_CHARACTERS: &str = "bcdfghjklmnpqrstvwxz2456789";
/// The phases of Argo CD's hooks (its documentation, "Sync Phases and Waves"), in lower case.
const ARGO_CD_PHASES: [&str; 6] = ["presync", "sync", "postsync", "syncfail", "predelete", "postdelete"];
/// What `kubectl apply` leaves on what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// A `metadata.generateName` that is longer is cut before that.
const GENERATED_PREFIX: usize = 58;

/// What was so at its creation: as it is stored, else as the metadata say it now. Until it is stored the admission policies
/// of the chart keep the metadata that count here as they were.
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

/// Whether the name was made up, and so does not come again: by the API server, of `metadata.generateName` and five
/// characters of its own, or by Argo CD. Another name that was given beside `generateName` is none of these.
fn is_name_generated(metadata: &ObjectMeta) -> bool {
    let (Some(name), Some(start)) = (&metadata.name, &metadata.generate_name) else { return false };
    if name.strip_prefix(start.as_str()).is_some_and(is_made_up_by_argo_cd) {
        return !start.is_empty();
    }
    // Somebody keeps it somewhere, and may apply it again: an export that was put into Git.
    let is_applied = |entry: &ManagedFieldsEntry| entry.operation.as_deref() == Some("Apply");
    let annotations = metadata.annotations.iter().flatten();
    if metadata.managed_fields.iter().flatten().any(is_applied)
        || annotations.into_iter().any(|(name, _)| name == LAST_APPLIED)
    {
        return false;
    }
    let start: String = start.chars().take(GENERATED_PREFIX).collect();
    let own = name.strip_prefix(&start).unwrap_or_default();
    !start.is_empty() && own.len() == GENERATED && own.chars().all(|own| GENERATED_CHARACTERS.contains(own))
}

/// What Argo CD puts behind `generateName` of a hook: revision, phase and seconds of its clock, `0123abc-presync-1795219200`
/// (gitops-engine, `pkg/sync/sync_context.go`).
fn is_made_up_by_argo_cd(own: &str) -> bool {
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
    fn what_is_stored_counts_whatever_the_metadata_say() {
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
