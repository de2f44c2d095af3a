//! Checks the access of a caller during a long answer.

use std::time::Duration;

use http::StatusCode;

use crate::cluster::Right;

use super::caller::Caller;
use super::state::Gateway;

/// Interval between checks. A revoked key and a lost right end a stream within twice this time, as the caches of
/// credentials and rights add at most the same.
const INTERVAL: Duration = Duration::from_secs(10);

impl Gateway {
    /// Waits until the caller's credential is no longer valid, or until the caller has lost a right. An API server that
    /// does not answer changes nothing.
    pub async fn access_lost(self, caller: Caller, right: Right, namespace: String) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let is_valid = match &caller.credential {
                Some(credential) => match self.callers().authenticate(credential).await {
                    Ok(now) => now.user == caller.user,
                    Err(error) => error.status != StatusCode::UNAUTHORIZED,
                },
                None => true,
            };
            if !is_valid || matches!(self.rights().has(&caller, right, &namespace).await, Ok(false)) {
                return;
            }
        }
    }
}
