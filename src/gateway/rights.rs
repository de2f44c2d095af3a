//! Checks the rights of callers in a namespace. The gateway reads with its own rights, so it checks each caller first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::cluster::{Cluster, Right};

use super::caller::Caller;
use super::error::ApiError;

/// Time for which a granted right counts. The API server itself caches the answers of its authorizers for up to 10 s. A
/// refusal is never cached.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// Maximum number of cached rights, about 100 bytes each. With more, the cache starts again.
const MAX_CACHED: usize = 8192;

/// Right to create executions.
pub const CREATE: Right = Right { verb: "create", resource: "commandexecutions", subresource: "" };
/// Right to read an execution, its output and its recording.
pub const GET: Right = Right { verb: "get", resource: "commandexecutions", subresource: "" };
/// Right to read lists, statistics and changes of executions.
pub const LIST: Right = Right { verb: "list", resource: "commandexecutions", subresource: "" };
/// Right to cancel one's own executions.
pub const CANCEL_OWN: Right = Right { verb: "patch", resource: "commandexecutions", subresource: "" };
/// Right to cancel the executions of others. A name for RBAC only.
pub const CANCEL_OTHERS: Right = Right { verb: "update", resource: "commandexecutions", subresource: "cancellation" };
/// Right to read one Machine.
pub const GET_MACHINE: Right = Right { verb: "get", resource: "machines", subresource: "" };
/// Right to list Machines.
pub const LIST_MACHINES: Right = Right { verb: "list", resource: "machines", subresource: "" };
/// Right to read the rules.
pub const GET_WHITELIST: Right = Right { verb: "get", resource: "whitelists", subresource: "" };

/// Digest of a caller, a right and a namespace.
type Key = [u8; 32];

/// Checks rights, and remembers granted rights for a few seconds.
pub struct Rights {
    cluster: Cluster,
    granted: Mutex<HashMap<Key, Instant>>,
}

impl Rights {
    /// Returns a checker without cached rights. `cluster` has the right to review rights.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, granted: Mutex::default() }
    }

    /// Returns true if the caller has the right in the namespace.
    ///
    /// # Errors
    /// The API server did not answer.
    pub async fn has(&self, caller: &Caller, right: Right, namespace: &str) -> Result<bool, ApiError> {
        let key = key(caller, right, namespace);
        if self.granted().get(&key).is_some_and(|at| at.elapsed() < CACHED_FOR) {
            return Ok(true);
        }
        let asked = Instant::now();
        if !self.cluster.has_right(&caller.user, right, namespace).await? {
            return Ok(false);
        }
        let mut granted = self.granted();
        if granted.len() >= MAX_CACHED {
            granted.retain(|_, at| at.elapsed() < CACHED_FOR);
            if granted.len() >= MAX_CACHED {
                granted.clear();
            }
        }
        granted.insert(key, asked);
        Ok(true)
    }

    /// Refuses the caller if the caller lacks the right in the namespace.
    ///
    /// # Errors
    /// 403 that names the right, or the API server did not answer.
    pub async fn require(&self, caller: &Caller, right: Right, namespace: &str) -> Result<(), ApiError> {
        if self.has(caller, right, namespace).await? {
            return Ok(());
        }
        let slash = if right.subresource.is_empty() { "" } else { "/" };
        Err(ApiError::forbidden(format!(
            "user {:?} may not {} {}{slash}{} in namespace {namespace:?}; an administrator can grant it with a \
             RoleBinding",
            caller.name(),
            right.verb,
            right.resource,
            right.subresource,
        )))
    }

    fn granted(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key of a right in the cache. All parts of the identity count, because each of them can change the
/// rights.
fn key(caller: &Caller, right: Right, namespace: &str) -> Key {
    // JSON keeps the parts apart. The serialization of these types cannot fail.
    let identity = serde_json::to_vec(&caller.user).unwrap_or_default();
    let mut digest = Sha256::new();
    digest.update(identity);
    for part in ["\0", right.verb, "\0", right.resource, "\0", right.subresource, "\0", namespace] {
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}
