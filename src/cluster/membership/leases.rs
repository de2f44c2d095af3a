//! Calls for Leases, and the content of Writ's Leases.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectList;

use crate::cluster::{Cluster, ClusterError, Operation, PAGE};
use crate::placement::{ListedMember, View};

/// Label of Writ's Leases.
const LABEL: &str = "writ.dev/holder";
/// Annotations with which a member publishes its address, the digest of its list of members, and the start of its own
/// shutdown.
const ADDRESS: &str = "writ.dev/address";
const VIEW: &str = "writ.dev/view";
const LEAVING: &str = "writ.dev/leaving";
/// Maximum length of a kept annotation value, in bytes: a DNS name of 253 characters and a port. The limit is needed
/// because other users may write Leases, too.
const MAX_ANNOTATION_BYTES: usize = 260;
/// Field manager of this process's Lease.
const MANAGER: &str = "writ";

/// Part of this process's Lease that the other members read.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcement {
    pub address: Option<String>,
    pub view: Option<View>,
    pub is_leaving: bool,
}

impl Announcement {
    fn into_annotations(self) -> BTreeMap<String, String> {
        let leaving = self.is_leaving.then(|| "true".to_owned());
        let view = self.view.map(|view| view.to_string());
        let all = [(ADDRESS, self.address), (VIEW, view), (LEAVING, leaving)];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// A process whose Lease was renewed in time. The fields come from its Lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Namespace and name of the member's Lease. Claims contain this identity.
    pub identity: String,
    /// Host and port at which the member serves requests of other members. `None` if it serves no such requests.
    pub address: Option<String>,
    /// Digest of the list of members that this member uses. See [`crate::placement::Members::view`].
    pub view: Option<String>,
    /// True if the member is shutting down and starts no more commands.
    pub is_leaving: bool,
}

impl Member {
    /// Reads the annotations of a Lease. A value that is too long counts as absent.
    fn from_lease(identity: String, annotations: Option<BTreeMap<String, String>>) -> Self {
        let mut annotations = annotations.unwrap_or_default();
        let mut take = |name: &str| annotations.remove(name).filter(|value| value.len() <= MAX_ANNOTATION_BYTES);
        Self {
            identity,
            address: take(ADDRESS),
            view: take(VIEW),
            is_leaving: take(LEAVING).as_deref() == Some("true"),
        }
    }

    /// Returns this member in the form that the placement rules use.
    pub fn as_listed(&self) -> ListedMember<'_> {
        ListedMember { identity: &self.identity, view: self.view.as_deref(), is_leaving: self.is_leaving }
    }
}

/// One Lease from a list.
pub(super) struct ListedLease {
    pub name: String,
    pub version: String,
    pub duration: Duration,
    pub member: Member,
}

/// The Leases that this process reads and writes.
pub(super) struct Leases {
    pub cluster: Cluster,
    /// Namespace of this process's Lease.
    pub namespace: String,
    /// Name of this process's Lease.
    pub name: String,
    /// Duration of this process's Lease.
    pub duration: Duration,
}

