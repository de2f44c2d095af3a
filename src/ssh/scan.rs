//! The keys that a host has, for a person to compare and to pin. As ssh-keyscan: one connection for each type of key, which
//! ends as soon as the key was shown. Nothing is said to the host, and nothing is believed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, client};
use tokio::time::{Instant, timeout};

use super::algorithms::config;
use super::host_key::KEY_TYPES;
use super::reaching::{Wanted, connect_to_any, not_connected, place, resolve};
use super::stream::Stream;
use super::text::printable;
use super::{ConnectError, Network};

/// Of what went wrong, so much is told.
const DETAIL_LENGTH: usize = 300;

/// A key that a host showed. Nobody has vouched for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScannedKey {
    /// Its type: `ssh-ed25519`.
    pub algorithm: String,
    /// The line for `spec.hostKeys`.
    pub line: String,
    /// SHA-256 fingerprint.
    pub fingerprint: String,
}

/// Asks a host for its keys, of each type that can be pinned: ed25519 first.
///
/// # Errors
/// Why it could not be asked, within `deadline` for all of it; [`ConnectError::Handshake`] where it has none of those.
pub async fn scan(
    address: &str,
    port: u16,
    network: &Network,
    deadline: Duration,
) -> Result<Vec<ScannedKey>, ConnectError> {
    let until = Instant::now() + deadline;
    match timeout(deadline, scan_all(address, port, network, until)).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("{} did not show its keys within {} s", place(address, port), deadline.as_secs());
            Err(ConnectError::Unreachable(message))
        }
    }
}

async fn scan_all(
    address: &str,
    port: u16,
    network: &Network,
    until: Instant,
) -> Result<Vec<ScannedKey>, ConnectError> {
    let at = place(address, port);
    // A person's own process: there is nobody to share with.
    let mut places = resolve(Wanted { address, port, namespace: "", admission: None }, network).await?;
    let mut keys = Vec::new();
    // An RSA key is the same whatever it signs with, so its types are asked for together.
    let is_rsa = |algorithm: &Algorithm| matches!(algorithm, Algorithm::Rsa { .. });
    let (rsa, others): (Vec<Algorithm>, Vec<Algorithm>) = KEY_TYPES.into_iter().partition(is_rsa);
    for wanted in others.into_iter().map(|algorithm| vec![algorithm]).chain([rsa]) {
        let (stream, reached) = connect_to_any(&places, until).await.map_err(|error| not_connected(&at, &error))?;
        // The other keys are asked of the same one.
        places = vec![reached];
        keys.extend(look(&at, stream, wanted).await?);
    }
    if keys.is_empty() {
        let shown = "no key of a type that can be pinned (ed25519, ECDSA, RSA with SHA-2)".to_owned();
        return Err(ConnectError::Handshake(format!("{at}: it has {shown}")));
    }
    Ok(keys)
}

/// The key of one of these types; None where the host has none.
async fn look(
    at: &str,
    stream: tokio::net::TcpStream,
    wanted: Vec<Algorithm>,
) -> Result<Option<ScannedKey>, ConnectError> {
    let shown = Arc::new(Mutex::new(None));
    let (stream, _guard) = Stream::new(stream);
    let config = Arc::new(config(wanted, Vec::new()));
    let ended = client::connect_stream(config, stream, Looker(Arc::clone(&shown))).await;
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
            Err(ConnectError::Dropped(format!("{at} did not show its keys: {error}")))
        }
        (None, Err(error)) => {
            Err(ConnectError::Handshake(format!("{at}: {}", printable(&error.to_string(), DETAIL_LENGTH))))
        }
        (None, Ok(_)) => Err(ConnectError::Handshake(format!("{at}: it showed no key"))),
    }
}

/// Keeps the key and goes no further.
struct Looker(Arc<Mutex<Option<PublicKey>>>);

impl client::Handler for Looker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown.public_key());
        Ok(false)
    }
}
