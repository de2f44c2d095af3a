//! Reads the sessions of the gateway, and deletes expired ones.
//!
//! # Guarantees
//! 1. A read of a session is live, so a deleted session is never found.
//! 2. A session that cannot be decoded does not affect others, and is deleted when the longest lifetime is over.
//! 3. Several processes may delete at the same time. Each deletion names the UID of the expired session.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::Request;
use kube::{Api, Resource as _};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::api::GatewaySession;
use crate::api::gateway_session::{MAX_SESSION_SECONDS, session_expiry};

use super::{Cluster, ClusterError, ExecutionKey, Operation, PAGE, Slim};

/// Page of a list of sessions, reduced to the content that their expiry needs.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<StoredSession>,
}

#[derive(Deserialize)]
struct StoredSession {
    metadata: StoredMetadata,
    #[serde(default)]
    spec: StoredSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMetadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Time,
    deletion_timestamp: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSpec {
    /// Any JSON, because a later version perhaps has another type for it.
    #[serde(default)]
    expiration_seconds: serde_json::Value,
}

impl StoredSession {
    /// Returns the identity of the session if it must be deleted at this time.
    fn expired(self, now: Timestamp) -> Option<ExecutionKey> {
        let seconds = self.spec.expiration_seconds.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
        let expiry = session_expiry(self.metadata.creation_timestamp.0, seconds.unwrap_or(MAX_SESSION_SECONDS));
        let is_due = self.metadata.deletion_timestamp.is_none() && expiry.is_some_and(|expiry| expiry <= now);
        let StoredMetadata { namespace, name, uid, .. } = self.metadata;
        is_due.then_some(ExecutionKey { namespace, name, uid })
    }
}

impl GatewaySession {
    /// Returns true if this digest of a key is the stored one. Takes the same time for each digest.
    pub fn verify(&self, digest: &[u8; 32]) -> bool {
        self.key_digest().is_some_and(|stored| stored.ct_eq(digest).into())
    }
}

impl Cluster {
    /// Reads a session. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn gateway_session(&self, namespace: &str, name: &str) -> Result<Option<GatewaySession>, ClusterError> {
        let api: Api<GatewaySession> = Api::namespaced(self.client.clone(), namespace);
        let target = format!("GatewaySession {namespace}/{name}");
        self.call(Operation::GetSession, target, api.get_opt(name)).await
    }

    /// Deletes all expired sessions of the served namespaces, and returns their number. `progressed` is called before
    /// each call. A failure in one namespace does not affect the others.
    ///
    /// # Errors
    /// The last failure. The next call repeats what failed.
    pub async fn delete_expired_sessions(&self, progressed: impl Fn()) -> Result<usize, ClusterError> {
        let (mut deleted, mut failure) = (0, None);
        for api in self.watch_apis::<Slim<GatewaySession>>() {
            match self.delete_expired_in(&api, &progressed).await {
                Ok(count) => deleted += count,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(deleted), Err)
    }

    async fn delete_expired_in(
        &self,
        api: &Api<Slim<GatewaySession>>,
        progressed: &impl Fn(),
    ) -> Result<usize, ClusterError> {
        let (mut deleted, mut parameters) = (0, ListParams::default().limit(PAGE));
        loop {
            progressed();
            let list = async {
                let request = Request::new(api.resource_url()).list(&parameters);
                self.client.request::<Page>(request.map_err(kube::Error::BuildRequest)?).await
            };
            let page = self.call(Operation::ListSessions, "GatewaySessions", list).await?;
            let now = self.now();
            for key in page.items.into_iter().filter_map(|session| session.expired(now)) {
                progressed();
                deleted += usize::from(self.delete_session(&key).await?);
            }
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => parameters = parameters.continue_token(&more),
                None => return Ok(deleted),
            }
        }
    }

    /// Deletes a session. Returns false if it does not exist any more.
    async fn delete_session(&self, key: &ExecutionKey) -> Result<bool, ClusterError> {
        // The UID prevents the deletion of a later session with the same name.
        let preconditions = Preconditions { uid: Some(key.uid.clone()), ..Preconditions::default() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let delete = async {
            let requests = Request::new(GatewaySession::url_path(&(), Some(&key.namespace)));
            let request = requests.delete(&key.name, &parameters).map_err(kube::Error::BuildRequest)?;
            self.client.request_text(request).await
        };
        match self.call(Operation::DeleteSession, format!("GatewaySession {key}"), delete).await {
            Ok(_) => Ok(true),
            Err(ClusterError::NotFound { .. } | ClusterError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(seconds: serde_json::Value, deleted: Option<&str>) -> StoredSession {
        let metadata = json!({"name": "s", "namespace": "ops", "uid": "u", "labels": {"a": "b"},
            "creationTimestamp": "2026-11-21T10:00:00Z", "deletionTimestamp": deleted});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"expirationSeconds": seconds}})).unwrap()
    }

    #[test]
    fn a_session_is_deleted_at_its_expiry_and_an_unreadable_one_at_the_latest() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let is_due =
            |seconds: serde_json::Value, now: &str| stored(seconds, None).expired(at(now)).map(|key| key.to_string());
        assert_eq!(is_due(json!(90), "2026-11-21T10:01:29Z"), None);
        assert_eq!(is_due(json!(90), "2026-11-21T10:01:30Z").as_deref(), Some("ops/s"));
        for strange in [json!(null), json!("60"), json!(-1), json!({}), json!(1e12)] {
            assert_eq!(is_due(strange.clone(), "2026-11-21T10:59:59Z"), None, "{strange}");
            assert!(is_due(strange.clone(), "2026-11-21T11:00:00Z").is_some(), "{strange}");
        }
        assert!(stored(json!(60), Some("2026-11-21T10:02:00Z")).expired(at("2026-11-21T12:00:00Z")).is_none());
        let without: StoredSession = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "ops",
            "uid": "u", "creationTimestamp": "2026-11-21T10:00:00Z"}}))
        .unwrap();
        assert!(without.expired(at("2026-11-21T11:00:00Z")).is_some());
    }

    #[test]
    fn only_the_digest_of_the_key_is_right() {
        let digest = "0a".repeat(32);
        let session: GatewaySession = serde_json::from_value(json!({"apiVersion": "writ.dev/v1alpha1",
            "kind": "GatewaySession", "metadata": {}, "spec": {"keyDigest": format!("sha256:{digest}")}}))
        .unwrap();
        assert!(session.verify(&[10; 32]) && !session.verify(&[11; 32]) && !session.verify(&[0; 32]));
    }
}
