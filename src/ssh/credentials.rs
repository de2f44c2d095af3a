//! The private key to log in with, in a type that cannot be printed.

use std::fmt;
use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey, decode_secret_key};

/// A private key. It has no Display and no Serialize, and its Debug says nothing.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<PrivateKey>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

/// Why a text is no key to log in with. The text itself is never repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    /// Not text.
    #[error("the key is not text; it must be the PEM file that ssh-keygen writes")]
    NotText,
    /// Protected by a passphrase.
    #[error("the key is encrypted; use one without a passphrase (ssh-keygen -p -N '' -f FILE takes it away)")]
    Encrypted,
    /// A type that Writ does not use.
    #[error("the key has type {0}; use ed25519 or ECDSA (ssh-keygen -t ed25519 makes one)")]
    Unsupported(&'static str),
    /// Anything else.
    #[error(
        "the key does not parse; it must be the PEM file that ssh-keygen writes, whole, with its BEGIN and END lines"
    )]
    Unparsable,
}

impl Credentials {
    /// Reads a private key in OpenSSH or PKCS#8 PEM form.
    ///
    /// # Errors
    /// What is wrong with it and how to get a right one.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialsError> {
        let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::NotText)?;
        let key = decode_secret_key(text, None).map_err(|error| match error {
            russh::keys::Error::KeyIsEncrypted => CredentialsError::Encrypted,
            _ if text.contains("BEGIN RSA PRIVATE KEY") => CredentialsError::Unsupported("RSA"),
            _ => CredentialsError::Unparsable,
        })?;
        match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(Self { key: Arc::new(key) }),
            Algorithm::Rsa { .. } => Err(CredentialsError::Unsupported("RSA")),
            Algorithm::Dsa => Err(CredentialsError::Unsupported("DSA")),
            _ => Err(CredentialsError::Unsupported("that is not known here")),
        }
    }

    pub(super) fn key(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.key)
    }
}
