//! Calls on behalf of a requester, who is a caller of Writ's own API.
//!
//! Writ calls the Kubernetes API server and impersonates the requester. Each call is one request. The API server checks
//! the requester's rights, and records the requester's name in the object.
//!
//! This process needs the right of *constrained* impersonation (KEP-5284, Kubernetes 1.36). Limit this right to
//! creating and changing Writ's own kinds. Never grant the verb `impersonate`, because a stolen token of this process
//! would then give control of the whole cluster.
//!
//! # Guarantees
//! 1. Each call carries the identity of exactly one requester, which [`requester::check`] has accepted.
//! 2. A call can only create or change an object of a [`RequesterKind`]. No call reads or deletes an object, or changes
//!    a subresource.
//! 3. [`ActingError::Forbidden`] means that the requester lacks a right.
//! 4. [`ClusterError::Forbidden`] means that this process lacks the right to act for the requester. The message names
//!    the ClusterRoles that grant this right.

mod requester;

use std::fmt::Debug;
use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::Resource;
use kube::api::{Patch, PatchParams, PostParams, Request};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::api::CommandExecution;
use crate::api::command_execution::Requester;

use super::forbidden::{Caller, lacks_impersonation};
use super::self_review::own_identity;
use super::{Cluster, ClusterError, Operation};

pub use requester::RequesterError;

/// User of [`Acting::probe`]. Nobody has this name.
const PROBE_USER: &str = "writ:probe";

/// Kind of the objects that a requester may create and change through Writ. Never implement this trait for a kind that
/// approves something, because an approval needs the approver's own credential.
pub trait RequesterKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + sealed::Sealed
{
}

mod sealed {
    /// Prevents other crates from adding a kind.
    pub trait Sealed {}
}

impl sealed::Sealed for CommandExecution {}
impl RequesterKind for CommandExecution {}

/// Access for calls on behalf of requesters.
pub struct Acting {
    cluster: Cluster,
    /// Keys of a caller's `extra` that this process may forward to the API server. Each key needs its own RBAC rule.
    extra_keys: Vec<String>,
    /// User name of this process, which cannot change while the process runs.
    own_name: OnceCell<String>,
}

