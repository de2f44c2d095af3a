//! Authenticates to a verified host, with one attempt for each key. If a key has a certificate, Writ tries only the
//! certificate. Another attempt with the bare key would count as a second failure, and would hide the first error.

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};

use super::Credentials;
use super::handshake::HostKeyHandler;

/// Reason why an authentication attempt has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the machine accepts RSA keys with SHA-1 only, which Writ does not use; use an ed25519 key")]
    Sha1Only,
    #[error("signing with the key failed")]
    Unsigned,
    #[error(transparent)]
    Lost(#[from] russh::Error),
}

impl From<russh::SendError> for LoginError {
    fn from(_: russh::SendError) -> Self {
        Self::Lost(russh::Error::SendError)
    }
}

/// Authenticates once with one key.
pub(super) async fn log_in(
    handle: &mut Handle<HostKeyHandler>,
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
    // For an RSA certificate, russh's `authenticate_openssh_cert` offers SHA-1. This call offers `hash` instead.
    handle.authenticate_certificate_with(user, certificate, hash, &mut RsaSigner(key)).await
}

/// Returns a hash from the list of signature algorithms that the server accepts (server-sig-algs, RFC 8332). If the
/// server sends no list, returns SHA-256, which every server with SHA-2 supports.
async fn rsa_hash(handle: &Handle<HostKeyHandler>) -> Result<HashAlg, LoginError> {
    match handle.best_supported_rsa_hash().await? {
        Some(Some(hash)) => Ok(hash),
        Some(None) => Err(LoginError::Sha1Only),
        None => Ok(HashAlg::Sha256),
    }
}

/// Signs with an RSA key and the negotiated hash.
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
        // The signature is appended to the signed data as one SSH string (RFC 4252, section 7).
        let blob = signature.encode_vec().map_err(|_| LoginError::Unsigned)?;
        blob.encode(&mut data).map_err(|_| LoginError::Unsigned)?;
        Ok(data)
    }
}
