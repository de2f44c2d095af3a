//! Verifies host keys: pinned keys, certificates of authorities, and keys recorded on first use. Keys are compared as
//! exact data. Writ does not use russh's known_hosts helper. This helper ignores @revoked, and reports a host with a
//! key of another algorithm as unknown.

mod certificate;
#[cfg(test)]
mod tests;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Fingerprint, HashAlg};
use russh::keys::{Algorithm, Certificate, PublicKey, PublicKeyOrCertificate};

use super::ConnectError;
use super::public_key::{KEY_TYPES, WeakKey, check_strength, fingerprint_of};

/// Host key fields of a Machine.
#[derive(Clone, Debug, Default)]
pub struct HostKeyConfig<'a> {
    /// `spec.hostKeys`: public key lines.
    pub host_keys: &'a [String],
    /// `spec.hostKeyAuthorities`: public key lines of certificate authorities.
    pub authorities: &'a [String],
    /// `spec.revokedHostKeys`: key lines, certificate lines, fingerprints.
    pub revoked: &'a [String],
    /// `status.hostKeys`: algorithm and fingerprint of the keys recorded on first use.
    pub first_use_keys: Vec<(String, String)>,
    /// True if an unknown key may be recorded (`hostKeyPolicy: TrustOnFirstUse`).
    pub first_use: bool,
    /// `spec.address`: the name that a certificate must contain.
    pub name: &'a str,
}

/// Verifier of host keys. The verifier has at least one key or authority, or the Machine trusts on first use.
#[derive(Clone, Debug)]
pub struct HostKeyVerifier {
    pins: Vec<KeyData>,
    authorities: Vec<KeyData>,
    revoked: Vec<Revoked>,
    /// Keys recorded on first use. Empty if there are pins or authorities.
    first_use_keys: Vec<(Algorithm, Fingerprint)>,
    /// `spec.address` in lower case.
    name: String,
}

#[derive(Clone, Debug)]
enum Revoked {
    Key(KeyData),
    Certificate(Box<Certificate>),
    Fingerprint(Fingerprint),
}

/// A verified host key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedHostKey {
    /// Type of the key, for example `ssh-ed25519`.
    pub algorithm: String,
    /// SHA-256 fingerprint of the key. For a certificate, the fingerprint of the certified key.
    pub fingerprint: String,
    /// Reason why the key was accepted.
    pub by: VerifiedBy,
}

/// Reason why a host key was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VerifiedBy {
    /// The key is pinned.
    Pinned,
    /// An authority has signed the certificate of the key.
    Authority,
    /// The key was recorded on first use.
    FirstUse,
}

/// Error in the host key fields of a Machine.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostKeyConfigError {
    /// There is no key, no authority and no trust on first use.
    #[error(
        "spec.hostKeys must have at least one key, or spec.hostKeyAuthorities one, or spec.hostKeyPolicy must be \
         TrustOnFirstUse; `writ machine keyscan HOST --port PORT` prints a host's keys"
    )]
    None,
    /// A line is no public key of a type that Writ uses.
    #[error(
        "{field}[{index}] must be an OpenSSH public key line of type ssh-ed25519, ecdsa-sha2-nistp256/384/521 or ssh-rsa, \
         as `writ machine keyscan HOST` or a .pub file has it"
    )]
    Unusable {
        /// Name of the field.
        field: &'static str,
        /// Index in the list, from 0.
        index: usize,
    },
    /// An RSA key is too short.
    #[error("{field}[{index}] must have at least 2048 bits; this RSA key has {bits}")]
    ShortRsa {
        /// Name of the field.
        field: &'static str,
        /// Index in the list, from 0.
        index: usize,
        /// Length of the key in bits.
        bits: u32,
    },
    /// An entry of `spec.revokedHostKeys` has no known form, and would revoke nothing.
    #[error(
        "spec.revokedHostKeys[{0}] must be an OpenSSH public key line, a certificate line (of a -cert.pub file), or a \
         fingerprint SHA256:... as `ssh-keygen -lf FILE` prints it"
    )]
    Revoked(usize),
    /// A recorded key has no known type or no SHA-256 fingerprint.
    #[error(
        "status.hostKeys[{0}] must have the type of a host key and its fingerprint SHA256:...; put the host's key into \
         spec.hostKeys, or empty status.hostKeys if nobody can intercept the connection"
    )]
    Seen(usize),
}

