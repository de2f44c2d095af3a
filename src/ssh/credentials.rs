//! What to log in with: a private key, and the user certificate for it where there is one, in a type that cannot be printed.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::pkcs8::decode_pkcs8;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{HashAlg, Kdf};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::clock::seconds_now;
use super::host_key::{KeyProblem, SMALLEST_RSA, date, usable};

/// ssh-keygen makes 16 rounds of bcrypt (24 from 9.8 on), which take about a tenth of a second; whoever writes the Secret
/// chooses the number, and may not keep a thread busy for hours by it.
const MOST_BCRYPT_ROUNDS: u32 = 256;
/// The same for PBKDF2. openssl makes 2048; OWASP recommends 600,000.
const MOST_PBKDF2_ROUNDS: u64 = 1_000_000;
/// The object identifier of PBKDF2 (RFC 8018), as DER has it.
const PBKDF2: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];

/// A private key, and perhaps its certificate. It has no Display and no Serialize, its Debug says nothing, and the key is
/// wiped from memory when the last copy is dropped (by ssh-key, whose private keys do that).
#[derive(Clone)]
pub struct Credentials {
    key: Arc<PrivateKey>,
    certificate: Option<Arc<Certificate>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

/// Why there is nothing to log in with. What was given is never repeated.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    /// Not text.
    #[error("ssh-privatekey is not text; it must be the PEM file that ssh-keygen writes")]
    NotText,
    /// Protected by a passphrase that is not there.
    #[error(
        "ssh-privatekey is encrypted; put its passphrase into the Secret's key passphrase, or use a key without one \
         (ssh-keygen -p -N '' -f FILE takes it away)"
    )]
    PassphraseMissing,
    /// Protected by another passphrase.
    #[error("passphrase does not open ssh-privatekey; put the right one there (ssh-keygen -y -f FILE asks for it)")]
    PassphraseWrong,
    /// Protected in a way that would take too long to open, or that is not known.
    #[error(
        "ssh-privatekey is encrypted in a way that is not opened here; encrypt it anew with at most {MOST_BCRYPT_ROUNDS} \
         rounds (ssh-keygen -p -a 24 -f FILE)"
    )]
    Encryption,
    /// A form that only old programs write.
    #[error("ssh-privatekey is in an old form (PKCS#1 or PuTTY's); convert it to OpenSSH's (ssh-keygen -p -f FILE)")]
    OldForm,
    /// A type that Writ does not use.
    #[error("ssh-privatekey has type {0}; use ed25519, ECDSA or RSA (ssh-keygen -t ed25519 makes one)")]
    Unsupported(String),
    /// RSA of so few bits.
    #[error(
        "ssh-privatekey is an RSA key of {0} bits; it must have at least {SMALLEST_RSA} (or use ssh-keygen -t ed25519)"
    )]
    ShortRsa(u32),
    /// Anything else.
    #[error(
        "ssh-privatekey does not parse; it must be the PEM file that ssh-keygen writes, whole, with its BEGIN and END lines"
    )]
    Unparsable,
    /// No certificate.
    #[error("ssh-certificate does not parse; it must be the line of a -cert.pub file, as ssh-keygen -s writes it")]
    CertificateUnparsable,
    /// A certificate for hosts.
    #[error("ssh-certificate is a host certificate; it must be a user certificate (ssh-keygen -s without -h)")]
    CertificateForHosts,
    /// A certificate for another key.
    #[error(
        "ssh-certificate is for the key {certified}, and ssh-privatekey is {key}; sign the public half of that one \
         (ssh-keygen -s), or put the other private key there"
    )]
    CertificateForOtherKey {
        /// Fingerprint of the key in the certificate.
        certified: String,
        /// Fingerprint of the private key's public half.
        key: String,
    },
    /// A certificate whose time is over.
    #[error("ssh-certificate expired at {0}; sign the key anew (ssh-keygen -s), or check the clocks")]
    CertificateExpired(String),
    /// A certificate whose time has not come.
    #[error("ssh-certificate is not valid before {0}; check the clocks")]
    CertificateNotYet(String),
}

impl Credentials {
    /// Reads a private key in OpenSSH or PKCS#8 form (EC keys in SEC 1 form too), encrypted or not, and the certificate for it.
    /// A passphrase that is not needed is passed over, and so is a line end after it.
    ///
    /// Opening an encrypted key is work of a tenth of a second and more, by design: call it where waiting is no harm
    /// (`spawn_blocking`).
    ///
    /// # Errors
    /// What is wrong and how to get it right. A certificate has to be valid now.
    pub fn parse(
        private_key: &[u8],
        passphrase: Option<&[u8]>,
        certificate: Option<&[u8]>,
    ) -> Result<Self, CredentialsError> {
        Self::parse_at(private_key, passphrase, certificate, seconds_now())
    }

    fn parse_at(
        private_key: &[u8],
        passphrase: Option<&[u8]>,
        certificate: Option<&[u8]>,
        now: u64,
    ) -> Result<Self, CredentialsError> {
        let passphrase = passphrase.map(without_line_end).filter(|passphrase| !passphrase.is_empty());
        let key = parse_key(private_key, passphrase)?;
        match usable(key.public_key().key_data()) {
            Ok(()) => {}
            Err(KeyProblem::ShortRsa(bits)) => return Err(CredentialsError::ShortRsa(bits)),
            Err(KeyProblem::Type) => return Err(CredentialsError::Unsupported(key.algorithm().to_string())),
        }
        let certificate = certificate.map(|bytes| parse_certificate(bytes, &key)).transpose()?.map(Arc::new);
        let credentials = Self { key: Arc::new(key), certificate };
        credentials.check(now)?;
        Ok(credentials)
    }

