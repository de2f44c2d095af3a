//! What of a Secret is used to log in: in a type that is wiped when it is dropped, and that cannot be printed.
//!
//! The promise kept here: a Secret is read by its name when it is needed, never listed or watched; what of it is not used is
//! wiped at once. What the HTTP client and the decoder have held of it on the way is freed, and not wiped.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use zeroize::{Zeroize as _, Zeroizing};

use crate::api::{ADDRESSES_ANNOTATION, CREDENTIALS_LABEL, USERS_ANNOTATION};

use super::{Cluster, ClusterError, Operation};

/// The longest key or certificate that is kept, in bytes. RSA keys of 16384 bits take 13 KiB; a Secret may hold 1 MiB.
const MAXIMUM_BYTES: usize = 65_536;
/// What is put behind the names of the entries of each key. Four: sshd ends a login after 6 keys that it refused
/// (MaxAuthTries), and a rotation needs two.
pub const KEY_SUFFIXES: [&str; 4] = ["", "-2", "-3", "-4"];

/// One of the keys to log in with, with what belongs to it.
#[derive(Clone)]
pub struct SshKey {
    /// What is put behind the names of its entries.
    pub suffix: &'static str,
    /// `ssh-privatekey`.
    pub private_key: Zeroizing<Vec<u8>>,
    /// `passphrase`: its own, else that of the first key.
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
    /// `ssh-certificate`.
    pub certificate: Option<Zeroizing<Vec<u8>>>,
}

/// A Secret with SSH credentials, as it was read. Its contents are not checked.
#[derive(Clone, Default)]
pub struct SshSecret {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Which version of it was read.
    pub resource_version: String,
    /// Its type.
    pub type_: String,
    /// Whether it has the label by which it may be used.
    pub is_labelled: bool,
    /// Patterns of the addresses that it may be used at; None: all.
    pub addresses: Option<String>,
    /// Patterns of the users that it may log in as; None: all.
    pub users: Option<String>,
    /// Its keys, in the order in which they are tried.
    pub keys: Vec<SshKey>,
}

impl fmt::Debug for SshSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SshSecret({}@{})", self.name, self.resource_version)
    }
}

impl SshSecret {
    fn of(secret: Secret) -> Self {
        let metadata = secret.metadata;
        let annotation =
            |name: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(name)).cloned();
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(CREDENTIALS_LABEL));
        let mut data = secret.data.unwrap_or_default();
        let mut take = |key: &str| {
            let bytes = Zeroizing::new(data.remove(key)?.0);
            // Empty, it is told of as one that cannot be read.
            Some(if bytes.len() > MAXIMUM_BYTES { Zeroizing::default() } else { bytes })
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
            is_labelled: label.map(String::as_str) == Some("true"),
            addresses: annotation(ADDRESSES_ANNOTATION),
            users: annotation(USERS_ANNOTATION),
            keys,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            type_: secret.type_.unwrap_or_default(),
        };
        data.into_values().for_each(|mut bytes| bytes.0.zeroize());
        used
    }

    /// The same without what has to stay secret: which version it was.
    pub fn without_secrets(&self) -> Self {
        Self {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            type_: self.type_.clone(),
            is_labelled: self.is_labelled,
            addresses: self.addresses.clone(),
            users: self.users.clone(),
            keys: Vec::new(),
        }
    }
}

impl Cluster {
    /// Reads one Secret by name (a list would read them all).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn ssh_secret(&self, namespace: &str, name: &str) -> Result<SshSecret, ClusterError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        self.call(Operation::GetSecret, format!("Secret {namespace}/{name}"), api.get(name)).await.map(SshSecret::of)
    }
}
