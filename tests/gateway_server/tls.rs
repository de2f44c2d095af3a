//! TLS, and files that change while the server runs.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use writ::gateway::server::{GatewayServer, ServerLimits, ServerOptions, TlsFiles};

use crate::client::{PATIENCE, connect, header, read_all, status};
use crate::start;

/// A certificate with its key.
struct Pair {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Directory with the layout of a Secret volume: two links to a link to a directory with the files.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new(pair: &Pair) -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        for name in ["tls.crt", "tls.key"] {
            symlink(PathBuf::from("..data").join(name), volume.0.path().join(name)).unwrap();
        }
        volume.switch("1", &pair.pem, &pair.key);
        volume
    }

    /// Replaces both files at once, as the kubelet does.
    fn switch(&self, version: &str, certificate: &str, key: &str) {
        let root = self.0.path();
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("tls.crt"), certificate).unwrap();
        std::fs::write(root.join(version).join("tls.key"), key).unwrap();
        symlink(version, root.join("..new")).unwrap();
        std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
    }
}

/// Connects with TLS. The client trusts only the given certificates.
async fn connect_tls(
    server: SocketAddr,
    trusted: &[&Pair],
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connect(server).await).await
}

/// Returns true if the server proves the given certificate.
async fn has_certificate(server: SocketAddr, pair: &Pair) -> bool {
    connect_tls(server, &[pair], &[b"http/1.1"]).await.is_ok()
}

fn fast_poll() -> ServerLimits {
    ServerLimits { tls_poll: Duration::from_millis(50), ..ServerLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_answers_and_demands_https_in_future() {
    let pair = Pair::new();
    let volume = Volume::new(&pair);
    let running = start(fast_poll(), Some(volume.files())).await;
    let mut stream = connect_tls(running.address(), &[&pair], &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert_eq!(status(&answer), "200");
    assert!(header(&answer, "Strict-Transport-Security").is_some());
    assert!(connect_tls(running.address(), &[&pair], &[b"h2"]).await.is_err());
    assert!(connect_tls(running.address(), &[&Pair::new()], &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificate_is_loaded_and_unusable_ones_are_not() {
    let (first, second) = (Pair::new(), Pair::new());
    let volume = Volume::new(&first);
    let running = start(fast_poll(), Some(volume.files())).await;
    let address = running.address();
    for (version, certificate, key) in [("2", &second.pem, &first.key), ("3", &second.pem, &String::new())] {
        volume.switch(version, certificate, key);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(has_certificate(address, &first).await, "version {version}");
    }
    std::fs::remove_file(volume.0.path().join("..data")).unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(has_certificate(address, &first).await, "without files");
    volume.switch("4", &second.pem, &second.key);
    let since = Instant::now();
    while !has_certificate(address, &second).await {
        assert!(since.elapsed() < PATIENCE, "the new certificate is not loaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!has_certificate(address, &first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_handshake_is_closed_after_the_deadline() {
    let pair = Pair::new();
    let volume = Volume::new(&pair);
    let limits = ServerLimits { handshake_deadline: Duration::from_millis(200), ..fast_poll() };
    let running = start(limits, Some(volume.files())).await;
    assert_eq!(read_all(&mut connect(running.address()).await).await, "");
    // A client that completes the handshake then has the time of a head.
    let mut stream = connect_tls(running.address(), &[&pair], &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut stream).await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_files_and_open_addresses_fail_the_start() {
    let volume = Volume::new(&Pair::new());
    let missing = TlsFiles { key: volume.0.path().join("missing.key"), ..volume.files() };
    for (address, tls, words) in
        [([127, 0, 0, 1], Some(missing), "--gateway-tls-key"), ([0, 0, 0, 0], None, "--behind-tls-proxy")]
    {
        let limits = ServerLimits::default();
        let options = ServerOptions { address: (address, 0).into(), tls, is_behind_tls_proxy: false, limits };
        let started = GatewayServer::start(options, axum::Router::new(), CancellationToken::new()).await;
        let error = format!("{:#}", started.err().expect("no start"));
        assert!(error.contains(words), "{error}");
    }
}