impl HostKeyVerifier {
    /// Reads the host key fields of a Machine.
    ///
    /// # Errors
    /// [`HostKeyConfigError::None`], or an error that names the first entry that cannot be used.
    pub fn parse(parts: HostKeyConfig<'_>) -> Result<Self, HostKeyConfigError> {
        let pins = parse_keys("spec.hostKeys", parts.host_keys)?;
        let authorities = parse_keys("spec.hostKeyAuthorities", parts.authorities)?;
        let has_configured_keys = !pins.is_empty() || !authorities.is_empty();
        if !has_configured_keys && !parts.first_use {
            return Err(HostKeyConfigError::None);
        }
        let numbered = parts.revoked.iter().enumerate();
        let revoked = numbered
            .map(|(index, line)| Revoked::parse(line).ok_or(HostKeyConfigError::Revoked(index)))
            .collect::<Result<_, _>>()?;
        let numbered = parts.first_use_keys.iter().take(if has_configured_keys { 0 } else { usize::MAX }).enumerate();
        let first_use_keys = numbered
            .map(|(index, (algorithm, fingerprint))| {
                parse_first_use_key(algorithm, fingerprint).ok_or(HostKeyConfigError::Seen(index))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { pins, authorities, revoked, first_use_keys, name: parts.name.to_ascii_lowercase() })
    }

    /// Returns the types of plain host keys to request: only the types that Writ would accept. A server with several
    /// host keys shows only one of these keys.
    pub(super) fn key_types(&self) -> Vec<Algorithm> {
        if !self.has_configured_keys() && self.first_use_keys.is_empty() {
            return KEY_TYPES.to_vec();
        }
        let pinned = self.pins.iter().map(KeyData::algorithm);
        let wanted: Vec<Algorithm> =
            pinned.chain(self.first_use_keys.iter().map(|(algorithm, _)| algorithm.clone())).collect();
        KEY_TYPES.into_iter().filter(|known| wanted.iter().any(|wanted| same_type(wanted, known))).collect()
    }

    /// Returns the types of certificates to request.
    pub(super) fn certificate_types(&self) -> Vec<Algorithm> {
        if self.authorities.is_empty() { Vec::new() } else { KEY_TYPES.to_vec() }
    }

    /// Returns true if the host's certificate was refused and the Machine has pinned keys. Writ may then connect again
    /// without a request for certificates, so that the server shows its plain key.
    pub(super) fn may_fall_back_to_plain_key(&self, refusal: &ConnectError) -> bool {
        !self.pins.is_empty() && matches!(refusal, ConnectError::HostCertificateRefused { .. })
    }

    /// Returns the fingerprints of the expected keys.
    pub(super) fn expected(&self) -> Vec<String> {
        let pinned = self.pins.iter().map(fingerprint_of);
        pinned.chain(self.first_use_keys.iter().map(|(_, fingerprint)| fingerprint.to_string())).collect()
    }

    /// Verifies a shown key or certificate. `now` is in seconds since 1970.
    pub(super) fn verify(&self, shown: &PublicKeyOrCertificate, now: u64) -> Result<VerifiedHostKey, ConnectError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.verify_key(key.key_data()),
            PublicKeyOrCertificate::Certificate(certificate) => self.verify_certificate(certificate, now),
        }
    }

    fn verify_key(&self, key: &KeyData) -> Result<VerifiedHostKey, ConnectError> {
        let fingerprint = fingerprint_of(key);
        if self.is_revoked(key) {
            return Err(ConnectError::HostKeyRevoked { what: format!("the key {fingerprint}") });
        }
        if self.pins.contains(key) {
            return Ok(VerifiedHostKey::of(key, VerifiedBy::Pinned));
        }
        if !self.has_configured_keys() {
            if check_strength(key).is_err() {
                let what = "the only host key is too weak; create an ed25519 key there (ssh-keygen -A as root)";
                return Err(ConnectError::Handshake(what.to_owned()));
            }
            if self.first_use_keys.is_empty() {
                return Err(ConnectError::HostKeyUnknown { algorithm: name_of(key), fingerprint });
            }
            if self.first_use_keys.iter().any(|(_, seen)| *seen == key.fingerprint(HashAlg::Sha256)) {
                return Ok(VerifiedHostKey::of(key, VerifiedBy::FirstUse));
            }
        }
        Err(ConnectError::HostKeyMismatch { expected: self.expected(), shown: fingerprint })
    }

    fn verify_certificate(&self, certificate: &Certificate, now: u64) -> Result<VerifiedHostKey, ConnectError> {
        let (key, signer) = (certificate.public_key(), certificate.signature_key());
        if self.is_revoked_certificate(certificate) {
            let what = format!("the certificate for the key {}", fingerprint_of(key));
            return Err(ConnectError::HostKeyRevoked { what });
        }
        if self.is_revoked(key) {
            let what = format!("the key {} in the certificate", fingerprint_of(key));
            return Err(ConnectError::HostKeyRevoked { what });
        }
        if self.is_revoked(signer) {
            let what = format!("the authority {} that signed the certificate", fingerprint_of(signer));
            return Err(ConnectError::HostKeyRevoked { what });
        }
        certificate::check(certificate, &self.authorities, &self.name, now)
            .map_err(|problem| ConnectError::HostCertificateRefused { why: problem.to_string() })?;
        Ok(VerifiedHostKey::of(key, VerifiedBy::Authority))
    }

    fn has_configured_keys(&self) -> bool {
        !self.pins.is_empty() || !self.authorities.is_empty()
    }

    fn is_revoked(&self, key: &KeyData) -> bool {
        self.revoked.iter().any(|revoked| match revoked {
            Revoked::Key(revoked) => revoked == key,
            Revoked::Fingerprint(revoked) => *revoked == key.fingerprint(HashAlg::Sha256),
            Revoked::Certificate(_) => false,
        })
    }

    fn is_revoked_certificate(&self, certificate: &Certificate) -> bool {
        // `to_bytes` omits the comment, because a certificate from a server has no comment.
        self.revoked.iter().any(|revoked| match revoked {
            Revoked::Certificate(revoked) => {
                matches!((revoked.to_bytes(), certificate.to_bytes()), (Ok(one), Ok(other)) if one == other)
            }
            _ => false,
        })
    }
}

