//! The end of a server.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use writ::gateway::server::ServerLimits;

use crate::client::{PATIENCE, connect, fetch, read_all, read_until, status};
use crate::{Running, SLOW, start};

/// Close frame of a server with the code 1001 and without a reason.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

async fn open_socket(running: &Running) -> TcpStream {
    let mut stream = connect(running.address()).await;
    let head = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status(&answer), "101", "{answer}");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_closes_websockets_with_1001_and_completes_requests() {
    let running = start(ServerLimits::default(), None).await;
    let address = running.address();
    let mut socket = open_socket(&running).await;
    let mut waiting = connect(address).await;
    waiting.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut waiting, "hello").await;
    let mut silent = connect(address).await;
    let slow = tokio::spawn(async move { fetch(address, "/slow").await });
    tokio::time::sleep(SLOW / 4).await;
    let since = Instant::now();
    running.stop.cancel();
    assert!(running.sockets.closed(PATIENCE).await);
    running.server.drained(PATIENCE).await;
    assert!(since.elapsed() < PATIENCE);
    let answer = slow.await.unwrap();
    assert_eq!(status(&answer), "200");
    assert_eq!((read_all(&mut waiting).await, read_all(&mut silent).await), (String::new(), String::new()));
    let mut frame = Vec::new();
    socket.read_to_end(&mut frame).await.unwrap();
    assert_eq!(frame, GOING_AWAY);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_outlives_the_deadlines_of_requests() {
    let limits = ServerLimits {
        head_deadline: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..ServerLimits::default()
    };
    let running = start(limits, None).await;
    let mut socket = open_socket(&running).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A text message "hi", masked with zeros.
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    assert_eq!(read_until(&mut socket, "hi").await.as_bytes().last(), Some(&b'i'));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_exceeds_the_deadline_of_the_stop_is_closed() {
    let running = start(ServerLimits::default(), None).await;
    let mut stream = connect(running.address()).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "aaa").await;
    running.stop.cancel();
    running.server.drained(Duration::from_millis(100)).await;
    read_all(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_server_closes_its_connections() {
    let running = start(ServerLimits::default(), None).await;
    let address = running.address();
    let mut stream = connect(address).await;
    let mut socket = open_socket(&running).await;
    drop(running.server);
    assert_eq!((read_all(&mut stream).await, read_all(&mut socket).await), (String::new(), String::new()));
    let since = Instant::now();
    while TcpStream::connect(address).await.is_ok() && since.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!running.stop.is_cancelled() && since.elapsed() < PATIENCE);
}
