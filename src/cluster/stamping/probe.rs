//! Tries to get a forged name past the API server, without anything being stored.
//!
//! Where names are overwritten, what comes back must be ourselves, to the last group. Where they are only refused, a
//! wrong name must be refused, and our own name with a wrong group, and the same object without a name must be taken: it
//! may have been refused for something else. The first is then tried once more, as a quota that was full may be so no longer.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use uuid::Uuid;

use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::{CommandExecution, CommandExecutionSpec};
use crate::cluster::{Cluster, ClusterError, Operation};

/// A name and a group that nobody has: only the API server gives names with this prefix.
const FORGED: &str = "system:writ:forged";
/// The Machine and the rule of the object that is never stored; neither exists.
const NOWHERE: &str = "writ-requester-check";

/// What came of it.
pub(super) enum Finding {
    /// No forged name gets through.
    Works {
        /// The time by the API server's clock.
        now: Timestamp,
    },
    /// One does.
    DoesNot(&'static str),
    /// Whatever is tried is refused.
    CouldNotBeTried {
        /// In our words.
        why: &'static str,
        /// In the API server's.
        refusal: String,
    },
}

/// What became of one try.
enum Tried {
    Taken(Box<CommandExecution>),
    Refused(String),
}

/// Tries it in a namespace.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn find_out(cluster: &Cluster, namespace: &str) -> Result<Finding, ClusterError> {
    let myself = myself(cluster).await?;
    let forged = Requester { username: FORGED.to_owned(), uid: FORGED.to_owned(), groups: vec![FORGED.to_owned()] };
    match create(cluster, namespace, Some(&forged)).await? {
        Tried::Taken(taken) => Ok(judge(&taken, &myself)),
        Tried::Refused(_) => where_refused(cluster, namespace, &forged, myself).await,
    }
}

/// A forged name was taken: it must have been overwritten.
fn judge(taken: &CommandExecution, myself: &Requester) -> Finding {
    match (&taken.spec.requested_by, &taken.metadata.creation_timestamp) {
        (Some(stamped), Some(now)) if stamped == myself => Finding::Works { now: now.0 },
        (Some(stamped), _) if stamped.username == FORGED => {
            Finding::DoesNot("a forged spec.requestedBy was accepted as it was")
        }
        (Some(_), _) => Finding::DoesNot("a forged spec.requestedBy was overwritten in part only"),
        (None, _) => Finding::DoesNot("spec.requestedBy was dropped, not stamped"),
    }
}

/// A forged name was refused: it must have been for the name, and in whole.
async fn where_refused(
    cluster: &Cluster,
    namespace: &str,
    forged: &Requester,
    mut myself: Requester,
) -> Result<Finding, ClusterError> {
    let unnamed = match create(cluster, namespace, None).await? {
        Tried::Taken(unnamed) => unnamed,
        Tried::Refused(refusal) => {
            let why = "Writ may not create CommandExecutions here, not even as a dry run (see the log)";
            return Ok(Finding::CouldNotBeTried { why, refusal });
        }
    };
    myself.groups.push(FORGED.to_owned());
    for wrong in [&myself, forged] {
        if let Tried::Taken(_) = create(cluster, namespace, Some(wrong)).await? {
            return Ok(Finding::DoesNot("a forged spec.requestedBy is not always refused"));
        }
    }
    match unnamed.metadata.creation_timestamp {
        Some(now) => Ok(Finding::Works { now: now.0 }),
        None => Ok(Finding::DoesNot("the API server does not say when it creates an object")),
    }
}

/// This process, as the API server authenticates it.
async fn myself(cluster: &Cluster) -> Result<Requester, ClusterError> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client());
    let (parameters, question) = (PostParams::default(), SelfSubjectReview::default());
    Ok(Requester::of(
        cluster.call(Operation::CheckStamping, "who this process is", api.create(&parameters, &question)).await?,
    ))
}

impl Requester {
    /// Who asked for a review of themselves.
    pub fn of(review: SelfSubjectReview) -> Self {
        let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
        Self {
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        }
    }
}

/// Creates an execution that is not stored.
async fn create(cluster: &Cluster, namespace: &str, requested_by: Option<&Requester>) -> Result<Tried, ClusterError> {
    let spec = CommandExecutionSpec {
        rule: Some(RuleRequest { name: NOWHERE.to_owned(), ..RuleRequest::default() }),
        requested_by: requested_by.cloned(),
        ..CommandExecutionSpec::on_machine(NOWHERE)
    };
    // A name that nobody can take before.
    let name = format!("{NOWHERE}-{}", Uuid::new_v4().simple());
    let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    let object = CommandExecution { metadata, spec, status: None };
    let api: Api<CommandExecution> = Api::namespaced(cluster.client(), namespace);
    let parameters = PostParams { dry_run: true, field_manager: None };
    match cluster.call(Operation::CheckStamping, "a CommandExecution (dry run)", api.create(&parameters, &object)).await
    {
        Ok(taken) => Ok(Tried::Taken(Box::new(taken))),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Undecodable { .. })) => Err(error),
        Err(error) => Ok(Tried::Refused(error.to_string())),
    }
}
