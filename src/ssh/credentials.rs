//! Credentials for a login: a private key and an optional user certificate, in a type that cannot be printed.

mod error;
mod file;
mod pkcs8;
mod sealed;
mod several;
mod short_scalar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{HashAlg, Kdf};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

use file::{Block, Form, first_key};

pub use error::CredentialsError;
pub use several::{EntryError, KeyEntry};

use super::clock::seconds_now;
use super::public_key::{WeakKey, check_strength};
use super::text::date;

/// Maximum number of bcrypt rounds. ssh-keygen uses 16 rounds (24 since OpenSSH 9.8), which take about 0.1 s. Without
/// this maximum, the author of a Secret could keep a thread busy for hours.
const MAX_BCRYPT_ROUNDS: u32 = 256;

/// A private key with an optional certificate. The type has no Display and no Serialize, and its Debug prints no
/// content. ssh-key wipes the key from memory when the last copy is dropped.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<PrivateKey>,
    certificate: Option<Arc<Certificate>>,
    /// Suffix of the names of this key's entries in the Secret: empty, or for example `-2`.
    suffix: &'static str,
    /// Keys to try after this key, at most 3.
    further: Vec<Credentials>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Reads the first private key of a file, and the certificate for this key.
    ///
    /// - Formats: OpenSSH's own format, PKCS#8, PKCS#1 for RSA and SEC 1 for EC, encrypted or not.
    /// - Ignored: text around the key, a passphrase that is not needed, and one newline at the end of the passphrase.
    ///
    /// # Errors
    /// See [`CredentialsError`]. A certificate that is not valid now is an error.
    ///
    /// # Caveats
    /// An encrypted key takes 0.1 s or more to open. Call this function in a context that may block (`spawn_blocking`).
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
        let passphrase = passphrase.map(trim_newline).filter(|passphrase| !passphrase.is_empty());
        let key = parse_key(private_key, passphrase)?;
        match check_strength(key.public_key().key_data()) {
            Ok(()) => {}
            Err(WeakKey::ShortRsa(bits)) => return Err(CredentialsError::ShortRsa(bits)),
            Err(WeakKey::Type) => return Err(CredentialsError::Unsupported(key.algorithm().to_string())),
        }
        let certificate = certificate.map(|bytes| parse_certificate(bytes, &key)).transpose()?.map(Arc::new);
        let credentials = Self { key: Arc::new(key), certificate, suffix: "", further: Vec::new() };
        credentials.check(now)?;
        Ok(credentials)
    }

    /// Returns the SHA-256 fingerprint of the public half.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Returns the public half as a line for authorized_keys, without a comment.
    pub fn authorized_keys_line(&self) -> String {
        let key = PublicKey::new(self.key.public_key().key_data().clone(), "");
        // A parsed key can always be encoded.
        key.to_openssh().unwrap_or_default().trim_end().to_owned()
    }

    /// Returns an error if the certificate is not valid now.
    pub(super) fn check_now(&self) -> Result<(), CredentialsError> {
        self.check(seconds_now())
    }

    fn check(&self, now: u64) -> Result<(), CredentialsError> {
        let Some(certificate) = &self.certificate else { return Ok(()) };
        if now < certificate.valid_after() {
            return Err(CredentialsError::CertificateNotYetValid(date(certificate.valid_after())));
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

/// Removes the newline that `echo secret > file` appends.
fn trim_newline(passphrase: &[u8]) -> &[u8] {
    let passphrase = passphrase.strip_suffix(b"\n").unwrap_or(passphrase);
    passphrase.strip_suffix(b"\r").unwrap_or(passphrase)
}

fn parse_key(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey, CredentialsError> {
    let Block { form, sealed, bytes } = first_key(bytes)?;
    let (bytes, unparsable) = match sealed {
        None => (bytes, CredentialsError::Unparsable),
        Some(sealed) => {
            let passphrase = passphrase.ok_or(CredentialsError::PassphraseMissing)?;
            // With a wrong passphrase, decryption can yield bytes that are no key.
            (sealed.open(&bytes, passphrase)?, CredentialsError::PassphraseWrong)
        }
    };
    let parsed = match form {
        Form::OpenSsh => parse_openssh(&bytes, passphrase),
        Form::Pkcs8 | Form::Sec1 => pkcs8::parse(&bytes),
        Form::Pkcs1 => pkcs8::parse_rsa(&bytes),
        Form::EncryptedPkcs8 => pkcs8::parse_encrypted(&bytes, passphrase.ok_or(CredentialsError::PassphraseMissing)?),
    };
    parsed.map_err(|error| if error == CredentialsError::Unparsable { unparsable } else { error })
}

fn parse_openssh(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey, CredentialsError> {
    let key = short_scalar::parse(bytes).map_err(|_| CredentialsError::Unparsable)?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let Some(passphrase) = passphrase else { return Err(CredentialsError::PassphraseMissing) };
    let (rounds, most) = match key.kdf() {
        Kdf::Bcrypt { rounds, .. } => (u64::from(*rounds), u64::from(MAX_BCRYPT_ROUNDS)),
        _ => return Err(CredentialsError::Encryption),
    };
    if rounds > most {
        return Err(CredentialsError::TooManyRounds { rounds, function: "bcrypt", most });
    }
    short_scalar::decrypt(&key, bytes, passphrase).ok_or(CredentialsError::PassphraseWrong)
}

fn parse_certificate(bytes: &[u8], key: &PrivateKey) -> Result<Certificate, CredentialsError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::CertificateUnparsable)?;
    let certificate = Certificate::from_openssh(text.trim()).map_err(|_| CredentialsError::CertificateUnparsable)?;
    if certificate.cert_type() != CertType::User {
        return Err(CredentialsError::NotAUserCertificate);
    }
    if certificate.public_key() != key.public_key().key_data() {
        return Err(CredentialsError::CertificateForOtherKey {
            certified: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
            key: key.fingerprint(HashAlg::Sha256).to_string(),
        });
    }
    Ok(certificate)
}
