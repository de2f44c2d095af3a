//! The controller of Whitelists: says in each one's status what became of its rules.
//!
//! The promise kept here: what is said is what decisions rest on (the same `compile`). Nothing is decided by the status,
//! so whoever may write it gains nothing. It is written only where it says something new. What `writ lint` would warn of is
//! said too, as not everybody runs it.

mod warnings;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::runtime::controller::{Action, Config, Error as AppliedError, ReconcileRequest, applier};
use kube::runtime::reflector;
use kube::runtime::reflector::{ObjectRef, store};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::Whitelist;
use crate::api::conditions::{self, ConditionType};
use crate::api::whitelist::WhitelistStatus;
use crate::cluster::{
    Cluster, ClusterError, EventPublisher, FIELD_MANAGER, Operation, PolicyCache, RequesterTrust,
    RequesterTrustChecker, Slim, compile_object,
};
use crate::execution::storable;
use crate::fairness::Size;
use crate::policy::{CompiledWhitelist, RuleSet};
use crate::telemetry::{BackgroundTask, Watch};

use super::fair::{Fair, UNBOUNDED};
use super::places::watch_all;
use super::watching::{measured, to_look_at, watch_config, with_beats};
pub use warnings::WarningCounts;

/// Whitelists looked at at a time. Compiling a large one takes a core for a moment.
const LOOKED_AT: Size = Size { places: 3, share: 2 };
/// How often a Whitelist with subjects is looked at, at least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often the Deny rules of a Whitelist are compared with the rules of the others, which change without it.
const COMPARE_AGAIN: Duration = Duration::from_secs(60);
/// How often the verdict on one generation may change.
const BETWEEN_VERDICTS: Duration = Duration::from_secs(5);

type Watched = Slim<Whitelist>;

/// What reconciling needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Tells whether subjects are in force.
    pub stamping: RequesterTrustChecker,
    /// Tells people.
    pub events: EventPublisher,
    /// The other Whitelists of a namespace.
    pub policies: Arc<PolicyCache>,
    /// How many warnings each Whitelist has.
    pub warnings: WarningCounts,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let (reader, writer) = store::<Watched>();
    let watched = watch_all(context.cluster.watch_apis::<Watched>(), watch_config());
    let known = reader.clone();
    let changes =
        reflector(writer, watched).flat_map(move |event| stream::iter(to_look_at(Watch::Whitelists, event, &known)));
    let fair = Fair::new(LOOKED_AT);
    let queue = stream::select(changes.boxed(), fair.come_again().boxed());
    let queue = queue.map(|reference| Ok::<_, std::convert::Infallible>(ReconcileRequest::from(reference)));
    let queue = with_beats(BackgroundTask::Whitelists, queue).take_until(stop.cancelled_owned());
    let config = Config::default().concurrency(UNBOUNDED);
    let context = Arc::new(context);
    let counts = Arc::clone(&context);
    applier(
        |object: Arc<Watched>, context| {
            fair.look(&ObjectRef::from(object.as_ref()), move || {
                measured(BackgroundTask::Whitelists, reconcile(object, context))
            })
        },
        |_, _, _| Action::requeue(Duration::from_secs(10)),
        context,
        reader,
        Box::pin(queue),
        config,
    )
    .for_each(|result| async {
        match result {
            Ok(_) => {}
            Err(AppliedError::ObjectNotFound(gone)) => {
                counts.warnings.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
                fair.gone(&gone);
            }
            Err(AppliedError::ReconcilerFailed(error, object)) => {
                tracing::warn!(%error, category = error.category(), %object, "the status of a Whitelist could not be written; trying again");
            }
            Err(error) => tracing::error!(%error, "the controller could not look at a Whitelist"),
        }
    })
    .await;
}

/// Looks at one Whitelist: reads it, compiles it, and writes the status where it is not what it should be.
async fn reconcile(object: Arc<Watched>, context: Arc<Context>) -> Result<Action, ClusterError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    // As an object of no type: one that does not decode has to be told of too.
    let resource = ApiResource::erase::<Whitelist>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.cluster.client(), &namespace, &resource);
    let what = format!("Whitelist {namespace}/{name}");
    let live = match context.cluster.call(Operation::GetWhitelists, &what, api.get(&name)).await {
        Ok(live) => live,
        Err(ClusterError::NotFound { .. }) => {
            context.warnings.forget(&namespace, &name);
            return Ok(Action::await_change());
        }
        Err(error) => return Err(error),
    };
    let before: WhitelistStatus =
        live.data.get("status").cloned().and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
    let about = live.object_ref(&resource);
    let resource_version = live.metadata.resource_version.clone();
    let generation = live.metadata.generation;
    let written = warnings::last_written(&live.metadata);
    // A large one takes a core for a moment, which others on this thread would wait for.
    let has_deny = warnings::has_deny(&live);
    let rules = if has_deny { Some(context.policies.rules(&namespace).await?) } else { None };
    let compiled = tokio::task::spawn_blocking(move || {
        let others = rules.as_ref().map(RuleSet::whitelists).unwrap_or_default();
        let compiled = compile_object(live.clone());
        (warnings::of(live, &compiled, others), compiled)
    })
    .await;
    let (warnings, compiled) =
        compiled.map_err(|error| ClusterError::Unavailable { target: what.clone(), message: error.to_string() })?;
    context.warnings.set(&namespace, &name, warnings.len());
    // Whether names can be believed changes without the Whitelist: look again.
    let (trust, again) = if compiled.has_subjects() {
        (
            Some(context.stamping.trust(&namespace).await),
            Action::requeue(context.stamping.recheck_interval().min(LOOK_AGAIN)),
        )
    } else if has_deny {
        (None, Action::requeue(COMPARE_AGAIN))
    } else {
        (None, Action::await_change())
    };
    let now = context.cluster.now();
    let mut status = status_of(&compiled, &before, generation, trust.as_ref(), now);
    warnings::say(&mut status, &warnings, now);
    if says_the_same(&before, &status) {
        return Ok(again);
    }
    if let Some(pause) = too_soon(&before, &status, written, now) {
        return Ok(Action::requeue(pause));
    }
    // With the version that was read: what is said must be of what is there.
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": resource_version}, "status": status}));
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let slim: Api<Watched> = Api::namespaced(context.cluster.client(), &namespace);
    match context.cluster.call(Operation::WriteWhitelist, &what, slim.patch_status(&name, &parameters, &patch)).await {
        Ok(_) => tell(&context, about, &before, &status),
        // The change is on its way here.
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(again)
}

