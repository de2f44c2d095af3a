//! A finished execution, as far as its removal is concerned: nothing else of it is decoded.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::api::{CommandExecution, Phase, RETENTION_OVER_ANNOTATION};
use crate::cluster::LeanMetadata;

/// How long finished executions are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keeping {
    /// The time to live of those that do not say one, in seconds; None: they are kept until somebody deletes them.
    pub default_ttl_seconds: Option<u32>,
    /// How long a finished one is kept at least, in seconds, if the rule that allowed it does not say.
    pub minimum_seconds: u32,
}

/// How long what no rule allowed is kept at least, in seconds, if the installation does not keep it for less. Whoever asks
/// for what is refused can do so thousands of times an hour, and has run nothing; but who looks for it must have a chance to
/// see it. The chart's admission policies have the same number.
const MINIMUM_OF_REFUSED_SECONDS: u32 = 300;

/// Lean metadata, and three fields. A field that does not decode is taken for absent, so that one object cannot stop the list
/// that it is in.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Finished {
    pub metadata: LeanMetadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "leniently")]
    ttl_seconds_after_finished: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "leniently")]
    phase: Option<Phase>,
    #[serde(default, deserialize_with = "leniently")]
    completion_time: Option<MicroTime>,
    #[serde(default, deserialize_with = "leniently")]
    decision: Option<Decision>,
}

/// The decision, which is not there if no rule allowed it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    #[serde(default, deserialize_with = "leniently")]
    minimum_retention_seconds: Option<u32>,
}

fn leniently<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

impl Finished {
    pub(super) fn is_finished(&self) -> bool {
        self.status.phase.is_some_and(Phase::is_finished)
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.metadata.kept.deletion_timestamp.is_some()
    }

    /// Whether Writ's finalizer is on it.
    pub(super) fn is_held(&self) -> bool {
        self.metadata.audit_finalizer.is_some()
    }

    /// When it is to be deleted; None: never.
    pub(super) fn expiry(&self, keeping: &Keeping) -> Option<Timestamp> {
        let seconds = self.spec.ttl_seconds_after_finished.or(keeping.default_ttl_seconds)?;
        after(self.status.completion_time.as_ref()?.0, seconds.max(self.minimum_seconds(keeping)))
    }

    /// How long it is kept at least, in seconds: the admission policy `writ-guard` counts alike.
    fn minimum_seconds(&self, keeping: &Keeping) -> u32 {
        match &self.status.decision {
            Some(decision) => decision.minimum_retention_seconds.unwrap_or(keeping.minimum_seconds),
            None => keeping.minimum_seconds.min(MINIMUM_OF_REFUSED_SECONDS),
        }
    }

    /// When it is to be marked as one that others may delete; None: never, or it is.
    pub(super) fn to_be_marked(&self, keeping: &Keeping) -> Option<Timestamp> {
        let is_marked = || {
            let annotation = self.metadata.kept.annotations.as_ref()?.get(RETENTION_OVER_ANNOTATION)?;
            (annotation == "true").then_some(())
        };
        let minimum_seconds = self.minimum_seconds(keeping);
        if minimum_seconds == 0 || !self.is_finished() || is_marked().is_some() {
            return None;
        }
        let completed = self.status.completion_time.as_ref().map(|time| time.0);
        // One whose end cannot be read must not stay for ever.
        let began = completed.or_else(|| self.metadata.kept.creation_timestamp.as_ref().map(|time| time.0))?;
        after(began, minimum_seconds)
    }

    /// When there is something to do about it; None: never.
    pub(super) fn due(&self, keeping: &Keeping) -> Option<Timestamp> {
        match (self.is_being_deleted(), self.is_held()) {
            (true, true) => Some(Timestamp::MIN),
            // Somebody else holds it.
            (true, false) => None,
            (false, _) => [self.expiry(keeping), self.to_be_marked(keeping)].into_iter().flatten().min(),
        }
    }
}

fn after(time: Timestamp, seconds: u32) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

impl kube::Resource for Finished {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        CommandExecution::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        CommandExecution::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        CommandExecution::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        CommandExecution::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata.kept
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata.kept
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::AUDIT_FINALIZER;

