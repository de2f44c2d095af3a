//! Checks the admission policy for sessions of the gateway: tries to create sessions for another user. The creates are
//! dry runs, so the API server does not store the sessions.
//!
//! The policy must refuse a forged requester, and must not replace it: a replaced one would let a restored copy of a
//! session act as the user who restores it. So four creates must give the expected result:
//!
//! 1. A create with this process's own name must be accepted, without a change. Otherwise a refusal perhaps has another
//!    cause.
//! 2. A create with a forged requester must be refused.
//! 3. A create with this process's own name and a wrong group must be refused.
//! 4. A create with this process's own name must be accepted again. The refusals perhaps had a temporary cause, for
//!    example a full quota.

use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use uuid::Uuid;

use crate::api::command_execution::Requester;
use crate::api::gateway_session::MIN_SESSION_SECONDS;
use crate::api::unknown_fields::UnknownFields;
use crate::api::{GatewaySession, GatewaySessionSpec};
use crate::cluster::self_review::own_identity;
use crate::cluster::{Cluster, ClusterError, Operation};

use super::dry_run::{DryRunResult, FORGED, forged_requester};

/// Prefix of the names of the sessions.
const NAME: &str = "writ-session-check";

/// Result of one dry-run create.
enum CreateResult {
    Accepted(Box<GatewaySession>),
    Refused(String),
}

/// Runs the check in a namespace.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn verify(cluster: &Cluster, namespace: &str) -> Result<DryRunResult, ClusterError> {
    let own = own_identity(cluster, Operation::CheckStamping).await?;
    let first = verify_own(create(cluster, namespace, &own).await?, &own);
    if !matches!(first, DryRunResult::Enforced { .. }) {
        return Ok(first);
    }
    let mut wrong_group = own.clone();
    wrong_group.groups.push(FORGED.to_owned());
    for wrong in [&forged_requester(), &wrong_group] {
        if let CreateResult::Accepted(_) = create(cluster, namespace, wrong).await? {
            return Ok(DryRunResult::Forgeable("a GatewaySession for another user was accepted"));
        }
    }
    Ok(verify_own(create(cluster, namespace, &own).await?, &own))
}

/// Checks that a create with this process's own name was accepted without a change.
fn verify_own(result: CreateResult, own: &Requester) -> DryRunResult {
    match result {
        CreateResult::Refused(refusal) => {
            let why = "Writ may not create GatewaySessions here, not even as a dry run (see the log)";
            DryRunResult::Inconclusive { why, refusal }
        }
        CreateResult::Accepted(session) => match session.metadata.creation_timestamp {
            Some(now) if session.spec.requested_by.as_ref() == Some(own) => DryRunResult::Enforced { now: now.0 },
            Some(_) => DryRunResult::Forgeable("spec.requestedBy of a GatewaySession was changed"),
            None => DryRunResult::Forgeable("the API server does not say when it creates an object"),
        },
    }
}

/// Makes one dry-run create.
async fn create(cluster: &Cluster, namespace: &str, requested_by: &Requester) -> Result<CreateResult, ClusterError> {
    let spec = GatewaySessionSpec {
        // No key has this digest.
        key_digest: format!("sha256:{}", "0".repeat(64)),
        expiration_seconds: MIN_SESSION_SECONDS,
        requested_by: Some(requested_by.clone()),
        unknown_fields: UnknownFields::new(),
    };
    // The name is random, so that no object with this name exists.
    let name = format!("{NAME}-{}", Uuid::new_v4().simple());
    let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    let object = GatewaySession { metadata, spec };
    let api: Api<GatewaySession> = Api::namespaced(cluster.client(), namespace);
    let parameters = PostParams { dry_run: true, field_manager: None };
    match cluster.call(Operation::CheckStamping, "a GatewaySession (dry run)", api.create(&parameters, &object)).await {
        Ok(taken) => Ok(CreateResult::Accepted(Box::new(taken))),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Undecodable { .. })) => Err(error),
        Err(error) => Ok(CreateResult::Refused(error.to_string())),
    }
}
