//! Clients that are slow, many, or large.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use writ::gateway::server::ServerLimits;

use crate::client::{PATIENCE, connect, connect_from, fetch, read_all, read_until, send, status};
use crate::start;

fn short_head() -> ServerLimits {
    ServerLimits { head_deadline: Duration::from_millis(300), ..ServerLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_head_is_closed_after_the_deadline() {
    let running = start(short_head(), None).await;
    let mut stream = connect(running.address()).await;
    let since = Instant::now();
    stream.write_all(b"GET /hello HTTP/1.1\r\nX-Slow: ").await.unwrap();
    // Each byte arrives before the deadline, and the head as a whole does not.
    while stream.write_all(b"a").await.is_ok() && since.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(read_all(&mut stream).await, "");
    assert!(since.elapsed() >= Duration::from_millis(300) && since.elapsed() < PATIENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connection_is_closed_after_the_deadline() {
    let running = start(short_head(), None).await;
    assert_eq!(read_all(&mut connect(running.address()).await).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_connection_outlives_the_deadline_of_a_head() {
    let limits = ServerLimits {
        head_deadline: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(1500),
        ..ServerLimits::default()
    };
    let running = start(limits, None).await;
    let mut stream = connect(running.address()).await;
    for _ in 0..2 {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut stream, "hello").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let since = Instant::now();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(since.elapsed() >= Duration::from_millis(700), "{:?}", since.elapsed());
    // A part of the next head has the shorter deadline.
    let mut stream = connect(running.address()).await;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello").await;
    let since = Instant::now();
    stream.write_all(b"GET ").await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(since.elapsed() < Duration::from_millis(1400), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silent_clients_do_not_hinder_others() {
    let limits = ServerLimits {
        max_connections: 64,
        max_connections_per_address: 32,
        max_new_connections_per_address: 16,
        ..ServerLimits::default()
    };
    let running = start(limits, None).await;
    let address = running.address();
    let slow = tokio::spawn(async move { fetch(address, "/slow").await });
    let mut other = connect_from([127, 0, 0, 2], address).await;
    other.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut other, "hello").await;
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = connect(address).await;
        let _ = stream.write_all(b"GET /hello HTTP/1.1\r\nX-Slow: ").await;
        silent.push(stream);
        if number % 100 == 50 {
            assert_eq!(status(&fetch(address, "/hello").await), "200");
        }
    }
    // The connection of another address, and a request in progress, kept their places.
    other.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut other, "hello").await;
    assert_eq!(status(&slow.await.unwrap()), "200");
    assert_eq!(read_all(&mut silent[0]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_is_closed() {
    let limits = ServerLimits { send_deadline: Duration::from_millis(200), ..ServerLimits::default() };
    let running = start(limits, None).await;
    let mut stream = connect(running.address()).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    running.stop.cancel();
    let since = Instant::now();
    running.server.drained(PATIENCE).await;
    assert!(since.elapsed() < PATIENCE, "the connection is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_head_is_refused() {
    let running = start(ServerLimits::default(), None).await;
    let large = |bytes: usize| format!("GET /hello HTTP/1.1\r\nX-Large: {}", "a".repeat(bytes));
    assert_eq!(status(&send(running.address(), &large(30 * 1024), b"").await), "200");
    assert_eq!(status(&send(running.address(), &large(33 * 1024), b"").await), "431");
}

#[tokio::test(flavor = "multi_thread")]
async fn body_above_64_kib_is_refused() {
    let running = start(ServerLimits::default(), None).await;
    let address = running.address();
    for (bytes, expected) in [(65_536, "200"), (65_537, "413"), (500_000, "413")] {
        let head = format!("POST /length HTTP/1.1\r\nContent-Length: {bytes}");
        let answer = send(address, &head, &vec![b'a'; bytes]).await;
        assert_eq!(status(&answer), expected, "{bytes}: {answer}");
        let mut chunked = format!("{bytes:x}\r\n").into_bytes();
        chunked.extend(vec![b'a'; bytes]);
        chunked.extend(b"\r\n0\r\n\r\n");
        let answer = send(address, "POST /length HTTP/1.1\r\nTransfer-Encoding: chunked", &chunked).await;
        assert_eq!(status(&answer), expected, "{bytes} in chunks: {answer}");
    }
    // A client that waits for permission gets the answer without sending its body.
    let head = "POST /length HTTP/1.1\r\nContent-Length: 9999999\r\nExpect: 100-continue";
    assert_eq!(status(&send(address, head, b"").await), "413");
}

#[tokio::test(flavor = "multi_thread")]
async fn body_that_does_not_arrive_is_refused() {
    let limits = ServerLimits { body_deadline: Duration::from_millis(200), ..ServerLimits::default() };
    let running = start(limits, None).await;
    let answer = send(running.address(), "POST /length HTTP/1.1\r\nContent-Length: 10", b"abc").await;
    assert_eq!(status(&answer), "408", "{answer}");
}
