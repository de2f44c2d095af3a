//! Decrypts private keys, once for each version of their Secret. Namespaces take turns.
//!
//! # Guarantees
//! - At most two decryptions run concurrently, at most one of them for the same namespace. A slow key therefore does
//!   not delay other namespaces.
//! - Writ decrypts a key only if its Secret was read a short time ago. Otherwise the Secret must be read again.
//! - A decrypted key stays in memory as long as the connections that use the key, and at least [`KEPT_FOR`] after each
//!   use. Then the key is wiped.
//! - A task finds a decrypted key only by the UID and resourceVersion of its Secret. Writ reads both from the API
//!   server before each login.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use crate::api::Reason;
use crate::cluster::SshSecret;
use crate::fairness::{Pool, Size};
use crate::ssh::{Credentials, EntryError, KeyEntry};

use super::connect_failure::{ConnectFailure, RETRY_AFTER_CHANGE};
use super::lock::lock;

/// Maximum number of concurrent decryptions: 2, at most 1 of them for the same namespace.
const AT_ONCE: Size = Size { places: 2, share: 1 };
/// Maximum duration of one decryption, without the wait for a permit. A key with the maximum number of rounds needs a
/// few seconds of CPU time.
const DEADLINE: Duration = Duration::from_secs(30);
/// Time for which a key stays decrypted after each use, even without a connection. In Direct mode, the next command
/// therefore needs no decryption.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// All decrypted keys of this process.
static OPENING: LazyLock<Opening> = LazyLock::new(|| Opening::new(KEPT_FOR));

type Cell = OnceCell<Result<Credentials, EntryError>>;

/// Keys for a login. The decrypted keys stay in memory while a copy of `kept` exists.
pub(crate) struct OpenKey {
    pub credentials: Credentials,
    kept: Option<KeptOpen>,
}

/// Handle that keeps a decrypted key in memory. The handle gives no access to the key and cannot be printed.
#[derive(Clone)]
pub(crate) struct KeptOpen {
    _key: Arc<Cell>,
}

impl OpenKey {
    /// Returns the handle that keeps the key decrypted. Returns `None` if the key is not encrypted.
    pub fn kept(&self) -> Option<KeptOpen> {
        self.kept.clone()
    }
}

struct Opening {
    pool: Pool,
    kept_for: Duration,
    /// Decrypted keys, by UID and resourceVersion of their Secrets.
    known: Mutex<HashMap<(String, String), Weak<Cell>>>,
}

/// Reads the keys of a Secret. The caller has checked that Writ may use the Secret. `is_stale` returns true if the
/// Secret must be read again before its keys are used.
///
/// # Errors
/// The Secret has no usable key, or is stale.
pub(crate) async fn open(
    secret: &SshSecret,
    namespace: &str,
    is_stale: impl Fn() -> bool,
) -> Result<OpenKey, ConnectFailure> {
    let invalid = |error: &EntryError| {
        ConnectFailure::from_configuration(Reason::CredentialsInvalid, format!("the Secret {}: {error}", secret.name))
    };
    if secret.keys.iter().all(|key| key.passphrase.is_none()) {
        let credentials = parse(secret).map_err(|error| invalid(&error))?;
        return Ok(OpenKey { credentials, kept: None });
    }
    let key = OPENING.open(secret, namespace, is_stale).await?;
    match key.get() {
        Some(Ok(credentials)) => {
            Ok(OpenKey { credentials: credentials.clone(), kept: Some(KeptOpen { _key: Arc::clone(&key) }) })
        }
        Some(Err(error)) => Err(invalid(error)),
        None => Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE)),
    }
}

/// Reads the keys of a Secret, in their order.
///
/// # Errors
/// An entry is no private key, an encrypted key has no passphrase, or a certificate belongs to another key.
pub fn parse(secret: &SshSecret) -> Result<Credentials, EntryError> {
    Credentials::parse_all(secret.keys.iter().map(|key| KeyEntry {
        suffix: key.suffix,
        private_key: key.private_key.as_slice(),
        passphrase: key.passphrase.as_ref().map(|bytes| bytes.as_slice()),
        certificate: key.certificate.as_ref().map(|bytes| bytes.as_slice()),
    }))
}

impl Opening {
    fn new(kept_for: Duration) -> Self {
        Self { pool: Pool::new(AT_ONCE), kept_for, known: Mutex::default() }
    }

