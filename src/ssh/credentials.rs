//! What to log in with: a private key, and the user certificate for it where there is one, in a type that cannot be printed.

mod file;
mod sealed;
mod several;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use russh::keys::pkcs8::decode_pkcs8;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{HashAlg, Kdf};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

use file::{Block, Form, first_key, pkcs8_of_rsa};

pub use several::{EntryError, KeyEntry};

use super::clock::seconds_now;
use super::host_key::{KeyProblem, SMALLEST_RSA, date, usable};

/// ssh-keygen makes 16 rounds of bcrypt (24 from 9.8 on), which take about a tenth of a second; whoever writes the Secret
/// chooses the number, and may not keep a thread busy for hours by it.
const MOST_BCRYPT_ROUNDS: u32 = 256;
/// The same for PBKDF2. openssl makes 2048; OWASP recommends 600,000.
const MOST_PBKDF2_ROUNDS: u64 = 1_000_000;
/// The object identifier of PBKDF2 (RFC 8018), as DER has it.
const PBKDF2: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];

/// How the object identifiers of AES begin (2.16.840.1.101.3.4.1): ciphers that are opened here.
const AES: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];

/// A private key, and perhaps its certificate. It has no Display and no Serialize, its Debug says nothing, and the key is
/// wiped from memory when the last copy is dropped (by ssh-key, whose private keys do that).
#[derive(Clone)]
pub struct Credentials {
    key: Arc<PrivateKey>,
    certificate: Option<Arc<Certificate>>,
    /// Behind the names of its entries in the Secret.
    suffix: &'static str,
    /// The keys to be tried after this one, at most 3.
    further: Vec<Credentials>,
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
        "ssh-privatekey is encrypted; put its passphrase into the Secret's key passphrase (kubectl create secret generic NAME \
         --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey=KEYFILE --from-file=passphrase=FILE), or use a key without \
         one (ssh-keygen -p -N '' -f FILE takes it away)"
    )]
    PassphraseMissing,
    /// Protected by another passphrase.
    #[error("passphrase does not open ssh-privatekey; put the right one there (ssh-keygen -y -f FILE asks for it)")]
    PassphraseWrong,
    /// Protected in a way that would take too long to open.
    #[error(
        "ssh-privatekey is encrypted with {rounds} rounds of {function}, and at most {most} are opened, as each login would take \
         that long; encrypt it anew with fewer (ssh-keygen -p -a 16 -f FILE)"
    )]
    TooManyRounds {
        /// How many there are.
        rounds: u64,
        /// Of which function.
        function: &'static str,
        /// How many there may be.
        most: u64,
    },
    /// Protected in a way that is not known.
    #[error(
        "ssh-privatekey is encrypted in a way that is not opened here; encrypt it anew (ssh-keygen -p -a 16 -f FILE)"
    )]
    Encryption,
    /// PuTTY's own form.
    #[error("ssh-privatekey is in PuTTY's form; convert it to OpenSSH's (puttygen FILE -O private-openssh -o NEW)")]
    Putty,
    /// The wrong half.
    #[error("ssh-privatekey is a public key; put the private one there (the file without .pub)")]
    Public,
    /// Base64 of a key, where the key itself belongs.
    #[error(
        "ssh-privatekey is in base64 twice; put the file as it is into stringData, or its base64 into data (kubectl create secret \
         --from-file does that)"
    )]
    EncodedTwice,
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
    /// A name that resolves to addresses at which the key may not be used.
    #[error(
        "the Secret may not be used with spec.address {address} of this Machine, which resolves to {resolved}: its annotation \
         writ.dev/addresses lists neither the name nor such an address"
    )]
    AddressNotListed {
        /// As the Machine has it.
        address: String,
        /// What it resolves to.
        resolved: String,
    },
    /// A certificate whose time is over.
    #[error("ssh-certificate expired at {0}; sign the key anew (ssh-keygen -s), or check the clocks")]
    CertificateExpired(String),
    /// A certificate whose time has not come.
    #[error("ssh-certificate is not valid before {0}; check the clocks")]
    CertificateNotYet(String),
}

impl Credentials {
    /// Reads the first private key of a file, in a form that OpenSSH opens (its own, PKCS#8, PKCS#1 for RSA, SEC 1 for EC),
    /// encrypted or not, and the certificate for it. What stands around the key is passed over. A passphrase that is not needed is passed over, and so is a line end after it.
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
        let credentials = Self { key: Arc::new(key), certificate, suffix: "", further: Vec::new() };
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
    let Block { form, sealed, bytes } = first_key(bytes)?;
    let (bytes, or_else) = match sealed {
        None => (bytes, CredentialsError::Unparsable),
        Some(sealed) => {
            let passphrase = passphrase.ok_or(CredentialsError::PassphraseMissing)?;
            // Another passphrase gives bytes that are no key.
            (sealed.open(&bytes, passphrase)?, CredentialsError::PassphraseWrong)
        }
    };
    match form {
        Form::OpenSsh => parse_openssh(&bytes, passphrase),
        Form::Pkcs8 | Form::Sec1 => decode_pkcs8(&bytes, None).map_err(|_| or_else),
        Form::Pkcs1 => decode_pkcs8(&pkcs8_of_rsa(&bytes), None).map_err(|_| or_else),
        Form::EncryptedPkcs8 => parse_encrypted(&bytes, passphrase.ok_or(CredentialsError::PassphraseMissing)?),
    }
}

fn parse_encrypted(der: &[u8], passphrase: &[u8]) -> Result<PrivateKey, CredentialsError> {
    let rounds = pbkdf2_rounds(der).ok_or(CredentialsError::Encryption)?;
    if rounds > MOST_PBKDF2_ROUNDS {
        return Err(CredentialsError::TooManyRounds { rounds, function: "PBKDF2", most: MOST_PBKDF2_ROUNDS });
    }
    if !der.windows(AES.len()).any(|window| window == AES) {
        return Err(CredentialsError::Encryption);
    }
    decode_pkcs8(der, Some(passphrase)).map_err(|_| CredentialsError::PassphraseWrong)
}

fn parse_openssh(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey, CredentialsError> {
    let key = PrivateKey::from_bytes(bytes).map_err(|_| CredentialsError::Unparsable)?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let Some(passphrase) = passphrase else { return Err(CredentialsError::PassphraseMissing) };
    let (rounds, most) = match key.kdf() {
        Kdf::Bcrypt { rounds, .. } => (u64::from(*rounds), u64::from(MOST_BCRYPT_ROUNDS)),
        _ => return Err(CredentialsError::Encryption),
    };
    if rounds > most {
        return Err(CredentialsError::TooManyRounds { rounds, function: "bcrypt", most });
    }
    key.decrypt(passphrase).map_err(|_| CredentialsError::PassphraseWrong)
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