    /// SHA-256 fingerprint of the public half.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The public half, as a line for authorized_keys, without a comment.
    pub fn public_line(&self) -> String {
        let key = PublicKey::new(self.key.public_key().key_data().clone(), "");
        // What was parsed as a key is one that can be written.
        key.to_openssh().unwrap_or_default().trim_end().to_owned()
    }

    /// Whether a certificate is still, or already, valid.
    pub(super) fn check_now(&self) -> Result<(), CredentialsError> {
        self.check(seconds_now())
    }

    fn check(&self, now: u64) -> Result<(), CredentialsError> {
        let Some(certificate) = &self.certificate else { return Ok(()) };
        if now < certificate.valid_after() {
            return Err(CredentialsError::CertificateNotYet(date(certificate.valid_after())));
        }
        if now >= certificate.valid_before() {
            return Err(CredentialsError::CertificateExpired(date(certificate.valid_before())));
        }
        Ok(())
    }

    pub(super) fn key(&self) -> &Arc<PrivateKey> {
        &self.key
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    pub(super) fn is_rsa(&self) -> bool {
        matches!(self.key.algorithm(), Algorithm::Rsa { .. })
    }
}

/// What `echo secret > file` leaves behind.
fn without_line_end(passphrase: &[u8]) -> &[u8] {
    let passphrase = passphrase.strip_suffix(b"\n").unwrap_or(passphrase);
    passphrase.strip_suffix(b"\r").unwrap_or(passphrase)
}

fn parse_key(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey, CredentialsError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::NotText)?.trim();
    let label = text.lines().next().unwrap_or_default().trim();
    match label {
        "-----BEGIN OPENSSH PRIVATE KEY-----" => parse_openssh(text, passphrase),
        "-----BEGIN PRIVATE KEY-----" | "-----BEGIN EC PRIVATE KEY-----" => {
            if text.contains("Proc-Type: 4,ENCRYPTED") {
                return Err(CredentialsError::OldForm);
            }
            decode_pkcs8(&der_of(text)?, None).map_err(|_| CredentialsError::Unparsable)
        }
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => {
            let der = der_of(text)?;
            let Some(passphrase) = passphrase else { return Err(CredentialsError::PassphraseMissing) };
            if pbkdf2_rounds(&der).is_none_or(|rounds| rounds > MOST_PBKDF2_ROUNDS) {
                return Err(CredentialsError::Encryption);
            }
            decode_pkcs8(&der, Some(passphrase)).map_err(|_| CredentialsError::PassphraseWrong)
        }
        "-----BEGIN RSA PRIVATE KEY-----" => Err(CredentialsError::OldForm),
        "-----BEGIN DSA PRIVATE KEY-----" => Err(CredentialsError::Unsupported("ssh-dss".to_owned())),
        _ if label.starts_with("PuTTY-User-Key-File") => Err(CredentialsError::OldForm),
        _ => Err(CredentialsError::Unparsable),
    }
}

fn parse_openssh(text: &str, passphrase: Option<&[u8]>) -> Result<PrivateKey, CredentialsError> {
    let key = PrivateKey::from_openssh(text).map_err(|_| CredentialsError::Unparsable)?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let Some(passphrase) = passphrase else { return Err(CredentialsError::PassphraseMissing) };
    match key.kdf() {
        Kdf::Bcrypt { rounds, .. } if *rounds <= MOST_BCRYPT_ROUNDS => {}
        _ => return Err(CredentialsError::Encryption),
    }
    key.decrypt(passphrase).map_err(|_| CredentialsError::PassphraseWrong)
}

/// What a PEM file has between its first and its last line, in memory that is wiped.
fn der_of(text: &str) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let mut base64 = Zeroizing::new(String::with_capacity(text.len()));
    let mut lines = text.lines().skip(1);
    let is_whole = lines.by_ref().map(str::trim).any(|line| {
        let is_end = line.starts_with("-----END ");
        if !is_end {
            base64.push_str(line);
        }
        is_end
    });
    // As large as it can get: a vector that grows leaves copies behind.
    let mut der = Zeroizing::new(Vec::with_capacity(base64.len()));
    STANDARD.decode_vec(base64.as_bytes(), &mut der).map_err(|_| CredentialsError::Unparsable)?;
    if is_whole { Ok(der) } else { Err(CredentialsError::Unparsable) }
}

/// How many rounds of PBKDF2 an encrypted PKCS#8 key asks for; None where it is encrypted in another way. After the
/// identifier come a sequence, the salt as a string of octets, and the number.
fn pbkdf2_rounds(der: &[u8]) -> Option<u64> {
    let at = der.windows(PBKDF2.len()).position(|window| window == PBKDF2)?;
    let [0x30, _, 0x04, salt, rest @ ..] = der.get(at + PBKDF2.len()..)? else { return None };
    let [0x02, length @ 1..=8, number @ ..] = rest.get(usize::from(*salt)..)? else { return None };
    let number = number.get(..usize::from(*length))?;
    Some(number.iter().fold(0, |rounds, byte| rounds << 8 | u64::from(*byte)))
}

fn parse_certificate(bytes: &[u8], key: &PrivateKey) -> Result<Certificate, CredentialsError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::CertificateUnparsable)?;
    let certificate = Certificate::from_openssh(text.trim()).map_err(|_| CredentialsError::CertificateUnparsable)?;
    if certificate.cert_type() != CertType::User {
        return Err(CredentialsError::CertificateForHosts);
    }
    if certificate.public_key() != key.public_key().key_data() {
        return Err(CredentialsError::CertificateForOtherKey {
            certified: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
            key: key.fingerprint(HashAlg::Sha256).to_string(),
        });
    }
    Ok(certificate)
}
