//! Time of the last change to the admission policies in `deploy/`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ClusterResourceScope;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, Operation};

/// Names of the policies in the chart and in `deploy/requester-1.36.yaml`.
const MUTATING_POLICIES: [&str; 2] = ["writ-requester-create", "writ-requester-update"];
/// Name of the policy in `deploy/requester-1.31.yaml`.
const VALIDATING_POLICY: &str = "writ-requester";
/// Name of the policy for sessions of the gateway.
const SESSION_POLICY: &str = "writ-sessions";
/// Maximum time from the write of a policy until every API server applies the policy. The usual time is about one
/// second. The other 4 s cover differences between the clocks of API servers, and the rounding of times to whole
/// seconds.
pub(in crate::cluster) const PROPAGATION_DELAY: Duration = Duration::from_secs(5);

/// Kind whose requester the admission policies check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StampedKind {
    /// CommandExecution.
    Execution,
    /// GatewaySession.
    Session,
}

/// Returns the time of the last write to one of the policies for a kind, plus [`PROPAGATION_DELAY`], by the API server's
/// clock. The current policies have been in force since this time.
///
/// Returns `None` if the policies cannot be read, for example because this process lacks the right, or because the
/// policies have other names.
pub(super) async fn in_force_since(cluster: &Cluster, kind: StampedKind) -> Option<Timestamp> {
    let mutating = async {
        let mut latest = Timestamp::MIN;
        for name in MUTATING_POLICIES {
            latest = latest.max(last_write::<MutatingAdmissionPolicy>(cluster, name).await?);
            latest = latest.max(last_write::<MutatingAdmissionPolicyBinding>(cluster, name).await?);
        }
        Some(latest)
    };
    let latest = match kind {
        StampedKind::Session => last_write_validating(cluster, SESSION_POLICY).await?,
        StampedKind::Execution => match mutating.await {
            Some(latest) => latest,
            None => last_write_validating(cluster, VALIDATING_POLICY).await?,
        },
    };
    latest.checked_add(PROPAGATION_DELAY).ok()
}

/// Returns the time of the last write to a validating policy or to its binding.
async fn last_write_validating(cluster: &Cluster, name: &str) -> Option<Timestamp> {
    let policy = last_write::<ValidatingAdmissionPolicy>(cluster, name).await?;
    Some(policy.max(last_write::<ValidatingAdmissionPolicyBinding>(cluster, name).await?))
}

async fn last_write<K>(cluster: &Cluster, name: &str) -> Option<Timestamp>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client());
    let object = cluster
        .call(Operation::CheckStamping, format!("{} {name}", K::kind(&())), api.get_metadata(name))
        .await
        .ok()?;
    written(&object.metadata)
}

/// Returns the time of the last write to an object. Status writes do not count, because the API server itself makes
/// them.
fn written(metadata: &ObjectMeta) -> Option<Timestamp> {
    let created = metadata.creation_timestamp.as_ref()?.0;
    let writes = metadata.managed_fields.iter().flatten().filter(|write| write.subresource.is_none());
    Some(writes.filter_map(|write| Some(write.time.as_ref()?.0)).fold(created, Timestamp::max))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

    use super::*;

    #[test]
    fn the_last_write_counts_and_that_of_a_status_does_not() {
        let time = |text: &str| Time(text.parse().unwrap());
        let write = |text: &str, subresource: Option<&str>| ManagedFieldsEntry {
            time: Some(time(text)),
            subresource: subresource.map(str::to_owned),
            ..ManagedFieldsEntry::default()
        };
        let metadata = ObjectMeta {
            creation_timestamp: Some(time("2026-11-21T10:00:00Z")),
            managed_fields: Some(vec![
                write("2026-11-21T12:00:00Z", None),
                write("2026-11-21T11:00:00Z", None),
                write("2026-11-21T13:00:00Z", Some("status")),
            ]),
            ..ObjectMeta::default()
        };
        assert_eq!(written(&metadata), Some("2026-11-21T12:00:00Z".parse().unwrap()));
        assert_eq!(written(&ObjectMeta::default()), None);
    }
}
