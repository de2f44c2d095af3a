//! The HTTP server below the gateway's routes: listener, TLS, limits, shutdown, and the layers around each request.
//!
//! # Guarantees
//! - Without TLS files, the server listens on loopback addresses only, unless a proxy ends TLS.
//! - Each wait for a client has a deadline: handshake, head, body, the next request, and the delivery of an answer.
//! - A client that opens many connections, and sends no request on them, does not take the places of other clients. A
//!   connection with a request in progress never loses its place.
//! - Headers and queries of requests are never logged, because they can contain credentials.

mod connections;
mod layers;
mod limits;
mod progress;
mod room;
mod serve;
mod sockets;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use layers::{LayerOptions, OriginError, OriginPolicy, RequestId, with_layers};
pub use limits::ServerLimits;
pub use sockets::{SocketGuard, Sockets};
pub use tls::{TlsError, TlsFiles};

use connections::Connections;
use serve::Serving;
use tls::Certificates;

/// Options of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address to listen on. Port 0 takes a free port.
    pub address: SocketAddr,
    /// Files for TLS, or `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// True if a proxy in front of the server ends the clients' TLS. All connections then have the proxy's address.
    pub is_behind_tls_proxy: bool,
    /// Limits of the server.
    pub limits: ServerLimits,
}

impl ServerOptions {
    /// Returns the options of a server without a proxy, with the limits for production.
    pub fn new(address: SocketAddr, tls: Option<TlsFiles>) -> Self {
        Self { address, tls, is_behind_tls_proxy: false, limits: ServerLimits::default() }
    }

    /// Returns true if clients use TLS, to the server or to the proxy in front of it.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some() || self.is_behind_tls_proxy
    }

    fn check(&self) -> anyhow::Result<()> {
        let is_loopback = self.address.ip().to_canonical().is_loopback();
        anyhow::ensure!(
            self.has_tls() || is_loopback,
            "listening on {} failed: without TLS, credentials are readable on the network; set \
             --gateway-tls-certificate and --gateway-tls-key, set --behind-tls-proxy if a proxy ends TLS, or use a \
             loopback address",
            self.address
        );
        Ok(())
    }
}

/// The running server, which stops at once when this value is dropped.
pub struct GatewayServer {
    address: SocketAddr,
    connections: Arc<Connections>,
    /// Stops this server only.
    stop: CancellationToken,
    /// Ends all connections at once.
    abort: CancellationToken,
}

impl GatewayServer {
    /// Starts the server. When `stop` is cancelled, the server accepts no more connections and closes those without a
    /// request. [`GatewayServer::drained`] waits for the others. The extensions of each request contain the address of
    /// the client, as `axum::extract::ConnectInfo<SocketAddr>`.
    ///
    /// # Errors
    /// - The address is not a loopback address, and the clients would not use TLS.
    /// - The TLS files are not usable.
    /// - Listening on the address failed.
    pub async fn start(options: ServerOptions, router: Router, stop: CancellationToken) -> anyhow::Result<Self> {
        options.check()?;
        let (stop, abort) = (stop.child_token(), CancellationToken::new());
        // This guard ends the task for the TLS files if listening fails.
        let started = stop.clone().drop_guard();
        let certificates = match options.tls {
            Some(files) => {
                let loading = Certificates::load(files, options.limits.tls_poll, stop.clone()).await;
                let (certificates, following) = loading.context("the gateway's TLS files are not usable")?;
                tokio::spawn(following);
                Some(certificates)
            }
            None => None,
        };
        let listener = TcpListener::bind(options.address).await;
        let listener =
            listener.with_context(|| format!("listening on {} failed (--listen-gateway)", options.address))?;
        let address = listener.local_addr()?;
        let connections = Connections::new(options.limits.clone(), options.is_behind_tls_proxy, abort.clone());
        let connections = Arc::new(connections);
        let serving = Serving {
            // axum would otherwise build the routes again for each request.
            router: router.with_state(()),
            limits: options.limits,
            certificates,
            connections: Arc::clone(&connections),
            stop: stop.clone(),
        };
        tokio::spawn(Arc::new(serving).accept(listener));
        drop(started.disarm());
        tracing::info!(%address, "gateway is served");
        Ok(Self { address, connections, stop, abort })
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all connections have ended, also WebSockets, for at most `deadline`. Then closes the others. Call this
    /// after the token that stops the server was cancelled.
    pub async fn drained(&self, deadline: Duration) {
        if timeout(deadline, self.connections.ended()).await.is_err() {
            let connections = self.connections.count();
            tracing::warn!(connections, "connections to the gateway closed before their answers were complete");
        }
        self.abort.cancel();
    }
}

impl Drop for GatewayServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, tls: bool, is_behind_tls_proxy: bool) -> anyhow::Result<()> {
        let files = TlsFiles { certificate: "tls.crt".into(), key: "tls.key".into() };
        let address = address.parse().unwrap();
        ServerOptions { address, tls: tls.then_some(files), is_behind_tls_proxy, limits: ServerLimits::default() }
            .check()
    }

    #[test]
    fn plain_http_is_for_loopback_only_unless_a_proxy_ends_tls() {
        for address in ["127.0.0.1:1", "127.1.2.3:0", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check(address, false, false).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", "[fe80::1]:1"] {
            let error = check(address, false, false).unwrap_err().to_string();
            for word in [address, "--gateway-tls-certificate", "--gateway-tls-key", "--behind-tls-proxy"] {
                assert!(error.contains(word), "{word} in {error}");
            }
            assert!(check(address, true, false).is_ok() && check(address, false, true).is_ok(), "{address}");
        }
    }
}
