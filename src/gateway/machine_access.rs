//! Finds the Machine of a request for a caller, with the checks in their order: form, right, existence.

use crate::cluster::Right;

use super::caller::Caller;
use super::error::ApiError;
use super::names::{check_namespace, is_uid};
use super::state::{Gateway, MachineName};

impl Gateway {
    /// Returns the Machine with a name or UID, in whose namespace the caller has a right.
    ///
    /// # Errors
    /// 422 if `namespace` is no name of a namespace, 403 if the caller lacks the right, 404 if there is no such Machine.
    /// For a UID without `namespace`, 404 in all of these cases, so that nobody learns where the UID exists.
    pub async fn machine_for(
        &self,
        caller: &Caller,
        id: &str,
        namespace: Option<&str>,
        right: Right,
    ) -> Result<MachineName, ApiError> {
        namespace.map_or(Ok(()), check_namespace)?;
        if is_uid(id) && namespace.is_none() {
            let hidden = || ApiError::machine_not_found(id, self.cluster().own_namespace());
            let found = self.find_machine_uid(id).ok_or_else(hidden)?;
            if !self.rights().has(caller, right, &found.namespace).await? {
                return Err(hidden());
            }
            return self.check_uid(found, id).await;
        }
        let place = namespace.unwrap_or_else(|| self.cluster().own_namespace());
        self.rights().require(caller, right, place).await?;
        self.find_machine(id, place).await
    }
}
