//! Accepts connections, and serves HTTP/1.1 on each of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body as RouterBody;
use axum::extract::ConnectInfo;
use http::{Request, StatusCode};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::telemetry::metrics;

use super::connections::{Connections, Place};
use super::limits::ServerLimits;
use super::progress::Progress;
use super::stream::ConnectionStream;
use super::tls::Certificates;

/// Pause after a failed accept. The usual cause is that no file descriptor is free.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Maximum size of hyper's buffers of a connection, one for each direction, in bytes. A head must fit into it.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Parts of a server that its connections share.
pub(super) struct Serving {
    /// Routes of the server.
    pub router: Router,
    /// Limits of the server.
    pub limits: ServerLimits,
    /// Certificate and key, if the server itself ends TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Open connections.
    pub connections: Arc<Connections>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

impl Serving {
    /// Accepts connections until the server stops.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut has_failed = false;
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The cause may last, so Writ logs only the first of consecutive failures.
                    if !has_failed {
                        tracing::warn!(%error, "connection to the gateway not accepted");
                    }
                    has_failed = true;
                    sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            has_failed = false;
            if let Some(place) = self.connections.admit(peer.ip()) {
                tokio::spawn(Arc::clone(&self).serve(stream, peer, place));
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Stream messages are small, and each must leave at once.
        let _ = stream.set_nodelay(true);
        let Some(certificates) = &self.certificates else { return self.serve_http(stream, peer, place).await };
        let closing = place.closing();
        let acceptor = TlsAcceptor::from(certificates.current());
        let handshake = timeout(self.limits.handshake_deadline, acceptor.accept(stream));
        let stream = tokio::select! {
            () = closing.cancelled() => return,
            () = self.stop.cancelled() => return,
            result = handshake => result,
        };
        // Writ does not log errors of clients, because clients could fill the log.
        let Ok(Ok(stream)) = stream else { return metrics().gateway().connection_dropped("handshake") };
        place.progress().record_handshake();
        self.serve_http(stream, peer, place).await;
    }

    async fn serve_http<S>(&self, stream: S, peer: SocketAddr, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (progress, closing) = (Arc::clone(place.progress()), place.closing());
        let stream = TokioIo::new(ConnectionStream::new(stream, place, self.limits.send_deadline));
        let service = service_fn(|request| answer(self.router.clone(), request, peer, Arc::clone(&progress)));
        let connection = http1::Builder::new()
            // `Progress` has the deadlines.
            .header_read_timeout(None)
            .max_header_size(self.limits.max_head_bytes)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(stream, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut ended = pin!(async {
            tokio::select! {
                () = closing.cancelled() => {}
                () = progress.overdue() => metrics().gateway().connection_dropped("late"),
            }
        });
        tokio::select! {
            _ = connection.as_mut() => return,
            () = ended.as_mut() => return,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = ended => {}
        }
    }
}

async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    progress: Arc<Progress>,
) -> Result<http::Response<AnswerBody>, Infallible> {
    progress.record_request();
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = router.call(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        progress.record_upgrade();
    }
    Ok(response.map(|body| AnswerBody { body, progress }))
}

/// Body of an answer. The request is in progress until hyper drops the body.
struct AnswerBody {
    body: RouterBody,
    progress: Arc<Progress>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.progress.record_answer();
    }
}
