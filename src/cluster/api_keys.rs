//! Reads, creates, lists and deletes the Secrets of API keys, in the namespace of this process.
//!
//! # Guarantees
//! The gateway reads a Secret by the name that only the holder of the key can compute. Only `writ api-key` lists
//! Secrets. The values of a Secret are wiped from memory immediately after the digest was read.
//!
//! # Caveats
//! The buffers of the HTTP client and of the decoder are freed, but not wiped.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use zeroize::Zeroize as _;

use crate::api::ApiKey;
use crate::api::api_key::{API_KEY_LABEL, API_KEY_NAME_LABEL};

use super::stored_api_key::{ApiKeyGrant, StoredApiKey, StoredKeyError, is_api_key_name};
use super::{Cluster, ClusterError, Operation, PAGE};

/// A Secret with the label of API keys, as `writ api-key` lists it.
#[derive(Clone, Debug)]
pub struct ListedApiKey {
    /// Name of the Secret.
    pub secret_name: String,
    /// UID of the Secret.
    pub uid: String,
    /// Creation time of the Secret.
    pub created_at: Option<Timestamp>,
    /// Name of the key, also if the key cannot be used.
    pub name: Option<String>,
    /// The key, or the reason why the gateway refuses it.
    pub key: Result<StoredApiKey, StoredKeyError>,
}

impl Cluster {
    /// Returns the stored form of a key. Returns `None` if no Secret stores this key. The caller checks the expiry.
    ///
    /// # Errors
    /// [`ClusterError::Undecodable`] if the Secret of the key breaks a rule for API keys. Otherwise the errors of any
    /// read.
    pub async fn read_api_key(&self, key: &ApiKey) -> Result<Option<StoredApiKey>, ClusterError> {
        let name = key.secret_name();
        // The name of the Secret is a digest of the key. Messages contain only the kind, because they go into logs.
        let target = format!("the Secret of an API key in {}", self.own_namespace());
        let api = self.api_key_secrets();
        let Some(secret) = self.call(Operation::GetApiKey, &target, api.get_opt(&name)).await? else {
            return Ok(None);
        };
        match read_and_wipe(secret) {
            Ok(stored) => Ok(Some(stored).filter(|stored| stored.verify(key))),
            Err(error) => Err(ClusterError::Undecodable { target, message: error.to_string() }),
        }
    }

    /// Creates the Secret of a key. The Secret contains the digest of the key.
    ///
    /// # Errors
    /// The errors of any write. [`ClusterError::Forbidden`] also if the user may not impersonate the key's user or one
    /// of its groups.
    pub async fn create_api_key(&self, key: &ApiKey, grant: &ApiKeyGrant) -> Result<(), ClusterError> {
        let (api, secret) = (self.api_key_secrets(), grant.to_secret(key));
        let parameters = PostParams::default();
        let create = api.create(&parameters, &secret);
        let stored = self.call(Operation::Cli, format!("the Secret of the API key {}", grant.name), create).await?;
        wipe(stored);
        Ok(())
    }

    /// Lists the keys, or only the keys with this name. Usually one key has a name. After a race of two creations,
    /// several keys have it.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn list_api_keys(&self, name: Option<&str>) -> Result<Vec<ListedApiKey>, ClusterError> {
        let selector = match name {
            // Such a name could change the selector. No key has it.
            Some(name) if !is_api_key_name(name) => return Ok(Vec::new()),
            Some(name) => format!("{API_KEY_LABEL}=true,{API_KEY_NAME_LABEL}={name}"),
            None => format!("{API_KEY_LABEL}=true"),
        };
        let api = self.api_key_secrets();
        let mut parameters = ListParams::default().labels(&selector).limit(PAGE);
        let mut listed = Vec::new();
        loop {
            let target = format!("the Secrets with API keys in {}", self.own_namespace());
            let page = self.call(Operation::Cli, target, api.list(&parameters)).await?;
            listed.extend(page.items.into_iter().map(ListedApiKey::from_secret));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(listed),
            }
        }
    }

    /// Deletes the Secret of a key. Returns false if the Secret does not exist any more.
    ///
    /// # Errors
    /// The errors of any write.
    pub async fn delete_api_key(&self, key: &ListedApiKey) -> Result<bool, ClusterError> {
        // The UID prevents the deletion of a later Secret with the same name.
        let preconditions = Preconditions { uid: Some(key.uid.clone()), ..Preconditions::default() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = self.api_key_secrets();
        let delete = async {
            // An answer with status Deleting contains the whole Secret.
            let answer = api.delete(&key.secret_name, &parameters).await?;
            answer.map_left(wipe);
            Ok(())
        };
        match self.call(Operation::Cli, format!("Secret {}/{}", self.own_namespace(), key.secret_name), delete).await {
            Ok(()) => Ok(true),
            Err(ClusterError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn api_key_secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.own_namespace())
    }
}

impl ListedApiKey {
    fn from_secret(secret: Secret) -> Self {
        let metadata = &secret.metadata;
        Self {
            secret_name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map(|time| time.0),
            name: metadata.labels.as_ref().and_then(|labels| labels.get(API_KEY_NAME_LABEL)).cloned(),
            key: read_and_wipe(secret),
        }
    }
}

fn read_and_wipe(secret: Secret) -> Result<StoredApiKey, StoredKeyError> {
    let read = StoredApiKey::from_secret(&secret);
    wipe(secret);
    read
}

/// Wipes the values of a Secret. A Secret with the label of API keys can contain other values, too.
fn wipe(secret: Secret) {
    secret.data.into_iter().flatten().for_each(|(_, mut bytes)| bytes.0.zeroize());
    secret.string_data.into_iter().flatten().for_each(|(_, mut text)| text.zeroize());
}
