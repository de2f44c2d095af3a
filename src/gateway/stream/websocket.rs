//! WebSockets: the checks before the upgrade, and the connection to the client after it.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use http::header::{HOST, UPGRADE};
use http::request::Parts;
use tokio::time::timeout;

use crate::gateway::caller_sockets::CallerSocket;
use crate::gateway::credential::SUBPROTOCOL;
use crate::gateway::error::ApiError;
use crate::gateway::state::Gateway;

use super::message::error;
use super::pump::{Closing, Feed, Gone, MessageSink, SEND_DEADLINE, pump};

/// Maximum size of a message of a client, in bytes.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;
/// Size of the buffer for bytes of the client. Clients send little.
const READ_BUFFER: usize = 4 << 10;
/// Number of bytes in the write buffer after which they are sent at once.
const WRITE_BUFFER: usize = 64 << 10;
/// Maximum number of bytes in the write buffer. A message has at most about 100 KiB.
const MAX_WRITE_BUFFER: usize = 256 << 10;
/// Deadline for the first message of a client.
const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the two close frames.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Time without any frame of the client, also no answer to a ping, after which the client counts as gone. Long, because
/// a client on a slow line receives the pings only behind all messages in the buffers of the network.
pub(super) const SILENCE_DEADLINE: Duration = Duration::from_secs(300);

/// Request for a WebSocket from a program or from a page that may open one.
pub struct SocketRequest {
    upgrade: WebSocketUpgrade,
}

/// Request for a WebSocket, or an ordinary request.
pub struct OptionalSocket(pub Option<SocketRequest>);

impl FromRequestParts<Gateway> for SocketRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Response> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        if !gateway.origins().is_allowed_origin(&parts.headers, host) {
            let message = "pages of this origin may not open WebSockets; an administrator can allow the origin with \
                           --gateway-allowed-origin";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", "OriginNotAllowed", message).into_response());
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, gateway).await.map_err(|rejection| {
            let message = format!("this path is a WebSocket: {}", rejection.body_text());
            let error = ApiError::new(StatusCode::UPGRADE_REQUIRED, "Upgrade required", "NotAWebSocket", message);
            ([(UPGRADE, "websocket")], error).into_response()
        })?;
        let upgrade = upgrade
            .protocols([SUBPROTOCOL])
            .max_message_size(MAX_CLIENT_MESSAGE)
            .max_frame_size(MAX_CLIENT_MESSAGE)
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER);
        Ok(Self { upgrade })
    }
}

impl FromRequestParts<Gateway> for OptionalSocket {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Response> {
        let wanted = parts.headers.get(UPGRADE).and_then(|protocol| protocol.to_str().ok()).unwrap_or_default();
        if !wanted.eq_ignore_ascii_case("websocket") {
            return Ok(Self(None));
        }
        SocketRequest::from_request_parts(parts, gateway).await.map(|request| Self(Some(request)))
    }
}

impl SocketRequest {
    /// Opens the socket, and sends the messages of a feed.
    pub fn serve(self, socket: CallerSocket, feed: impl Feed + 'static) -> Response {
        self.upgrade.on_upgrade(move |connection| feed.hold(Connection::new(connection), socket))
    }

    /// Opens the socket, waits for the first message, and sends the messages of the feed that `start` makes from it.
    pub fn serve_request<T, F>(
        self,
        mut socket: CallerSocket,
        start: impl FnOnce(Bytes) -> F + Send + 'static,
    ) -> Response
    where
        T: Conversation + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        self.upgrade.on_upgrade(move |connection| async move {
            let mut connection = Connection::new(connection);
            let request = tokio::select! {
                request = connection.first_message() => request,
                end = socket.ending() => return connection.close(Closing::for_end(end)).await,
            };
            let Ok(request) = request else { return };
            let started = match request {
                Some(request) => start(request).await,
                None => Err(late()),
            };
            match started {
                Ok(conversation) => conversation.hold(connection, socket).await,
                Err(refused) => {
                    let closing = Closing::for_status(refused.status);
                    if connection.sink.message(error(&refused)).await.is_ok() {
                        connection.close(closing).await;
                    }
                }
            }
        })
    }
}

