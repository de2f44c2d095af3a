//! The parts of a finished execution that Writ needs to remove it. The other parts are not decoded.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::api::{Phase, RETENTION_OVER_ANNOTATION};
use crate::cluster::{LeanMetadata, execution_resource};

/// Retention of finished executions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionPolicy {
    /// TTL of executions without `ttlSecondsAfterFinished`, in seconds. If `None`, such executions stay until somebody
    /// deletes them.
    pub default_ttl_seconds: Option<u32>,
    /// Minimum retention in seconds. Used if the rule that allowed the execution has no `minimumRetentionSeconds`.
    pub minimum_seconds: u32,
}

/// Minimum retention of executions that no rule allowed, in seconds. A shorter `--minimum-retention-seconds` applies
/// instead. 300 s is enough to read such an execution, and limits the number of such executions in the cluster. The
/// chart's admission policies use the same number.
const MINIMUM_OF_REFUSED_SECONDS: u32 = 300;

/// Metadata of an execution, and the fields of `spec` and `status` that decide about its retention. A field that cannot
/// be decoded counts as absent, so that one object cannot make a whole list undecodable.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct FinishedExecution {
    pub metadata: LeanMetadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "decode_or_none")]
    ttl_seconds_after_finished: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "decode_or_none")]
    phase: Option<Phase>,
    #[serde(default, deserialize_with = "decode_or_none")]
    completion_time: Option<MicroTime>,
    #[serde(default, deserialize_with = "decode_or_none")]
    decision: Option<Decision>,
}

/// Part of `status.decision`. The field `decision` is absent if no rule allowed the execution.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    #[serde(default, deserialize_with = "decode_or_none")]
    minimum_retention_seconds: Option<u32>,
}

fn decode_or_none<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

impl FinishedExecution {
    pub(super) fn is_finished(&self) -> bool {
        self.status.phase.is_some_and(Phase::is_finished)
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.metadata.kept.deletion_timestamp.is_some()
    }

    /// Returns true if the execution has Writ's finalizer.
    pub(super) fn has_finalizer(&self) -> bool {
        self.metadata.audit_finalizer.is_some()
    }

    /// Returns the time after which Writ deletes the execution, or `None` if Writ never deletes it.
    pub(super) fn expiry(&self, policy: &RetentionPolicy) -> Option<Timestamp> {
        let seconds = self.spec.ttl_seconds_after_finished.or(policy.default_ttl_seconds)?;
        after(self.status.completion_time.as_ref()?.0, seconds.max(self.minimum_seconds(policy)))
    }

    /// Returns the minimum retention in seconds. The admission policy `writ-guard` computes the same value.
    fn minimum_seconds(&self, policy: &RetentionPolicy) -> u32 {
        match &self.status.decision {
            Some(decision) => decision.minimum_retention_seconds.unwrap_or(policy.minimum_seconds),
            None => policy.minimum_seconds.min(MINIMUM_OF_REFUSED_SECONDS),
        }
    }

    /// Returns the end of the minimum retention, when Writ adds the annotation that allows others to delete the
    /// execution. Returns `None` if the execution needs no annotation, or has the annotation already.
    pub(super) fn mark_time(&self, policy: &RetentionPolicy) -> Option<Timestamp> {
        let is_marked = || {
            let annotation = self.metadata.kept.annotations.as_ref()?.get(RETENTION_OVER_ANNOTATION)?;
            (annotation == "true").then_some(())
        };
        let minimum_seconds = self.minimum_seconds(policy);
        if minimum_seconds == 0 || !self.is_finished() || is_marked().is_some() {
            return None;
        }
        let completed = self.status.completion_time.as_ref().map(|time| time.0);
        // Without a readable completion time the creation time counts, so that the execution does not stay forever.
        let start = completed.or_else(|| self.metadata.kept.creation_timestamp.as_ref().map(|time| time.0))?;
        after(start, minimum_seconds)
    }

    /// Returns the time of the next action, or `None` if there is no next action.
    pub(super) fn next_action_time(&self, policy: &RetentionPolicy) -> Option<Timestamp> {
        match (self.is_being_deleted(), self.has_finalizer()) {
            (true, true) => Some(Timestamp::MIN),
            // Writ has no further action. Only finalizers of other programs keep the execution.
            (true, false) => None,
            (false, _) => [self.expiry(policy), self.mark_time(policy)].into_iter().flatten().min(),
        }
    }
}

fn after(time: Timestamp, seconds: u32) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