    fn finished(spec: serde_json::Value, status: serde_json::Value, metadata: serde_json::Value) -> Finished {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn it_is_due_so_many_seconds_after_its_end_and_never_without_a_time_to_live() {
        let status = json!({"phase": "Failed", "completionTime": "2026-11-21T12:00:00.000000Z", "stdout": "x"});
        let kept = Keeping::default();
        let with = |spec| finished(spec, status.clone(), json!({"name": "x"})).due(&kept);
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(with(json!({"ttlSecondsAfterFinished": 90})), time("2026-11-21T12:01:30Z"));
        assert_eq!(with(json!({"ttlSecondsAfterFinished": 0})), time("2026-11-21T12:00:00Z"));
        assert_eq!(with(json!({})), None);
        assert_eq!(finished(json!({"ttlSecondsAfterFinished": 1}), json!({}), json!({})).due(&kept), None);
    }

    #[test]
    fn a_default_is_for_those_that_say_nothing_and_a_minimum_for_all() {
        let status = json!({"phase": "Failed", "completionTime": "2026-11-21T12:00:00.000000Z", "decision": {}});
        let due = |spec: serde_json::Value, annotations: serde_json::Value, default_ttl_seconds, minimum_seconds| {
            let metadata = json!({"name": "x", "annotations": annotations});
            finished(spec, status.clone(), metadata).due(&Keeping { default_ttl_seconds, minimum_seconds })
        };
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let (short, unmarked, marked) =
            (json!({"ttlSecondsAfterFinished": 5}), json!({}), json!({RETENTION_OVER_ANNOTATION: "true"}));
        assert_eq!(due(json!({}), unmarked.clone(), Some(10), 0), time("2026-11-21T12:00:10Z"));
        assert_eq!(due(short.clone(), unmarked.clone(), Some(10), 0), time("2026-11-21T12:00:05Z"));
        assert_eq!(due(short, marked.clone(), None, 60), time("2026-11-21T12:01:00Z"));
        // Marked when the minimum is over, deleted later; or never, and nothing is kept of it then.
        assert_eq!(due(json!({}), unmarked.clone(), Some(90), 60), time("2026-11-21T12:01:00Z"));
        assert_eq!(due(json!({}), marked.clone(), Some(90), 60), time("2026-11-21T12:01:30Z"));
        assert_eq!(due(json!({}), unmarked, None, 60), time("2026-11-21T12:01:00Z"));
        assert_eq!(due(json!({}), marked, None, 60), None);
    }

    #[test]
    fn the_rule_that_allowed_it_counts_before_the_installation_and_what_none_allowed_is_kept_for_less() {
        let kept = |decision: serde_json::Value, minimum_seconds| {
            let time = "2026-11-21T12:00:00.000000Z";
            let status = json!({"phase": "Rejected", "completionTime": time, "decision": decision});
            let spec = json!({"ttlSecondsAfterFinished": 0});
            let one = finished(spec, status, json!({"name": "x"}));
            let keeping = Keeping { default_ttl_seconds: None, minimum_seconds };
            let seconds = |at: Option<Timestamp>| Some(at?.duration_since(time.parse().unwrap()).as_secs());
            (seconds(one.expiry(&keeping)), seconds(one.to_be_marked(&keeping)))
        };
        let day = 86_400;
        assert_eq!(kept(json!({}), day), (Some(86_400), Some(86_400)));
        // Who may delete it may do so at once: nothing has to be marked.
        assert_eq!(kept(json!({"minimumRetentionSeconds": 0}), day), (Some(0), None));
        assert_eq!(kept(json!({"minimumRetentionSeconds": 60}), day), (Some(60), Some(60)));
        assert_eq!(kept(json!({"minimumRetentionSeconds": 60}), 0), (Some(60), Some(60)));
        assert_eq!(kept(json!({"minimumRetentionSeconds": "soon"}), day), (Some(86_400), Some(86_400)));
        assert_eq!(kept(json!(null), day), (Some(300), Some(300)));
        assert_eq!(kept(json!(null), 60), (Some(60), Some(60)));
        assert_eq!(kept(json!(null), 0), (Some(0), None));
    }

    #[test]
    fn what_does_not_decode_is_taken_for_absent() {
        let strange = finished(
            json!({"ttlSecondsAfterFinished": "soon", "machineRef": 7}),
            json!({"phase": "Lost", "completionTime": 12}),
            json!({"name": "x"}),
        );
        assert_eq!((strange.due(&Keeping::default()), strange.is_finished()), (None, false));
    }

    #[test]
    fn what_is_being_deleted_is_due_at_once_where_writ_holds_it() {
        let deleted = |finalizers| {
            let metadata = json!({"deletionTimestamp": "2026-11-21T12:00:00Z", "finalizers": finalizers});
            finished(json!({"ttlSecondsAfterFinished": 1}), json!({}), metadata).due(&Keeping::default())
        };
        assert_eq!(deleted(json!(["example.org/hold", AUDIT_FINALIZER])), Some(Timestamp::MIN));
        assert_eq!(deleted(json!(["example.org/hold"])), None);
    }
}
