//! SSH credentials from a Secret. The credentials are wiped from memory when they are dropped, and they cannot be
//! printed.
//!
//! # Guarantees
//! Writ reads a Secret by its name when the Secret is needed. Writ never lists or watches Secrets. Entries that Writ
//! does not use are wiped immediately.
//!
//! # Caveats
//! The buffers of the HTTP client and of the decoder are freed, but not wiped.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use zeroize::{Zeroize as _, Zeroizing};

use crate::api::{ADDRESSES_ANNOTATION, CREDENTIALS_LABEL, USERS_ANNOTATION};

/// Maximum length of a key or certificate, in bytes. Even an RSA key of 16384 bits takes only 13 KiB.
const MAX_ENTRY_BYTES: usize = 65_536;
/// Suffixes of the entry names in a Secret, one suffix for each key, for example `ssh-privatekey-2`. A rotation needs
/// two keys. sshd ends a login after 6 refused keys (default of MaxAuthTries). Four keys stay below this limit.
pub const KEY_SUFFIXES: [&str; 4] = ["", "-2", "-3", "-4"];

/// One private key for a login, with its passphrase and certificate.
#[derive(Clone)]
pub struct SshKey {
    /// Suffix of the names of this key's entries in the Secret.
    pub suffix: &'static str,
    /// Value of the entry `ssh-privatekey` with this suffix.
    pub private_key: Zeroizing<Vec<u8>>,
    /// Passphrase of this key. If the Secret has no passphrase for this key, passphrase of the first key.
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
    /// Value of the entry `ssh-certificate` with this suffix.
    pub certificate: Option<Zeroizing<Vec<u8>>>,
}

/// A Secret with SSH credentials. Its content is not checked yet.
#[derive(Clone, Default)]
pub struct SshSecret {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// resourceVersion that was read.
    pub resource_version: String,
    /// Type.
    pub type_: String,
    /// True if the Secret has the label that allows Writ to use it.
    pub has_credentials_label: bool,
    /// Patterns of the addresses at which the Secret may be used. `None` allows all addresses.
    pub allowed_addresses: Option<String>,
    /// Patterns of the user names with which the Secret may be used to log in. `None` allows all user names.
    pub allowed_users: Option<String>,
    /// Keys, in the order in which they are tried.
    pub keys: Vec<SshKey>,
}

impl fmt::Debug for SshSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SshSecret({}@{})", self.name, self.resource_version)
    }
}

impl SshSecret {
    /// Takes the entries that Writ uses, and wipes the others.
    pub(super) fn from_secret(secret: Secret) -> Self {
        let metadata = secret.metadata;
        let annotation =
            |name: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(name)).cloned();
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(CREDENTIALS_LABEL));
        let mut data = secret.data.unwrap_or_default();
        let mut take = |key: &str| {
            let bytes = Zeroizing::new(data.remove(key)?.0);
            // An entry that is too long becomes empty, and is later reported as unreadable.
            Some(if bytes.len() > MAX_ENTRY_BYTES { Zeroizing::default() } else { bytes })
        };
        let first_passphrase = take("passphrase");
        let keys = KEY_SUFFIXES.into_iter().filter_map(|suffix| {
            let certificate = take(&format!("ssh-certificate{suffix}"));
            let own = if suffix.is_empty() { None } else { take(&format!("passphrase{suffix}")) };
            let passphrase = own.or_else(|| first_passphrase.clone());
            Some(SshKey { suffix, private_key: take(&format!("ssh-privatekey{suffix}"))?, passphrase, certificate })
        });
        let keys = keys.collect();
        let used = Self {
            has_credentials_label: label.map(String::as_str) == Some("true"),
            allowed_addresses: annotation(ADDRESSES_ANNOTATION),
            allowed_users: annotation(USERS_ANNOTATION),
            keys,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            type_: secret.type_.unwrap_or_default(),
        };
        data.into_values().for_each(|mut bytes| bytes.0.zeroize());
        used
    }

    /// Returns a copy without the keys. The copy identifies the version of the Secret that was used.
    pub fn without_secrets(&self) -> Self {
        Self {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            type_: self.type_.clone(),
            has_credentials_label: self.has_credentials_label,
            allowed_addresses: self.allowed_addresses.clone(),
            allowed_users: self.allowed_users.clone(),
            keys: Vec::new(),
        }
    }
}
