//! The controller of Whitelists: reports in the status of each Whitelist which of its rules are in force.
//!
//! # Guarantees
//! - The status reports the rules that decisions use, because both use the same `compile`.
//! - No decision depends on the status. A user who can only write the status therefore cannot change a decision.
//! - The status is written only if its content changes. The content includes the warnings of `writ lint`.

mod ready_reason;
mod verdicts;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::Whitelist;
use crate::api::conditions::{self, ConditionType};
use crate::api::whitelist::WhitelistStatus;
use crate::cluster::{
    Change, Cluster, ClusterError, EventPublisher, FIELD_MANAGER, Operation, PolicyCache, RequesterTrust,
    RequesterTrustChecker, Slim, compile_object,
};
use crate::fairness::Size;
use crate::policy::RuleSet;
use crate::telemetry::BackgroundTask;

use super::Watches;
use super::reconcile::{self, Reconcile};
use verdicts::{Verdict, Verdicts, Version};
pub use warnings::WarningCounts;

/// Maximum interval between two reconciles of a Whitelist with rules for certain requesters (subjects). The trust in
/// requesters can change at any time.
const SUBJECTS_REQUEUE: Duration = Duration::from_secs(5);
/// Interval between two reconciles of a Whitelist with Deny rules. The warnings of such a Whitelist depend on the other
/// Whitelists of the namespace.
const DENY_REQUEUE: Duration = Duration::from_secs(60);
/// Minimum interval between two status writes for the same generation.
const MIN_STATUS_INTERVAL: Duration = Duration::from_secs(5);

type WhitelistMeta = Slim<Whitelist>;

/// Dependencies of a reconcile.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Checks if `spec.requestedBy` can be trusted. If it cannot be trusted, rules with subjects are not in force.
    pub stamping: RequesterTrustChecker,
    /// Publishes events.
    pub events: EventPublisher,
    /// Compiled Whitelists of each namespace, to lint a Whitelist together with the others.
    pub policies: Arc<PolicyCache>,
    /// Number of warnings of each Whitelist.
    pub warnings: WarningCounts,
}

/// Runs the controller until `stop` is cancelled. Each reconcile in progress then still runs to its end.
pub async fn run(context: Context, watches: Watches, stop: CancellationToken) {
    let (queue, store) = (changes(&watches), watches.whitelists.store());
    let controller = Controller { context, whitelists: store.clone(), verdicts: Verdicts::default() };
    reconcile::run(Arc::new(controller), store, queue, stop).await;
}

struct Controller {
    context: Context,
    whitelists: Store<WhitelistMeta>,
    verdicts: Verdicts,
}

impl Reconcile for Controller {
    type Object = WhitelistMeta;

    const TASK: BackgroundTask = BackgroundTask::Whitelists;
    /// The limit is low because compiling a large Whitelist uses a whole core for a moment.
    const MAX_CONCURRENT: Size = Size { places: 3, share: 2 };

    async fn reconcile(self: Arc<Self>, object: Arc<WhitelistMeta>) -> Result<Action, ClusterError> {
        reconcile(&object, &self).await
    }

    fn retry_after(_error: &ClusterError) -> Duration {
        Duration::from_secs(10)
    }

    fn not_found(&self, reference: &ObjectRef<DynamicObject>) {
        self.forget(reference.namespace.as_deref().unwrap_or_default(), &reference.name);
    }
}

impl Controller {
    fn forget(&self, namespace: &str, name: &str) {
        self.context.warnings.forget(namespace, name);
        self.verdicts.remove(namespace, name);
    }

    /// Returns the version of the Whitelists of a namespace, according to the watch.
    fn version_of_all(&self, namespace: &str) -> Version {
        let all = self.whitelists.state_filter(|each| each.meta().namespace.as_deref() == Some(namespace));
        Version::of_all(all.iter().map(|each| {
            let metadata = each.meta();
            let (name, uid) = (metadata.name.as_deref(), metadata.uid.as_deref());
            (name.unwrap_or_default(), uid.unwrap_or_default(), metadata.generation.unwrap_or_default())
        }))
    }
}

/// Returns the Whitelists that have changed.
fn changes(watches: &Watches) -> impl Stream<Item = ObjectRef<WhitelistMeta>> + Send + use<> {
    let changes = watches.whitelists.subscribe(|before, after| before.resource_version() != after.resource_version());
    changes.flat_map(move |change| {
        let changed = match change {
            Change::Applied(whitelist) | Change::Deleted(whitelist) => vec![ObjectRef::from(whitelist.as_ref())],
            Change::Listed(all) => all.iter().map(|whitelist| ObjectRef::from(whitelist.as_ref())).collect(),
        };
        stream::iter(changed)
    })
}

