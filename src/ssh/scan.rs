//! Reads the keys of a host, so that a user can compare and pin the keys. Like ssh-keyscan, Writ opens one connection
//! for each type of key. Writ sends no credentials and trusts no key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, client};
use tokio::time::{Instant, timeout};

use super::algorithms::config;
use super::dial::{Wanted, dial_any, host_port, not_connected, resolve};
use super::public_key::KEY_TYPES;
use super::stream::AbortableStream;
use super::text::printable;
use super::{AddressPolicy, ConnectError};

/// Maximum number of characters of an error in a message.
const MAX_DETAIL_SHOWN: usize = 300;

/// A key that a host showed, without verification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScannedKey {
    /// Type of the key, for example `ssh-ed25519`.
    pub algorithm: String,
    /// Line for `spec.hostKeys`.
    pub line: String,
    /// SHA-256 fingerprint.
    pub fingerprint: String,
}

/// Reads the keys of a host: one key for each type that can be pinned, ed25519 first.
///
/// # Errors
/// See [`ConnectError`]. [`ConnectError::Unreachable`] if the whole scan takes longer than `deadline`.
/// [`ConnectError::Handshake`] if the host has no key of a type that can be pinned.
pub async fn scan(
    address: &str,
    port: u16,
    network: &AddressPolicy,
    deadline: Duration,
) -> Result<Vec<ScannedKey>, ConnectError> {
    let until = Instant::now() + deadline;
    match timeout(deadline, scan_all(address, port, network, until)).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("{} did not show its keys within {} s", host_port(address, port), deadline.as_secs());
            Err(ConnectError::Unreachable(message))
        }
    }
}

async fn scan_all(
    address: &str,
    port: u16,
    network: &AddressPolicy,
    until: Instant,
) -> Result<Vec<ScannedKey>, ConnectError> {
    let at = host_port(address, port);
    // A scan runs in the process of one user, so its lookups count for no namespace.
    let mut addresses = resolve(Wanted { address, port, namespace: "", admission: None }, network).await?;
    let mut keys = Vec::new();
    // An RSA key has one type for all its signature hashes, so one connection requests all these hashes.
    let is_rsa = |algorithm: &Algorithm| matches!(algorithm, Algorithm::Rsa { .. });
    let (rsa, others): (Vec<Algorithm>, Vec<Algorithm>) = KEY_TYPES.into_iter().partition(is_rsa);
    for wanted in others.into_iter().map(|algorithm| vec![algorithm]).chain([rsa]) {
        let (stream, reached) = dial_any(&addresses, until).await.map_err(|error| not_connected(&at, &error))?;
        // All keys are read from the same address.
        addresses = vec![reached];
        keys.extend(scan_key_types(&at, stream, wanted).await?);
    }
    if keys.is_empty() {
        let shown = "no key of a type that can be pinned (ed25519, ECDSA, RSA with SHA-2)".to_owned();
        return Err(ConnectError::Handshake(format!("{at}: the host has {shown}")));
    }
    Ok(keys)
}

/// Returns the host's key of one of the `wanted` types, or `None` if the host has no such key.
async fn scan_key_types(
    at: &str,
    stream: tokio::net::TcpStream,
    wanted: Vec<Algorithm>,
) -> Result<Option<ScannedKey>, ConnectError> {
    let shown = Arc::new(Mutex::new(None));
    let (stream, _guard) = AbortableStream::new(stream);
    let config = Arc::new(config(wanted, Vec::new()));
    let ended = client::connect_stream(config, stream, KeyCollector(Arc::clone(&shown))).await;
    let key: Option<PublicKey> = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (key, ended) {
        (Some(key), _) => {
            let line = PublicKey::new(key.key_data().clone(), "").to_openssh();
            let line = line.map_err(|error| ConnectError::Handshake(format!("{at}: {error}")))?;
            let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
            Ok(Some(ScannedKey { algorithm: key.algorithm().to_string(), line, fingerprint }))
        }
        (None, Err(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. })) => Ok(None),
        (None, Err(error @ (russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect))) => {
            Err(ConnectError::ConnectionDropped(format!("{at} did not show its keys: {error}")))
        }
        (None, Err(error)) => {
            Err(ConnectError::Handshake(format!("{at}: {}", printable(&error.to_string(), MAX_DETAIL_SHOWN))))
        }
        (None, Ok(_)) => Err(ConnectError::Handshake(format!("{at}: the host showed no key"))),
    }
}

/// Handler of russh that stores the shown key and refuses the host.
struct KeyCollector(Arc<Mutex<Option<PublicKey>>>);

impl client::Handler for KeyCollector {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown.public_key());
        Ok(false)
    }
}
