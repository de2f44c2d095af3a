//! Whether a host certificate counts. ssh-key checks the signature and the period; the rest is checked here: who signed, with
//! what, for which kind of use, for which names, and under which conditions.

use jiff::Timestamp;
use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate};

use super::super::text::printable;
use super::{KeyProblem, fingerprint_of, usable};

/// Of the names in a certificate, so many are told; there may be hundreds.
const NAMES_TOLD: usize = 8;
/// And so much of each: a host name has 253 characters at most.
const NAME_LENGTH: usize = 64;

/// Why a certificate does not count.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum CertificateProblem {
    #[error(
        "it is signed by {0}, which is not in spec.hostKeyAuthorities; put that authority there if it is yours, else \
         somebody is in between"
    )]
    UnknownAuthority(String),
    #[error(
        "it is signed with SHA-1 (ssh-rsa), which proves nothing; sign it anew with rsa-sha2-512 (ssh-keygen -t rsa-sha2-512)"
    )]
    Sha1,
    #[error("its signature is not that of its authority; somebody made it up")]
    Forged,
    #[error("it is a user certificate; the host must have one that was made with ssh-keygen -h")]
    NotForHosts,
    #[error(
        "it is for a key that proves nothing ({0}); the host must have ed25519, ECDSA, or RSA of at least 2048 bits"
    )]
    WeakKey(String),
    #[error("it expired at {0}; sign the host's key anew, or check the clocks")]
    Expired(String),
    #[error("it is not valid before {0}; check the clocks")]
    NotYet(String),
    #[error("it names no host; sign the host's key anew with its names (ssh-keygen -n)")]
    NoNames,
    #[error("it is for {names} and not for {address}; spec.address must be one of its names, as it is written there")]
    OtherNames { names: String, address: String },
    #[error("it has the critical option {0}, which is not known for host certificates")]
    CriticalOption(String),
}

/// Holds a certificate against the authorities, the name of the host and the time (seconds since 1970).
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
    // The only thing that is left to this is the signature over all the rest: the time is one that is right.
    let signed = certificate.validate_at(certificate.valid_after(), &[signer.fingerprint(HashAlg::Sha256)]);
    let is_ever_valid = certificate.valid_after() < certificate.valid_before();
    if signed.is_err() && is_ever_valid {
        return Err(CertificateProblem::Forged);
    }
    if certificate.cert_type() != CertType::Host {
        return Err(CertificateProblem::NotForHosts);
    }
    match usable(certificate.public_key()) {
        Ok(()) => {}
        Err(KeyProblem::ShortRsa(bits)) => return Err(CertificateProblem::WeakKey(format!("RSA of {bits} bits"))),
        Err(KeyProblem::Type) => {
            return Err(CertificateProblem::WeakKey(printable(certificate.algorithm().as_ref(), NAME_LENGTH)));
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
        Some((option, _)) => Err(CertificateProblem::CriticalOption(printable(option, NAME_LENGTH))),
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
    let mut names: Vec<String> = principals.iter().take(NAMES_TOLD).map(|name| printable(name, NAME_LENGTH)).collect();
    if principals.len() > NAMES_TOLD {
        names.push(format!("{} more", principals.len() - NAMES_TOLD));
    }
    Err(CertificateProblem::OtherNames { names: names.join(", "), address: name.to_owned() })
}

/// Seconds since 1970 as a date; what no date can say (ssh-keygen's "forever") as a number.
pub(in super::super) fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| format!("second {seconds}"), |date| date.to_string())
}

/// `*` and `?` as OpenSSH has them in match_pattern(): any text, any one character; case counts. In time that grows with the
/// product of both lengths at most: patterns come from the certificate, whoever made it.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where the last star was, and up to where it took the text.
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
