//! Messages as NDJSON: one message in each line of an HTTP answer, for clients behind proxies that break WebSockets.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::gateway::caller_sockets::CallerSocket;
use crate::gateway::error::ApiError;

use super::message::error;
use super::pump::{Closing, Feed, Gone, MessageSink, SEND_DEADLINE, pump};

/// Sign of life of a silent stream. Clients ignore it.
const PING: &str = r#"{"type":"ping"}"#;
/// Header that keeps nginx from collecting the lines before it passes them on.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

struct LineSink {
    lines: mpsc::Sender<Bytes>,
}

impl LineSink {
    async fn line(&self, mut text: String) -> Result<(), Gone> {
        text.push('\n');
        match timeout(SEND_DEADLINE, self.lines.send(Bytes::from(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

impl MessageSink for LineSink {
    async fn message(&mut self, text: String) -> Result<(), Gone> {
        self.line(text).await
    }

    async fn output(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.line(String::from_utf8_lossy(&bytes).into_owned()).await
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        self.line(PING.to_owned()).await
    }

    async fn close(&mut self, closing: Closing) {
        if closing == Closing::GoingAway {
            let stopping = ApiError::unavailable("the gateway stops; resume by offset after Retry-After");
            let _ = self.line(error(&stopping)).await;
        }
    }
}

/// Answers with the messages of a feed. `socket` counts as a socket of the caller until the answer ends.
pub fn answer_lines(mut socket: CallerSocket, mut feed: impl Feed + 'static) -> Response {
    // One line waits here while the connection sends the previous one.
    let (lines, received) = mpsc::channel(1);
    tokio::spawn(async move {
        let client = lines.clone();
        let mut sink = LineSink { lines };
        tokio::select! {
            () = pump(&mut feed, &mut sink, socket.ending()) => {}
            () = client.closed() => {}
        }
    });
    let body = stream::unfold(received, |mut received| async move {
        received.recv().await.map(|line| (Ok::<_, Infallible>(line), received))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}
