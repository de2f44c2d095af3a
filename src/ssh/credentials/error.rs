//! Errors of credentials.

use super::super::public_key::MIN_RSA_BITS;

/// Reasons why credentials cannot be used. The messages never repeat the content of the Secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    /// The entry is not UTF-8.
    #[error("ssh-privatekey is not text; it must be the PEM file that ssh-keygen writes")]
    NotText,
    /// The key is encrypted, and the Secret has no passphrase.
    #[error(
        "ssh-privatekey is encrypted; put its passphrase into the Secret's key passphrase (kubectl create secret generic NAME \
         --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey=KEYFILE --from-file=passphrase=FILE), or use a key without \
         one (ssh-keygen -p -N '' -f FILE removes it)"
    )]
    PassphraseMissing,
    /// The passphrase does not open the key.
    #[error("passphrase does not open ssh-privatekey; correct it (test it with ssh-keygen -y -f FILE)")]
    PassphraseWrong,
    /// Opening the key would take too long.
    #[error(
        "ssh-privatekey is encrypted with {rounds} rounds of {function}, which delay each login; the maximum is {most}: encrypt \
         it again with fewer (ssh-keygen -p -a 16 -f FILE)"
    )]
    TooManyRounds {
        /// Number of rounds.
        rounds: u64,
        /// Name of the key derivation function.
        function: &'static str,
        /// Maximum number of rounds.
        most: u64,
    },
    /// The key is encrypted in a way that Writ does not support.
    #[error(
        "ssh-privatekey is encrypted in a way that Writ does not support; encrypt it again (ssh-keygen -p -a 16 -f FILE)"
    )]
    Encryption,
    /// The key is in the format of PuTTY.
    #[error("ssh-privatekey is in PuTTY's format; convert it to OpenSSH's (puttygen FILE -O private-openssh -o NEW)")]
    Putty,
    /// The entry is a public key.
    #[error("ssh-privatekey is a public key; use the private key (the file without .pub)")]
    Public,
    /// The entry was encoded in base64 twice.
    #[error(
        "ssh-privatekey is in base64 twice; put the file as it is into stringData, or its base64 into data (kubectl create secret \
         --from-file does that)"
    )]
    EncodedTwice,
    /// The key has a type that Writ does not use.
    #[error("ssh-privatekey has type {0}; use ed25519, ECDSA or RSA (ssh-keygen -t ed25519 makes one)")]
    Unsupported(String),
    /// The RSA key is too short. Holds the length of the key in bits.
    #[error(
        "ssh-privatekey is an RSA key of {0} bits; it must have at least {MIN_RSA_BITS} (or use ssh-keygen -t ed25519)"
    )]
    ShortRsa(u32),
    /// The entry is no key in a known format.
    #[error(
        "ssh-privatekey does not parse; it must be the PEM file that ssh-keygen writes, whole, with its BEGIN and END lines"
    )]
    Unparsable,
    /// The certificate entry is no certificate.
    #[error("ssh-certificate does not parse; it must be the line of a -cert.pub file, as ssh-keygen -s writes it")]
    CertificateUnparsable,
    /// The certificate is a host certificate.
    #[error("ssh-certificate is a host certificate; it must be a user certificate (ssh-keygen -s without -h)")]
    NotAUserCertificate,
    /// The certificate is for another key.
    #[error(
        "ssh-certificate is for the key {certified}, and ssh-privatekey is {key}; sign the public half of that key \
         (ssh-keygen -s), or use the other private key"
    )]
    CertificateForOtherKey {
        /// Fingerprint of the key in the certificate.
        certified: String,
        /// Fingerprint of the private key's public half.
        key: String,
    },
    /// The name resolves only to addresses at which the Secret forbids the use of the key.
    #[error(
        "the Secret may not be used with spec.address {address} of this Machine, which resolves to {resolved}: its annotation \
         writ.dev/addresses lists neither the name nor one of these addresses"
    )]
    AddressNotListed {
        /// Address in the Machine spec.
        address: String,
        /// Addresses that the name resolves to.
        resolved: String,
    },
    /// The certificate has expired. Holds the time of expiry.
    #[error("ssh-certificate expired at {0}; sign the key again (ssh-keygen -s), or check the clocks")]
    CertificateExpired(String),
    /// The certificate is not valid yet. Holds the start of its validity.
    #[error("ssh-certificate is not valid before {0}; check the clocks")]
    CertificateNotYetValid(String),
}