/// Error of a call for a requester.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActingError {
    /// Writ does not act for this caller. Nothing was sent.
    #[error(transparent)]
    Requester(#[from] RequesterError),
    /// The kubeconfig of this process already impersonates a user. One request cannot carry the headers for two
    /// identities.
    #[error("the kubeconfig of Writ must not have `as` or `as-groups`: Writ could not act for {0}")]
    Impersonating(String),
    /// The namespace or name is not a valid Kubernetes name. Nothing was sent, because an invalid name could change the
    /// path of the request.
    #[error("{part} {text:?} must consist of lower case letters, digits, `-` and `.`, at most 253 characters")]
    InvalidName {
        /// `namespace` or `name`.
        part: &'static str,
        /// First 64 characters of the namespace or name.
        text: String,
    },
    /// The API server refuses the call, because the requester lacks a right.
    #[error("{requester} may not access {target}: {message}")]
    Forbidden {
        /// User name of the requester.
        requester: String,
        /// The object.
        target: String,
        /// Message of the API server.
        message: String,
    },
    /// Any other error of a call.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Answer of the API server. Metrics count both variants as a successful call.
enum Answer<K> {
    Stored(K),
    /// The requester lacks the right. Holds the API server's message.
    Refused(String),
}

/// Access for calls on behalf of one requester. Create a new access for each request of a caller, because the caller's
/// rights and groups can change.
#[derive(Clone)]
pub struct AsRequester {
    cluster: Cluster,
    name: Arc<str>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
}

impl Acting {
    /// Creates the access. `extra_keys` are the keys of a caller's `extra` that this process may forward.
    pub fn new(cluster: Cluster, extra_keys: Vec<String>) -> Self {
        Self { cluster, extra_keys, own_name: OnceCell::new() }
    }

    /// Returns the access for calls on behalf of a caller. `caller` comes from a TokenReview or from a client
    /// certificate.
    ///
    /// # Errors
    /// Writ does not act for this caller, or the identity of this process could not be read from the API server.
    pub async fn for_caller(&self, caller: &UserInfo) -> Result<AsRequester, ActingError> {
        let read = async || own_identity(&self.cluster, Operation::ActForRequester).await.map(|own| own.username);
        let own_name = self.own_name.get_or_try_init(read).await?;
        let checked = requester::check(caller, own_name, &self.extra_keys)?;
        if self.cluster.is_impersonating {
            return Err(ActingError::Impersonating(checked.name));
        }
        let name: Arc<str> = Arc::from(checked.name);
        let caller = Caller::Requester { name: Arc::clone(&name), is_service_account: checked.is_service_account };
        Ok(AsRequester { cluster: self.cluster.as_caller(caller), name, headers: checked.headers })
    }
}

impl Acting {
    /// Checks that the API server lets this process act for callers. A SelfSubjectAccessReview is no such check: it
    /// answers that the right exists even if the API server has no constrained impersonation.
    ///
    /// # Errors
    /// The API server refuses to impersonate, or does not answer.
    pub async fn probe(&self) -> Result<(), ClusterError> {
        let request = async || -> Result<SelfSubjectReview, kube::Error> {
            let body = serde_json::to_vec(&SelfSubjectReview::default()).map_err(kube::Error::SerdeError)?;
            let requests = Request::new(SelfSubjectReview::url_path(&(), None));
            let mut request = requests.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
            request.headers_mut().insert("impersonate-user", HeaderValue::from_static(PROBE_USER));
            self.cluster.client.request(request).await
        };
        let review = self.cluster.call(Operation::ActForRequester, "the probe of impersonation", request()).await?;
        let user = Requester::from_review(review).username;
        if user == PROBE_USER {
            return Ok(());
        }
        let message = format!("the API server answered as user {user:?} and not as {PROBE_USER:?}");
        Err(ClusterError::Invalid { target: "the probe of impersonation".to_owned(), message })
    }
}

impl AsRequester {
    /// Creates an object. The API server records the requester's name in the object.
    ///
    /// # Errors
    /// The errors of any write. [`ActingError::Forbidden`] if the requester lacks the right.
    pub async fn create<K: RequesterKind>(&self, namespace: &str, object: &K) -> Result<K, ActingError> {
        check_name("namespace", namespace)?;
        let request = || -> Result<_, kube::Error> {
            let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
            let requests = Request::new(K::url_path(&(), Some(namespace)));
            requests.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)
        };
        let name = object.meta().name.as_deref().or(object.meta().generate_name.as_deref()).unwrap_or_default();
        self.send(format!("{} {namespace}/{name}", K::kind(&())), request()).await
    }

    /// Changes an object by a merge patch, for example to cancel an execution.
    ///
    /// # Errors
    /// The errors of any write. [`ActingError::Forbidden`] if the requester lacks the right.
    pub async fn merge<K: RequesterKind>(&self, namespace: &str, name: &str, patch: &Value) -> Result<K, ActingError> {
        check_name("namespace", namespace)?;
        check_name("name", name)?;
        let requests = Request::new(K::url_path(&(), Some(namespace)));
        let request = requests.patch(name, &PatchParams::default(), &Patch::Merge(patch));
        self.send(format!("{} {namespace}/{name}", K::kind(&())), request.map_err(kube::Error::BuildRequest)).await
    }

    async fn send<K: RequesterKind>(
        &self,
        target: String,
        request: Result<http::Request<Vec<u8>>, kube::Error>,
    ) -> Result<K, ActingError> {
        let call = async {
            let mut request = request?;
            for (name, value) in &self.headers {
                request.headers_mut().append(name, value.clone());
            }
            match self.cluster.client.request::<K>(request).await {
                Ok(stored) => Ok(Answer::Stored(stored)),
                Err(kube::Error::Api(status)) if status.code == 403 && !lacks_impersonation(&status.message) => {
                    Ok(Answer::Refused(status.message.clone()))
                }
                Err(error) => Err(error),
            }
        };
        match self.cluster.call(Operation::ActForRequester, &target, call).await? {
            Answer::Stored(stored) => Ok(stored),
            Answer::Refused(message) => {
                Err(ActingError::Forbidden { requester: self.name.to_string(), target, message })
            }
        }
    }
}

/// Refuses a namespace or name that could change the path of a request. For example, `x/status` would address a
/// subresource.
fn check_name(part: &'static str, text: &str) -> Result<(), ActingError> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let has_edges = text.bytes().any(|byte| byte.is_ascii_alphanumeric()) && !text.starts_with('.');
    if has_edges && text.len() <= 253 && text.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(ActingError::InvalidName { part, text: text.chars().take(64).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_change_the_path_is_refused() {
        let long = "x".repeat(254);
        for text in ["", ".", "..", "../kube-system", "x/status", "x%2fstatus", "x?dryRun=All", "X", "x y", "-", &long]
        {
            assert!(matches!(check_name("name", text), Err(ActingError::InvalidName { .. })), "{text}");
        }
        for text in ["x", "web-1", "a.b-2", &long[1..]] {
            check_name("name", text).expect("a name");
        }
    }
}