/// Reconciles one Whitelist.
///
/// 1. Read the Whitelist live.
/// 2. Get the verdict on the Whitelist. If the stored verdict is outdated, compile and lint the Whitelist again.
/// 3. Write the status, if its content has changed.
async fn reconcile(object: &WhitelistMeta, controller: &Controller) -> Result<Action, ClusterError> {
    let context = &controller.context;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    // Reads the Whitelist as an untyped object, because a Whitelist that cannot be decoded also needs a status.
    let resource = ApiResource::erase::<Whitelist>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.cluster.client(), &namespace, &resource);
    let target = format!("Whitelist {namespace}/{name}");
    let live = match context.cluster.call(Operation::GetWhitelists, &target, api.get(&name)).await {
        Ok(live) => live,
        Err(ClusterError::NotFound { .. }) => {
            controller.forget(&namespace, &name);
            return Ok(Action::await_change());
        }
        Err(error) => return Err(error),
    };
    let before: WhitelistStatus =
        live.data.get("status").cloned().and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
    let (regarding, own) = (live.object_ref(&resource), Version::of_one(&live.metadata));
    let (resource_version, generation) = (live.metadata.resource_version.clone(), live.metadata.generation);
    let written = warnings::last_written(&live.metadata);
    let judge = async || judge(live, &namespace, context).await;
    let all = || controller.version_of_all(&namespace);
    let verdict = controller.verdicts.get((&namespace, &name), own, all, judge).await?;
    context.warnings.set(&namespace, &name, verdict.warnings.count);
    let (trust, requeue) = if verdict.has_subjects {
        (
            Some(context.stamping.trust(&namespace).await),
            Action::requeue(context.stamping.recheck_interval().min(SUBJECTS_REQUEUE)),
        )
    } else if verdict.has_deny {
        (None, Action::requeue(DENY_REQUEUE))
    } else {
        (None, Action::await_change())
    };
    let now = context.cluster.now();
    let status = status_of(&verdict, &before, generation, trust.as_ref(), now);
    if is_equivalent(&before, &status) {
        return Ok(requeue);
    }
    if let Some(delay) = throttle(&before, &status, written, now) {
        return Ok(Action::requeue(delay));
    }
    // If the Whitelist has changed since it was read, the API server refuses the patch because of the resourceVersion.
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": resource_version}, "status": status}));
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let slim: Api<WhitelistMeta> = Api::namespaced(context.cluster.client(), &namespace);
    match context.cluster.call(Operation::WriteWhitelist, &target, slim.patch_status(&name, &parameters, &patch)).await
    {
        Ok(_) => publish_change(context, &regarding, &before, &status),
        // The Whitelist was changed or deleted. The watch reports this.
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(requeue)
}

/// Compiles and lints a Whitelist. Also returns the version of all Whitelists of the namespace, if the verdict depends
/// on the other Whitelists.
async fn judge(
    live: DynamicObject,
    namespace: &str,
    context: &Context,
) -> Result<(Verdict, Option<Version>), ClusterError> {
    let has_deny = warnings::has_deny(&live);
    let rules = if has_deny { Some(context.policies.listed(namespace).await?) } else { None };
    // Compiling a large Whitelist uses a whole core for a moment and would delay other tasks of this thread.
    let judged = tokio::task::spawn_blocking(move || {
        let others = rules.as_ref().map(RuleSet::whitelists);
        let compiled = compile_object(live.clone());
        let warnings = warnings::lint(live, &compiled, others.unwrap_or_default());
        (Verdict::new(&compiled, has_deny, warnings), others.map(Version::of_compiled))
    });
    judged.await.map_err(|error| ClusterError::Unavailable {
        target: format!("the verdict on a Whitelist of {namespace}"),
        message: error.to_string(),
    })
}

/// Returns true if the new status equals the previous status, apart from messages. Writ then does not write the new
/// status. If messages were compared, two processes of different versions would overwrite the status forever.
fn is_equivalent(before: &WhitelistStatus, now: &WhitelistStatus) -> bool {
    let verdicts = |status: &WhitelistStatus| -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter();
        conditions.map(|each| (each.type_.clone(), each.status.clone(), each.reason.clone())).collect()
    };
    before.observed_generation == now.observed_generation
        && before.rule_count == now.rule_count
        && before.warning_count == now.warning_count
        && verdicts(before) == verdicts(now)
}

