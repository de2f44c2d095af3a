//! Checks the access of a caller during a long answer.

use std::time::Duration;

use http::StatusCode;

use crate::cluster::Right;

use super::caller::Caller;
use super::error::ApiError;
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
            let is_invalid = matches!(self.has_valid_credential(&caller).await, Ok(false));
            if is_invalid || matches!(self.rights().has(&caller, right, &namespace).await, Ok(false)) {
                return;
            }
        }
    }

    /// Returns true if the credential of a caller still counts, for the same user.
    ///
    /// # Errors
    /// 503 if that could not be checked.
    pub async fn has_valid_credential(&self, caller: &Caller) -> Result<bool, ApiError> {
        let Some(credential) = &caller.credential else { return Ok(true) };
        match self.callers().authenticate(credential).await {
            Ok(now) => Ok(now.user == caller.user),
            Err(error) if error.status == StatusCode::UNAUTHORIZED => Ok(false),
            Err(error) => Err(error),
        }
    }
}
