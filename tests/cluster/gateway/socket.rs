//! A minimal WebSocket client (RFC 6455): enough to observe each frame, also the close code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Gated, PATIENCE};

/// An open WebSocket.
pub struct Socket {
    stream: TcpStream,
}

/// Frame of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Message(Value),
    Bytes(Vec<u8>),
    Closed(u16),
    /// The connection ended without a close frame.
    Lost,
}

impl Socket {
    /// Requests a WebSocket. Returns the head of the answer, and the socket if the server opened it.
    pub async fn try_open(gated: &Gated, path: &str, headers: &[(&str, &str)]) -> (String, Option<Self>) {
        let mut stream = TcpStream::connect(gated.address).await.expect("a connection");
        let key = STANDARD.encode([7; 16]);
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
            gated.address
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time").expect("an answer");
            answer.push(byte);
        }
        let head = String::from_utf8(answer).expect("text");
        let is_open = head.starts_with("HTTP/1.1 101 ");
        (head, is_open.then_some(Self { stream }))
    }

    /// Opens a WebSocket as jane.
    pub async fn open(gated: &Gated, path: &str) -> Self {
        let (head, socket) = Self::try_open(gated, path, &[("Authorization", &format!("Bearer {}", gated.jane))]).await;
        socket.unwrap_or_else(|| panic!("{head}\n{}", gated.case.log()))
    }

    /// Sends a text.
    pub async fn send(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes()).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.send_frame(0x82, bytes).await;
    }

    async fn send_frame(&mut self, kind: u8, payload: &[u8]) {
        let length = u16::try_from(payload.len()).expect("a short message");
        let mut frame = vec![kind];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        // The mask is zero, so the payload is sent as it is.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await.expect("a frame is sent");
    }

    /// Waits for the next message or close frame.
    pub async fn next(&mut self) -> Frame {
        loop {
            let read = timeout(PATIENCE, self.frame()).await.expect("a frame in time");
            let Ok((kind, payload)) = read else { return Frame::Lost };
            match kind {
                1 => return Frame::Message(serde_json::from_slice(&payload).expect("JSON")),
                2 => return Frame::Bytes(payload),
                8 => return Frame::Closed(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
                _ => {}
            }
        }
    }

    /// Returns all messages until the end, and the code of the close frame.
    pub async fn all(&mut self) -> (Vec<Value>, u16) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Frame::Message(message) => messages.push(message),
                Frame::Bytes(bytes) => panic!("bytes {bytes:?} after {messages:?}"),
                Frame::Closed(code) => return (messages, code),
                Frame::Lost => panic!("the connection was lost after {messages:?}"),
            }
        }
    }

    async fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let (first, second) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
        assert_eq!((first & 0x80, second & 0x80), (0x80, 0), "one unmasked frame for each message");
        let length = match second {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut payload).await?;
        Ok((first & 0x0f, payload))
    }
}
