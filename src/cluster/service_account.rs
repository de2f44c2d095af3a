//! A second identity of this process: calls with the token of another ServiceAccount.
//!
//! Writ requests a token for the ServiceAccount of the gateway, keeps it in memory, and replaces it long before it
//! expires. So a process has two identities, each with its own rights, and no token is in a file.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use super::own_token::OwnToken;
use super::{Cluster, ClusterError, Operation};

/// Requested lifetime of a token, in seconds. The API server allows no shorter lifetime than 600.
const TOKEN_SECONDS: i64 = 3600;
/// Time after which a token is replaced: a third of its lifetime. Two failed attempts then cost nothing.
const RENEW_AFTER: Duration = Duration::from_secs(1200);
/// Pause after a failed renewal.
const RETRY_AFTER: Duration = Duration::from_secs(15);

impl Cluster {
    /// Returns access to the API server as another ServiceAccount of this process's namespace, and a future that
    /// renews the token. Poll the future for as long as the access is in use.
    ///
    /// # Errors
    /// The API server gives no token. This process needs the right to create `serviceaccounts/token` of this
    /// ServiceAccount.
    pub async fn as_service_account(
        &self,
        name: &str,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), ClusterError> {
        let token = OwnToken::default();
        token.set(&self.request_token(name).await?)?;
        let other = self.with_own_token(token.clone())?;
        let (cluster, name) = (self.clone(), name.to_owned());
        let renew = async move {
            let mut pause = RENEW_AFTER;
            loop {
                tokio::time::sleep(pause).await;
                let renewed = cluster.request_token(&name).await.and_then(|text| token.set(&text));
                pause = if renewed.is_ok() { RENEW_AFTER } else { RETRY_AFTER };
                if let Err(error) = renewed {
                    tracing::warn!(service_account = name, %error, "token of the gateway not renewed");
                }
            }
        };
        Ok((other, renew))
    }

    async fn request_token(&self, name: &str) -> Result<String, ClusterError> {
        let namespace = self.own_namespace();
        let target = format!("a token of the ServiceAccount {namespace}/{name}");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let parameters = PostParams::default();
        let call = api.create_token_request(name, &parameters, &request);
        let answer = self.call(Operation::RequestToken, &target, call).await?;
        answer
            .status
            .and_then(|status| status.token)
            .ok_or_else(|| ClusterError::Undecodable { target, message: "the answer has no token".to_owned() })
    }
}
