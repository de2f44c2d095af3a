//! The TLS certificate and key, from files that can change while the server runs.
//!
//! # Guarantees
//! - A pair of files counts after two consecutive reads returned the same bytes. So half-written files, or a new
//!   certificate with the old key, do not count while a tool writes them.
//! - If the new pair is not usable, the server keeps the old one, and reports the change once.
//!
//! Writ compares contents, and not times. So it also notices that Kubernetes switched the link of a Secret volume.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::telemetry::metrics;

/// Maximum size of a TLS file, in bytes. A long chain of certificates has about 20 KiB.
const MAX_FILE_BYTES: usize = 256 * 1024;
/// The only protocol of the server. WebSockets need HTTP/1.1.
const PROTOCOL: &[u8] = b"http/1.1";

/// Files with the certificate and the key of the server, in PEM form.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate of the server, and after it the certificates of its issuers.
    pub certificate: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// Unusable TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not readable.
    #[error("reading {path} failed ({flag}): {source}", path = path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Flag that names the file.
        flag: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file is too large.
    #[error("reading {path} failed ({flag}): it has more than {MAX_FILE_BYTES} bytes", path = path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Flag that names the file.
        flag: &'static str,
    },
    /// A file has no content of the expected kind. The error does not contain the content, which may be a key.
    #[error("{path} has no {expected} in PEM form ({flag})", path = path.display())]
    NotPem {
        /// Path of the file.
        path: PathBuf,
        /// Flag that names the file.
        flag: &'static str,
        /// Expected content.
        expected: &'static str,
    },
    /// Certificate and key are not usable together.
    #[error("{certificate} and {key} are not usable together: {source}; give the key of the certificate",
        certificate = files.certificate.display(), key = files.key.display())]
    Unusable {
        /// Paths of the files.
        files: TlsFiles,
        /// Error of the TLS library.
        source: rustls::Error,
    },
}

const CERTIFICATE_FLAG: &str = "--gateway-tls-certificate";
const KEY_FLAG: &str = "--gateway-tls-key";

/// The certificate and key in use.
pub(super) struct Certificates {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

/// Identity of a pair of files. A key cannot be derived from it.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Fingerprint {
    /// SHA-256 of the contents.
    Contents([u8; 32]),
    /// Text of the error, if the files are not readable.
    Error(String),
}

/// Contents of the two files.
struct Pair {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

/// Decides which reads of the files count.
struct Changes {
    /// The pair that counted last.
    counted: Fingerprint,
    /// The pair of the last read, if it differs from `counted`.
    candidate: Option<Fingerprint>,
}

impl Changes {
    /// Returns true if a pair that was just read is new, and was also read the last time.
    fn should_count(&mut self, read: &Fingerprint) -> bool {
        if *read == self.counted {
            self.candidate = None;
            return false;
        }
        if self.candidate.as_ref() != Some(read) {
            self.candidate = Some(read.clone());
            return false;
        }
        self.candidate = None;
        self.counted = read.clone();
        true
    }
}

impl Certificates {
    /// Reads the files. The returned task follows later changes of the files until `stop`.
    ///
    /// # Errors
    /// The files are not usable.
    pub(super) async fn load(
        files: TlsFiles,
        poll: Duration,
        stop: CancellationToken,
    ) -> anyhow::Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>)> {
        let pair = read_in_background(&files).await?;
        let changes = Changes { counted: pair.fingerprint(), candidate: None };
        let current = RwLock::new(Arc::new(pair.config(&files)?));
        let certificates = Arc::new(Self { files, current });
        let following = Arc::clone(&certificates).follow(changes, poll, stop);
        Ok((certificates, following))
    }

    /// Returns the configuration for a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn follow(self: Arc<Self>, mut changes: Changes, poll: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(poll)).await.is_some() {
            let read = read_in_background(&self.files).await;
            let fingerprint = match &read {
                Ok(pair) => pair.fingerprint(),
                Err(error) => Fingerprint::Error(error.to_string()),
            };
            if !changes.should_count(&fingerprint) {
                continue;
            }
            match read.and_then(|pair| pair.config(&self.files)) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    metrics().gateway().tls_reloaded(true);
                    tracing::info!("TLS certificate loaded");
                }
                Err(error) => {
                    metrics().gateway().tls_reloaded(false);
                    tracing::warn!(%error, "TLS certificate not loaded, the old one stays in use");
                }
            }
        }
    }
}

impl Pair {
    fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        // Each part has its own digest, so that bytes cannot move from one file to the other unnoticed.
        digest.update(Sha256::digest(&*self.certificate));
        digest.update(Sha256::digest(&*self.key));
        Fingerprint::Contents(digest.finalize().into())
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let not_pem = |path: &Path, flag, expected| TlsError::NotPem { path: path.to_owned(), flag, expected };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .ok()
            .filter(|chain: &Vec<CertificateDer<'static>>| !chain.is_empty())
            .ok_or_else(|| not_pem(&files.certificate, CERTIFICATE_FLAG, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| not_pem(&files.key, KEY_FLAG, "private key without a passphrase"))?;
        let unusable = |source| TlsError::Unusable { files: files.clone(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

async fn read_in_background(files: &TlsFiles) -> Result<Pair, TlsError> {
    let path = files.certificate.clone();
    let files = files.clone();
    let read = tokio::task::spawn_blocking(move || read(&files)).await;
    read.unwrap_or_else(|error| {
        Err(TlsError::Unreadable { path, flag: CERTIFICATE_FLAG, source: io::Error::other(error) })
    })
}

fn read(files: &TlsFiles) -> Result<Pair, TlsError> {
    let certificate = read_file(&files.certificate, CERTIFICATE_FLAG)?;
    let key = read_file(&files.key, KEY_FLAG)?;
    Ok(Pair { certificate, key })
}

fn read_file(path: &Path, flag: &'static str) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), flag, source };
    let file = File::open(path).map_err(unreadable)?;
    // The buffer never grows, because growing would leave a copy of the key in freed memory.
    let mut contents = Zeroizing::new(vec![0; MAX_FILE_BYTES + 1]);
    let mut length = 0;
    let mut file = file.take(MAX_FILE_BYTES as u64 + 1);
    while let Some(free) = contents.get_mut(length..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    if length > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge { path: path.to_owned(), flag });
    }
    contents.truncate(length);
    Ok(contents)
}

#[cfg(test)]
mod tests;
