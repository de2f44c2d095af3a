//! The gateway's HTTP server with real connections: limits, layers, shutdown, TLS.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets an impossible state has to fail"
)]

mod client;
mod layers;
mod limits;
mod shutdown;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio_util::sync::CancellationToken;
use writ::gateway::server::{
    GatewayServer, LayerOptions, OriginPolicy, ServerLimits, ServerOptions, SocketGuard, Sockets, TlsFiles, with_layers,
};

/// Duration of the slow route.
const SLOW: Duration = Duration::from_millis(500);
/// Origin of web pages that may call the server.
const ORIGIN: &str = "https://console.example";

/// A running server with its parts.
struct Running {
    server: GatewayServer,
    stop: CancellationToken,
    sockets: Sockets,
}

impl Running {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

/// Starts a server on a free port of the loopback address.
async fn start(limits: ServerLimits, tls: Option<TlsFiles>) -> Running {
    let stop = CancellationToken::new();
    let sockets = Sockets::for_stop(stop.clone());
    let options = ServerOptions { address: ([127, 0, 0, 1], 0).into(), tls, is_behind_tls_proxy: false, limits };
    let layers = LayerOptions {
        origins: OriginPolicy::from_list(&[ORIGIN.to_owned()], options.has_tls()).unwrap(),
        has_tls: options.has_tls(),
        limits: options.limits.clone(),
    };
    let router = with_layers(routes(sockets.clone()), &layers);
    let server = GatewayServer::start(options, router, stop.clone()).await.unwrap();
    Running { server, stop, sockets }
}

fn routes(sockets: Sockets) -> Router {
    let nested = Router::new().route("/things/{id}", get(async || "thing"));
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/panic", get(panicking))
        .route("/endless", get(async || Body::from_stream(endless())))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(SLOW).await;
                "slow"
            }),
        )
        .route("/socket", any(move |upgrade: WebSocketUpgrade| accept(upgrade, sockets.enter())))
        .nest("/api/v1", nested)
}

async fn panicking() -> &'static str {
    panic!("a secret of the handler")
}

fn endless() -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::repeat_with(|| Ok(Bytes::from(vec![b'a'; 10_000])))
}

async fn accept(upgrade: WebSocketUpgrade, guard: SocketGuard) -> Response {
    upgrade.on_upgrade(|socket| serve_socket(socket, guard))
}

/// Sends each message back, and closes the socket when the server stops.
async fn serve_socket(mut socket: WebSocket, guard: SocketGuard) {
    loop {
        tokio::select! {
            () = guard.stopping() => {
                let frame = CloseFrame { code: 1001, reason: "".into() };
                let _ = socket.send(Message::Close(Some(frame))).await;
                return;
            }
            message = socket.recv() => match message {
                Some(Ok(message)) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