/// Returns the delay before a status for the same generation may be written again, or `None` if it may be written now.
/// Without the delay, two processes that disagree about the status would overwrite it in a fast loop.
///
/// The delay starts at `written` (the time of Writ's last write) or at the latest `lastTransitionTime`, if that time is
/// later.
fn throttle(
    before: &WhitelistStatus,
    now: &WhitelistStatus,
    written: Option<Timestamp>,
    at: Timestamp,
) -> Option<Duration> {
    if before.observed_generation != now.observed_generation {
        return None;
    }
    let latest = before.conditions.iter().map(|condition| condition.last_transition_time.0).chain(written).max()?;
    let passed = Duration::try_from(at.duration_since(latest)).unwrap_or(Duration::ZERO);
    MIN_STATUS_INTERVAL.checked_sub(passed).filter(|left| !left.is_zero())
}

/// Publishes an event for each condition whose status or message has changed.
fn publish_change(context: &Context, regarding: &ObjectReference, before: &WhitelistStatus, status: &WhitelistStatus) {
    let condition = |status: &WhitelistStatus, type_: ConditionType| {
        status.conditions.iter().find(|condition| condition.type_ == type_.as_str()).cloned()
    };
    for (type_, bad) in [(ConditionType::Ready, "False"), (ConditionType::HasWarnings, "True")] {
        let Some(now) = condition(status, type_) else { continue };
        let before = condition(before, type_);
        if before.is_none_or(|before| before.status != now.status || before.message != now.message) {
            context.events.publish_whitelist(regarding.clone(), &now.reason, now.status == bad, &now.message);
        }
    }
}

/// Returns the status that follows from a verdict.
fn status_of(
    verdict: &Verdict,
    before: &WhitelistStatus,
    generation: Option<i64>,
    trust: Option<&RequesterTrust>,
    now: Timestamp,
) -> WhitelistStatus {
    let mut status = before.clone();
    status.observed_generation = generation;
    status.rule_count = i64::try_from(verdict.rule_count).ok();
    let reason = verdict.reason;
    let is_ready = reason == "AllRulesInForce";
    let conditions = &mut status.conditions;
    conditions::set(conditions, ConditionType::Ready, is_ready, reason, &verdict.message, generation, now);
    if is_ready {
        conditions::remove(conditions, ConditionType::Stalled);
    } else {
        conditions::set(conditions, ConditionType::Stalled, true, reason, &verdict.message, generation, now);
    }
    let known = ConditionType::RequesterKnown;
    match trust {
        None => conditions::remove(conditions, known),
        Some(RequesterTrust::Since(_)) => {
            conditions::set(conditions, known, true, "Stamped", "the API server says who asks", generation, now);
        }
        Some(RequesterTrust::Undecided(problem)) => {
            let message = format!(
                "{problem}; until this is known, an execution that depends on the subjects of a rule stays Pending \
                 (docs/guides/roles.md)"
            );
            conditions::set_unknown(conditions, known, "CheckInconclusive", &message, generation, now);
        }
        Some(RequesterTrust::Untrusted(problem)) => {
            let message = format!(
                "{problem}; rules with subjects allow nobody, and a Deny with subjects holds against everybody (docs/guides/roles.md)"
            );
            conditions::set(conditions, known, false, "NotStamped", &message, generation, now);
        }
    }
    verdict.warnings.write_into(&mut status, now);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requester_condition_is_unknown_while_the_check_has_no_result() {
        let verdict = Verdict {
            rule_count: 1,
            reason: "AllRulesInForce",
            message: String::new(),
            has_subjects: true,
            has_deny: false,
            warnings: warnings::Warnings::default(),
        };
        for (trust, expected) in [
            (None, None),
            (Some(RequesterTrust::Since(Timestamp::UNIX_EPOCH)), Some("True")),
            (Some(RequesterTrust::Undecided("why")), Some("Unknown")),
            (Some(RequesterTrust::Untrusted("why")), Some("False")),
        ] {
            let before = WhitelistStatus::default();
            let status = status_of(&verdict, &before, Some(1), trust.as_ref(), Timestamp::UNIX_EPOCH);
            let known = status.conditions.iter().find(|condition| condition.type_ == "RequesterKnown");
            assert_eq!(known.map(|condition| condition.status.as_str()), expected);
        }
    }
}
