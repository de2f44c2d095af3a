//! Serves /metrics, /healthz and /readyz over HTTP without TLS, for Prometheus and the kubelet.
//!
//! The content is not secret, and no request changes anything. The server reads no bodies, and limits:
//!
//! - the size of a request's head, and the time to receive the head
//! - the duration of a connection
//! - the number of connections

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Report, health, metrics};

/// Maximum number of concurrent connections. Prometheus and the kubelet together use about three. At the limit, each
/// new connection replaces the oldest connection.
const MAX_CONNECTIONS: usize = 64;
/// Deadline for receiving the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Maximum duration of a connection. A connection carries one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum size of a request's head, in bytes. hyper allows no smaller limit.
const MAX_HEAD_BYTES: usize = 8192;
/// Pause after a failed accept. The usual cause is that no file descriptor is free.
const RETRY_AFTER: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Function that updates some metrics before each scrape.
type ScrapeHook = dyn Fn() + Send + Sync;

/// The running server, which stops when this value is dropped.
pub struct OpsServer {
    address: SocketAddr,
    hook: Arc<OnceLock<Box<ScrapeHook>>>,
    stop: CancellationToken,
}

impl OpsServer {
    /// Starts the server.
    ///
    /// # Errors
    /// Listening on the address failed.
    pub async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listening on {address} failed (--listen-operations)"))?;
        let address = listener.local_addr()?;
        let (hook, stop) = (Arc::default(), CancellationToken::new());
        tokio::spawn(accept(listener, Arc::clone(&hook), stop.clone()));
        tracing::info!(%address, "metrics and health are served");
        Ok(Self { address, hook, stop })
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets a function that runs before each scrape. Only the first call has an effect.
    pub fn before_scrape(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.hook.set(Box::new(hook));
    }
}

impl Drop for OpsServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, hook: Arc<OnceLock<Box<ScrapeHook>>>, stop: CancellationToken) {
    // Dropping this set at the end of the task closes all connections.
    let mut connections = JoinSet::new();
    let mut oldest_first = std::collections::VecDeque::<AbortHandle>::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "connection for metrics or health not accepted");
                    sleep(RETRY_AFTER).await;
                    continue;
                }
            },
        };
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= MAX_CONNECTIONS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(serve(stream, Arc::clone(&hook))));
    }
}

async fn serve(stream: TcpStream, hook: Arc<OnceLock<Box<ScrapeHook>>>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &hook);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Writ does not log errors of clients, because clients could fill the log.
    let _ = timeout(DEADLINE, connection).await;
}

fn answer(request: &Request<Incoming>, hook: &OnceLock<Box<ScrapeHook>>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            text_response(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "only GET and HEAD are allowed\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            if let Some(hook) = hook.get() {
                hook();
            }
            text_response(StatusCode::OK, METRICS_TYPE, metrics().text())
        }
        "/healthz" => report(health().liveness()),
        "/readyz" => report(health().readiness()),
        _ => text_response(
            StatusCode::NOT_FOUND,
            TEXT_TYPE,
            "not found; see /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn report(report: Report) -> Response<Full<Bytes>> {
    let status = if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text_response(status, TEXT_TYPE, report.text)
}

fn text_response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