/// Whether a status says nothing new. Sentences do not count: they are made from the same generation, and two processes of
/// different versions would correct each other for ever.
fn says_the_same(before: &WhitelistStatus, now: &WhitelistStatus) -> bool {
    let words = |status: &WhitelistStatus| -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter();
        conditions.map(|each| (each.type_.clone(), each.status.clone(), each.reason.clone())).collect()
    };
    before.observed_generation == now.observed_generation
        && before.rule_count == now.rule_count
        && before.warning_count == now.warning_count
        && words(before) == words(now)
}

/// How long to wait before the same generation is judged anew: two processes that do not agree (of different versions, or
/// with different rights) must not write against each other as fast as they can. A condition does not say when its message
/// was written last; the API server does.
fn too_soon(
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
    BETWEEN_VERDICTS.checked_sub(passed).filter(|left| !left.is_zero())
}

/// An event where the verdict is another one than before.
fn tell(
    context: &Context,
    about: k8s_openapi::api::core::v1::ObjectReference,
    before: &WhitelistStatus,
    status: &WhitelistStatus,
) {
    let condition = |status: &WhitelistStatus, type_: ConditionType| {
        status.conditions.iter().find(|condition| condition.type_ == type_.as_str()).cloned()
    };
    for (type_, is_bad) in [(ConditionType::Ready, "False"), (ConditionType::HasWarnings, "True")] {
        let Some(now) = condition(status, type_) else { continue };
        let before = condition(before, type_);
        if before.is_none_or(|before| before.status != now.status || before.message != now.message) {
            context.events.publish_whitelist(about.clone(), &now.reason, now.status == is_bad, &now.message);
        }
    }
}

/// The status that a compiled Whitelist should have.
fn status_of(
    compiled: &CompiledWhitelist,
    before: &WhitelistStatus,
    generation: Option<i64>,
    trust: Option<&RequesterTrust>,
    now: Timestamp,
) -> WhitelistStatus {
    let mut status = before.clone();
    status.observed_generation = generation;
    status.rule_count = i64::try_from(compiled.rule_count()).ok();
    let (reason, message) = verdict(compiled);
    let is_ready = reason == "AllRulesInForce";
    let message = storable(&message);
    let conditions = &mut status.conditions;
    conditions::set(conditions, ConditionType::Ready, is_ready, reason, &message, generation, now);
    if is_ready {
        conditions::remove(conditions, ConditionType::Stalled);
    } else {
        conditions::set(conditions, ConditionType::Stalled, true, reason, &message, generation, now);
    }
    let known = ConditionType::RequesterKnown;
    match trust {
        None => conditions::remove(conditions, known),
        Some(RequesterTrust::Since(_)) => {
            conditions::set(conditions, known, true, "Stamped", "the API server says who asks", generation, now);
        }
        Some(RequesterTrust::Untrusted(problem) | RequesterTrust::Undecided(problem)) => {
            let message = format!(
                "{problem}; rules with subjects allow nobody, and a Deny with subjects holds against everybody (docs/guides/roles.md)"
            );
            conditions::set(conditions, known, false, "NotStamped", &message, generation, now);
        }
    }
    status
}

/// Reason and message of what became of the rules.
fn verdict(compiled: &CompiledWhitelist) -> (&'static str, String) {
    let broken: Vec<String> =
        compiled.broken.iter().map(|broken| format!("{}: {}", broken.rule, broken.problem)).collect();
    match &compiled.closed {
        Some(why) => ("FailedClosed", format!("nothing is allowed in this namespace until this is fixed: {why}")),
        None if broken.is_empty() => {
            let message = match compiled.rule_count() {
                1 => "1 rule is in force".to_owned(),
                count => format!("{count} rules are in force"),
            };
            ("AllRulesInForce", message)
        }
        None => {
            let are = if broken.len() == 1 { "is" } else { "are" };
            let all = broken.len() + compiled.rule_count();
            let message = format!("{} of {all} rules {are} out of force: ", broken.len());
            ("RulesBroken", message + &broken.join("; "))
        }
    }
}
