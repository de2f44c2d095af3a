//! Private keys that are encrypted: opened once for each version of their Secret, by turns between namespaces.
//!
//! The promises kept here: opening a key takes a core for as long as whoever made it wanted, so a namespace opens one at a time
//! and leaves the other place to others. What was read so long ago that it has to be read again is not opened. An open key is
//! kept while a connection that was made by it lives, and [`KEPT_FOR`] beyond that; then it is wiped. It is found by the
//! Secret's UID and resourceVersion only, which are read live before each login.

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

/// Keys that are opened at a time.
const AT_ONCE: Size = Size { places: 2, share: 1 };
/// How long opening one may take once it is its turn: as many rounds as are accepted take a few seconds of a core.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long an open key is kept without a connection: commands in Direct mode have one each.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// All keys of this process that are open.
static OPENING: LazyLock<Opening> = LazyLock::new(|| Opening::new(KEPT_FOR));

type Cell = OnceCell<Result<Credentials, EntryError>>;

/// What there is to log in with; the key stays open for those who have a copy of this.
pub(crate) struct OpenKey {
    pub credentials: Credentials,
    kept: Option<KeptOpen>,
}

/// Keeps a key open. It cannot be printed, and there is nothing to be had from it.
#[derive(Clone)]
pub(crate) struct KeptOpen {
    _key: Arc<Cell>,
}

impl OpenKey {
    /// What a connection holds on to. None where the key was never encrypted: it is read again.
    pub fn kept(&self) -> Option<KeptOpen> {
        self.kept.clone()
    }
}

struct Opening {
    pool: Pool,
    kept_for: Duration,
    /// By UID and resourceVersion of their Secrets.
    known: Mutex<HashMap<(String, String), Weak<Cell>>>,
}

/// Reads the keys of a Secret that may be used. `is_stale` tells if the Secret must be read again before its keys are used.
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
/// An entry that is no key, names no passphrase for one that is encrypted, or has a certificate of another key.
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

    /// The key of a Secret, opened or found to be none. Those who want the same one share it.
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
        // First of all: a core is not spent on what has to be read again.
        if is_stale() {
            return Err(ConnectFailure::RetryAfter(RETRY_AFTER_CHANGE));
        }
        let (name, secret) = (secret.name.clone(), secret.clone());
        let opening = tokio::task::spawn_blocking(move || {
            // Nothing stops it once it has begun, so the place is taken for as long as the core is.
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
        // It need not be opened again, so nothing is asked.
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
        // The minute without a connection is over, and this one has it.
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
