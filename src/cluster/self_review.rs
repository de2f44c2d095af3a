//! Identity of this process, as authenticated by the API server.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::PostParams;

use crate::api::command_execution::Requester;

use super::{Cluster, ClusterError, Operation};

/// Returns the user name, UID and groups of this process. `operation` is the metric label of the call.
pub(super) async fn own_identity(cluster: &Cluster, operation: Operation) -> Result<Requester, ClusterError> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client());
    let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
    let call = api.create(&parameters, &review);
    Ok(Requester::from_review(cluster.call(operation, "the identity of this process", call).await?))
}

impl Requester {
    /// Returns the user from the API server's answer to a review.
    pub fn from_review(review: SelfSubjectReview) -> Self {
        let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
        Self {
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        }
    }
}