    /// Returns the key of a Secret, or the error of its decryption. Tasks that need the same key share one decryption.
    async fn open(
        &self,
        secret: &SshSecret,
        namespace: &str,
        is_stale: impl Fn() -> bool,
    ) -> Result<Arc<Cell>, ConnectFailure> {
        let key = self.cell(secret);
        let opened = key.get_or_try_init(async || self.decrypt(secret, namespace, is_stale).await).await?;
        if opened.is_ok() {
            let (kept, kept_for) = (Arc::clone(&key), self.kept_for);
            tokio::spawn(async move {
                sleep(kept_for).await;
                drop(kept);
            });
        }
        Ok(key)
    }

    fn cell(&self, secret: &SshSecret) -> Arc<Cell> {
        let mut known = lock(&self.known);
        known.retain(|_, key| key.strong_count() > 0);
        let version = (secret.uid.clone(), secret.resource_version.clone());
        let place = known.entry(version).or_default();
        place.upgrade().unwrap_or_else(|| {
            let key = Arc::new(Cell::new());
            *place = Arc::downgrade(&key);
            key
        })
    }

    async fn decrypt(
        &self,
        secret: &SshSecret,
        namespace: &str,
        is_stale: impl Fn() -> bool,
    ) -> Result<Result<Credentials, EntryError>, ConnectFailure> {
        let place = self.pool.place(namespace).await;
        // A decryption would waste CPU time if the Secret must be read again.
        if is_stale() {
            return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
        }
        let (name, secret) = (secret.name.clone(), secret.clone());
        let opening = tokio::task::spawn_blocking(move || {
            // The decryption holds its permit until it ends, even after the deadline.
            let _place = place;
            parse(&secret)
        });
        match timeout(DEADLINE, opening).await {
            Ok(Ok(parsed)) => Ok(parsed),
            Ok(Err(_)) => Err(ConnectFailure::Unreachable(format!("the key in the Secret {name} was not read"))),
            Err(_) => Err(ConnectFailure::Unreachable(format!(
                "the key in the Secret {name} was not opened within {} s; encrypt it anew with fewer rounds (ssh-keygen -p -a 16 \
                 -f FILE), or give writ more of a core",
                DEADLINE.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::cluster::SshKey;
    use crate::ssh::CredentialsError;

    const ENCRYPTED: &str = include_str!("../ssh/credentials/encrypted");

    fn secret(resource_version: &str, passphrase: &str) -> SshSecret {
        SshSecret {
            uid: "uid".to_owned(),
            resource_version: resource_version.to_owned(),
            keys: vec![SshKey {
                suffix: "",
                private_key: Zeroizing::new(ENCRYPTED.as_bytes().to_vec()),
                passphrase: Some(Zeroizing::new(passphrase.as_bytes().to_vec())),
                certificate: None,
            }],
            ..SshSecret::default()
        }
    }

    #[tokio::test]
    async fn a_key_is_opened_once_for_each_version_of_its_secret() {
        let opening = Opening::new(KEPT_FOR);
        let open =
            async |version| opening.open(&secret(version, "correct horse"), "team", || false).await.ok().unwrap();
        let (one, two) = tokio::join!(open("1"), open("1"));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(matches!(one.get(), Some(Ok(_))));
        // A decrypted key needs no permit.
        let place = opening.pool.place("team").await;
        assert!(Arc::ptr_eq(&one, &open("1").await));
        drop(place);
        assert!(!Arc::ptr_eq(&one, &open("2").await));
    }

    #[tokio::test]
    async fn an_open_key_is_wiped_when_no_connection_has_it_any_more() {
        let opening = Opening::new(Duration::ZERO);
        let key = opening.open(&secret("1", "correct horse"), "team", || false).await.ok().unwrap();
        let watched = Arc::downgrade(&key);
        // Waits until the background task of `open` has dropped its copy of the key.
        while watched.strong_count() > 1 {
            tokio::task::yield_now().await;
        }
        drop(key);
        assert!(watched.upgrade().is_none());
    }

    #[tokio::test]
    async fn what_is_old_when_its_turn_comes_is_not_opened() {
        let opening = Opening::new(KEPT_FOR);
        let end = opening.open(&secret("1", "correct horse"), "team", || true).await.err();
        assert!(matches!(end, Some(ConnectFailure::RetryAfter(_))));
        assert!(!opening.pool.is_in_use());
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_is_nobodys_later() {
        let opening = Opening::new(KEPT_FOR);
        let key = opening.open(&secret("1", "battery staple"), "team", || false).await.ok().unwrap();
        assert!(matches!(key.get(), Some(Err(EntryError { error: CredentialsError::PassphraseWrong, .. }))));
        drop(key);
        let _ = opening.cell(&secret("2", ""));
        assert_eq!(lock(&opening.known).len(), 1);
    }
}