fn late() -> ApiError {
    let message = format!(
        "the first message must arrive within {} s; it is a JSON object with the command",
        FIRST_MESSAGE_DEADLINE.as_secs()
    );
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "NoRequest", message)
}

/// Exchange with a client after its first message.
pub trait Conversation: Send {
    /// Sends and receives, until one side ends the exchange.
    fn hold(self, connection: Connection, socket: CallerSocket) -> impl Future<Output = ()> + Send;
}

/// A feed, whose client only listens.
impl<T: Feed> Conversation for T {
    async fn hold(self, connection: Connection, socket: CallerSocket) {
        converse(connection, socket, self).await;
    }
}

/// The two directions of an open socket.
pub struct Connection {
    pub(super) sink: SocketSink,
    pub(super) frames: SplitStream<WebSocket>,
}

/// Direction to the client.
pub(super) struct SocketSink(SplitSink<WebSocket, Message>);

impl Connection {
    fn new(socket: WebSocket) -> Self {
        let (sink, frames) = socket.split();
        Self { sink: SocketSink(sink), frames }
    }

    /// Returns the first message, or `None` if there is none in time.
    async fn first_message(&mut self) -> Result<Option<Bytes>, Gone> {
        let first = async {
            loop {
                match self.frames.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(Bytes::from(text)),
                    Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                }
            }
        };
        timeout(FIRST_MESSAGE_DEADLINE, first).await.map_or(Ok(None), |first| first.map(Some))
    }

    /// Ends the socket: sends a close frame, and waits for the client's.
    pub(super) async fn close(&mut self, closing: Closing) {
        self.sink.close(closing).await;
        let _ = timeout(CLOSE_DEADLINE, drain(&mut self.frames)).await;
    }
}

/// Sends all messages of a feed. Ends early if the client is gone.
async fn converse(connection: Connection, mut socket: CallerSocket, mut feed: impl Feed) {
    let Connection { mut sink, mut frames } = connection;
    let is_ended = tokio::select! {
        () = pump(&mut feed, &mut sink, socket.ending()) => true,
        () = drain(&mut frames) => false,
    };
    // The feed ends here, so the execution has one viewer less while the client takes its time to close.
    drop(feed);
    if is_ended {
        let _ = timeout(CLOSE_DEADLINE, drain(&mut frames)).await;
    }
}

/// Reads and ignores what the client sends, until the client is gone. Without this, the answers to pings and the
/// client's close frame would not be read.
pub(super) async fn drain(frames: &mut SplitStream<WebSocket>) {
    while let Ok(Some(Ok(frame))) = timeout(SILENCE_DEADLINE, frames.next()).await {
        if matches!(frame, Message::Close(_)) {
            // The next read sends the answer to the close frame.
            let _ = timeout(CLOSE_DEADLINE, frames.next()).await;
            return;
        }
    }
}

impl SocketSink {
    async fn send(&mut self, message: Message, deadline: Duration) -> Result<(), Gone> {
        match timeout(deadline, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

impl MessageSink for SocketSink {
    async fn message(&mut self, text: String) -> Result<(), Gone> {
        self.send(Message::Text(text.into()), SEND_DEADLINE).await
    }

    async fn output(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.send(Message::Binary(bytes), SEND_DEADLINE).await
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        self.send(Message::Ping(Bytes::new()), SEND_DEADLINE).await
    }

    async fn close(&mut self, closing: Closing) {
        let frame = CloseFrame { code: closing.code(), reason: "".into() };
        let _ = self.send(Message::Close(Some(frame)), CLOSE_DEADLINE).await;
    }
}
