//! What a host may prove itself with: pinned keys, authorities that sign host certificates, or the key that it was seen
//! with first. Keys are compared as exact data, here and not by a known_hosts helper (russh's takes a key of another
//! algorithm for merely unknown, and passes over @revoked).

mod certificate;
#[cfg(test)]
mod tests;

pub(super) use certificate::date;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Fingerprint, HashAlg};
use russh::keys::{Algorithm, Certificate, EcdsaCurve, PublicKey, PublicKeyOrCertificate};

use super::ConnectError;

/// An RSA key with fewer bits counts as broken (NIST SP 800-131A).
pub(super) const SMALLEST_RSA: u32 = 2048;
/// Every type of host key that can be accepted, most wanted first. RSA by SHA-2 only.
pub(super) const KEY_TYPES: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// What a Machine says of its host's keys.
#[derive(Clone, Debug, Default)]
pub struct TrustParts<'a> {
    /// `spec.hostKeys`: public key lines.
    pub host_keys: &'a [String],
    /// `spec.hostKeyAuthorities`: public key lines of those who sign host certificates.
    pub authorities: &'a [String],
    /// `spec.revokedHostKeys`: key lines, certificate lines, fingerprints.
    pub revoked: &'a [String],
    /// `status.hostKeys`: algorithm and fingerprint of what the host was seen with first.
    pub seen: Vec<(String, String)>,
    /// Whether a key that nothing is known about may be looked at (`hostKeyPolicy: TrustOnFirstUse`).
    pub first_use: bool,
    /// `spec.address`: what a certificate has to name.
    pub name: &'a str,
}

/// What a host may prove itself with. There is at least one thing, or it is to be seen for the first time.
#[derive(Clone, Debug)]
pub struct HostTrust {
    pins: Vec<KeyData>,
    authorities: Vec<KeyData>,
    revoked: Vec<Revoked>,
    /// Counts only where there are neither pins nor authorities.
    seen: Vec<(Algorithm, Fingerprint)>,
    /// In lower case.
    name: String,
}

#[derive(Clone, Debug)]
enum Revoked {
    Key(KeyData),
    Certificate(Box<Certificate>),
    Fingerprint(Fingerprint),
}

/// What proved that a host is the right one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// Type of the key: `ssh-ed25519`.
    pub algorithm: String,
    /// SHA-256 fingerprint of the key; where a certificate was shown, of the key in it.
    pub fingerprint: String,
    /// What vouches for the key.
    pub by: ProvedBy,
}

/// What vouches for a host key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProvedBy {
    /// It is pinned.
    Pinned,
    /// An authority's certificate.
    Authority,
    /// It is the one that was seen first.
    FirstUse,
}

/// Why lists of keys say nothing that can be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// Nothing to know the host by.
    #[error(
        "spec.hostKeys must have at least one key, or spec.hostKeyAuthorities one, or spec.hostKeyPolicy must be \
         TrustOnFirstUse; `writ machine keyscan HOST` prints a host's keys"
    )]
    None,
    /// A line that is no public key of a type that Writ uses.
    #[error(
        "{field}[{index}] must be an OpenSSH public key line of type ssh-ed25519, ecdsa-sha2-nistp256/384/521 or ssh-rsa, \
         as `writ machine keyscan HOST` or a .pub file has it"
    )]
    Unusable {
        /// The list.
        field: &'static str,
        /// The place in it, from 0.
        index: usize,
    },
    /// An RSA key that is too short to prove anything.
    #[error("{field}[{index}] must have at least 2048 bits; this RSA key has {bits}")]
    ShortRsa {
        /// The list.
        field: &'static str,
        /// The place in it, from 0.
        index: usize,
        /// How long it is.
        bits: u32,
    },
    /// An entry that would revoke nothing.
    #[error(
        "spec.revokedHostKeys[{0}] must be an OpenSSH public key line, a certificate line (of a -cert.pub file), or a \
         fingerprint SHA256:... as `ssh-keygen -lf FILE` prints it"
    )]
    Revoked(usize),
    /// What was seen is not told in a way that can be compared.
    #[error(
        "status.hostKeys[{0}] must have the type of a host key and its fingerprint SHA256:...; put the host's key into \
         spec.hostKeys, or empty status.hostKeys where nobody can be in between"
    )]
    Seen(usize),
}

impl HostTrust {
    /// Reads what a Machine says.
    ///
    /// # Errors
    /// The first entry that cannot be used: one that is passed over would only be noticed on the day it is needed.
    pub fn parse(parts: TrustParts<'_>) -> Result<Self, TrustError> {
        let pins = parse_keys("spec.hostKeys", parts.host_keys)?;
        let authorities = parse_keys("spec.hostKeyAuthorities", parts.authorities)?;
        let is_listed = !pins.is_empty() || !authorities.is_empty();
        if !is_listed && !parts.first_use {
            return Err(TrustError::None);
        }
        let numbered = parts.revoked.iter().enumerate();
        let revoked = numbered
            .map(|(index, line)| Revoked::parse(line).ok_or(TrustError::Revoked(index)))
            .collect::<Result<_, _>>()?;
        let numbered = parts.seen.iter().take(if is_listed { 0 } else { usize::MAX }).enumerate();
        let seen = numbered
            .map(|(index, (algorithm, fingerprint))| parse_seen(algorithm, fingerprint).ok_or(TrustError::Seen(index)))
            .collect::<Result<_, _>>()?;
        Ok(Self { pins, authorities, revoked, seen, name: parts.name.to_ascii_lowercase() })
    }