execution_resource!(FinishedExecution, metadata.kept);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::AUDIT_FINALIZER;

    fn finished(spec: serde_json::Value, status: serde_json::Value, metadata: serde_json::Value) -> FinishedExecution {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn execution_is_due_after_its_ttl_and_never_without_one() {
        let status = json!({"phase": "Failed", "completionTime": "2026-11-21T12:00:00.000000Z", "stdout": "x"});
        let kept = RetentionPolicy::default();
        let with = |spec| finished(spec, status.clone(), json!({"name": "x"})).next_action_time(&kept);
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(with(json!({"ttlSecondsAfterFinished": 90})), time("2026-11-21T12:01:30Z"));
        assert_eq!(with(json!({"ttlSecondsAfterFinished": 0})), time("2026-11-21T12:00:00Z"));
        assert_eq!(with(json!({})), None);
        assert_eq!(finished(json!({"ttlSecondsAfterFinished": 1}), json!({}), json!({})).next_action_time(&kept), None);
    }

    #[test]
    fn default_ttl_is_for_executions_without_one_and_minimum_for_all() {
        let status = json!({"phase": "Failed", "completionTime": "2026-11-21T12:00:00.000000Z", "decision": {}});
        let due = |spec: serde_json::Value, annotations: serde_json::Value, default_ttl_seconds, minimum_seconds| {
            let metadata = json!({"name": "x", "annotations": annotations});
            finished(spec, status.clone(), metadata)
                .next_action_time(&RetentionPolicy { default_ttl_seconds, minimum_seconds })
        };
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let (short, unmarked, marked) =
            (json!({"ttlSecondsAfterFinished": 5}), json!({}), json!({RETENTION_OVER_ANNOTATION: "true"}));
        assert_eq!(due(json!({}), unmarked.clone(), Some(10), 0), time("2026-11-21T12:00:10Z"));
        assert_eq!(due(short.clone(), unmarked.clone(), Some(10), 0), time("2026-11-21T12:00:05Z"));
        assert_eq!(due(short, marked.clone(), None, 60), time("2026-11-21T12:01:00Z"));
        // The execution is annotated after the minimum retention, and deleted after its TTL. Without a TTL, the
        // annotated execution is never deleted and has no next action.
        assert_eq!(due(json!({}), unmarked.clone(), Some(90), 60), time("2026-11-21T12:01:00Z"));
        assert_eq!(due(json!({}), marked.clone(), Some(90), 60), time("2026-11-21T12:01:30Z"));
        assert_eq!(due(json!({}), unmarked, None, 60), time("2026-11-21T12:01:00Z"));
        assert_eq!(due(json!({}), marked, None, 60), None);
    }

    #[test]
    fn minimum_of_the_rule_goes_first_and_refused_ones_are_kept_for_less() {
        let kept = |decision: serde_json::Value, minimum_seconds| {
            let time = "2026-11-21T12:00:00.000000Z";
            let status = json!({"phase": "Rejected", "completionTime": time, "decision": decision});
            let spec = json!({"ttlSecondsAfterFinished": 0});
            let one = finished(spec, status, json!({"name": "x"}));
            let policy = RetentionPolicy { default_ttl_seconds: None, minimum_seconds };
            let seconds = |at: Option<Timestamp>| Some(at?.duration_since(time.parse().unwrap()).as_secs());
            (seconds(one.expiry(&policy)), seconds(one.mark_time(&policy)))
        };
        let day = 86_400;
        assert_eq!(kept(json!({}), day), (Some(86_400), Some(86_400)));
        // With a minimum retention of 0, no annotation is needed, because users may delete the execution immediately.
        assert_eq!(kept(json!({"minimumRetentionSeconds": 0}), day), (Some(0), None));
        assert_eq!(kept(json!({"minimumRetentionSeconds": 60}), day), (Some(60), Some(60)));
        assert_eq!(kept(json!({"minimumRetentionSeconds": 60}), 0), (Some(60), Some(60)));
        assert_eq!(kept(json!({"minimumRetentionSeconds": "soon"}), day), (Some(86_400), Some(86_400)));
        assert_eq!(kept(json!(null), day), (Some(300), Some(300)));
        assert_eq!(kept(json!(null), 60), (Some(60), Some(60)));
        assert_eq!(kept(json!(null), 0), (Some(0), None));
    }

    #[test]
    fn undecodable_field_counts_as_absent() {
        let strange = finished(
            json!({"ttlSecondsAfterFinished": "soon", "machineRef": 7}),
            json!({"phase": "Lost", "completionTime": 12}),
            json!({"name": "x"}),
        );
        assert_eq!((strange.next_action_time(&RetentionPolicy::default()), strange.is_finished()), (None, false));
    }

    #[test]
    fn deleted_execution_is_due_at_once_if_writ_holds_it() {
        let deleted = |finalizers| {
            let metadata = json!({"deletionTimestamp": "2026-11-21T12:00:00Z", "finalizers": finalizers});
            finished(json!({"ttlSecondsAfterFinished": 1}), json!({}), metadata)
                .next_action_time(&RetentionPolicy::default())
        };
        assert_eq!(deleted(json!(["example.org/hold", AUDIT_FINALIZER])), Some(Timestamp::MIN));
        assert_eq!(deleted(json!(["example.org/hold"])), None);
    }
}
