//! Finds the person of a session.
//!
//! # Guarantees
//! A session counts only for the user whom the API server has recorded as its creator. While somebody can create a
//! session for another user, no session counts. A caller with a wrong key learns nothing about the session.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;

use crate::api::GatewaySession;
use crate::cluster::{Cluster, ClusterError, RequesterTrust, RequesterTrustChecker};
use crate::telemetry::metrics;

use super::caller::Caller;
use super::error::ApiError;
use super::session_credential::SessionCredential;

/// Prefix of the user names of ServiceAccounts. A ServiceAccount sends a token for the audience of the gateway, which
/// ends with the ServiceAccount. A session would outlive it.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Reason why the gateway refuses a session although the key is right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Refusal {
    /// Value of the label in the metric.
    cause: &'static str,
    /// Cause and remedy, for the log.
    why: &'static str,
}

const fn refusal(cause: &'static str, why: &'static str) -> Refusal {
    Refusal { cause, why }
}

/// Returns the person of a session. Returns `None` if the session does not count. Only the log and a metric have the
/// reason.
pub async fn session_owner(
    cluster: &Cluster,
    trust: &RequesterTrustChecker,
    credential: &SessionCredential,
) -> Result<Option<Caller>, ApiError> {
    let (namespace, name) = (credential.namespace(), credential.name());
    let session = match cluster.gateway_session(namespace, name).await {
        Ok(Some(session)) => session,
        Ok(None) => return Ok(None),
        // An outsider must not be able to cause errors by the choice of a name.
        Err(error @ (ClusterError::Forbidden { .. } | ClusterError::Undecodable { .. })) => {
            tracing::warn!(namespace, name, %error, "gateway session not read");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if !session.verify(&credential.key_digest()) {
        return Ok(None);
    }
    let user = match person(&session, cluster.now()) {
        Ok(user) => user,
        Err(refusal) => {
            report(namespace, name, refusal);
            return Ok(None);
        }
    };
    match trust.trust(namespace).await {
        RequesterTrust::Since(since) if is_created_after(&session, since) => {
            Ok(Some(Caller { is_session: true, ..Caller::of_user(user) }))
        }
        RequesterTrust::Since(_) => {
            let why = "it is older than the admission policy writ-sessions, or than the last change of this policy: make \
                       another session";
            report(namespace, name, refusal("older_than_policy", why));
            Ok(None)
        }
        RequesterTrust::Untrusted(why) => {
            report(namespace, name, refusal("untrusted", why));
            Ok(None)
        }
        RequesterTrust::Undecided(why) => {
            tracing::warn!(namespace, name, error = why, "gateway session not checked");
            Err(ApiError::unavailable("the session could not be checked; repeat the call"))
        }
    }
}

fn report(namespace: &str, name: &str, Refusal { cause, why }: Refusal) {
    tracing::warn!(namespace, name, cause, error = why, "gateway session refused");
    metrics().gateway().session_refused(cause);
}

fn is_created_after(session: &GatewaySession, since: Timestamp) -> bool {
    session.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 > since)
}

/// Returns the creator of a session that is in force at this time. Does not check if the API server has recorded the
/// creator.
fn person(session: &GatewaySession, now: Timestamp) -> Result<UserInfo, Refusal> {
    if session.metadata.deletion_timestamp.is_some() {
        return Err(refusal("deleted", "it is being deleted"));
    }
    if session.expires_at().is_none_or(|expiry| expiry <= now) {
        return Err(refusal("expired", "it has expired: make another session"));
    }
    if !session.spec.unknown_fields.is_empty() {
        return Err(refusal("unknown_field", "its spec has a field that this version of Writ does not know"));
    }
    let Some(creator) = session.spec.requested_by.as_ref().filter(|creator| !creator.username.is_empty()) else {
        return Err(refusal(
            "no_requester",
            "it has no spec.requestedBy: install the chart with admission.install=true",
        ));
    };
    if creator.username.starts_with(SERVICE_ACCOUNT) {
        return Err(refusal(
            "service_account",
            "a ServiceAccount has created it: send a token for the audience writ-gateway instead",
        ));
    }
    Ok(UserInfo {
        username: Some(creator.username.clone()),
        uid: Some(creator.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(creator.groups.clone()),
        extra: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-11-21T10:30:00Z";

    /// Returns the user of a session with changes to its metadata and its spec, or the cause of the refusal.
    fn of(metadata: Value, spec: Value) -> Result<UserInfo, &'static str> {
        let mut object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "GatewaySession",
            "metadata": {"creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {"keyDigest": "x", "expirationSeconds": 3600,
                "requestedBy": {"username": "jane", "uid": "u-1", "groups": ["sre"]}}});
        for (part, changes) in [("metadata", metadata), ("spec", spec)] {
            for (field, value) in changes.as_object().unwrap() {
                object[part][field] = value.clone();
            }
        }
        let session = serde_json::from_value(object).unwrap();
        person(&session, NOW.parse().unwrap()).map_err(|refusal| refusal.cause)
    }

    #[test]
    fn the_creator_is_the_user_with_all_groups_and_without_an_empty_uid() {
        let user = of(json!({}), json!({})).unwrap();
        assert_eq!((user.username.as_deref(), user.uid.as_deref()), (Some("jane"), Some("u-1")));
        assert_eq!((user.groups, user.extra), (Some(vec!["sre".to_owned()]), None));
        assert_eq!(of(json!({}), json!({"requestedBy": {"username": "jane"}})).unwrap().uid, None);
    }

    #[test]
    fn a_session_that_is_not_in_force_has_no_user() {
        let robot = json!({"requestedBy": {"username": "system:serviceaccount:ci:robot"}});
        for (metadata, spec, cause) in [
            (json!({}), json!({"expirationSeconds": 1800}), "expired"),
            (json!({"creationTimestamp": null}), json!({}), "expired"),
            (json!({"deletionTimestamp": NOW}), json!({}), "deleted"),
            (json!({}), json!({"onlyReads": true}), "unknown_field"),
            (json!({}), json!({"requestedBy": null}), "no_requester"),
            (json!({}), json!({"requestedBy": {"username": ""}}), "no_requester"),
            (json!({}), robot, "service_account"),
        ] {
            assert_eq!(of(metadata, spec.clone()), Err(cause), "{spec}");
        }
        assert!(of(json!({}), json!({"expirationSeconds": 1801})).is_ok());
    }
}
