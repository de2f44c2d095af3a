//! A WebSocket client (RFC 6455) that keeps no message, so that the client costs little next to the server.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::PATIENCE;

/// Size of the buffer between the socket and the frames.
const BUFFER: usize = 256 << 10;

/// An open WebSocket.
pub struct Socket {
    stream: BufReader<TcpStream>,
    payload: Vec<u8>,
}

impl Socket {
    /// Requests a WebSocket with an API key.
    ///
    /// # Errors
    /// Returns the head of the answer if the server refuses.
    pub async fn try_open(address: &str, path: &str, key: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a request");
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time").expect("an answer"));
        }
        if answer.starts_with(b"HTTP/1.1 101 ") {
            return Ok(Self { stream, payload: Vec::new() });
        }
        Err(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Opens a WebSocket with an API key.
    pub async fn open(address: &str, path: &str, key: &str) -> Self {
        Self::try_open(address, path, key).await.unwrap_or_else(|head| panic!("{path}: {head}"))
    }

    /// Sends a text of at most 125 bytes. The mask is zero, so the text is sent as it is.
    pub async fn send(&mut self, text: &str) {
        assert!(text.len() <= 125, "{text}");
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.stream.get_mut().write_all(&frame).await.expect("a frame is sent");
    }

    /// Waits for the next message. Returns `None` after a close frame, or if the connection is lost.
    pub async fn next(&mut self) -> Option<&[u8]> {
        loop {
            let kind = timeout(PATIENCE, self.frame()).await.expect("a frame in time").ok()?;
            match kind {
                1 => return Some(&self.payload),
                8 => return None,
                _ => {}
            }
        }
    }

    /// Reads a frame into the payload, and returns its kind.
    async fn frame(&mut self) -> std::io::Result<u8> {
        let (first, second) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
        let length = match second {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        self.payload.resize(usize::try_from(length).expect("a length"), 0);
        self.stream.read_exact(&mut self.payload).await?;
        Ok(first & 0x0f)
    }
}
