//! Checks host certificates. ssh-key verifies the signature. This module checks the authority, the signature algorithm,
//! the certificate type, the strength of the key, the validity period, the names and the critical options.

use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate};

use super::super::public_key::{WeakKey, check_strength, fingerprint_of};
use super::super::text::{date, printable};

/// Maximum number of names of a certificate in a message. A certificate can have hundreds of names.
const MAX_NAMES_SHOWN: usize = 8;
/// Maximum number of characters of each name in a message. A host name has up to 253 characters.
const MAX_NAME_SHOWN: usize = 64;

/// Reason why a certificate is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum CertificateProblem {
    #[error(
        "signed by {0}, which is not in spec.hostKeyAuthorities; add that authority if it is yours, otherwise someone may \
         be intercepting the connection"
    )]
    UnknownAuthority(String),
    #[error(
        "signed with SHA-1 (ssh-rsa), which is not secure; sign it again with rsa-sha2-512 (ssh-keygen -t rsa-sha2-512)"
    )]
    Sha1,
    #[error("forged: the signature is not the one of the authority")]
    Forged,
    #[error("a user certificate; the host must have one that was made with ssh-keygen -h")]
    NotForHosts,
    #[error("made for a weak key ({0}); the host must have ed25519, ECDSA, or RSA of at least 2048 bits")]
    WeakKey(String),
    #[error("expired at {0}; sign the host key again, or check the clocks")]
    Expired(String),
    #[error("not valid before {0}; check the clocks")]
    NotYet(String),
    #[error("names no host; sign the host key again with its names (ssh-keygen -n)")]
    NoNames,
    #[error("valid for {names}, not for {address}; spec.address must be one of its names, in the same spelling")]
    OtherNames { names: String, address: String },
    #[error("critical option {0} is not known for host certificates")]
    CriticalOption(String),
}

/// Checks a certificate against the authorities, the name of the host and the time (seconds since 1970).
pub(super) fn check(
    certificate: &Certificate,
    authorities: &[KeyData],
    name: &str,
    now: u64,
) -> Result<(), CertificateProblem> {
    let signer = certificate.signature_key();
    if !authorities.contains(signer) {
        return Err(CertificateProblem::UnknownAuthority(fingerprint_of(signer)));
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None }) {
        return Err(CertificateProblem::Sha1);
    }
    // At the time `valid_after`, this call fails only if the signature is wrong or the validity period is empty.
    let signed = certificate.validate_at(certificate.valid_after(), &[signer.fingerprint(HashAlg::Sha256)]);
    let is_ever_valid = certificate.valid_after() < certificate.valid_before();
    if signed.is_err() && is_ever_valid {
        return Err(CertificateProblem::Forged);
    }
    if certificate.cert_type() != CertType::Host {
        return Err(CertificateProblem::NotForHosts);
    }
    match check_strength(certificate.public_key()) {
        Ok(()) => {}
        Err(WeakKey::ShortRsa(bits)) => return Err(CertificateProblem::WeakKey(format!("RSA of {bits} bits"))),
        Err(WeakKey::Type) => {
            return Err(CertificateProblem::WeakKey(printable(certificate.algorithm().as_ref(), MAX_NAME_SHOWN)));
        }
    }
    if now < certificate.valid_after() {
        return Err(CertificateProblem::NotYet(date(certificate.valid_after())));
    }
    // PROTOCOL.certkeys: valid after <= now < valid before.
    if now >= certificate.valid_before() {
        return Err(CertificateProblem::Expired(date(certificate.valid_before())));
    }
    check_names(certificate.valid_principals(), name)?;
    match certificate.critical_options().iter().next() {
        Some((option, _)) => Err(CertificateProblem::CriticalOption(printable(option, MAX_NAME_SHOWN))),
        None => Ok(()),
    }
}

fn check_names(principals: &[String], name: &str) -> Result<(), CertificateProblem> {
    if principals.is_empty() {
        return Err(CertificateProblem::NoNames);
    }
    if principals.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes())) {
        return Ok(());
    }
    let mut names: Vec<String> =
        principals.iter().take(MAX_NAMES_SHOWN).map(|name| printable(name, MAX_NAME_SHOWN)).collect();
    if principals.len() > MAX_NAMES_SHOWN {
        names.push(format!("{} more", principals.len() - MAX_NAMES_SHOWN));
    }
    Err(CertificateProblem::OtherNames { names: names.join(", "), address: name.to_owned() })
}

/// Returns true if the pattern matches the text. Follows match_pattern() of OpenSSH, and is case-sensitive. `*` stands
/// for any text, `?` for any one character. The time grows at most with the product of both lengths, even if an
/// attacker chooses the pattern.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Position of the most recent `*` in the pattern, and end of the text that this `*` matches so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(position) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                position = taken + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_and_question_mark_match_as_openssh_has_it() {
        for (pattern, text) in [
            ("web-1", "web-1"),
            ("*", "web-1"),
            ("*", ""),
            ("web-?", "web-1"),
            ("*.example.com", "a.b.example.com"),
            ("a*b*c", "aXbXbXc"),
            ("**", "x"),
            ("10.0.0.*", "10.0.0.7"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("web-1", "web-10"),
            ("web-10", "web-1"),
            ("web-?", "web-"),
            ("web-?", "web-11"),
            ("*.example.com", "example.com"),
            ("Web-1", "web-1"),
            ("", "x"),
            ("a*b", "aXc"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
