//! Proving to the right host who we are: one attempt, with the key or with its certificate. A refused certificate is not
//! followed by the bare key: that would count as a second failure there, and hide that the certificate is wrong.

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};

use super::Credentials;
use super::handshake::HostCheck;

/// Why no attempt came to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the machine takes RSA keys with SHA-1 only, which is not used; log in with an ed25519 key")]
    Sha1Only,
    #[error("the key does not sign")]
    Unsigned,
    #[error(transparent)]
    Lost(#[from] russh::Error),
}

impl From<russh::SendError> for LoginError {
    fn from(_: russh::SendError) -> Self {
        Self::Lost(russh::Error::SendError)
    }
}

/// Makes the attempt.
pub(super) async fn log_in(
    handle: &mut Handle<HostCheck>,
    user: &str,
    credentials: &Credentials,
) -> Result<AuthResult, LoginError> {
    let hash = if credentials.is_rsa() { Some(rsa_hash(handle).await?) } else { None };
    let key = credentials.key();
    let Some(certificate) = credentials.certificate().cloned() else {
        let key = PrivateKeyWithHashAlg::new(key.clone(), hash);
        return Ok(handle.authenticate_publickey(user, key).await?);
    };
    if hash.is_none() {
        return Ok(handle.authenticate_openssh_cert(user, key.clone(), certificate).await?);
    }
    // russh's own way names SHA-1 for an RSA certificate.
    handle.authenticate_certificate_with(user, certificate, hash, &mut RsaSigner(key)).await
}

/// What the server takes of an RSA key (RFC 8332, server-sig-algs); one that does not say gets the one that all with SHA-2
/// have.
async fn rsa_hash(handle: &Handle<HostCheck>) -> Result<HashAlg, LoginError> {
    match handle.best_supported_rsa_hash().await? {
        Some(Some(hash)) => Ok(hash),
        Some(None) => Err(LoginError::Sha1Only),
        None => Ok(HashAlg::Sha256),
    }
}

/// Signs with an RSA key, by the hash that was agreed on.
struct RsaSigner<'a>(&'a PrivateKey);

impl russh::Signer for RsaSigner<'_> {
    type Error = LoginError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let (Some(pair), Some(hash)) = (self.0.key_data().rsa(), hash) else { return Err(LoginError::Unsigned) };
        let signature = (pair, Some(hash)).try_sign(&data).map_err(|_| LoginError::Unsigned)?;
        // As one string after what was signed (RFC 4252, section 7).
        let blob = signature.encode_vec().map_err(|_| LoginError::Unsigned)?;
        blob.encode(&mut data).map_err(|_| LoginError::Unsigned)?;
        Ok(data)
    }
}
