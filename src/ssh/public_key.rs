//! Public keys of hosts and of logins: the types and lengths that Writ accepts, and their fingerprints.

use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, EcdsaCurve};

/// Minimum length of an RSA key, in bits. Shorter keys count as broken (NIST SP 800-131A).
pub(super) const MIN_RSA_BITS: u32 = 2048;
/// Types of host keys that Writ accepts, in the order of preference. RSA keys must sign with SHA-2.
pub(super) const KEY_TYPES: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// Fault of a key that is too weak to prove an identity.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum WeakKey {
    /// The type is not in [`KEY_TYPES`].
    Type,
    /// The RSA key has fewer than [`MIN_RSA_BITS`] bits. Holds the number of bits.
    ShortRsa(u32),
}

/// Checks the type and the length of a key.
pub(super) fn check_strength(key: &KeyData) -> Result<(), WeakKey> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(()),
        KeyData::Rsa(rsa) if rsa.key_size() < MIN_RSA_BITS => Err(WeakKey::ShortRsa(rsa.key_size())),
        KeyData::Rsa(_) => Ok(()),
        _ => Err(WeakKey::Type),
    }
}

pub(super) fn fingerprint_of(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
