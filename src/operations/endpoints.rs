//! GET /metrics, /healthz and /readyz over plain HTTP, for Prometheus and the kubelet.
//!
//! Nothing secret is told and nothing can be changed here; what is bounded is what it may cost: the size of a request's
//! head, the time for it, the time and the number of connections. A body is not read. Whoever holds connections open makes
//! room for who comes after him.

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

/// Connections at a time. Prometheus has one or two, the kubelet one; the oldest makes room for the newest.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take to come.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection may last; each carries one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes; it is the least that hyper allows.
const HEAD_BYTES: usize = 8192;
/// The pause after a connection could not be taken: no file is left, most likely, and it would fail at once again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Brings up to date what is counted only when somebody asks.
type Measure = dyn Fn() + Send + Sync;

/// The endpoints, once they listen. They end when this is dropped.
pub struct Endpoints {
    address: SocketAddr,
    measure: Arc<OnceLock<Box<Measure>>>,
    stop: CancellationToken,
}

impl Endpoints {
    /// Listens, and answers from now on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("{address} cannot be listened on (--listen-operations)"))?;
        let address = listener.local_addr()?;
        let (measure, stop) = (Arc::default(), CancellationToken::new());
        tokio::spawn(accept(listener, Arc::clone(&measure), stop.clone()));
        tracing::info!(%address, "metrics and health are served");
        Ok(Self { address, measure, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is to be called before metrics are told. Only the first counts.
    pub fn measure_by(&self, measure: impl Fn() + Send + Sync + 'static) {
        let _ = self.measure.set(Box::new(measure));
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, measure: Arc<OnceLock<Box<Measure>>>, stop: CancellationToken) {
    // All of them end with this task.
    let mut connections = JoinSet::new();
    let mut oldest_first = std::collections::VecDeque::<AbortHandle>::with_capacity(CONNECTIONS);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection for metrics or health could not be taken");
                    sleep(AGAIN_AFTER).await;
                    continue;
                }
            },
        };
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= CONNECTIONS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(serve(stream, Arc::clone(&measure))));
    }
}

async fn serve(stream: TcpStream, measure: Arc<OnceLock<Box<Measure>>>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &measure);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever the other end does wrong is nothing to tell of: anybody could fill the log so.
    let _ = timeout(DEADLINE, connection).await;
}

fn answer(request: &Request<Incoming>, measure: &OnceLock<Box<Measure>>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "GET and HEAD only\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            if let Some(measure) = measure.get() {
                measure();
            }
            said(StatusCode::OK, METRICS_TYPE, metrics().text())
        }
        "/healthz" => report(health().alive()),
        "/readyz" => report(health().ready()),
        _ => said(StatusCode::NOT_FOUND, TEXT_TYPE, "there are /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn report(report: Report) -> Response<Full<Bytes>> {
    let status = if report.well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    said(status, TEXT_TYPE, report.text)
}

fn said(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
