//! A server that shows any certificate as its host certificate. OpenSSH's own server refuses some of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::{Certificate, PrivateKey};
use russh::server::{self, Auth, PublicKeyOffer};
use tokio::net::TcpListener;
use writ::ssh::{ConnectError, Credentials, HostKeyVerifier, Target, connect};

use crate::keys::{DEADLINE, Keys, everywhere};

pub struct Impostor {
    port: u16,
    attempts: Arc<AtomicUsize>,
}

/// Handler of a connection. Counts the authentication attempts.
struct Door(Arc<AtomicUsize>);

impl server::Handler for Door {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::Accept)
    }
}

impl Impostor {
    pub async fn start(host_key: &[u8], certificate: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let text = std::fs::read_to_string(certificate).expect("a certificate");
        let config = server::Config {
            keys: vec![PrivateKey::from_openssh(host_key).expect("a key")],
            certificates: vec![Certificate::from_openssh(&text).expect("a certificate")],
            ..server::Config::default()
        };
        let (config, attempts) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let server = Self { port, attempts: Arc::clone(&attempts) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let running = server::run_stream(Arc::clone(&config), stream, Door(Arc::clone(&attempts))).await;
                tokio::spawn(async move {
                    if let Ok(session) = running {
                        let _ = session.await;
                    }
                });
            }
        });
        server
    }

    /// Returns the error of a login to this server, which must fail.
    pub async fn log_in(&self, trust: HostKeyVerifier) -> ConnectError {
        let keys = Keys::new();
        keys.make("client", "-t ed25519");
        let credentials = Credentials::parse(&keys.private("client"), None, None).expect("a key");
        let address = "127.0.0.1".to_owned();
        let (user, namespace) = ("deploy".to_owned(), "lab".to_owned());
        let target =
            Target { address, port: self.port, user, host_keys: trust, prefer: None, namespace, admission: None };
        match connect(&target, &credentials, &everywhere(), DEADLINE).await {
            Ok(_) => panic!("it was logged in to"),
            Err(refusal) => refusal,
        }
    }

    /// Returns the number of authentication attempts.
    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }
}
