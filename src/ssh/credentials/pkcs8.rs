//! Private keys in PKCS#8 (RFC 5958), encrypted (RFC 8018, PBES2) or not, as OpenSSL and `ssh-keygen -m PKCS8` write
//! them.

#[cfg(test)]
mod tests;

use pkcs8::der::asn1::{Null, OctetStringRef};
use pkcs8::der::{self, Reader as _, SliceReader};
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Kdf};
use pkcs8::pkcs5::{self, EncryptionScheme};
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument};
use russh::keys::PrivateKey;
use russh::keys::pkcs8::decode_pkcs8;

use super::error::CredentialsError;

/// Maximum number of PBKDF2 rounds. openssl uses 2048 rounds, and OWASP recommends 600,000. Without this maximum, the
/// author of a Secret could keep a thread busy for hours.
const MAX_PBKDF2_ROUNDS: u32 = 1_000_000;

/// rsaEncryption (RFC 8017).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// id-ecPublicKey (RFC 5480).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// The curves of RFC 5656: P-256, P-384 and P-521.
const CURVES: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
    ObjectIdentifier::new_unwrap("1.3.132.0.34"),
    ObjectIdentifier::new_unwrap("1.3.132.0.35"),
];
/// Key types that openssl creates and SSH does not use, with their names.
const OTHERS: [(ObjectIdentifier, &str); 5] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"), "DSA"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"), "RSA-PSS"),
    (ObjectIdentifier::new_unwrap("1.3.101.110"), "X25519"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "Ed448"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), "ECDSA on secp256k1"),
];

/// Reads an unencrypted key in PKCS#8 or SEC 1. As with OpenSSL, the label of the block may name the other format.
pub(super) fn parse(der: &[u8]) -> Result<PrivateKey, CredentialsError> {
    decode_pkcs8(der, None).map_err(|_| problem(der))
}

/// Reads a PKCS#1 key, the bare form of an RSA key.
pub(super) fn parse_rsa(key: &[u8]) -> Result<PrivateKey, CredentialsError> {
    let algorithm = AlgorithmIdentifierRef { oid: RSA, parameters: Some(Null.into()) };
    let framed = OctetStringRef::new(key)
        .and_then(|key| SecretDocument::encode_msg(&PrivateKeyInfoRef::new(algorithm, key)))
        .map_err(|_| CredentialsError::Unparsable)?;
    parse(framed.as_bytes())
}

/// Opens an encrypted key.
pub(super) fn parse_encrypted(der: &[u8], passphrase: &[u8]) -> Result<PrivateKey, CredentialsError> {
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| sealed_problem(der))?;
    check_cost(&sealed.encryption_algorithm)?;
    let opened = sealed.decrypt(passphrase).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(
            pkcs5::Error::UnsupportedAlgorithm { .. } | pkcs5::Error::AlgorithmParametersInvalid { .. },
        ) => CredentialsError::Encryption,
        // About one wrong passphrase in 256 yields correct padding. `parse` below then finds that the bytes are no key.
        _ => CredentialsError::PassphraseWrong,
    })?;
    parse(opened.as_bytes()).map_err(|error| match error {
        CredentialsError::Unparsable => CredentialsError::PassphraseWrong,
        other => other,
    })
}

/// Accepts only AES with the key derivation PBKDF2 and a bounded number of rounds. scrypt is refused, because the
/// author of the Secret would choose how much memory scrypt needs.
fn check_cost(scheme: &EncryptionScheme) -> Result<(), CredentialsError> {
    let parameters = scheme.pbes2().ok_or(CredentialsError::Encryption)?;
    let Kdf::Pbkdf2(pbkdf2) = &parameters.kdf else { return Err(CredentialsError::Encryption) };
    if pbkdf2.iteration_count > MAX_PBKDF2_ROUNDS {
        let (rounds, most) = (u64::from(pbkdf2.iteration_count), u64::from(MAX_PBKDF2_ROUNDS));
        return Err(CredentialsError::TooManyRounds { rounds, function: "PBKDF2", most });
    }
    match parameters.encryption {
        Cipher::Aes128Cbc { .. } | Cipher::Aes192Cbc { .. } | Cipher::Aes256Cbc { .. } => Ok(()),
        Cipher::Aes128Gcm { .. } | Cipher::Aes256Gcm { .. } => Ok(()),
        // Another crate can enable features of pkcs5 that add ciphers. Writ refuses these ciphers.
        _ => Err(CredentialsError::Encryption),
    }
}

/// Returns `Unsupported` with the type of the key if Writ does not use this type, otherwise `Unparsable`.
fn problem(der: &[u8]) -> CredentialsError {
    let Ok(key) = PrivateKeyInfoRef::try_from(der) else { return CredentialsError::Unparsable };
    let curve = (key.algorithm.oid == EC).then(|| key.algorithm.parameters_oid().ok()).flatten();
    let oid = curve.unwrap_or(key.algorithm.oid);
    if [RSA, ED25519, EC].contains(&oid) || CURVES.contains(&oid) {
        return CredentialsError::Unparsable;
    }
    let name = OTHERS.iter().find(|(known, _)| *known == oid);
    CredentialsError::Unsupported(name.map_or_else(|| oid.to_string(), |(_, name)| (*name).to_owned()))
}

/// Returns `Encryption` if the outer structure of the encrypted key is complete, otherwise `Unparsable`.
fn sealed_problem(der: &[u8]) -> CredentialsError {
    if is_whole_frame(der) { CredentialsError::Encryption } else { CredentialsError::Unparsable }
}

/// Returns true if the bytes are exactly one `EncryptedPrivateKeyInfo`, with any algorithm and parameters.
fn is_whole_frame(der: &[u8]) -> bool {
    let read = |der| -> der::Result<()> {
        let mut reader = SliceReader::new(der)?;
        reader.sequence(|frame| {
            frame.decode::<AlgorithmIdentifierRef<'_>>()?;
            frame.decode::<&OctetStringRef>()?;
            Ok::<_, der::Error>(())
        })?;
        reader.finish()
    };
    read(der).is_ok()
}
