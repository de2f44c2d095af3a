//! Reviews by the API server: the rights of a caller, and the owner of a token.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use zeroize::Zeroizing;

use super::{Cluster, ClusterError, Operation};

/// API group of Writ's kinds.
const GROUP: &str = "writ.dev";

/// A right in one namespace.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Right {
    /// Verb, for example `create`.
    pub verb: &'static str,
    /// Resource of the group `writ.dev`, for example `commandexecutions`.
    pub resource: &'static str,
    /// Subresource. Empty for the resource itself.
    pub subresource: &'static str,
}

/// Owner of a token that the API server accepts.
#[derive(Clone, Debug)]
pub struct TokenOwner {
    /// The user.
    pub user: UserInfo,
    /// Audiences for which the API server accepts the token. Never empty.
    pub audiences: Vec<String>,
}

impl Cluster {
    /// Returns true if the caller has a right in a namespace, according to the API server's authorizers.
    ///
    /// # Errors
    /// See [`ClusterError`]. An authorizer that fails is an error only if no other authorizer allows the call.
    pub async fn has_right(&self, caller: &UserInfo, right: Right, namespace: &str) -> Result<bool, ClusterError> {
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(right.resource.to_owned()),
            subresource: Some(right.subresource.to_owned()).filter(|name| !name.is_empty()),
            verb: Some(right.verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: caller.username.clone(),
            uid: caller.uid.clone(),
            groups: caller.groups.clone(),
            extra: caller.extra.clone(),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let target = format!("the rights of a caller in {namespace}");
        let parameters = PostParams::default();
        let answer = self.call(Operation::ReviewAccess, &target, api.create(&parameters, &review)).await?;
        let status = answer.status.unwrap_or_default();
        match status.evaluation_error.filter(|_| !status.allowed && !status.denied.unwrap_or_default()) {
            // RBAC reports roles that it cannot find as an evaluation error, so the message alone is no outage.
            Some(message) if !message.contains("not found") => Err(ClusterError::Unavailable { target, message }),
            _ => Ok(status.allowed && !status.denied.unwrap_or_default()),
        }
    }

    /// Returns the owner of a token, or `None` if the API server does not accept the token for these audiences. If
    /// `audiences` is empty, the API server expects its own audience.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn review_token(
        &self,
        token: &Zeroizing<String>,
        audiences: &[&str],
    ) -> Result<Option<TokenOwner>, ClusterError> {
        let expected = audiences.iter().map(|audience| (*audience).to_owned()).collect::<Vec<_>>();
        let spec = TokenReviewSpec {
            token: token.as_str().to_owned(),
            audiences: Some(expected).filter(|audiences| !audiences.is_empty()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let answer = self.call(Operation::ReviewToken, "a token", api.create(&parameters, &review)).await?;
        let status = answer.status.unwrap_or_default();
        let accepted = status.audiences.unwrap_or_default();
        // A webhook that does not know audiences returns none. Its tokens are perhaps for another server.
        let is_for_us = accepted.iter().any(|accepted| audiences.contains(&accepted.as_str()))
            || (audiences.is_empty() && !accepted.is_empty());
        if !status.authenticated.unwrap_or_default() || !is_for_us {
            return Ok(None);
        }
        Ok(status.user.map(|user| TokenOwner { user, audiences: accepted }))
    }
}
