//! The host keys that a machine may prove itself with: exact key blobs, compared here and not by a known_hosts
//! helper (russh's takes a key of another algorithm for merely unknown).

use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

/// Pinned host keys, at least one.
#[derive(Clone, Debug)]
pub struct PinnedKeys {
    keys: Vec<PublicKey>,
}

/// Why a line is no host key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PinError {
    /// No line at all.
    #[error("spec.hostKeys must have at least one key")]
    None,
    /// A line that is no OpenSSH public key of a type that Writ uses.
    #[error(
        "spec.hostKeys[{0}] must be an OpenSSH public key line of type ssh-ed25519 or ecdsa-sha2-nistp256/384/521, \
         as ssh-keyscan -t ed25519 HOST prints it (without its first word)"
    )]
    Unusable(usize),
}

impl PinnedKeys {
    /// Reads OpenSSH public key lines.
    ///
    /// # Errors
    /// The first line that cannot be used: a pin that is passed over would only be noticed on the day it is needed.
    pub fn parse(lines: &[String]) -> Result<Self, PinError> {
        let keys: Vec<PublicKey> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| {
                PublicKey::from_openssh(line)
                    .ok()
                    .filter(|key| matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. }))
                    .ok_or(PinError::Unusable(index))
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(PinError::None) } else { Ok(Self { keys }) }
    }

    /// The algorithms to offer: the server then shows a key of a pinned type, if it has one.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<Algorithm> = Vec::new();
        for key in &self.keys {
            if !algorithms.contains(&key.algorithm()) {
                algorithms.push(key.algorithm());
            }
        }
        algorithms
    }

    /// The fingerprint where the shown key is a pinned one; else the fingerprint of what was shown, as an error.
    pub(super) fn check(&self, shown: &PublicKeyOrCertificate) -> Result<String, String> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
                let pinned = self.keys.iter().any(|pin| pin.key_data() == key.key_data());
                if pinned { Ok(fingerprint) } else { Err(fingerprint) }
            }
            // Certificates are not asked for; a server that sends one all the same is not trusted by it.
            PublicKeyOrCertificate::Certificate(certificate) => {
                Err(certificate.public_key().fingerprint(HashAlg::Sha256).to_string())
            }
        }
    }
}
