//! A client that can also behave badly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Deadline for each step of a test. A server that does not keep its own deadlines exceeds it.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub async fn connect(server: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(server)).await.expect("in time").expect("a connection")
}

/// Connects from another address of this host.
pub async fn connect_from(client: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(server)).await.expect("in time").expect("a connection")
}

/// Returns everything that the server sends until it closes the connection.
pub async fn read_all<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    // A reset also ends the connection.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until a text arrives.
pub async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, text: &str) -> String {
    let mut answer = String::new();
    while !answer.contains(text) {
        let mut bytes = [0; 1000];
        let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").expect("an answer");
        assert!(read > 0, "the connection ended after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    answer
}

/// Sends a request on a connection of its own, and returns the answer.
pub async fn send(server: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut stream = connect(server).await;
    let head = format!("{head}\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer before it has read the body.
    let _ = stream.write_all(body).await;
    read_all(&mut stream).await
}

/// Sends a GET request on a connection of its own, and returns the answer.
pub async fn fetch(server: SocketAddr, path: &str) -> String {
    send(server, &format!("GET {path} HTTP/1.1"), b"").await
}

/// Returns the status code of an answer.
pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// Returns the value of a header of an answer.
pub fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