impl Leases {
    /// Writes the Lease of this process. Returns the time at which the API server stored the Lease, by the API server's
    /// clock. Returns `None` if the answer does not contain this time.
    pub async fn write_own(
        &self,
        now: Timestamp,
        announcement: Announcement,
    ) -> Result<Option<Timestamp>, ClusterError> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
                annotations: Some(announcement.into_annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.name.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        };
        let (api, parameters, patch) =
            (self.api(&self.namespace), PatchParams::apply(MANAGER).force(), Patch::Apply(&lease));
        let call = api.patch(&self.name, &parameters, &patch);
        let stored = self.cluster.call(Operation::RenewLease, "the Lease of this process", call).await?;
        Ok(last_own_write(&stored))
    }

    /// Deletes this process's Lease.
    pub async fn delete_own(&self) -> Result<(), ClusterError> {
        let (api, parameters) = (self.api(&self.namespace), DeleteParams::default());
        let call = api.delete(&self.name, &parameters);
        self.cluster.call(Operation::DeleteLease, "the Lease of this process", call).await.map(drop)
    }

    /// Returns version and duration of another process's Lease, or `None` if the Lease does not exist.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<(String, Duration)>, ClusterError> {
        let api = self.api(namespace);
        match self.cluster.call(Operation::ReadLeases, format!("the Lease {namespace}/{name}"), api.get(name)).await {
            Ok(lease) => {
                Ok(Some((lease.metadata.resource_version.clone().unwrap_or_default(), self.duration_of(&lease))))
            }
            Err(ClusterError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists one page of the Leases in the namespace of this process's Lease. Pass the returned token to get the next
    /// page. The token is `None` after the last page.
    pub async fn list(&self, token: Option<&str>) -> Result<(Vec<ListedLease>, Option<String>), ClusterError> {
        let mut parameters = ListParams::default().labels(LABEL).limit(PAGE);
        parameters.continue_token = token.map(str::to_owned);
        let api = self.api(&self.namespace);
        let page: ObjectList<Lease> =
            self.cluster.call(Operation::ReadLeases, "the Leases of all processes", api.list(&parameters)).await?;
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((page.items.into_iter().map(|lease| self.listed(lease)).collect(), next))
    }

    /// Deletes another process's Lease if it still has this version. If the process has just renewed the Lease, the
    /// Lease stays.
    pub async fn delete_version(&self, name: &str, version: String) -> Result<(), ClusterError> {
        let condition = Preconditions { resource_version: Some(version), uid: None };
        let (api, parameters) = (self.api(&self.namespace), DeleteParams::default().preconditions(condition));
        let call = api.delete(name, &parameters);
        match self.cluster.call(Operation::DeleteLease, format!("the Lease {name}"), call).await {
            Ok(_) | Err(ClusterError::NotFound { .. } | ClusterError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn listed(&self, lease: Lease) -> ListedLease {
        let duration = self.duration_of(&lease);
        let name = lease.metadata.name.unwrap_or_default();
        let member = Member::from_lease(format!("{}/{name}", self.namespace), lease.metadata.annotations);
        ListedLease { name, version: lease.metadata.resource_version.unwrap_or_default(), duration, member }
    }

    /// Returns the duration that a Lease states, but at least the duration of this process's Lease.
    fn duration_of(&self, lease: &Lease) -> Duration {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        self.duration.max(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    fn api(&self, namespace: &str) -> Api<Lease> {
        Api::namespaced(self.cluster.client(), namespace)
    }
}

/// Returns the time of the last write by the field manager [`MANAGER`] to a Lease, by the API server's clock.
fn last_own_write(lease: &Lease) -> Option<Timestamp> {
    let writes = lease.metadata.managed_fields.iter().flatten();
    let own = writes.filter(|write| write.manager.as_deref() == Some(MANAGER));
    own.filter_map(|write| Some(write.time.as_ref()?.0)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_announces_is_what_the_others_read() {
        let view = crate::placement::Members::from_iter(["a"]).view();
        let address = Some("10.0.0.7:8443".to_owned());
        let announced = Announcement { address: address.clone(), view: Some(view.clone()), is_leaving: true };
        let member = Member::from_lease("home/a".to_owned(), Some(announced.into_annotations()));
        let expected =
            Member { identity: "home/a".to_owned(), address, view: Some(view.to_string()), is_leaving: true };
        assert_eq!(member, expected);
        assert!(Announcement::default().into_annotations().is_empty());
    }

    #[test]
    fn a_lease_of_an_older_version_is_a_member_without_a_view() {
        let member = Member::from_lease("home/a".to_owned(), None);
        assert_eq!((member.address, member.view, member.is_leaving), (None, None, false));
    }

    #[test]
    fn annotations_that_are_too_long_are_not_kept() {
        let annotations = BTreeMap::from([(VIEW.to_owned(), "x".repeat(261)), (ADDRESS.to_owned(), "x".repeat(260))]);
        let member = Member::from_lease("home/a".to_owned(), Some(annotations));
        assert_eq!((member.view, member.address.map(|address| address.len())), (None, Some(260)));
    }
}
