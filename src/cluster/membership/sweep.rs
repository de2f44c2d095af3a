//! Lists all Leases, returns the living members, and removes Leases that expired long ago.

use std::sync::{Mutex, PoisonError};

use crate::cluster::ClusterError;

use super::leases::{Leases, Member};
use super::observation::Observations;

/// Number of Lease durations after which an unchanged Lease is removed, because its process has crashed.
const SWEEP_AFTER_DURATIONS: u32 = 4;
/// Maximum number of members that are kept in memory: the first 256 by name. The limit is needed because other users
/// may create Leases, too.
const MAX_MEMBERS: usize = 256;

/// Returns the living members, sorted by name, from a list of all Leases in the namespace of this process's Lease.
/// Removes Leases that expired long ago.
///
/// A member counts as living until its Lease was observed unchanged for the Lease's duration. For example, the member
/// of a Lease that is new to this process counts as living.
pub(super) async fn sweep(leases: &Leases, observations: &Mutex<Observations>) -> Result<Vec<Member>, ClusterError> {
    let (mut living, mut token, mut removal) = (Vec::new(), None, Ok(()));
    loop {
        let (page, next) = leases.list(token.as_deref()).await?;
        for lease in page {
            let unchanged = {
                let mut observations = observations.lock().unwrap_or_else(PoisonError::into_inner);
                observations.record(&lease.member.identity, &lease.version, leases.duration * 2)
            };
            let is_own = lease.name == leases.name;
            if unchanged > lease.duration.saturating_mul(SWEEP_AFTER_DURATIONS) && !is_own {
                if removal.is_ok() {
                    removal = leases.delete_version(&lease.name, lease.version).await;
                }
            } else if unchanged <= lease.duration && living.len() < MAX_MEMBERS {
                living.push(lease.member);
            }
        }
        match next {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    let longest = leases.duration.saturating_mul(SWEEP_AFTER_DURATIONS);
    observations.lock().unwrap_or_else(PoisonError::into_inner).evict_older_than(longest);
    if let Err(error) = removal {
        tracing::debug!(%error, "expired Lease not removed");
    }
    Ok(living)
}