impl Revoked {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with("SHA256:") {
            return line.parse().ok().map(Self::Fingerprint);
        }
        if line.split_whitespace().next()?.ends_with("-cert-v01@openssh.com") {
            return Certificate::from_openssh(line).ok().map(|certificate| Self::Certificate(Box::new(certificate)));
        }
        // A key of any type can be revoked, so the type is not checked.
        PublicKey::from_openssh(line).ok().map(|key| Self::Key(key.key_data().clone()))
    }
}

impl VerifiedHostKey {
    fn of(key: &KeyData, by: VerifiedBy) -> Self {
        Self { algorithm: name_of(key), fingerprint: fingerprint_of(key), by }
    }
}

fn name_of(key: &KeyData) -> String {
    key.algorithm().to_string()
}

/// Returns true if two algorithms use the same type of key. An RSA key has one type for all its signature hashes.
fn same_type(one: &Algorithm, other: &Algorithm) -> bool {
    match (one, other) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (one, other) => one == other,
    }
}

fn parse_keys(field: &'static str, lines: &[String]) -> Result<Vec<KeyData>, HostKeyConfigError> {
    let parse = |(index, line): (usize, &String)| {
        let unusable = || HostKeyConfigError::Unusable { field, index };
        let key = PublicKey::from_openssh(line.trim()).map_err(|_| unusable())?.key_data().clone();
        match check_strength(&key) {
            Ok(()) => Ok(key),
            Err(WeakKey::ShortRsa(bits)) => Err(HostKeyConfigError::ShortRsa { field, index, bits }),
            Err(WeakKey::Type) => Err(unusable()),
        }
    };
    lines.iter().enumerate().map(parse).collect()
}

fn parse_first_use_key(algorithm: &str, fingerprint: &str) -> Option<(Algorithm, Fingerprint)> {
    let algorithm = Algorithm::new(algorithm).ok()?;
    let is_known = KEY_TYPES.iter().any(|known| same_type(known, &algorithm));
    let fingerprint: Fingerprint = fingerprint.parse().ok()?;
    (is_known && fingerprint.is_sha256()).then_some((algorithm, fingerprint))
}
