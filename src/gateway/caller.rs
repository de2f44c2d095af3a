//! The caller of a request: who sent it, according to the API server.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::UserInfo;

use super::credential::Credential;

/// Caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// User, as the API server knows it.
    pub user: UserInfo,
    /// UID of the API key's Secret. `None` for other credentials.
    pub api_key: Option<String>,
    /// Name of the API key, for the caller. A later key can have the same name.
    pub api_key_name: Option<String>,
    /// Limit for the commands in any 60 s, if the API key sets one.
    pub commands_per_minute: Option<u32>,
    /// True if the credential is a session.
    pub is_session: bool,
    /// Credential of the request, for the checks of long answers.
    pub credential: Option<Arc<Credential>>,
}

impl Caller {
    /// Returns a caller without an API key.
    pub fn of_user(user: UserInfo) -> Self {
        Self { user, api_key: None, api_key_name: None, commands_per_minute: None, is_session: false, credential: None }
    }

    /// Returns the user name.
    pub fn name(&self) -> &str {
        self.user.username.as_deref().unwrap_or_default()
    }

    /// Returns the key under which the commands of the caller are counted: the user. An API key with a limit of its own
    /// is counted by itself.
    pub fn rate_key(&self) -> String {
        match (&self.api_key, self.commands_per_minute) {
            (Some(key), Some(_)) => format!("key {key}"),
            _ => format!("user {}", self.name()),
        }
    }
}
