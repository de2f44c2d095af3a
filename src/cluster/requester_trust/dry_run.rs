//! Checks the admission policy: tries to create executions with a forged requester. The creates are dry runs, so the
//! API server does not store the executions.
//!
//! A policy either overwrites or refuses a forged requester. If the policy overwrites the requester, the answer must
//! name this process, with all of its groups. If the policy refuses the requester, three more creates must give the
//! expected result:
//!
//! 1. A create without a requester must be accepted. Otherwise the first refusal perhaps had another cause.
//! 2. A create with this process's own name and a wrong group must be refused.
//! 3. A create with the forged requester must be refused again. The first refusal perhaps had a temporary cause, for
//!    example a full quota.

use jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use uuid::Uuid;

use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::{CommandExecution, CommandExecutionSpec};
use crate::cluster::self_review::own_identity;
use crate::cluster::{Cluster, ClusterError, Operation};

/// Forged name, UID and group. No user has this name, because the prefix `system:` is reserved for Kubernetes.
pub(super) const FORGED: &str = "system:writ:forged";
/// Name of a Machine and of a rule that do not exist.
const NONEXISTENT: &str = "writ-requester-check";

/// Result of the check in a namespace.
pub(super) enum DryRunResult {
    /// The API server overwrites or refuses forged requesters.
    Enforced {
        /// Time of the accepted dry-run create, by the API server's clock.
        now: Timestamp,
    },
    /// The API server accepts a forged requester.
    Forgeable(&'static str),
    /// The API server refuses each create, for another reason than the requester.
    Inconclusive {
        /// Cause, in the wording for the status of Whitelists.
        why: &'static str,
        /// Message of the API server.
        refusal: String,
    },
}

/// Result of one dry-run create.
enum CreateResult {
    Accepted(Box<CommandExecution>),
    Refused(String),
}

/// Runs the check in a namespace.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn verify(cluster: &Cluster, namespace: &str) -> Result<DryRunResult, ClusterError> {
    let own = own_identity(cluster, Operation::CheckStamping).await?;
    let forged = forged_requester();
    match create(cluster, namespace, Some(&forged)).await? {
        CreateResult::Accepted(taken) => Ok(verify_overwrite(&taken, &own)),
        CreateResult::Refused(_) => verify_refusal(cluster, namespace, &forged, own).await,
    }
}

/// Returns a requester that no user is.
pub(super) fn forged_requester() -> Requester {
    Requester { username: FORGED.to_owned(), uid: FORGED.to_owned(), groups: vec![FORGED.to_owned()] }
}

/// Checks that the policy has overwritten the requester of an accepted create.
fn verify_overwrite(taken: &CommandExecution, own: &Requester) -> DryRunResult {
    match (&taken.spec.requested_by, &taken.metadata.creation_timestamp) {
        (Some(stamped), Some(now)) if stamped == own => DryRunResult::Enforced { now: now.0 },
        (Some(stamped), _) if stamped.username == FORGED => {
            DryRunResult::Forgeable("a forged spec.requestedBy was accepted as it was")
        }
        (Some(_), _) => DryRunResult::Forgeable("a forged spec.requestedBy was overwritten in part only"),
        (None, _) => DryRunResult::Forgeable("spec.requestedBy was dropped, not stamped"),
    }
}

/// Makes three more creates after a refusal, as described in the module's documentation.
async fn verify_refusal(
    cluster: &Cluster,
    namespace: &str,
    forged: &Requester,
    mut own: Requester,
) -> Result<DryRunResult, ClusterError> {
    let unnamed = match create(cluster, namespace, None).await? {
        CreateResult::Accepted(unnamed) => unnamed,
        CreateResult::Refused(refusal) => {
            let why = "Writ may not create CommandExecutions here, not even as a dry run (see the log)";
            return Ok(DryRunResult::Inconclusive { why, refusal });
        }
    };
    own.groups.push(FORGED.to_owned());
    for wrong in [&own, forged] {
        if let CreateResult::Accepted(_) = create(cluster, namespace, Some(wrong)).await? {
            return Ok(DryRunResult::Forgeable("a forged spec.requestedBy is not always refused"));
        }
    }
    match unnamed.metadata.creation_timestamp {
        Some(now) => Ok(DryRunResult::Enforced { now: now.0 }),
        None => Ok(DryRunResult::Forgeable("the API server does not say when it creates an object")),
    }
}

/// Makes one dry-run create.
async fn create(
    cluster: &Cluster,
    namespace: &str,
    requested_by: Option<&Requester>,
) -> Result<CreateResult, ClusterError> {
    let spec = CommandExecutionSpec {
        rule: Some(RuleRequest { name: NONEXISTENT.to_owned(), ..RuleRequest::default() }),
        requested_by: requested_by.cloned(),
        ..CommandExecutionSpec::on_machine(NONEXISTENT)
    };
    // The name is random, so that no object with this name exists.
    let name = format!("{NONEXISTENT}-{}", Uuid::new_v4().simple());
    let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    let object = CommandExecution { metadata, spec, status: None };
    let api: Api<CommandExecution> = Api::namespaced(cluster.client(), namespace);
    let parameters = PostParams { dry_run: true, field_manager: None };
    match cluster.call(Operation::CheckStamping, "a CommandExecution (dry run)", api.create(&parameters, &object)).await
    {
        Ok(taken) => Ok(CreateResult::Accepted(Box::new(taken))),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Undecodable { .. })) => Err(error),
        Err(error) => Ok(CreateResult::Refused(error.to_string())),
    }
}