    /// The types of plain keys to ask for: only those that could be accepted, so that a server with several shows one.
    pub(super) fn key_types(&self) -> Vec<Algorithm> {
        if !self.is_listed() && self.seen.is_empty() {
            return KEY_TYPES.to_vec();
        }
        let pinned = self.pins.iter().map(KeyData::algorithm);
        let wanted: Vec<Algorithm> = pinned.chain(self.seen.iter().map(|(algorithm, _)| algorithm.clone())).collect();
        KEY_TYPES.into_iter().filter(|known| wanted.iter().any(|wanted| same_type(wanted, known))).collect()
    }

    /// The types of certificates to ask for.
    pub(super) fn certificate_types(&self) -> Vec<Algorithm> {
        if self.authorities.is_empty() { Vec::new() } else { KEY_TYPES.to_vec() }
    }

    /// Whether a host whose certificate is refused may be asked for its plain key: a server that has a certificate shows
    /// that, whatever else it has.
    pub(super) fn may_do_without_certificate(&self, refusal: &ConnectError) -> bool {
        !self.pins.is_empty() && matches!(refusal, ConnectError::HostCertificateRefused { .. })
    }

    /// What the host may show, as fingerprints.
    pub(super) fn expected(&self) -> Vec<String> {
        let pinned = self.pins.iter().map(fingerprint_of);
        pinned.chain(self.seen.iter().map(|(_, fingerprint)| fingerprint.to_string())).collect()
    }

    /// Whether what a host shows proves that it is the right one. `now` is in seconds since 1970.
    pub(super) fn judge(&self, shown: &PublicKeyOrCertificate, now: u64) -> Result<Proof, ConnectError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.judge_key(key.key_data()),
            PublicKeyOrCertificate::Certificate(certificate) => self.judge_certificate(certificate, now),
        }
    }

    fn judge_key(&self, key: &KeyData) -> Result<Proof, ConnectError> {
        let fingerprint = fingerprint_of(key);
        if self.is_revoked(key) {
            return Err(ConnectError::HostKeyRevoked { what: format!("the key {fingerprint}") });
        }
        if self.pins.contains(key) {
            return Ok(Proof::of(key, ProvedBy::Pinned));
        }
        if !self.is_listed() {
            if usable(key).is_err() {
                let what = "its only key proves nothing; make it an ed25519 key (ssh-keygen -A as root there)";
                return Err(ConnectError::Handshake(what.to_owned()));
            }
            if self.seen.is_empty() {
                return Err(ConnectError::HostKeyNew { algorithm: name_of(key), fingerprint });
            }
            if self.seen.iter().any(|(_, seen)| *seen == key.fingerprint(HashAlg::Sha256)) {
                return Ok(Proof::of(key, ProvedBy::FirstUse));
            }
        }
        Err(ConnectError::HostKeyMismatch { expected: self.expected(), shown: fingerprint })
    }

    fn judge_certificate(&self, certificate: &Certificate, now: u64) -> Result<Proof, ConnectError> {
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
        Ok(Proof::of(key, ProvedBy::Authority))
    }

    fn is_listed(&self) -> bool {
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
        // Without the comment, which is not part of what is shown.
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
        // Of any type: what can be named can be revoked.
        PublicKey::from_openssh(line).ok().map(|key| Self::Key(key.key_data().clone()))
    }
}

impl Proof {
    fn of(key: &KeyData, by: ProvedBy) -> Self {
        Self { algorithm: name_of(key), fingerprint: fingerprint_of(key), by }
    }
}

/// What is wrong with a key that shall prove something.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum KeyProblem {
    /// Not one of [`KEY_TYPES`].
    Type,
    /// RSA of so few bits.
    ShortRsa(u32),
}

/// Whether a key can prove anything: its type and its length.
pub(super) fn usable(key: &KeyData) -> Result<(), KeyProblem> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(()),
        KeyData::Rsa(rsa) if rsa.key_size() < SMALLEST_RSA => Err(KeyProblem::ShortRsa(rsa.key_size())),
        KeyData::Rsa(_) => Ok(()),
        _ => Err(KeyProblem::Type),
    }
}

pub(super) fn fingerprint_of(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn name_of(key: &KeyData) -> String {
    key.algorithm().to_string()
}

/// Whether two algorithms take the same kind of key: an RSA key is the same whatever it signs with.
fn same_type(one: &Algorithm, other: &Algorithm) -> bool {
    match (one, other) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (one, other) => one == other,
    }
}

fn parse_keys(field: &'static str, lines: &[String]) -> Result<Vec<KeyData>, TrustError> {
    let parse = |(index, line): (usize, &String)| {
        let unusable = || TrustError::Unusable { field, index };
        let key = PublicKey::from_openssh(line.trim()).map_err(|_| unusable())?.key_data().clone();
        match usable(&key) {
            Ok(()) => Ok(key),
            Err(KeyProblem::ShortRsa(bits)) => Err(TrustError::ShortRsa { field, index, bits }),
            Err(KeyProblem::Type) => Err(unusable()),
        }
    };
    lines.iter().enumerate().map(parse).collect()
}

fn parse_seen(algorithm: &str, fingerprint: &str) -> Option<(Algorithm, Fingerprint)> {
    let algorithm = Algorithm::new(algorithm).ok()?;
    let is_known = KEY_TYPES.iter().any(|known| same_type(known, &algorithm));
    let fingerprint: Fingerprint = fingerprint.parse().ok()?;
    (is_known && fingerprint.is_sha256()).then_some((algorithm, fingerprint))
}
